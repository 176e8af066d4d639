//! Decides what to do next for a pod: a pure function of what is wanted and what exists.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::ContainerStatus;
use spec::k8s_openapi::api::core::v1::Container;
use spec::{ContainerId, ContainerName, SandboxId};

use crate::backoff::{RestartBackOff, RestartDecision, restart_decision};
use crate::clock::{BootTime, Now};
use crate::desired::{ContainerKind, DesiredPod, RestartPolicy, image_of};
use crate::observation::{LatestRun, PodObservation, is_running};

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
    /// Whether all that will ever run has ended.
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
}

/// Why a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// Its image changed; it is started anew.
    DefinitionChanged,
    /// The pod ends.
    PodEnds,
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
        PodLifecycle::Syncing => sync(desired, observed, now),
        PodLifecycle::Terminating { .. } => terminate(observed),
        PodLifecycle::Terminated => PodActions { ended: true, ..PodActions::default() },
    }
}

fn terminate(observed: &PodObservation) -> PodActions {
    let running = observed.containers.iter().filter(|container| is_running(container));
    let stop: Vec<_> = running.map(|container| stop_container(container, StopCause::PodEnds)).collect();
    PodActions { ended: stop.is_empty(), stop, ..PodActions::default() }
}

fn sync(desired: &DesiredPod, observed: &PodObservation, now: Now) -> PodActions {
    let mut pass = Pass { desired, observed, now, actions: PodActions::default() };
    pass.discard_older_runs();
    match observed.ready_sandbox() {
        None => pass.without_sandbox(),
        Some(sandbox) => {
            let older = observed.sandboxes.iter().filter(|other| other.id != sandbox.id);
            pass.actions.discard_sandboxes = older.map(|older| older.id.clone()).collect();
            if pass.init_containers_are_done(&sandbox.id) {
                pass.app_containers();
            }
        }
    }
    pass.actions
}

struct Pass<'a> {
    desired: &'a DesiredPod,
    observed: &'a PodObservation,
    now: Now,
    actions: PodActions,
}

impl Pass<'_> {
    /// The kubelet's `PodSandboxChanged` and what follows from it in `computePodActions`.
    fn without_sandbox(&mut self) {
        let attempt = self.observed.sandboxes.first().map_or(0, |sandbox| sandbox.attempt.saturating_add(1));
        let never = self.desired.restart_policy() == RestartPolicy::Never;
        let ran = !self.observed.remembered.is_empty() || !self.observed.containers.is_empty();
        let apps = self.desired.app_containers();
        let all_done = apps.iter().all(|app| !self.may_run(app, self.observed.latest_run(&name_of(app))));
        if (never && ran) || all_done {
            self.actions.ended = true;
            return;
        }
        let dead = self.observed.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
        self.actions.run_sandbox = Some(RunSandbox { attempt, dead });
        match self.desired.init_containers().first() {
            Some(init) => self.start_unless_it_waits(init),
            None => {
                for app in apps {
                    if self.may_run(app, self.observed.latest_run(&name_of(app))) {
                        self.start_unless_it_waits(app);
                    }
                }
            }
        }
    }

    /// Starts the init container whose turn it is. Only runs in the present sandbox count: a new one begins anew.
    fn init_containers_are_done(&mut self, sandbox: &SandboxId) -> bool {
        let created = |app: &Container| self.observed.runs_in(sandbox, &name_of(app)).next().is_some();
        if self.desired.app_containers().iter().any(created) {
            return true;
        }
        for init in self.desired.init_containers() {
            let name = name_of(init);
            let Some(run) = self.observed.runs_in(sandbox, &name).next() else {
                self.start_unless_it_waits(init);
                return false;
            };
            match &run.state {
                runtime::ContainerState::Running { .. } => return false,
                runtime::ContainerState::Created => {
                    self.start_unless_it_waits(init);
                    return false;
                }
                runtime::ContainerState::Exited(exit) if exit.exit_code == 0 => {}
                runtime::ContainerState::Exited(_) => {
                    match self.desired.restart_policy() {
                        RestartPolicy::Never => self.actions.ended = true,
                        RestartPolicy::Always | RestartPolicy::OnFailure => self.start_unless_it_waits(init),
                    }
                    return false;
                }
            }
        }
        true
    }

    fn app_containers(&mut self) {
        let mut ended = true;
        for app in self.desired.app_containers() {
            let run = self.observed.latest_run(&name_of(app));
            if let LatestRun::Running(running) = run {
                ended = false;
                if running.image_ref != image_of(app) {
                    self.actions.stop.push(stop_container(running, StopCause::DefinitionChanged));
                }
            } else if self.may_run(app, run) {
                ended = false;
                self.start_unless_it_waits(app);
            }
        }
        self.actions.ended = ended;
    }

    /// The kubelet's `ShouldContainerBeRestarted`.
    fn may_run(&self, container: &Container, run: LatestRun<'_>) -> bool {
        match run {
            LatestRun::Never | LatestRun::Created(_) => true,
            LatestRun::Running(run) => self.observed.ready_sandbox().is_none_or(|ready| ready.id != run.sandbox_id),
            LatestRun::Exited { id, exit_code, .. } => {
                let policy = match self.desired.restart_policy() {
                    RestartPolicy::Always => true,
                    RestartPolicy::OnFailure => exit_code != 0,
                    RestartPolicy::Never => false,
                };
                policy || (self.observed.replaced.contains(id) && !image_of(container).is_empty())
            }
        }
    }

    fn start_unless_it_waits(&mut self, container: &Container) {
        let name = name_of(container);
        if let Some(&not_before) = self.observed.not_before.get(&name)
            && self.now.boot < not_before
        {
            self.look_again_at(not_before);
            return;
        }
        let mut start = StartContainer {
            attempt: self.observed.next_attempt(&name),
            unstarted: None,
            back_off: None,
            name: name.clone(),
        };
        // A created run is made again, but the crash before it still counts.
        if let LatestRun::Created(run) = self.observed.latest_run(&name) {
            start.unstarted = Some(run.id.clone());
        } else if let LatestRun::Exited { id, finished_at, .. } = self.observed.latest_run(&name)
            && !self.observed.replaced.contains(id)
        {
            let boot = self.observed.exits.get(id).copied().unwrap_or(BootTime::since_boot(Duration::ZERO));
            let exit = Now { wall: finished_at.unwrap_or(self.now.wall), boot };
            let present = self.observed.back_offs.get(&name);
            match restart_decision(present, image_of(container), exit, self.now) {
                RestartDecision::Now(back_off) => start.back_off = Some(back_off),
                RestartDecision::Wait { delay, until } => {
                    self.actions.backing_off.insert(name, delay);
                    self.look_again_at(until);
                    return;
                }
            }
        }
        self.actions.start.push(start);
    }

    /// Keeps what runs and the newest dead run of each container (kubelet, `MaxPerPodContainer` 1).
    fn discard_older_runs(&mut self) {
        for (_, container) in self.desired.containers() {
            let name = name_of(container);
            let mut dead_kept = 0;
            for run in self.observed.runs(&name) {
                if let runtime::ContainerState::Exited(_) = run.state {
                    dead_kept += 1;
                    if dead_kept > 1 {
                        let discard = DiscardRun { id: run.id.clone(), name: name.clone(), attempt: run.attempt };
                        self.actions.discard.push(discard);
                    }
                }
            }
        }
    }

    fn look_again_at(&mut self, time: BootTime) {
        self.actions.look_again = Some(self.actions.look_again.map_or(time, |other| other.min(time)));
    }
}

fn name_of(container: &Container) -> ContainerName {
    ContainerName::new(&container.name)
}

fn stop_container(container: &ContainerStatus, cause: StopCause) -> StopContainer {
    StopContainer { id: container.id.clone(), name: container.name.clone(), cause }
}

/// Which list of the pod a container stands in, for messages.
pub fn field_path(desired: &DesiredPod, name: &ContainerName) -> String {
    let kind = desired.containers().find(|(_, container)| container.name == name.as_str()).map(|(kind, _)| kind);
    match kind {
        Some(ContainerKind::Init) => format!("spec.initContainers{{{name}}}"),
        Some(ContainerKind::App) | None => format!("spec.containers{{{name}}}"),
    }
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
