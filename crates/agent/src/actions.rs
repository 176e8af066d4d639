//! Decides what to do next for a pod: a pure function of what is wanted and what exists.

mod sync;
mod terminate;

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::ContainerStatus;
use spec::{ContainerId, ContainerName, SandboxId};

use crate::backoff::RestartBackOff;
use crate::clock::{BootTime, Now};
use crate::desired::{ContainerKind, DesiredPod};
use crate::observation::PodObservation;

pub use terminate::containers_to_end;

/// Where a pod is in its life on this node. It only moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodLifecycle {
    /// Containers may be started.
    Syncing,
    /// No container may start any more; what still runs is killed at `deadline`.
    Terminating {
        /// End of the grace period.
        deadline: BootTime,
    },
    /// No container runs; sandbox, volumes and address may still be held.
    Terminated,
}

/// What one pass has to do, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodActions {
    /// Running containers to be ended.
    pub stop: Vec<StopContainer>,
    /// Records of older runs that nobody needs any more.
    pub discard: Vec<DiscardRun>,
    /// Sandboxes that a newer one replaced.
    pub discard_sandboxes: Vec<SandboxId>,
    /// A sandbox to be made before anything starts.
    pub run_sandbox: Option<RunSandbox>,
    /// Containers to be started, in this order, none waiting for the one before.
    pub start: Vec<StartContainer>,
    /// Containers in their crash loop, with the wait that runs.
    pub backing_off: BTreeMap<ContainerName, Duration>,
    /// Whether the pod is done: its app containers have ended for good, or an init container has failed for good. What
    /// still runs, its sidecars, is to be ended.
    pub ended: bool,
    /// When to look again though nothing has happened.
    pub look_again: Option<BootTime>,
}

/// A new sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSandbox {
    /// 0 for the first.
    pub attempt: u32,
    /// Dead ones: stopped before, removed once the new one is there.
    pub dead: Vec<SandboxId>,
}

/// A running container to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopContainer {
    /// Which run.
    pub id: ContainerId,
    /// Whose.
    pub name: ContainerName,
    /// Why.
    pub cause: StopCause,
    /// Runs that have to be gone first, unless the grace period is over.
    pub after: Vec<ContainerId>,
}

/// Why a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// Its image changed; it is started anew.
    DefinitionChanged,
    /// Its startup probe failed.
    StartupFailed,
    /// Its liveness probe failed.
    LivenessFailed,
    /// Its postStart hook failed.
    PostStartFailed,
    /// It has to start anew with other resources.
    Resized,
    /// Another container has ended, and takes the whole pod along into a restart.
    PodRestarts,
    /// The pod ends.
    PodEnds,
}

impl StopCause {
    /// Whether the container is stopped only to be started anew, which is no failure and waits for no back-off.
    pub fn replaces(self) -> bool {
        match self {
            Self::DefinitionChanged | Self::Resized | Self::PodRestarts => true,
            Self::StartupFailed | Self::LivenessFailed | Self::PostStartFailed | Self::PodEnds => false,
        }
    }
}

/// A container to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartContainer {
    /// Which.
    pub name: ContainerName,
    /// `restartCount` of the run.
    pub attempt: u32,
    /// A run that was recorded but never started; it is removed first.
    pub unstarted: Option<ContainerId>,
    /// To be stored before the start.
    pub back_off: Option<RestartBackOff>,
}

/// An older run whose record, writable layer and log go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardRun {
    /// Which run.
    pub id: ContainerId,
    /// Whose.
    pub name: ContainerName,
    /// Its number; logs of runs before it go with it.
    pub attempt: u32,
}

/// What to do next. Pure: no clock, no IO, no store.
pub fn compute_pod_actions(
    desired: &DesiredPod,
    lifecycle: PodLifecycle,
    observed: &PodObservation,
    now: Now,
) -> PodActions {
    match lifecycle {
        PodLifecycle::Syncing => sync::sync(desired, observed, now),
        PodLifecycle::Terminating { .. } => terminate::terminate(desired, observed),
        PodLifecycle::Terminated => PodActions { ended: true, ..PodActions::default() },
    }
}

fn stop_container(container: &ContainerStatus, cause: StopCause) -> StopContainer {
    StopContainer { id: container.id.clone(), name: container.name.clone(), cause, after: Vec::new() }
}

/// Which list of the pod a container stands in, for messages.
pub fn field_path(desired: &DesiredPod, name: &ContainerName) -> String {
    match desired.kind_of(name) {
        Some(ContainerKind::Init | ContainerKind::Sidecar) => format!("spec.initContainers{{{name}}}"),
        Some(ContainerKind::Ephemeral) => format!("spec.ephemeralContainers{{{name}}}"),
        Some(ContainerKind::App) | None => format!("spec.containers{{{name}}}"),
    }
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
