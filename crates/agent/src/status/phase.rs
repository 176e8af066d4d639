//! The phase of a pod (kubelet, `getPhase`).

use spec::k8s_openapi::api::core::v1 as core;

use super::container::exit_code;
use crate::desired::{ContainerKind, DesiredPod};

/// The Pod's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have run once.
    Pending,
    /// At least one runs or will run again.
    Running,
    /// All ended well.
    Succeeded,
    /// All ended, not all well.
    Failed,
}

impl Phase {
    /// As `status.phase` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// What the containers' states come to.
#[derive(Default)]
struct Tally {
    pending_init: usize,
    pending_sidecars: usize,
    running: usize,
    waiting: usize,
    /// App containers that ended, also those that wait for their next run.
    stopped: usize,
}

/// The phase of a pod whose containers have these statuses. A terminal one is told only once nothing of the pod runs or
/// ever will: `ended`. `initialized`: an app container was made in the present sandbox.
pub fn pod_phase(
    desired: &DesiredPod,
    init: &[core::ContainerStatus],
    apps: &[core::ContainerStatus],
    initialized: bool,
    ended: bool,
) -> Phase {
    if ended {
        return ended_phase(desired, init, apps);
    }
    let mut tally = Tally::default();
    for (container, status) in desired.init_containers().iter().zip(init) {
        match crate::desired::kind_of_init(container) {
            ContainerKind::Sidecar => tally.add_sidecar(status),
            ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral => tally.add_init(status),
        }
    }
    for status in apps {
        tally.add_app(status);
    }
    // Once an app container has run, sidecars that start anew do not take the pod back, also while it waits for its own
    // next run (kubelet, `HasAnyActiveRegularContainerStarted`).
    let initializing = tally.pending_init > 0 || (tally.pending_sidecars > 0 && !initialized);
    if initializing || tally.waiting > 0 || (tally.running == 0 && tally.stopped == 0) {
        return Phase::Pending;
    }
    Phase::Running
}

/// How a sidecar ended does not count.
fn ended_phase(desired: &DesiredPod, init: &[core::ContainerStatus], apps: &[core::ContainerStatus]) -> Phase {
    let well = |status: &core::ContainerStatus| exit_code(status.state.as_ref()) == Some(0);
    let kinds = desired.init_containers().iter().map(crate::desired::kind_of_init);
    let mut inits = kinds.zip(init).filter(|(kind, _)| *kind == ContainerKind::Init);
    if !apps.is_empty() && apps.iter().all(well) && inits.all(|(_, status)| well(status)) {
        Phase::Succeeded
    } else {
        Phase::Failed
    }
}

impl Tally {
    fn add_init(&mut self, status: &core::ContainerStatus) {
        let ended = has(status, |state| state.terminated.is_some());
        let waits_after_a_run = has(status, |state| state.waiting.is_some()) && ran_before(status);
        self.pending_init += usize::from(!ended && !waits_after_a_run);
    }

    fn add_sidecar(&mut self, status: &core::ContainerStatus) {
        if has(status, |state| state.running.is_some()) {
            self.running += 1;
            self.pending_sidecars += usize::from(status.started != Some(true));
        } else if !has(status, |state| state.terminated.is_some()) && !ran_before(status) {
            self.pending_sidecars += 1;
            self.waiting += 1;
        }
    }

    fn add_app(&mut self, status: &core::ContainerStatus) {
        if has(status, |state| state.running.is_some()) {
            self.running += 1;
        } else if has(status, |state| state.terminated.is_some()) || ran_before(status) {
            self.stopped += 1;
        } else {
            self.waiting += 1;
        }
    }
}

fn has(status: &core::ContainerStatus, test: impl Fn(&core::ContainerState) -> bool) -> bool {
    status.state.as_ref().is_some_and(test)
}

fn ran_before(status: &core::ContainerStatus) -> bool {
    status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
}
