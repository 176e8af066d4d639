//! A pod sandbox as CRI describes it, as the runtime takes it.

use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use runtime::{LinuxResources, NetworkMode, PodNamespaces, PodSandboxConfig, PortMapping, PortProtocol, QosClass};
use spec::ordered::sort_by;
use spec::sysctls::{self, Group};
use spec::{ContainerName, PodRef, PodUid};
use tonic::Status;

use crate::errors::{invalid, unsupported};
use crate::kept::keep;
use crate::proto::{self, NamespaceMode, NamespaceOption, Protocol};

/// Bytes of `/dev/shm`, as containerd and CRI-O give it.
const SHM_SIZE: u64 = 64 << 20;

/// Translates. `logs` is where logs go that the caller has no directory for, and `hostname` the machine's, which a sandbox
/// without one of its own has.
pub fn translate(config: &proto::PodSandboxConfig, logs: &Path, hostname: &str) -> Result<PodSandboxConfig, Status> {
    let metadata = config.metadata.as_ref().ok_or_else(|| invalid("config.metadata", "it is missing"))?;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let options = security.namespace_options.unwrap_or_default();
    if security.selinux_options.as_ref().is_some_and(|labels| *labels != proto::SeLinuxOption::default()) {
        return Err(unsupported("config.linux.security_context.selinux_options", "SELinux labels are not set here"));
    }
    let network = network(&options)?;
    let uid = component("config.metadata.uid", &metadata.uid)?;
    Ok(PodSandboxConfig {
        pod: PodRef::new(&metadata.namespace, &metadata.name),
        uid: PodUid::new(uid),
        attempt: metadata.attempt,
        hostname: if config.hostname.is_empty() { hostname.to_owned() } else { config.hostname.clone() },
        network,
        // Only places the cgroup where the caller has none.
        qos: QosClass::BestEffort,
        // The caller limits the Pod's cgroup, which is its own.
        resources: LinuxResources::default(),
        log_directory: log_directory(&config.log_directory, logs, uid)?,
        tmpfs: Vec::new(),
        shm_size: SHM_SIZE,
        ports: match network {
            NetworkMode::Pod => config
                .port_mappings
                .iter()
                .filter_map(|port| port_mapping(port).transpose())
                .collect::<Result<_, _>>()?,
            NetworkMode::Host => Vec::new(),
        },
        namespaces: PodNamespaces {
            host_ipc: namespace_mode("ipc", options.ipc)? == NamespaceMode::Node,
            shared_pid: namespace_mode("pid", options.pid)? == NamespaceMode::Pod,
            own_users: own_users(&options)?,
            sysctls: sysctls_of(&linux.sysctls, network)?,
        },
        cgroup: cgroup(&linux.cgroup_parent)?,
        labels: keep(config),
    })
}

fn network(options: &NamespaceOption) -> Result<NetworkMode, Status> {
    match namespace_mode("network", options.network)? {
        NamespaceMode::Node => Ok(NetworkMode::Host),
        NamespaceMode::Pod => Ok(NetworkMode::Pod),
        mode @ (NamespaceMode::Container | NamespaceMode::Target) => {
            Err(invalid("namespace_options.network", format!("{} is not a network of a pod", mode.as_str_name())))
        }
    }
}

/// A mode of the protocol; numbers that it does not know are refused.
pub fn namespace_mode(field: &str, mode: i32) -> Result<NamespaceMode, Status> {
    NamespaceMode::try_from(mode).map_err(|unknown| invalid(&format!("namespace_options.{field}"), unknown))
}

/// `Status` says that user namespaces are not supported, and a kubelet refuses such Pods by itself.
fn own_users(options: &NamespaceOption) -> Result<bool, Status> {
    let Some(users) = &options.userns_options else { return Ok(false) };
    let field = "namespace_options.userns_options";
    match namespace_mode("userns_options.mode", users.mode)? {
        NamespaceMode::Node if users.uids.is_empty() && users.gids.is_empty() => Ok(false),
        NamespaceMode::Node => Err(invalid(field, "mode NODE has no mappings")),
        NamespaceMode::Pod => Err(unsupported(field, "the ids of user namespaces are not taken from the caller")),
        mode @ (NamespaceMode::Container | NamespaceMode::Target) => {
            Err(invalid(field, format!("{} is not a user namespace of a pod", mode.as_str_name())))
        }
    }
}

/// A text that names a file or directory of ours.
fn component<'a>(field: &str, text: &'a str) -> Result<&'a str, Status> {
    let mut parts = Path::new(text).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) if name == text && text.len() <= 200 => Ok(text),
        _ => Err(invalid(field, format!("{text:?} is no name of at most 200 bytes without a slash"))),
    }
}

fn log_directory(given: &str, logs: &Path, uid: &str) -> Result<PathBuf, Status> {
    match given {
        "" => Ok(logs.join(uid)),
        path if Path::new(path).is_absolute() => Ok(PathBuf::from(path)),
        path => Err(invalid("config.log_directory", format!("{path:?} is not an absolute path"))),
    }
}

/// A port without one of the machine is only a note.
fn port_mapping(port: &proto::PortMapping) -> Result<Option<PortMapping>, Status> {
    let field = "config.port_mappings";
    if port.host_port == 0 {
        return Ok(None);
    }
    let protocol = match port.protocol() {
        Protocol::Tcp => PortProtocol::Tcp,
        Protocol::Udp => PortProtocol::Udp,
        Protocol::Sctp => return Err(unsupported(field, "host ports of SCTP are not published")),
    };
    let number = |port: i32| match u16::try_from(port) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(invalid(field, format!("{port} is not a port from 1 to 65535"))),
    };
    let host_ip = match port.host_ip.as_str() {
        "" => Ipv4Addr::UNSPECIFIED,
        text => {
            text.parse().map_err(|error| invalid(field, format!("host_ip {text:?} is not an IPv4 address: {error}")))?
        }
    };
    Ok(Some(PortMapping {
        container: ContainerName::new(""),
        protocol,
        host_ip,
        host_port: number(port.host_port)?,
        container_port: number(port.container_port)?,
    }))
}

fn sysctls_of(
    wanted: &std::collections::HashMap<String, String>,
    network: NetworkMode,
) -> Result<Vec<(String, String)>, Status> {
    let mut found = Vec::new();
    for (name, value) in wanted {
        let field = format!("config.linux.sysctls[{name}]");
        match sysctls::group(&sysctls::dotted(name)) {
            None => return Err(invalid(&field, "it belongs to the whole machine, not to a pod's namespaces")),
            Some(Group::Network) if network == NetworkMode::Host => {
                return Err(invalid(&field, "the pod uses the machine's network"));
            }
            Some(Group::Network | Group::Ipc) => found.push((sysctls::path(name), value.clone())),
        }
    }
    sort_by(&mut found, Ord::cmp);
    Ok(found)
}

/// `RuntimeConfig` says that cgroups are named by paths (cgroupfs), not by systemd's units.
fn cgroup(parent: &str) -> Result<Option<PathBuf>, Status> {
    let path = Path::new(parent);
    let field = "config.linux.cgroup_parent";
    if parent.is_empty() {
        return Ok(None);
    }
    if path.extension().is_some_and(|extension| extension == "slice") && !parent.contains('/') {
        return Err(unsupported(
            field,
            "systemd's slices are not made here; start the kubelet with cgroupDriver: cgroupfs",
        ));
    }
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || path.parent().is_none() || !path.components().all(plain) {
        return Err(invalid(field, format!("{parent:?} is not an absolute path of a cgroup")));
    }
    Ok(Some(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PodSandboxMetadata};

    fn config() -> proto::PodSandboxConfig {
        proto::PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: "11-22".into(),
                namespace: "default".into(),
                attempt: 3,
            }),
            ..Default::default()
        }
    }

    fn translated(config: &proto::PodSandboxConfig) -> Result<PodSandboxConfig, String> {
        translate(config, Path::new("/logs"), "node").map_err(|status| status.message().to_owned())
    }

    fn with_options(options: NamespaceOption) -> proto::PodSandboxConfig {
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
        proto::PodSandboxConfig { linux: Some(linux), ..config() }
    }

    #[test]
    fn what_is_not_said_is_as_the_protocol_defines_it() {
        let translated = translated(&config()).unwrap();
        assert_eq!((translated.pod.to_string().as_str(), translated.attempt), ("default/web", 3));
        assert_eq!((translated.hostname.as_str(), translated.network), ("node", NetworkMode::Pod));
        assert_eq!(translated.log_directory, Path::new("/logs/11-22"));
        // POD is the protocol's zero: containers share processes unless the caller says otherwise.
        assert!(translated.namespaces.shared_pid && !translated.namespaces.host_ipc);
        assert_eq!(translated.cgroup, None);
    }

    #[test]
    fn namespaces_are_the_machines_or_the_pods() {
        let node = NamespaceMode::Node as i32;
        let options = NamespaceOption { network: node, ipc: node, pid: node, ..Default::default() };
        let host = translated(&with_options(options)).unwrap();
        assert_eq!(host.network, NetworkMode::Host);
        assert!(host.namespaces.host_ipc && !host.namespaces.shared_pid);
        for (network, fault) in [(1, "CONTAINER is not a network"), (3, "TARGET is not a network"), (9, "network")] {
            let refused = translated(&with_options(NamespaceOption { network, ..Default::default() })).unwrap_err();
            assert!(refused.contains(fault), "{refused}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for uid in ["", ".", "..", "a/b", "/a", "a/"] {
            let mut config = config();
            config.metadata.as_mut().unwrap().uid = uid.into();
            assert!(translated(&config).unwrap_err().starts_with("config.metadata.uid"), "{uid:?}");
        }
        for (parent, accepted) in [
            ("/kubepods/burstable/pod1", true),
            ("/kubepods/../x", false),
            ("kubepods", false),
            ("/", false),
            ("kubepods.slice", false),
        ] {
            let linux = LinuxPodSandboxConfig { cgroup_parent: parent.into(), ..Default::default() };
            let config = proto::PodSandboxConfig { linux: Some(linux), ..config() };
            assert_eq!(translated(&config).is_ok(), accepted, "{parent}");
        }
    }

    #[test]
    fn ports_of_the_machine_are_published_and_others_noted() {
        let port = |host_port, container_port, host_ip: &str| proto::PortMapping {
            protocol: Protocol::Udp as i32,
            container_port,
            host_port,
            host_ip: host_ip.into(),
        };
        let ports = |list: Vec<proto::PortMapping>| {
            translated(&proto::PodSandboxConfig { port_mappings: list, ..config() }).map(|config| config.ports)
        };
        let published = ports(vec![port(0, 53, ""), port(5353, 53, "127.0.0.1")]).unwrap();
        assert_eq!(published.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:5353/UDP"]);
        assert!(ports(vec![port(70_000, 53, "")]).unwrap_err().contains("70000 is not a port"));
        assert!(ports(vec![port(53, 53, "here")]).unwrap_err().contains("not an IPv4 address"));
    }

    #[test]
    fn only_sysctls_of_the_namespaces_are_set() {
        let with = |name: &str| {
            let sysctls = [(name.to_owned(), "1".to_owned())].into();
            let linux = LinuxPodSandboxConfig { sysctls, ..Default::default() };
            translated(&proto::PodSandboxConfig { linux: Some(linux), ..config() }).map(|it| it.namespaces.sysctls)
        };
        assert_eq!(with("net.ipv4.ip_forward").unwrap(), [("net/ipv4/ip_forward".to_owned(), "1".to_owned())]);
        assert!(with("vm.swappiness").unwrap_err().contains("whole machine"));
    }
}
