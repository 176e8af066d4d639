//! What the runtime keeps in the store of each sandbox and container, so that a daemon that starts anew finds all.

use serde::{Deserialize, Serialize};
use spec::{SandboxId, Timestamp};

use super::user_ids::IdBlock;
use crate::config::{ContainerConfig, PodSandboxConfig};
use crate::status::{ContainerExit, ExitReason, ResolvedUser};

/// Table of [`SandboxRecord`] by sandbox id.
pub(super) const SANDBOXES: &str = "sandboxes";
/// Table of [`ContainerRecord`] by container id.
pub(super) const CONTAINERS: &str = "containers";

/// Written before anything of the sandbox is made, deleted after all of it is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) config: PodSandboxConfig,
    pub(super) created_at: Timestamp,
    /// It was stopped on purpose or found dead; it never becomes ready again.
    pub(super) stopped: bool,
    /// Its user namespace's block of the machine's ids, until nothing of it is left.
    #[serde(default)]
    pub(super) ids: Option<IdBlock>,
    /// It is nobody's yet, see `spares`.
    #[serde(default)]
    pub(super) spare: bool,
}

/// signal(7).
const SIGTERM: i32 = 15;

/// Written before the container starts, deleted after all of it is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) sandbox: SandboxId,
    pub(super) config: ContainerConfig,
    pub(super) created_at: Timestamp,
    pub(super) user: ResolvedUser,
    /// `HOME` of that user.
    pub(super) home: String,
    /// What asks it to end: the Pod's choice, else the image's `STOPSIGNAL`.
    pub(super) stop_signal: Option<i32>,
    /// How it ended.
    pub(super) exit: Option<ExitRecord>,
    /// The seccomp program of a `Localhost` profile as it was at creation, in base64.
    #[serde(default)]
    pub(super) seccomp: Option<String>,
    /// The AppArmor profile that confines it, as chosen at creation: an exec gets the same.
    #[serde(default)]
    pub(super) apparmor: Option<String>,
}

impl ContainerRecord {
    /// Number of the signal that asks the container to end.
    pub(super) fn stop_signal(&self) -> i32 {
        self.stop_signal.unwrap_or(SIGTERM)
    }
}

/// [`ContainerExit`] as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ExitRecord {
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    exit_code: i32,
    reason: ReasonRecord,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum ReasonRecord {
    Exited,
    OomKilled,
    StartFailed(String),
    Unknown,
}

impl From<ContainerExit> for ExitRecord {
    fn from(exit: ContainerExit) -> Self {
        let reason = match exit.reason {
            ExitReason::Exited => ReasonRecord::Exited,
            ExitReason::OomKilled => ReasonRecord::OomKilled,
            ExitReason::StartFailed { message } => ReasonRecord::StartFailed(message),
            ExitReason::Unknown => ReasonRecord::Unknown,
        };
        let ContainerExit { started_at, finished_at, exit_code, .. } = exit;
        Self { started_at, finished_at, exit_code, reason }
    }
}

impl From<ExitRecord> for ContainerExit {
    fn from(record: ExitRecord) -> Self {
        let reason = match record.reason {
            ReasonRecord::Exited => ExitReason::Exited,
            ReasonRecord::OomKilled => ExitReason::OomKilled,
            ReasonRecord::StartFailed(message) => ExitReason::StartFailed { message },
            ReasonRecord::Unknown => ExitReason::Unknown,
        };
        let ExitRecord { started_at, finished_at, exit_code, .. } = record;
        Self { started_at, finished_at, exit_code, reason }
    }
}
