//! The `/etc/resolv.conf` of a Pod's containers, from the node's own and what the Pod asks for.
//!
//! Where nobody answers names of Services, `ClusterFirst` acts as `Default`, as the kubelet does it where no cluster DNS
//! is configured. Sources: resolv.conf(5); kubernetes.io "DNS for Services and Pods".

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

/// What the resolver of a C library reads.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// Of one domain; glibc 2.28 aborts over a longer one.
const LONGEST_SEARCH: usize = 253;

/// The content of a `resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Addresses of servers, in the order in which they are asked.
    pub nameservers: Vec<String>,
    /// Domains that are tried after a short name.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// A Pod's file, with what had to be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodResolvConf {
    /// The content; its `Display` is the file.
    pub content: ResolvConf,
    /// What a Warning event `DNSConfigForming` should say.
    pub warnings: Vec<String>,
}

impl ResolvConf {
    /// Reads a file as the resolver does: unknown lines are skipped, and the last `search` or `domain` line counts.
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => parsed.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => parsed.searches = searches_of_node(words),
                Some("domain") => parsed.searches = searches_of_node(words.take(1)),
                Some("options") => words.for_each(|option| set_option(&mut parsed.options, option.to_owned())),
                _ => {}
            }
        }
        parsed
    }

    /// Whether all servers are on the loopback of the node, as with systemd-resolved's stub: a Pod reaches none of them,
    /// so the caller should look for the file behind it.
    pub fn is_local_only(&self) -> bool {
        self.nameservers.iter().all(|server| is_loopback(server))
    }
}

impl fmt::Display for ResolvConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.nameservers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

/// Who answers names of Services, for a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterDns<'a> {
    /// Where it is asked.
    pub server: IpAddr,
    /// Domain of Services, such as `cluster.local`.
    pub domain: &'a str,
    /// The Pod's.
    pub pod_namespace: &'a str,
}

/// The file of a Pod with this spec, on a node with this file.
pub fn render(node: &ResolvConf, cluster: Option<&ClusterDns<'_>>, spec: &PodSpec) -> PodResolvConf {
    let in_host_network = spec.host_network == Some(true);
    let mut content = match (spec.dns_policy.as_deref().unwrap_or("ClusterFirst"), cluster) {
        ("None", _) => ResolvConf::default(),
        ("ClusterFirstWithHostNet", Some(cluster)) => of_cluster(node, cluster),
        ("ClusterFirst", Some(cluster)) if !in_host_network => of_cluster(node, cluster),
        // In the machine's network its stub resolver answers.
        _ if in_host_network => node.clone(),
        _ => of_node(node),
    };
    if let Some(config) = &spec.dns_config {
        add_config(&mut content, config);
    }
    let warnings = limit(&mut content);
    PodResolvConf { content, warnings }
}

/// Names of the Pod's namespace and of the cluster come first; short names with up to four dots are tried there.
fn of_cluster(node: &ResolvConf, cluster: &ClusterDns<'_>) -> ResolvConf {
    let ClusterDns { server, domain, pod_namespace } = cluster;
    let mut searches = vec![format!("{pod_namespace}.svc.{domain}"), format!("svc.{domain}"), (*domain).to_owned()];
    searches.extend(node.searches.iter().cloned());
    drop_repeated(&mut searches);
    ResolvConf { nameservers: vec![server.to_string()], searches, options: vec!["ndots:5".to_owned()] }
}

/// Without the servers that a Pod cannot reach.
fn of_node(node: &ResolvConf) -> ResolvConf {
    let mut content = node.clone();
    content.nameservers.retain(|server| !is_loopback(server));
    content
}

fn add_config(content: &mut ResolvConf, config: &PodDNSConfig) {
    content.nameservers.extend(config.nameservers.iter().flatten().cloned());
    content.searches.extend(config.searches.iter().flatten().cloned());
    for option in config.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        set_option(
            &mut content.options,
            match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            },
        );
    }
    drop_repeated(&mut content.nameservers);
    drop_repeated(&mut content.searches);
}

/// A later option replaces an earlier one of its name.
fn set_option(options: &mut Vec<String>, option: String) {
    let name = |option: &str| option.split(':').next().map(str::to_owned);
    options.retain(|present| name(present) != name(&option));
    options.push(option);
}

fn limit(content: &mut ResolvConf) -> Vec<String> {
    let mut warnings = Vec::new();
    if content.nameservers.len() > MAX_NAMESERVERS {
        content.nameservers.truncate(MAX_NAMESERVERS);
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            content.nameservers.join(" ")
        ));
    }
    let given = content.searches.len();
    content.searches.truncate(MAX_SEARCHES);
    content.searches.retain(|search| search.len() <= LONGEST_SEARCH);
    while content.searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        content.searches.pop();
    }
    if content.searches.len() < given {
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            content.searches.join(" ")
        ));
    }
    warnings
}

fn drop_repeated(texts: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    texts.retain(|text| seen.insert(text.clone()));
}

/// A domain with and without its final dot counts once; the root alone, as systemd-resolved writes it, not at all.
fn searches_of_node<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    words.filter(|search| *search != ".").map(|search| search.strip_suffix('.').unwrap_or(search).to_owned()).collect()
}

fn is_loopback(server: &str) -> bool {
    server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NODE: &str = "# made by hand\nnameserver 192.0.2.1\nnameserver 127.0.0.53\ndomain old.example\nsearch . lan. example.com\noptions ndots:2 rotate\nsortlist 1.2.3.4\n";

    fn rendered(spec: Value) -> PodResolvConf {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        render(&ResolvConf::parse(NODE), None, &spec)
    }

    #[test]
    fn policies_choose_the_base_and_the_config_adds_to_it() {
        let node = "search lan example.com\nnameserver 192.0.2.1\noptions ndots:2 rotate\n";
        let config = json!({
            "nameservers": ["192.0.2.1", "192.0.2.9"], "searches": ["my.dns.", "lan"],
            "options": [{"name": "ndots", "value": "5"}, {"name": "edns0"}],
        });
        let added = "search lan example.com my.dns.\nnameserver 192.0.2.1\nnameserver 192.0.2.9\noptions rotate ndots:5 edns0\n";
        let alone = "search my.dns. lan\nnameserver 192.0.2.1\nnameserver 192.0.2.9\noptions ndots:5 edns0\n";
        let table = [
            (json!({"dnsPolicy": "Default"}), node),
            (json!({"dnsPolicy": "ClusterFirst"}), node),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet"}), node),
            (json!({"dnsPolicy": "Default", "dnsConfig": config}), added),
            (json!({"dnsPolicy": "None", "dnsConfig": config}), alone),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                "search lan example.com\nnameserver 192.0.2.1\nnameserver 127.0.0.53\noptions ndots:2 rotate\n",
            ),
        ];
        for (spec, file) in table {
            let found = rendered(spec.clone());
            assert_eq!(found.content.to_string(), file, "{spec}");
            assert_eq!(found.warnings, Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn names_of_services_come_first_where_somebody_answers_them() {
        let cluster =
            ClusterDns { server: "10.96.0.10".parse().unwrap(), domain: "cluster.local", pod_namespace: "shop" };
        let first = "search shop.svc.cluster.local svc.cluster.local cluster.local lan example.com\n\
                     nameserver 10.96.0.10\noptions ndots:5\n";
        let default = "search lan example.com\nnameserver 192.0.2.1\noptions ndots:2 rotate\n";
        let of_host = "search lan example.com\nnameserver 192.0.2.1\nnameserver 127.0.0.53\noptions ndots:2 rotate\n";
        let config = json!({"options": [{"name": "ndots", "value": "2"}], "searches": ["lan", "my.dns"]});
        let added = "search shop.svc.cluster.local svc.cluster.local cluster.local lan example.com my.dns\n\
                     nameserver 10.96.0.10\noptions ndots:2\n";
        for (spec, file) in [
            (json!({}), first),
            (json!({"dnsPolicy": "ClusterFirst"}), first),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), of_host),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), first),
            (json!({"dnsPolicy": "Default"}), default),
            (json!({"dnsPolicy": "ClusterFirst", "dnsConfig": config}), added),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            let found = render(&ResolvConf::parse(NODE), Some(&cluster), &spec);
            assert_eq!(found.content.to_string(), file, "{spec:?}");
        }
    }

    #[test]
    fn what_the_resolver_would_not_read_is_left_out_with_a_warning() {
        let servers: Vec<String> = (1..=4).map(|n| format!("192.0.2.{n}")).collect();
        let searches: Vec<String> = (0..31).map(|n| format!("d{n}.example")).collect();
        let found =
            rendered(json!({"dnsPolicy": "Default", "dnsConfig": {"nameservers": servers, "searches": searches}}));
        assert_eq!(found.content.nameservers, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(found.content.searches.len(), 32);
        assert_eq!(
            found.warnings[0],
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
             192.0.2.1 192.0.2.2 192.0.2.3"
        );
        assert!(found.warnings[1].starts_with("Search Line limits were exceeded"));
        let long: Vec<String> = (0..20).map(|n| format!("{n}{}", "a".repeat(200))).collect();
        let found = rendered(json!({"dnsPolicy": "None", "dnsConfig": {"searches": long}}));
        assert!(found.content.searches.join(" ").len() <= 2048);
        assert_eq!(found.content.searches.len(), 10);
        let found = rendered(json!({"dnsPolicy": "None", "dnsConfig": {"searches": ["a.b", "x".repeat(254), "."]}}));
        assert_eq!(found.content.searches, ["a.b", "."]);
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    }

    #[test]
    fn a_stub_resolver_is_recognized() {
        for (text, is_local_only) in [
            ("nameserver 127.0.0.53\noptions edns0\n", true),
            ("nameserver ::1\n", true),
            ("", true),
            ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", false),
        ] {
            assert_eq!(ResolvConf::parse(text).is_local_only(), is_local_only, "{text}");
        }
    }
}
