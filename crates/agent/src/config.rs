//! What the agent is told when it starts, and why it may not.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Where the agent keeps things and what it calls the machine.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Name of the Node object and `spec.nodeName` of its Pods.
    pub node_name: String,
    /// Addresses of the machine, the first one being `status.hostIP`; empty when it has none.
    pub node_addresses: Vec<IpAddr>,
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
    /// Processes and threads of one Pod together (`podPidsLimit`); `None` leaves it to the machine.
    pub pod_pids_limit: Option<u64>,
    /// How many Pods the node takes (`maxPods`).
    pub max_pods: u32,
}

/// The kubelet's default of `maxPods`.
const MAX_PODS: u32 = 110;

impl AgentConfig {
    /// The usual paths of a machine, with the given name and directories.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>, log_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_addresses: Vec::new(),
            data_dir: data_dir.into(),
            log_dir: log_dir.into(),
            version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            host_resolv_conf: PathBuf::from("/etc/resolv.conf"),
            host_hosts_file: PathBuf::from("/etc/hosts"),
            cluster_domain: "cluster.local".to_owned(),
            pod_pids_limit: None,
            max_pods: MAX_PODS,
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
