//! What the agent is told when it starts, and why it may not.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::eviction::thresholds::{Threshold, parse_thresholds};
use crate::housekeeping::ImageGcConfig;
use crate::node_shutdown::ShutdownBand;

use spec::sysctls::AllowedSysctls;

/// Where the agent keeps things and what it calls the machine.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Name of the Node object and `spec.nodeName` of its Pods.
    pub node_name: String,
    /// Addresses of the machine, the first one being `status.hostIP`; empty when it has none.
    pub node_addresses: Vec<IpAddr>,
    /// Where Pods find the API.
    pub api: Option<ServicePlace>,
    /// Where Pods ask for names of Services.
    pub dns: Option<ServicePlace>,
    /// Whether the kernel enforces or reports by SELinux' labels.
    pub has_selinux: bool,
    /// Whether the machine enforces AppArmor.
    pub has_apparmor: bool,
    /// Root of what is kept over reboots; the agent uses `pods/` in it.
    pub data_dir: PathBuf,
    /// Root of the Pods' logs.
    pub log_dir: PathBuf,
    /// Version of Monopod, for the Node object.
    pub version: String,
    /// Name servers and search domains of the machine come from here.
    pub host_resolv_conf: PathBuf,
    /// Hosts file of the machine, for Pods with `hostNetwork`.
    pub host_hosts_file: PathBuf,
    /// Domain of Services, such as `cluster.local`.
    pub cluster_domain: String,
    /// Parameters of the kernel that Pods may set (`allowedUnsafeSysctls`).
    pub allowed_sysctls: AllowedSysctls,
    /// Processes and threads of one Pod together (`podPidsLimit`); `None` leaves it to the machine.
    pub pod_pids_limit: Option<u64>,
    /// How many Pods the node takes (`maxPods`).
    pub max_pods: u32,
    /// Directory with the manifests of static Pods.
    pub static_pods: Option<PathBuf>,
    /// When the node ends pods to be able to work.
    pub eviction: EvictionConfig,
    /// When unused images go.
    pub image_gc: ImageGcConfig,
    /// So many Pods that have ended are kept; 0 keeps them all (`terminated-pod-gc-threshold`).
    pub terminated_pod_gc_threshold: usize,
    /// How long Pods have to end when the machine shuts down; without any they are not ended.
    pub shutdown_bands: Vec<ShutdownBand>,
    /// How often the node is looked at.
    pub housekeeping_interval: Duration,
    /// Where what is done for Pods is noted, step by step.
    pub steps: steps::Recorder,
    /// How long the events of starts are gathered before they are written together.
    pub event_delay: Duration,
    /// How much later it is told what of a Pod has ended, while the rest of it is still ending: one that ends at once tells of its
    /// end alone, and nobody who writes or reads its status is in the way of that.
    pub ending_delay: Duration,
    /// How often the node's lease is renewed.
    pub lease_interval: Duration,
}

/// A server of this daemon, and the address of the Service that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePlace {
    /// What Pods are told.
    pub service: SocketAddr,
    /// Where it listens.
    pub server: SocketAddr,
}

/// When the node ends pods to be able to work, as the kubelet's flags say it.
#[derive(Debug, Clone, PartialEq)]
pub struct EvictionConfig {
    /// Hard ones, and soft ones with their grace periods.
    pub thresholds: Vec<Threshold>,
    /// A condition stays for so long after it was true last.
    pub transition: Duration,
    /// Time to end for pods that go for a soft threshold.
    pub max_pod_grace_seconds: u64,
}

/// Hard thresholds. Of the disk less is kept than the kubelet does: a machine of one's own is fuller than a server, and
/// its disks are larger.
pub const HARD_THRESHOLDS: &str =
    "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,imagefs.inodesFree<5%";

impl Default for EvictionConfig {
    fn default() -> Self {
        Self {
            thresholds: parse_thresholds(HARD_THRESHOLDS).unwrap_or_default(),
            transition: Duration::from_mins(5),
            max_pod_grace_seconds: 0,
        }
    }
}

/// The kubelet's default of `maxPods`.
const MAX_PODS: u32 = 110;
/// As long as a Pod takes to start, so that its events are not in its way.
const EVENT_DELAY: Duration = Duration::from_millis(5);
/// Several times as long as a small Pod takes to end.
pub(crate) const ENDING_DELAY: Duration = Duration::from_millis(20);
/// A cluster keeps 12,500, on all its nodes together.
const ENDED_PODS: usize = 1000;

impl AgentConfig {
    /// The usual paths of a machine, with the given name and directories.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>, log_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_addresses: Vec::new(),
            api: None,
            dns: None,
            has_selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            has_apparmor: runtime::apparmor_is_enabled(),
            data_dir: data_dir.into(),
            log_dir: log_dir.into(),
            version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            host_resolv_conf: PathBuf::from("/etc/resolv.conf"),
            host_hosts_file: PathBuf::from("/etc/hosts"),
            cluster_domain: "cluster.local".to_owned(),
            allowed_sysctls: AllowedSysctls::default(),
            pod_pids_limit: None,
            max_pods: MAX_PODS,
            eviction: EvictionConfig::default(),
            image_gc: ImageGcConfig::default(),
            terminated_pod_gc_threshold: ENDED_PODS,
            shutdown_bands: Vec::new(),
            housekeeping_interval: Duration::from_secs(10),
            steps: steps::Recorder::default(),
            event_delay: EVENT_DELAY,
            ending_delay: ENDING_DELAY,
            lease_interval: crate::node_lease::RENEW,
            static_pods: None,
        }
    }
}

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartAgentError {
    /// One of its directories cannot be used.
    #[error("cannot use directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// There is no key for tokens.
    #[error(transparent)]
    TokenKey(#[from] crate::tokens::TokenKeyError),
    /// The store did not take or give a record.
    #[error("cannot use the store")]
    Store(#[source] Box<store::StoreError>),
    /// A default object could not be written.
    #[error("cannot write {resource} {name:?}")]
    Object {
        /// Such as `namespaces`.
        resource: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<store::StoreError>,
    },
}

impl From<store::StoreError> for StartAgentError {
    fn from(error: store::StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}
