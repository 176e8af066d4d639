//! Translates a pod and its containers into what the runtime is asked for. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use image::Image;
use runtime::{
    AppArmorProfile, ContainerConfig, LinuxResources, Mount, NetworkMode, PidMode, PodNamespaces, PodSandboxConfig,
    PodTmpfs, PortMapping, PortProtocol, QosClass, SeccompProfile, SecurityConfig,
};
use spec::k8s_openapi::api::core::v1::{Container, ContainerPort};
use spec::{ContainerId, ContainerName};

use crate::desired::{ContainerKind, DesiredPod, image_of};
use crate::environment::{ContainerConfigError, EnvironmentSources, command_line, pod_environment, whole_environment};

/// Size of a Pod's `/dev/shm` in bytes.
const SHM_SIZE: u64 = 64 << 20;

/// The sandbox of a pod.
pub fn sandbox_config(
    desired: &DesiredPod,
    attempt: u32,
    hostname: String,
    log_directory: PathBuf,
    tmpfs: Vec<PodTmpfs>,
    pids_limit: Option<u64>,
) -> PodSandboxConfig {
    PodSandboxConfig {
        pod: desired.pod.clone(),
        uid: desired.uid.clone(),
        attempt,
        hostname,
        network: if desired.host_network() { NetworkMode::Host } else { NetworkMode::Pod },
        qos: qos_of(desired),
        resources: pod_limits(desired, pids_limit),
        cgroup: None,
        labels: BTreeMap::new(),
        log_directory,
        tmpfs,
        shm_size: SHM_SIZE,
        namespaces: PodNamespaces {
            host_ipc: desired.spec.host_ipc == Some(true),
            shared_pid: desired.spec.share_process_namespace == Some(true),
            own_users: desired.spec.host_users == Some(false),
            sysctls: sysctls(desired),
        },
        ports: host_ports(desired),
    }
}

/// Host ports of the containers that run side by side. One that two of them name is taken once, as by the kubelet, for
/// the first. With `hostNetwork` containers take their ports themselves.
fn host_ports(desired: &DesiredPod) -> Vec<PortMapping> {
    if desired.host_network() {
        return Vec::new();
    }
    let sidecars = desired.init_containers().iter().filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let containers = desired.app_containers().iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten().map(move |port| (container, port)));
    let mut mappings: Vec<PortMapping> = Vec::new();
    for mapping in ports.filter_map(|(container, port)| port_mapping(container, port)) {
        let taken = |other: &PortMapping| {
            (other.protocol, other.host_ip, other.host_port) == (mapping.protocol, mapping.host_ip, mapping.host_port)
        };
        if !mappings.iter().any(taken) {
            mappings.push(mapping);
        }
    }
    mappings
}

/// `None` for a port that is not published; what cannot be read here was refused when the pod was created.
fn port_mapping(container: &Container, port: &ContainerPort) -> Option<PortMapping> {
    let host_port = port.host_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)?;
    Some(PortMapping {
        container: ContainerName::new(&container.name),
        protocol: if port.protocol.as_deref() == Some("UDP") { PortProtocol::Udp } else { PortProtocol::Tcp },
        host_ip: match port.host_ip.as_deref() {
            None | Some("") => Ipv4Addr::UNSPECIFIED,
            Some(address) => address.parse().ok()?,
        },
        host_port,
        container_port: u16::try_from(port.container_port).ok()?,
    })
}

/// Limits of a pod as a whole.
pub fn pod_limits(desired: &DesiredPod, pids_limit: Option<u64>) -> LinuxResources {
    let resources = spec::resources::pod_resources(&desired.object);
    LinuxResources {
        cpu_request_millis: positive(resources.requests.cpu_millis),
        cpu_limit_millis: positive(resources.limits.cpu_millis),
        memory_limit_bytes: positive(resources.limits.memory_bytes),
        pids_limit,
        oom_score_adj: None,
        huge_pages: spec::huge_pages::pod_limits(&desired.object),
    }
}

/// What a container is made of beside its spec.
pub struct ContainerParts<'a> {
    /// `restartCount` of the run.
    pub attempt: u32,
    /// The image it starts from.
    pub image: &'a Image,
    /// Where its environment comes from.
    pub sources: &'a EnvironmentSources<'a>,
    /// Volumes and files, finished.
    pub mounts: Vec<Mount>,
    /// Memory of the machine in bytes, for the OOM score.
    pub node_memory: i64,
    /// The running container whose processes it sees.
    pub target: Option<ContainerId>,
}

/// One run of a container.
pub fn container_config(
    container: &Container,
    parts: ContainerParts<'_>,
) -> Result<ContainerConfig, ContainerConfigError> {
    let desired = parts.sources.desired;
    let variables = pod_environment(container, parts.sources)?;
    let own_dir = container.working_dir.as_deref().filter(|path| !path.is_empty());
    let working_dir = own_dir.or_else(|| parts.image.working_dir());
    Ok(ContainerConfig {
        name: ContainerName::new(&container.name),
        attempt: parts.attempt,
        image_ref: image_of(container).to_owned(),
        image_id: parts.image.id.clone(),
        command: command_line(parts.image, container, &variables)?,
        env: whole_environment(parts.image, container, parts.sources.hostname, &variables),
        working_dir: working_dir.map_or_else(|| PathBuf::from("/"), |path| Path::new("/").join(path)),
        mounts: parts.mounts,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources: container_resources(desired, container, parts.node_memory),
        security: security(desired, container)?,
        pid: pid_mode(desired, parts.target),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        labels: BTreeMap::new(),
        log_path: None,
    })
}

/// Validation has said so of containers that came with their Pod.
fn unmasked(desired: &DesiredPod, mount: Option<&str>) -> Result<bool, ContainerConfigError> {
    match mount {
        Some("Unmasked") if desired.spec.host_users != Some(false) => {
            Err(ContainerConfigError::new("`hostUsers` must be false to use procMount `Unmasked`".to_owned()))
        }
        mount => Ok(mount == Some("Unmasked")),
    }
}

fn sysctls(desired: &DesiredPod) -> Vec<(String, String)> {
    let wanted = desired.spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    wanted.map(|sysctl| (spec::sysctls::path(&sysctl.name), sysctl.value.clone())).collect()
}

/// A target matters only where containers do not see each other's processes anyway.
fn pid_mode(desired: &DesiredPod, target: Option<ContainerId>) -> PidMode {
    match (desired.spec.host_pid, desired.spec.share_process_namespace) {
        (Some(true), _) => PidMode::Host,
        (_, Some(true)) => PidMode::Pod,
        (Some(false) | None, Some(false) | None) => target.map_or(PidMode::Container, PidMode::Target),
    }
}

/// Limits of one container.
pub fn container_resources(desired: &DesiredPod, container: &Container, node_memory: i64) -> LinuxResources {
    let resources = spec::resources::container_resources_in_pod(&desired.spec, container);
    let class = if spec::placement::is_node_critical(&desired.spec) {
        spec::qos::QosClass::Guaranteed
    } else {
        spec::qos::qos_class(&desired.object)
    };
    let memory_request = protected_memory(desired, container);
    LinuxResources {
        cpu_request_millis: positive(resources.requests.cpu_millis),
        cpu_limit_millis: positive(resources.limits.cpu_millis),
        memory_limit_bytes: positive(resources.limits.memory_bytes),
        pids_limit: None,
        oom_score_adj: Some(spec::qos::oom_score_adj(class, memory_request, node_memory)),
        huge_pages: spec::huge_pages::container_limits(container),
    }
}

/// The memory request that the kernel's choice of a victim goes by: a sidecar is at least as safe as the app container
/// that asked for least, so that it does not die before the app (KEP-753; kubelet, `GetContainerOOMScoreAdjust`). What
/// the Pod asks for beyond its containers is theirs in equal parts (KEP-2837).
fn protected_memory(desired: &DesiredPod, container: &Container) -> i64 {
    let request =
        |container: &Container| spec::resources::container_resources(container).requests.memory_bytes.unwrap_or(0);
    let least_of_apps = || desired.app_containers().iter().map(request).min().unwrap_or(0);
    let own = match desired.kind_of(&ContainerName::new(&container.name)) {
        Some(ContainerKind::Sidecar) => request(container).max(least_of_apps()),
        Some(ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral) | None => request(container),
    };
    own.saturating_add(spec::requests::unclaimed_memory(&desired.spec))
}

fn security(desired: &DesiredPod, container: &Container) -> Result<SecurityConfig, ContainerConfigError> {
    let pod = desired.spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let run_as_user = own.run_as_user.or(pod.run_as_user).map(unix_id).transpose()?;
    let run_as_non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    if run_as_non_root && run_as_user == Some(0) {
        return Err(ContainerConfigError::new(format!(
            "container's runAsUser breaks non-root policy (pod: \"{}\", container: {})",
            desired.kubelet_name(),
            container.name
        )));
    }
    let groups = pod.supplemental_groups.unwrap_or_default().into_iter().chain(pod.fs_group);
    Ok(SecurityConfig {
        run_as_user,
        run_as_username: None,
        run_as_group: own.run_as_group.or(pod.run_as_group).map(unix_id).transpose()?,
        run_as_non_root,
        supplemental_groups: groups.map(unix_id).collect::<Result<_, _>>()?,
        strict_groups: pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        privileged: own.privileged.unwrap_or(false),
        unmasked: unmasked(desired, own.proc_mount.as_deref())?,
        masked_paths: None,
        read_only_paths: None,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        seccomp: seccomp(own.seccomp_profile.or(pod.seccomp_profile)),
        apparmor: apparmor(desired, container),
    })
}

/// Validation lets no other type through.
fn apparmor(desired: &DesiredPod, container: &Container) -> AppArmorProfile {
    let Some(profile) = spec::apparmor::profile_of(&desired.object, container) else { return AppArmorProfile::Unset };
    match (profile.type_.as_str(), profile.localhost_profile) {
        ("RuntimeDefault", _) => AppArmorProfile::RuntimeDefault,
        ("Localhost", name) => AppArmorProfile::Localhost(name.unwrap_or_default()),
        _ => AppArmorProfile::Unconfined,
    }
}

/// The container's profile, or else the Pod's; validation lets no other type through.
fn seccomp(profile: Option<spec::k8s_openapi::api::core::v1::SeccompProfile>) -> SeccompProfile {
    let Some(profile) = profile else { return SeccompProfile::Unconfined };
    match (profile.type_.as_str(), profile.localhost_profile) {
        ("RuntimeDefault", _) => SeccompProfile::RuntimeDefault,
        ("Localhost", path) => SeccompProfile::Localhost(path.unwrap_or_default().into()),
        _ => SeccompProfile::Unconfined,
    }
}

fn unix_id(id: i64) -> Result<u32, ContainerConfigError> {
    u32::try_from(id).map_err(|error| ContainerConfigError::new(format!("{id} is no user or group id: {error}")))
}

fn qos_of(desired: &DesiredPod) -> QosClass {
    match spec::qos::qos_class(&desired.object) {
        spec::qos::QosClass::Guaranteed => QosClass::Guaranteed,
        spec::qos::QosClass::Burstable => QosClass::Burstable,
        spec::qos::QosClass::BestEffort => QosClass::BestEffort,
    }
}

/// Zero is no limit, as in Kubernetes.
fn positive(amount: Option<i64>) -> Option<u64> {
    amount.and_then(|amount| u64::try_from(amount).ok()).filter(|&amount| amount > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{desired_pod, pod};

    #[test]
    fn the_kernel_spares_what_the_machine_itself_needs() {
        let score = |class: Option<&str>| {
            let container =
                json!({ "name": "app", "image": "app:1", "resources": { "requests": { "memory": "1Mi" } } });
            let spec = json!({ "containers": [container], "priorityClassName": class });
            let desired = desired_pod(&pod(&spec));
            container_resources(&desired, &desired.spec.containers[0], 1 << 30).oom_score_adj
        };
        assert_eq!(score(None), Some(999));
        assert_eq!(score(Some("system-cluster-critical")), Some(999));
        assert_eq!(score(Some("system-node-critical")), Some(-997));
    }
}
