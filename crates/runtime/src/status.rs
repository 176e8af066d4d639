//! What exists: sandboxes and containers as they are, for the agent to observe.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::LinuxResources;
use serde::{Deserialize, Serialize};
use spec::{ContainerId, ContainerName, Digest, PodRef, PodUid, SandboxId, Timestamp};

/// A pod sandbox as it is.
#[derive(Debug, Clone)]
pub struct PodSandboxStatus {
    /// This incarnation.
    pub id: SandboxId,
    /// Whose it is.
    pub pod: PodRef,
    /// Whose it is.
    pub uid: PodUid,
    /// As given in the config.
    pub attempt: u32,
    /// Whether its infra process lives.
    pub state: PodSandboxState,
    /// The Pod's addresses; empty with the host's network and once it is not ready.
    pub addresses: Vec<IpAddr>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Limits of the whole Pod.
    pub resources: LinuxResources,
    /// As given in the config.
    pub labels: BTreeMap<String, String>,
}

/// Whether a sandbox can hold containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodSandboxState {
    /// Its infra process lives and its network is set up.
    Ready,
    /// Its infra process is gone, it was stopped, or its set-up never ended. It only waits to be removed.
    NotReady,
    /// Its infra process lives and has not answered since the daemon started: it is stopped, or the machine is starved. What
    /// its containers do is not known; it becomes ready or not ready, with an event, when the process answers or ends.
    Silent,
}

/// A container as it is.
#[derive(Debug, Clone)]
pub struct ContainerStatus {
    /// This start of the container.
    pub id: ContainerId,
    /// Where it runs.
    pub sandbox_id: SandboxId,
    /// Whose it is.
    pub pod_uid: PodUid,
    /// Its name in the Pod.
    pub name: ContainerName,
    /// As given in the config.
    pub attempt: u32,
    /// As given in the config.
    pub image_ref: String,
    /// As given in the config.
    pub image_id: Digest,
    /// As given in the config.
    pub labels: BTreeMap<String, String>,
    /// When `create_container` was called.
    pub created_at: Timestamp,
    /// Its CRI log file on the machine.
    pub log_path: PathBuf,
    /// Limits that it has now.
    pub resources: LinuxResources,
    /// Known once it was started.
    pub user: Option<ResolvedUser>,
    /// Name of the signal that asks it to end: the config's, the image's, or SIGTERM.
    pub stop_signal: String,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// Identity that the container's first process got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// Where a container is in its life. It only moves down this list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Recorded, not started.
    Created,
    /// Its first process runs.
    Running {
        /// When it executed its program.
        started_at: Timestamp,
    },
    /// It ended, and none of its processes is left.
    Exited(ContainerExit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// When it executed its program; `None` when it never did, or nobody knows.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// As Kubernetes reports it: the program's own code, 128+n for signal n, 128 if it could not start, 137 if unknown.
    pub exit_code: i32,
    /// Why.
    pub reason: ExitReason,
}

/// Why a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// Its first process ended or was killed; `exit_code` says how.
    Exited,
    /// The kernel killed it for lack of memory, by the cgroup's own count.
    OomKilled,
    /// It could not be started; the message says at which step and why (`StartError`).
    StartFailed {
        /// For `state.terminated.message`.
        message: String,
    },
    /// Its infra process or the machine died, and no record of its end is left (`ContainerStatusUnknown`).
    Unknown,
}

/// Something of this Pod changed in the runtime; the agent looks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// Whose sandbox or container changed.
    pub pod_uid: PodUid,
    /// Output that could not be written, if that is what happened.
    pub lost_output: Option<Box<LostOutput>>,
}

/// Output of a container that its log has not: the disk is full, or fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostOutput {
    /// Whose container.
    pub pod: PodRef,
    /// The container.
    pub container: ContainerName,
    /// Lost since it started.
    pub bytes: u64,
    /// The kernel's word.
    pub why: String,
}
