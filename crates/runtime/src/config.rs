//! What a caller asks for: a pod sandbox and its containers, finished in every detail but without a Pod object.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use network::PortMapping;
use serde::{Deserialize, Serialize};
use spec::{ContainerId, ContainerName, Digest, PodRef, PodUid, VolumeName};

/// A pod sandbox to be made: one infra process, its namespaces, its address and its cgroup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    /// For messages and log paths.
    pub pod: PodRef,
    /// Key of everything on this machine that belongs to the Pod.
    pub uid: PodUid,
    /// 0 for the Pod's first sandbox, one more for each that replaced a dead one.
    pub attempt: u32,
    /// Host name in the UTS namespace, at most 64 bytes (sethostname(2)).
    pub hostname: String,
    /// Whether the Pod gets a network of its own.
    pub network: NetworkMode,
    /// Parent of the Pod's cgroup.
    pub qos: QosClass,
    /// Limits of the whole Pod.
    pub resources: LinuxResources,
    /// `<log-dir>/<namespace>_<name>_<uid>`: where infra writes the logs of the Pod's containers.
    pub log_directory: PathBuf,
    /// Memory file systems that containers of the Pod share.
    pub tmpfs: Vec<PodTmpfs>,
    /// Size of `/dev/shm` in bytes; Kubernetes uses 64 MiB.
    pub shm_size: u64,
    /// Ports of the machine that lead to the Pod; none where it uses the machine's network.
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// What else it shares with the machine, or its containers with each other.
    #[serde(default)]
    pub namespaces: PodNamespaces,
    /// The Pod's cgroup, by its path from the root of each hierarchy, where the caller makes it and sets its limits (a
    /// kubelet). `None`: it is ours, by QoS class and UID.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Kept and returned as they are.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Namespaces of a sandbox that are not as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNamespaces {
    /// The machine's shared memory, semaphores and message queues (`hostIPC: true`).
    #[serde(default)]
    pub host_ipc: bool,
    /// One PID namespace for containers with [`PidMode::Pod`] (`shareProcessNamespace: true`).
    #[serde(default)]
    pub shared_pid: bool,
    /// A user namespace with ids of its own, and all others inside of it (`hostUsers: false`).
    #[serde(default)]
    pub own_users: bool,
    /// Parameters of the kernel that belong to its namespaces, by their path below `/proc/sys`.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
}

/// Whose processes a container sees and may signal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Its own; its first process is PID 1.
    #[default]
    Container,
    /// Those of all containers of the Pod that share, see [`PodNamespaces::shared_pid`].
    Pod,
    /// All of the machine (`hostPID: true`).
    Host,
    /// Those of another container of the sandbox, which must run (`targetContainerName`).
    Target(ContainerId),
}

/// Whose network the Pod's containers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// A network namespace and an address of its own.
    Pod,
    /// The network of the machine (`hostNetwork: true`).
    Host,
}

/// `status.qosClass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QosClass {
    /// Requests equal limits, for cpu and memory, in every container.
    Guaranteed,
    /// Some request or limit.
    Burstable,
    /// No request and no limit.
    BestEffort,
}

/// A tmpfs made once in the Pod's sandbox and shared by its containers: `emptyDir` with `medium: Memory`, secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodTmpfs {
    /// The volume.
    pub volume: VolumeName,
    /// Bytes; `None` leaves it to the kernel (half of the memory).
    pub size: Option<u64>,
    /// Permission bits of its root, such as `0o777`.
    pub mode: u32,
    /// Group of its root; `None` leaves it to root's.
    #[serde(default)]
    pub group: Option<u32>,
    /// In huge pages of so many bytes: hugetlbfs instead of tmpfs (`medium: HugePages`).
    #[serde(default)]
    pub page_size: Option<u64>,
}

/// Limits that the kernel enforces by cgroup. `None` means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxResources {
    /// Requested cpu in thousandths of a core: v1 `cpu.shares`, v2 `cpu.weight`.
    pub cpu_request_millis: Option<u64>,
    /// Limit in thousandths of a core: v1 `cpu.cfs_quota_us`, v2 `cpu.max`.
    pub cpu_limit_millis: Option<u64>,
    /// Bytes: v1 `memory.limit_in_bytes`, v2 `memory.max`.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads: `pids.max`.
    pub pids_limit: Option<u64>,
    /// proc_pid_oom_score_adj(5), -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Bytes in huge pages by the size of a page in bytes; none of sizes that are not named.
    #[serde(default)]
    pub huge_pages: BTreeMap<u64, u64>,
}

/// A container to be created in a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Unique in its Pod.
    pub name: ContainerName,
    /// How often this container was started before: `restartCount`, and the number in its log's name.
    pub attempt: u32,
    /// The reference as the Pod gave it, for status.
    pub image_ref: String,
    /// The image's identity in the image store (digest of its config).
    pub image_id: Digest,
    /// Program and arguments, already expanded; never empty.
    pub command: Vec<String>,
    /// The whole environment in order, image's included; a later entry of the same name wins.
    pub env: Vec<(String, String)>,
    /// Absolute path in the container; made if it is missing.
    pub working_dir: PathBuf,
    /// Volumes and files bound into the container, in order.
    pub mounts: Vec<Mount>,
    /// Keep a stdin open for `attach`.
    pub stdin: bool,
    /// Close stdin when the first attached client has closed its side.
    pub stdin_once: bool,
    /// A terminal instead of pipes.
    pub tty: bool,
    /// Limits of this container.
    pub resources: LinuxResources,
    /// User, capabilities, and what the container may see of the kernel.
    pub security: SecurityConfig,
    /// Whose processes it sees.
    #[serde(default)]
    pub pid: PidMode,
    /// Name of the signal that asks it to end, before the image's own.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Kept and returned as they are; the agent's own bookkeeping (spec hash, container kind).
    pub labels: BTreeMap<String, String>,
    /// The log's file below the sandbox's log directory, where the caller chooses it; it also rotates it then, by
    /// renaming it and calling [`crate::Runtime::reopen_container_log`]. `None`: `<name>/<attempt>.log`, rotated by size.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
}

/// One mount of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path in the container; resolved beneath its root, made if it is missing.
    pub target: PathBuf,
    /// Mount it read-only.
    pub read_only: bool,
    /// And what is mounted below it (`recursiveReadOnly`).
    #[serde(default)]
    pub recursive_read_only: bool,
    /// How mounts made later below it travel (mount_namespaces(7)).
    pub propagation: Propagation,
    /// The volume it comes from, for messages.
    pub volume: VolumeName,
    /// A path in the source to mount instead of it: relative, never led out by symbolic links, a directory if it has to
    /// be made.
    #[serde(default)]
    pub sub_path: Option<PathBuf>,
}

/// Where a mount comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the machine. It must exist.
    HostPath(PathBuf),
    /// The Pod's tmpfs of this name, see [`PodSandboxConfig::tmpfs`].
    PodTmpfs(VolumeName),
    /// The layers of an image of the image store, merged; always read-only.
    Image(Digest),
}

/// `mountPropagation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// `None`: private.
    #[default]
    Private,
    /// `HostToContainer`: slave.
    HostToContainer,
    /// `Bidirectional`: shared.
    Bidirectional,
}

/// `securityContext`, resolved from Pod and container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SecurityConfig {
    /// Numeric user; `None` takes the image's `USER`.
    pub run_as_user: Option<u32>,
    /// A user by name, in place of the image's `USER`.
    #[serde(default)]
    pub run_as_username: Option<String>,
    /// Primary group; `None` takes the user's from the image's `/etc/passwd`, or the image's `USER`.
    pub run_as_group: Option<u32>,
    /// Refuse to start as uid 0.
    pub run_as_non_root: bool,
    /// Groups beside the primary one and those of the image's `/etc/group`.
    pub supplemental_groups: Vec<u32>,
    /// Leave out the groups of the image's `/etc/group` (`supplementalGroupsPolicy: Strict`).
    #[serde(default)]
    pub strict_groups: bool,
    /// Capabilities beyond the default set, without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities taken from the default set, without `CAP_`; `ALL` for all.
    pub drop_capabilities: Vec<String>,
    /// All capabilities and devices, nothing masked.
    pub privileged: bool,
    /// Nothing of `/proc` and `/sys` is hidden or write-protected (`procMount: Unmasked`).
    #[serde(default)]
    pub unmasked: bool,
    /// What is hidden in place of the usual list, unless it is `unmasked` or privileged; absolute paths.
    #[serde(default)]
    pub masked_paths: Option<Vec<PathBuf>>,
    /// What may only be read in place of the usual list, likewise.
    #[serde(default)]
    pub read_only_paths: Option<Vec<PathBuf>>,
    /// prctl(2) `PR_SET_NO_NEW_PRIVS` (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_rootfs: bool,
    /// Which system calls it may make; a privileged container may make all.
    #[serde(default)]
    pub seccomp: SeccompProfile,
    /// Which AppArmor profile confines its programs.
    #[serde(default)]
    pub apparmor: AppArmorProfile,
}

/// `appArmorProfile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmorProfile {
    /// Nobody has said: `RuntimeDefault` where the machine has AppArmor, else none.
    #[default]
    Unset,
    /// None.
    Unconfined,
    /// The engine's own, for containers that are not privileged; refused on a machine without AppArmor.
    RuntimeDefault,
    /// One that is loaded in the machine's kernel, by its name there.
    Localhost(String),
}

/// `seccompProfile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    /// All.
    #[default]
    Unconfined,
    /// Those that programs of an ordinary container need.
    RuntimeDefault,
    /// Those that a file names, by its path below `<data-dir>/seccomp`.
    Localhost(PathBuf),
    /// Those that a file of the machine names, by its absolute path.
    File(PathBuf),
}

/// Addresses that a sandbox got, the first one being `status.podIP`.
pub type PodAddresses = Vec<IpAddr>;
