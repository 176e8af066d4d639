//! What happens in the fake, for those who watch over it.

use std::time::Duration;

use spec::{ContainerId, ContainerName, PodUid, SandboxId};

use crate::status::ContainerStatus;

/// Something that has happened, told in the moment in which it did.
#[derive(Debug, Clone)]
pub enum Fact<'a> {
    /// A pod has a new sandbox.
    SandboxMade {
        /// Whose.
        uid: &'a PodUid,
        /// Which.
        id: &'a SandboxId,
        /// Its number.
        attempt: u32,
    },
    /// The infra processes of a pod are gone.
    SandboxesDied {
        /// Whose.
        uid: &'a PodUid,
    },
    /// Nothing is left of a sandbox.
    SandboxRemoved {
        /// Whose.
        uid: &'a PodUid,
        /// Which.
        id: &'a SandboxId,
    },
    /// A container is recorded.
    Created(RunFact<'a>),
    /// A container's program was started, or should have been: then its end comes next.
    Started(RunFact<'a>),
    /// Somebody wants it to end within that time.
    StopAsked(RunFact<'a>, Duration),
    /// It ended, with this code.
    Exited(RunFact<'a>, i32),
    /// Its record is gone.
    Removed(RunFact<'a>),
    /// A command in it ended with this code, or was killed.
    Ran(RunFact<'a>, &'a [String], Option<i32>),
}

/// Which run of which container.
#[derive(Debug, Clone, Copy)]
pub struct RunFact<'a> {
    /// Whose.
    pub uid: &'a PodUid,
    /// Where.
    pub sandbox: &'a SandboxId,
    /// The container.
    pub name: &'a ContainerName,
    /// The run.
    pub id: &'a ContainerId,
    /// Its number.
    pub attempt: u32,
    /// What it runs.
    pub image: &'a str,
}

impl<'a> RunFact<'a> {
    pub(super) fn of(status: &'a ContainerStatus) -> Self {
        Self {
            uid: &status.pod_uid,
            sandbox: &status.sandbox_id,
            name: &status.name,
            id: &status.id,
            attempt: status.attempt,
            image: &status.image_ref,
        }
    }
}
