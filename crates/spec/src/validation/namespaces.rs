//! Rules for what a Pod shares with the machine, and its containers with each other.

use k8s_openapi::api::core::v1::PodSpec;

use super::names;
use crate::field::{Errors, Path};

/// The longest name that Linux takes, in bytes.
const MAX_NODENAME: usize = 64;

pub(super) fn host_namespaces(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let fault = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("securityContext").child("shareProcessNamespace"), true, fault);
    }
    hostname_override(errors, path, spec);
}

/// KEP-4762: it stands alone, and is not cut.
fn hostname_override(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let Some(name) = spec.hostname_override.as_deref() else { return };
    let path = path.child("hostnameOverride");
    for fault in names::dns_subdomain(name) {
        errors.invalid(&path, name, fault);
    }
    if name.len() > MAX_NODENAME {
        errors.too_long(&path, MAX_NODENAME);
    }
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(&path, "may not be specified when `setHostnameAsFQDN` is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(&path, "may not be specified when `hostNetwork` is true");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn faults(spec: &Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec.clone()).unwrap();
        let mut errors = Errors::default();
        host_namespaces(&mut errors, &Path::root("spec"), &spec);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let long = format!("{}.{}", "a".repeat(40), "b".repeat(40));
        let table: &[(Value, &[&str])] = &[
            (json!({"containers": [], "shareProcessNamespace": true, "hostIPC": true, "hostNetwork": true}), &[]),
            (json!({"containers": [], "shareProcessNamespace": false, "hostPID": true}), &[]),
            (
                json!({"containers": [], "shareProcessNamespace": true, "hostPID": true}),
                &[
                    "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID \
                   cannot both be enabled",
                ],
            ),
            (json!({"containers": [], "hostnameOverride": "a.example"}), &[]),
            (
                json!({"containers": [], "hostnameOverride": "a", "setHostnameAsFQDN": true, "hostNetwork": true}),
                &[
                    "spec.hostnameOverride: Forbidden: may not be specified when `setHostnameAsFQDN` is true",
                    "spec.hostnameOverride: Forbidden: may not be specified when `hostNetwork` is true",
                ],
            ),
            (
                json!({"containers": [], "hostnameOverride": long}),
                &["spec.hostnameOverride: Too long: may not be more than 64 bytes"],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(faults(spec), *expected, "{spec}");
        }
        assert!(faults(&json!({"containers": [], "hostnameOverride": "A_"}))[0].contains("RFC 1123"));
    }
}
