//! The `/etc/hosts` of a Pod's containers, and the names that stand in it.
//!
//! Source: what the kubelet writes; programs and tests look for its first line.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

const HEADER: &str = "\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// The longest host name that Linux takes, in bytes (`HOST_NAME_MAX` is 64, a DNS label has 63).
const MAX_HOSTNAME: usize = 63;

/// What a Pod calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodHostname {
    /// The name of its UTS namespace: `spec.hostname`, or the name of the Pod.
    pub hostname: String,
    /// `SUBDOMAIN.NAMESPACE.svc.CLUSTER-DOMAIN` where the Pod has a subdomain.
    pub domain: Option<String>,
}

/// The host name of a Pod, cut to what Linux takes.
pub fn pod_hostname(pod: &Pod, cluster_domain: &str) -> PodHostname {
    let spec = pod.spec.as_ref();
    let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let name = given(spec.and_then(|spec| spec.hostname.as_ref())).or_else(|| given(pod.metadata.name.as_ref()));
    let mut hostname = name.unwrap_or_default();
    if hostname.len() > MAX_HOSTNAME {
        hostname = hostname.chars().take(MAX_HOSTNAME).collect();
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    let pod_namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = given(spec.and_then(|spec| spec.subdomain.as_ref()))
        .map(|subdomain| format!("{subdomain}.{pod_namespace}.svc.{cluster_domain}"));
    PodHostname { hostname, domain }
}

/// The file: what is local, the Pod under its names, and its host aliases.
pub fn render(addresses: &[IpAddr], name: &PodHostname, aliases: &[HostAlias]) -> String {
    let mut file = HEADER.to_owned();
    let hostname = &name.hostname;
    for address in addresses {
        // Writing to a String cannot fail.
        let _ok = match &name.domain {
            Some(domain) => writeln!(file, "{address}\t{hostname}.{domain}\t{hostname}"),
            None => writeln!(file, "{address}\t{hostname}"),
        };
    }
    if !aliases.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let _ok = writeln!(file, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn pod(name: &str, spec: Value) -> Pod {
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap();
        pod.spec.get_or_insert_default();
        pod
    }

    #[test]
    fn the_hostname_is_given_or_the_name_of_the_pod() {
        let long = format!("{}.-rest", "a".repeat(62));
        let table = [
            ("web", json!({}), "web", None),
            ("web", json!({"hostname": "", "subdomain": ""}), "web", None),
            ("web", json!({"hostname": "h"}), "h", None),
            ("web", json!({"subdomain": "s"}), "web", Some("s.shop.svc.cluster.local")),
            ("web", json!({"hostname": "h", "subdomain": "s"}), "h", Some("s.shop.svc.cluster.local")),
            (long.as_str(), json!({}), &long[..62], None),
        ];
        for (name, spec, hostname, domain) in table {
            let expected = PodHostname { hostname: hostname.to_owned(), domain: domain.map(str::to_owned) };
            assert_eq!(pod_hostname(&pod(name, spec), "cluster.local"), expected, "{name}");
        }
    }

    #[test]
    fn the_file_is_what_the_kubelet_writes() {
        let addresses = ["10.85.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let name = PodHostname { hostname: "h".to_owned(), domain: Some("s.shop.svc.cluster.local".to_owned()) };
        let aliases: Vec<HostAlias> = serde_json::from_value(
            json!([{"ip": "127.0.0.1", "hostnames": ["foo.local", "bar.local"]}, {"ip": "10.1.2.3", "hostnames": ["foo.remote"]}]),
        )
        .unwrap();
        let expected = "\
            # Kubernetes-managed hosts file.\n\
            127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::0\tip6-localnet\n\
            fe00::0\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\n\
            fe00::2\tip6-allrouters\n\
            10.85.0.2\th.s.shop.svc.cluster.local\th\n\
            fd00::2\th.s.shop.svc.cluster.local\th\n\
            \n\
            # Entries added by HostAliases.\n\
            127.0.0.1\tfoo.local\tbar.local\n\
            10.1.2.3\tfoo.remote\n";
        assert_eq!(render(&addresses, &name, &aliases), expected);
        let plain = PodHostname { hostname: "h".to_owned(), domain: None };
        assert!(render(&addresses[..1], &plain, &[]).ends_with("ip6-allrouters\n10.85.0.2\th\n"));
    }
}
