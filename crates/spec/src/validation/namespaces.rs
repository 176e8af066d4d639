//! Rules for what a Pod shares with the machine, and its containers with each other.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::PodSpec;

use super::names;
use crate::field::{Errors, Path};
use crate::sysctls::{self, Group};

/// As Kubernetes prints it.
const NAME_OF_SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
/// The longest name that Linux takes, in bytes.
const MAX_NODENAME: usize = 64;

pub(super) fn host_namespaces(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let fault = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("securityContext").child("shareProcessNamespace"), true, fault);
    }
    host_users(errors, path, spec);
    sysctls(errors, &path.child("securityContext").child("sysctls"), spec);
    proc_mounts(errors, path, spec);
    hostname_override(errors, path, spec);
}

/// Without a mask a container must be root of nothing but itself.
fn proc_mounts(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if spec.host_users == Some(false) {
        return;
    }
    for (list, containers) in
        [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())]
    {
        let list = path.child(list);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let mount = container.security_context.as_ref().and_then(|context| context.proc_mount.as_deref());
            if mount == Some("Unmasked") {
                let item = list.index(index);
                let path = item.child("securityContext");
                errors.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
            }
        }
    }
}

fn host_users(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    for (field, _) in shared.into_iter().filter(|(_, value)| *value == Some(true)) {
        errors.forbidden(&path.child(field), "when `hostUsers` is false");
    }
    for (list, containers) in
        [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())]
    {
        let list = path.child(list);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
                errors.forbidden(&list.index(index).child("volumeDevices"), "when `hostUsers` is false");
            }
        }
    }
}

fn sysctls(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let mut seen = HashSet::new();
    let list = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for (index, sysctl) in list.enumerate() {
        let (item, name) = (path.index(index), sysctl.name.as_str());
        let path = item.child("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !sysctls::is_name(name) {
            errors.invalid(&path, name, format!("must have at most 253 characters and match regex {NAME_OF_SYSCTL}"));
        } else if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        match sysctls::group(&sysctls::dotted(name)) {
            Some(Group::Network) if spec.host_network == Some(true) => {
                errors.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
            }
            Some(Group::Ipc) if spec.host_ipc == Some(true) => {
                errors.invalid(&path, name, "may not be specified when 'hostIPC' is true");
            }
            Some(Group::Network | Group::Ipc) | None => {}
        }
    }
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

    fn with_sysctls(names: &[&str]) -> Value {
        let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        json!({"containers": [], "securityContext": {"sysctls": list}})
    }

    fn with_host(mut spec: Value) -> Value {
        spec["hostIPC"] = json!(true);
        spec["hostNetwork"] = json!(true);
        spec
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
            (
                json!({"containers": [], "hostUsers": false, "hostNetwork": true, "hostPID": true, "hostIPC": true}),
                &[
                    "spec.hostNetwork: Forbidden: when `hostUsers` is false",
                    "spec.hostPID: Forbidden: when `hostUsers` is false",
                    "spec.hostIPC: Forbidden: when `hostUsers` is false",
                ],
            ),
            (
                json!({"containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}),
                &[
                    "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false \
                   to use `Unmasked`",
                ],
            ),
            (
                json!({"containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}], "hostUsers": false}),
                &[],
            ),
            (json!({"containers": [], "hostUsers": true, "hostNetwork": true, "hostPID": true}), &[]),
            (with_sysctls(&["kernel.msgmax", "net/ipv4/tcp_rmem"]), &[]),
            (
                with_sysctls(&["kernel.msgmax", "kernel.msgmax", "", "net.+x"]),
                &[
                    "spec.securityContext.sysctls[1].name: Duplicate value: \"kernel.msgmax\"",
                    "spec.securityContext.sysctls[2].name: Required value",
                    "spec.securityContext.sysctls[3].name: Invalid value: \"net.+x\": must have at most 253 characters and \
                     match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                ],
            ),
            (
                with_host(with_sysctls(&["kernel.msgmax", "net/ipv4/tcp_rmem"])),
                &[
                    "spec.securityContext.sysctls[0].name: Invalid value: \"kernel.msgmax\": may not be specified when \
                     'hostIPC' is true",
                    "spec.securityContext.sysctls[1].name: Invalid value: \"net/ipv4/tcp_rmem\": may not be specified when \
                     'hostNetwork' is true",
                ],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(faults(spec), *expected, "{spec}");
        }
        assert!(faults(&json!({"containers": [], "hostnameOverride": "A_"}))[0].contains("RFC 1123"));
    }
}
