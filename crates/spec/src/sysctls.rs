//! Parameters of the kernel that a Pod may set: those that belong to its namespaces, and the safe ones among them.
//!
//! Sources: kubernetes.io "Using sysctls in a Kubernetes Cluster"; the kubelet's lists.

use k8s_openapi::api::core::v1::PodSpec;

/// `status.reason` of a Pod that asks for what is not allowed.
pub const FORBIDDEN: &str = "SysctlForbidden";

/// Neither another Pod nor the machine notices these.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The namespace that a parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// IPC.
    Ipc,
    /// Network.
    Network,
}

/// The group of a parameter, by its name with dots; `None` if it belongs to the whole machine.
pub fn group(name: &str) -> Option<Group> {
    let ipc = name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|it| name.starts_with(it));
    if ipc {
        Some(Group::Ipc)
    } else if name.starts_with("net.") {
        Some(Group::Network)
    } else {
        None
    }
}

/// The name with dots between its parts. It may also be written with slashes, and then a dot is part of a name
/// (sysctl.d(5)): the first of the two decides.
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes().get(first) == Some(&b'/') => name.chars().map(swapped).collect(),
        Some(_) | None => name.to_owned(),
    }
}

/// Its file, below `/proc/sys`.
pub fn path(name: &str) -> String {
    dotted(name).chars().map(swapped).collect()
}

fn swapped(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

/// What Pods may set on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedSysctls {
    /// Names, or beginnings of names with a final `*`, beside the safe ones.
    unsafe_patterns: Vec<String>,
}

/// A pattern that cannot be allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It is not the name of a sysctl.
    #[error("sysctl {0:?} must be a name such as kernel.msgmax, or the beginning of names with a final *")]
    Name(String),
    /// It would be set for the whole machine.
    #[error(
        "sysctl {0:?} is not known to be namespaced: kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are"
    )]
    NotNamespaced(String),
}

impl AllowedSysctls {
    /// The safe ones and these (`allowedUnsafeSysctls`).
    ///
    /// # Errors
    /// The first pattern that is no name, or names what belongs to the machine.
    pub fn new(patterns: &[String]) -> Result<Self, InvalidPattern> {
        let mut unsafe_patterns = Vec::new();
        for pattern in patterns {
            let name = dotted(pattern.strip_suffix('*').unwrap_or(pattern));
            if !is_name(name.trim_end_matches('.')) {
                return Err(InvalidPattern::Name(pattern.clone()));
            }
            if group(&name).is_none() {
                return Err(InvalidPattern::NotNamespaced(pattern.clone()));
            }
            unsafe_patterns.push(if pattern.ends_with('*') { format!("{name}*") } else { name });
        }
        Ok(Self { unsafe_patterns })
    }

    /// Why the kubelet would not run a Pod; the message is its.
    ///
    /// # Errors
    /// The first parameter that is not allowed.
    pub fn admit(&self, spec: &PodSpec) -> Result<(), String> {
        for sysctl in spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten()) {
            let name = dotted(&sysctl.name);
            if !self.allows(&name) {
                return Err(format!("forbidden sysctl: {name:?} not allowlisted"));
            }
            let host = match group(&name) {
                Some(Group::Ipc) if spec.host_ipc == Some(true) => "Ipc",
                Some(Group::Network) if spec.host_network == Some(true) => "Net",
                Some(Group::Ipc | Group::Network) | None => continue,
            };
            return Err(format!("forbidden sysctl: {name:?} not allowed with host {host} enabled"));
        }
        Ok(())
    }

    fn allows(&self, name: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        SAFE.contains(&name) || self.unsafe_patterns.iter().any(matches)
    }
}

/// Parts of small letters, digits, `-` and `_`, with a dot or a slash between them.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(plain) && part.ends_with(plain) && part.chars().all(|c| plain(c) || c == '-' || c == '_')
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_have_two_spellings_and_one_file() {
        for (name, shown, file) in [
            ("net.ipv4.tcp_rmem", "net.ipv4.tcp_rmem", "net/ipv4/tcp_rmem"),
            ("net/ipv4/tcp_rmem", "net.ipv4.tcp_rmem", "net/ipv4/tcp_rmem"),
            ("net.ipv4.conf.eth0/1.mtu", "net.ipv4.conf.eth0/1.mtu", "net/ipv4/conf/eth0.1/mtu"),
            ("net/ipv4/conf/eth0.1/mtu", "net.ipv4.conf.eth0/1.mtu", "net/ipv4/conf/eth0.1/mtu"),
        ] {
            assert_eq!((dotted(name).as_str(), path(name).as_str()), (shown, file), "{name}");
        }
        for name in ["a.b", "a-b_c/d0", "kernel.msgmax"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "a..b", "a/../b", "A.b", "-a", "a.", "a b", "a\nb", "net.ipv4.+x"] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let some = AllowedSysctls::new(&["kernel.msg*".into(), "net/core/somaxconn".into()]).unwrap();
        let none = AllowedSysctls::default();
        let not = |name: &str| Err(format!("forbidden sysctl: {name:?} not allowlisted"));
        for (allowed, name, host, expected) in [
            (&none, "kernel.shm_rmid_forced", json!({}), Ok(())),
            (&none, "net/ipv4/tcp_syncookies", json!({}), Ok(())),
            (&none, "kernel.msgmax", json!({}), not("kernel.msgmax")),
            (&some, "kernel.msgmax", json!({}), Ok(())),
            (&some, "net.core.somaxconn", json!({}), Ok(())),
            (&some, "net.core.somaxconn2", json!({}), not("net.core.somaxconn2")),
            (&some, "kernel.core_pattern", json!({}), not("kernel.core_pattern")),
            (
                &some,
                "kernel.msgmax",
                json!({"hostIPC": true}),
                Err("forbidden sysctl: \"kernel.msgmax\" not allowed with host Ipc enabled".to_owned()),
            ),
            (&some, "kernel.msgmax", json!({"hostNetwork": true}), Ok(())),
            (
                &none,
                "net.ipv4.tcp_rmem",
                json!({"hostNetwork": true}),
                Err("forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host Net enabled".to_owned()),
            ),
        ] {
            let mut document = host.clone();
            document["containers"] = json!([]);
            document["securityContext"] = json!({"sysctls": [{"name": name, "value": "1"}]});
            let spec: PodSpec = serde_json::from_value(document).unwrap();
            assert_eq!(allowed.admit(&spec), expected, "{name} {host}");
        }
    }

    #[test]
    fn only_what_has_a_namespace_can_be_allowed() {
        for pattern in ["kernel.*", "vm.swappiness", "kernel.core_pattern", "*"] {
            assert!(AllowedSysctls::new(&[pattern.to_owned()]).is_err(), "{pattern}");
        }
        let bad = AllowedSysctls::new(&["net.../x".to_owned()]);
        assert_eq!(bad, Err(InvalidPattern::Name("net.../x".to_owned())));
        assert!(AllowedSysctls::new(&["net.*".to_owned(), "fs.mqueue.*".to_owned()]).is_ok());
    }
}
