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

const HOST_NETWORK_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";

/// Host names are labels of DNS.
const MAX_HOSTNAME: usize = 63;
/// The longest name that Linux takes, in bytes (`HOST_NAME_MAX`).
const MAX_NODENAME: usize = 64;

/// What a Pod calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodHostname {
    /// The name of its UTS namespace: `spec.hostname`, or the name of the Pod.
    pub hostname: String,
    /// `SUBDOMAIN.NAMESPACE.svc.CLUSTER-DOMAIN` where the Pod has a subdomain.
    pub domain: Option<String>,
}

/// A full name that Linux does not take; the message is the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({MAX_NODENAME} characters \
     is the max, {} characters requested)",
    name.len()
)]
pub struct NameTooLong {
    name: String,
}

/// What the kernel calls the Pod: its host name, or with `setHostnameAsFQDN` its full name.
///
/// # Errors
/// The full name is longer than 64 bytes: Kubernetes does not start such a Pod.
pub fn kernel_hostname(pod: &Pod, name: &PodHostname) -> Result<String, NameTooLong> {
    let full = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    match &name.domain {
        Some(domain) if full => {
            let name = format!("{}.{domain}", name.hostname);
            if name.len() > MAX_NODENAME { Err(NameTooLong { name }) } else { Ok(name) }
        }
        _ => Ok(name.hostname.clone()),
    }
}

/// The host name of a Pod, cut to what Linux takes.
pub fn pod_hostname(pod: &Pod, cluster_domain: &str) -> PodHostname {
    let spec = pod.spec.as_ref();
    let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    if let Some(hostname) = given(spec.and_then(|spec| spec.hostname_override.as_ref())) {
        return PodHostname { hostname, domain: None };
    }
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

/// The API as containers find it while there is no DNS for Services: its address, and the namespace that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiHost<'a> {
    /// Where it listens for Pods.
    pub address: IpAddr,
    /// The Pod's; only in the API's own namespace a bare `kubernetes` is the API.
    pub pod_namespace: &'a str,
    /// Domain of Services.
    pub cluster_domain: &'a str,
}

/// The file: what is local, the Pod under its names, the API, and the Pod's host aliases.
pub fn render(addresses: &[IpAddr], name: &PodHostname, api: Option<ApiHost<'_>>, aliases: &[HostAlias]) -> String {
    let mut file = HEADER.to_owned();
    let hostname = &name.hostname;
    for address in addresses {
        // Writing to a String cannot fail.
        let _ok = match &name.domain {
            Some(domain) => writeln!(file, "{address}\t{hostname}.{domain}\t{hostname}"),
            None => writeln!(file, "{address}\t{hostname}"),
        };
    }
    add_api(&mut file, api);
    add_aliases(&mut file, aliases);
    file
}

/// The file of a Pod with the machine's network: the machine's own, the API, and the Pod's host aliases.
pub fn render_host_network(of_node: &str, api: Option<ApiHost<'_>>, aliases: &[HostAlias]) -> String {
    let mut file = format!("{HOST_NETWORK_HEADER}{of_node}");
    if !file.ends_with('\n') {
        file.push('\n');
    }
    add_api(&mut file, api);
    add_aliases(&mut file, aliases);
    file
}

/// After all else that is no alias, so that what the Pod or the machine calls by such a name is found first.
fn add_api(file: &mut String, api: Option<ApiHost<'_>>) {
    let Some(ApiHost { address, pod_namespace, cluster_domain }) = api else { return };
    let bare = if pod_namespace == "default" { "\tkubernetes" } else { "" };
    // Writing to a String cannot fail.
    let _ok = writeln!(
        file,
        "{address}\tkubernetes.default.svc.{cluster_domain}\tkubernetes.default.svc\tkubernetes.default{bare}"
    );
}

fn add_aliases(file: &mut String, aliases: &[HostAlias]) {
    if !aliases.is_empty() {
        file.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        // Writing to a String cannot fail.
        let _ok = writeln!(file, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
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

    fn api(pod_namespace: &str) -> ApiHost<'_> {
        ApiHost { address: "10.85.0.1".parse().unwrap(), pod_namespace, cluster_domain: "cluster.local" }
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
            ("web", json!({"hostname": "h", "subdomain": "s", "hostnameOverride": "o.example"}), "o.example", None),
        ];
        for (name, spec, hostname, domain) in table {
            let expected = PodHostname { hostname: hostname.to_owned(), domain: domain.map(str::to_owned) };
            assert_eq!(pod_hostname(&pod(name, spec), "cluster.local"), expected, "{name}");
        }
    }

    #[test]
    fn the_full_name_is_the_kernels_only_where_it_is_asked_for_and_fits() {
        let long = "a".repeat(40);
        let table = [
            (json!({"subdomain": "s"}), Ok("web")),
            (json!({"setHostnameAsFQDN": true}), Ok("web")),
            (json!({"subdomain": "s", "setHostnameAsFQDN": false}), Ok("web")),
            (json!({"subdomain": "s", "setHostnameAsFQDN": true}), Ok("web.s.shop.svc.cluster.local")),
            (json!({"subdomain": long, "setHostnameAsFQDN": true}), Err("(64 characters is the max, 67 ")),
        ];
        for (spec, expected) in table {
            let pod = pod("web", spec.clone());
            let found = kernel_hostname(&pod, &pod_hostname(&pod, "cluster.local"));
            match expected {
                Ok(name) => assert_eq!(found.as_deref(), Ok(name), "{spec}"),
                Err(part) => assert!(found.unwrap_err().to_string().contains(part), "{spec}"),
            }
        }
    }

    #[test]
    fn with_the_network_of_the_machine_its_file_comes_first() {
        let aliases: Vec<HostAlias> =
            serde_json::from_value(json!([{"ip": "10.1.2.3", "hostnames": ["foo.remote"]}])).unwrap();
        assert_eq!(
            render_host_network("127.0.0.1 localhost", Some(api("shop")), &aliases),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\
             10.85.0.1\tkubernetes.default.svc.cluster.local\tkubernetes.default.svc\tkubernetes.default\n\
             \n# Entries added by HostAliases.\n\
             10.1.2.3\tfoo.remote\n"
        );
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
        assert_eq!(render(&addresses, &name, None, &aliases), expected);
        let plain = PodHostname { hostname: "h".to_owned(), domain: None };
        assert!(render(&addresses[..1], &plain, None, &[]).ends_with("ip6-allrouters\n10.85.0.2\th\n"));
        let with_api = render(&addresses[..1], &plain, Some(api("default")), &[]);
        let expected = "10.85.0.2\th\n\
            10.85.0.1\tkubernetes.default.svc.cluster.local\tkubernetes.default.svc\tkubernetes.default\tkubernetes\n";
        assert!(with_api.ends_with(expected), "{with_api}");
    }
}
