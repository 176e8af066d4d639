//! What Pods and containers use at this moment, as the kernel counts it (CRI: `PodSandboxStats`, `ContainerStats`).

use std::path::PathBuf;

use spec::{ContainerId, ContainerName};

/// Of one Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Of all its containers together.
    pub cgroup: CgroupUsage,
    /// Of each container that runs or was run last.
    pub containers: Vec<ContainerUsage>,
}

/// Of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Which run.
    pub id: ContainerId,
    /// Whose.
    pub name: ContainerName,
    /// What the kernel counted; nothing for one that does not run.
    pub cgroup: CgroupUsage,
    /// Directory that holds what it has written over its image.
    pub writable_layer: PathBuf,
}

/// What the kernel counted in one cgroup. What it does not tell, for want of a controller, is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// Bytes of memory, page cache included.
    pub memory: u64,
    /// Bytes of memory without what the kernel would give up first (the kubelet's "working set").
    pub working_set: u64,
    /// Nanoseconds of processor time since it was made.
    pub cpu_nanos: u64,
    /// Processes and threads.
    pub processes: u64,
}
