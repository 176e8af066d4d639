//! What a pod needs next while its containers may start.

use std::time::Duration;

use runtime::{ContainerState, ContainerStatus};
use spec::k8s_openapi::api::core::v1::Container;
use spec::{ContainerName, SandboxId};

use super::{DiscardRun, PodActions, RunSandbox, StartContainer, StopCause, stop_container};
use crate::backoff::{RestartBackOff, RestartDecision, restart_decision};
use crate::clock::{BootTime, Now};
use crate::desired::{ContainerKind, DesiredPod, RestartPolicy, image_of, kind_of_init};
use crate::observation::{LatestRun, PodObservation};
use crate::restart_rules::{restarts_when_condemned, runs_again_elsewhere, starts_again};

pub(super) fn sync(desired: &DesiredPod, observed: &PodObservation, now: Now) -> PodActions {
    let mut pass = Pass { desired, observed, now, actions: PodActions::default() };
    pass.discard_older_runs();
    match observed.ready_sandbox() {
        // What the pod has come to is asked before what it needs (kubelet, `SyncPod`).
        _ if pass.is_done() => pass.actions.ended = true,
        None => pass.without_sandbox(),
        Some(sandbox) => {
            let older = observed.sandboxes.iter().filter(|other| other.id != sandbox.id);
            pass.actions.discard_sandboxes = older.map(|older| older.id.clone()).collect();
            pass.ephemeral_containers();
            if pass.init_containers_are_done(&sandbox.id) {
                pass.app_containers();
            }
        }
    }
    if pass.actions.ended {
        // Sidecars too are only ended from here on.
        pass.actions.start.clear();
        pass.actions.backing_off.clear();
        pass.actions.stop.clear();
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
        if never && ran {
            self.actions.ended = true;
            return;
        }
        let dead = self.observed.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
        self.actions.run_sandbox = Some(RunSandbox { attempt, dead });
        match self.desired.init_containers().first() {
            Some(init) => self.start_unless_it_waits(init),
            None => {
                for app in self.desired.app_containers() {
                    if self.runs_in_a_new_sandbox(app) {
                        self.start_unless_it_waits(app);
                    }
                }
            }
        }
    }

    /// Whether all app containers have ended for good, or an init container has failed for good.
    fn is_done(&self) -> bool {
        let ended = |container: &Container| match self.observed.latest_run(&name_of(container)) {
            run @ LatestRun::Exited { exit_code, .. } => Some((run, exit_code)),
            LatestRun::Never | LatestRun::Created(_) | LatestRun::Running(_) => None,
        };
        let failed = |init: &Container| {
            let again = |code| code == 0 || starts_again(self.desired, kind_of_init(init), init, code);
            ended(init).is_some_and(|(_, exit_code)| !again(exit_code))
        };
        let done = |app: &Container| ended(app).is_some_and(|(run, _)| !self.may_run(app, run));
        self.desired.init_containers().iter().any(failed) || self.desired.app_containers().iter().all(done)
    }

    fn runs_in_a_new_sandbox(&self, app: &Container) -> bool {
        match self.observed.latest_run(&name_of(app)) {
            LatestRun::Exited { id, exit_code: 0, .. } if !self.observed.condemned.contains(id) => {
                self.observed.replaced.contains(id) || runs_again_elsewhere(self.desired, app)
            }
            LatestRun::Never | LatestRun::Created(_) | LatestRun::Running(_) | LatestRun::Exited { .. } => true,
        }
    }

    /// Starts the init container whose turn it is, and keeps the sidecars before it alive. Only runs in the present
    /// sandbox count: a new one begins anew. As long as an app container is there, only sidecars matter; once all of them
    /// have ended, what was started last has to be as far again as for the first of them (kubelet,
    /// `computeInitContainerActions`).
    fn init_containers_are_done(&mut self, sandbox: &SandboxId) -> bool {
        let ran = |container: &Container| self.observed.runs_in(sandbox, &name_of(container)).next().is_some();
        let inits = self.desired.init_containers();
        let frontier = if self.app_is_there(sandbox) { inits.len() } else { inits.iter().rposition(ran).unwrap_or(0) };
        for init in inits.iter().take(frontier) {
            match kind_of_init(init) {
                ContainerKind::Sidecar => drop(self.sidecar_is_up(init, sandbox)),
                ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral => {}
            }
        }
        for init in inits.iter().skip(frontier) {
            let done = match kind_of_init(init) {
                ContainerKind::Sidecar => self.sidecar_is_up(init, sandbox),
                ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral => {
                    self.init_container_is_done(init, sandbox)
                }
            };
            if !done {
                return false;
            }
        }
        true
    }

    fn app_is_there(&self, sandbox: &SandboxId) -> bool {
        self.desired.app_containers().iter().any(|app| {
            let name = name_of(app);
            let latest = self.observed.runs_in(sandbox, &name).next();
            latest.is_some_and(|run| match run.state {
                ContainerState::Created | ContainerState::Running { .. } => true,
                ContainerState::Exited(_) => false,
            })
        })
    }

    /// Whether what follows a sidecar may start: it runs and has started. Restarts it whatever the restart policy says.
    fn sidecar_is_up(&mut self, sidecar: &Container, sandbox: &SandboxId) -> bool {
        match self.observed.runs_in(sandbox, &name_of(sidecar)).next() {
            Some(run) if matches!(run.state, ContainerState::Running { .. }) => {
                let started = self.observed.has_started(run);
                let cause = self.why_it_must_stop(sidecar, run).filter(|cause| match cause {
                    // Its startup probe decides first (kubelet, `computeInitContainerActions`).
                    StopCause::DefinitionChanged => started || sidecar.startup_probe.is_none(),
                    StopCause::StartupFailed
                    | StopCause::LivenessFailed
                    | StopCause::PostStartFailed
                    | StopCause::Resized
                    | StopCause::PodRestarts
                    | StopCause::PodEnds => true,
                });
                self.actions.stop.extend(cause.map(|cause| stop_container(run, cause)));
                started
            }
            Some(_) | None => {
                self.start_unless_it_waits(sidecar);
                false
            }
        }
    }

    fn init_container_is_done(&mut self, init: &Container, sandbox: &SandboxId) -> bool {
        let name = name_of(init);
        let Some(run) = self.observed.runs_in(sandbox, &name).next() else {
            self.start_unless_it_waits(init);
            return false;
        };
        match &run.state {
            ContainerState::Running { .. } => false,
            ContainerState::Created => {
                self.start_unless_it_waits(init);
                false
            }
            ContainerState::Exited(exit) if exit.exit_code == 0 => true,
            ContainerState::Exited(exit) => {
                if starts_again(self.desired, ContainerKind::Init, init, exit.exit_code) {
                    self.start_unless_it_waits(init);
                } else {
                    self.actions.ended = true;
                }
                false
            }
        }
    }

    /// They start as soon as there is a sandbox, once.
    fn ephemeral_containers(&mut self) {
        for ephemeral in self.desired.ephemeral_containers() {
            match self.observed.latest_run(&name_of(ephemeral)) {
                LatestRun::Never | LatestRun::Created(_) => self.start_unless_it_waits(ephemeral),
                LatestRun::Running(_) | LatestRun::Exited { .. } => {}
            }
        }
    }

    /// Where none of them is kept and none starts, the pod ends as a whole, also if a probe brings that about.
    fn app_containers(&mut self) {
        let mut ended = true;
        for app in self.desired.app_containers() {
            let run = self.observed.latest_run(&name_of(app));
            if let LatestRun::Running(running) = run {
                let cause = self.why_it_must_stop(app, running);
                ended &= cause.is_some_and(|cause| self.ends_for_good(app, cause));
                self.actions.stop.extend(cause.map(|cause| stop_container(running, cause)));
            } else if self.may_run(app, run) {
                ended = false;
                self.start_unless_it_waits(app);
            }
        }
        self.actions.ended = ended;
    }

    fn ends_for_good(&self, app: &Container, cause: StopCause) -> bool {
        match cause {
            StopCause::StartupFailed | StopCause::LivenessFailed => {
                !restarts_when_condemned(self.desired, ContainerKind::App, app)
            }
            // Of a hook that failed the end is waited for, as the kubelet waits for it in the start.
            StopCause::PostStartFailed
            | StopCause::DefinitionChanged
            | StopCause::Resized
            | StopCause::PodRestarts
            | StopCause::PodEnds => false,
        }
    }

    /// A running container ends when it is not what is wanted any more, or when a probe or hook condemned it.
    fn why_it_must_stop(&self, container: &Container, run: &ContainerStatus) -> Option<StopCause> {
        if run.image_ref == image_of(container) {
            self.observed.findings.get(&run.id).and_then(|findings| findings.condemned)
        } else {
            Some(StopCause::DefinitionChanged)
        }
    }

    /// The kubelet's `ShouldContainerBeRestarted`, for app containers.
    fn may_run(&self, container: &Container, run: LatestRun<'_>) -> bool {
        match run {
            LatestRun::Never | LatestRun::Created(_) => true,
            LatestRun::Running(run) => self.observed.ready_sandbox().is_none_or(|ready| ready.id != run.sandbox_id),
            LatestRun::Exited { id, exit_code, .. } => {
                let replaced = self.observed.replaced.contains(id) && !image_of(container).is_empty();
                // A condemned one counts as failed, also if it ended well when it was told to.
                let exit_code = if self.observed.condemned.contains(id) { exit_code.max(1) } else { exit_code };
                replaced || starts_again(self.desired, ContainerKind::App, container, exit_code)
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
            // Its restart is only now, and a long run is counted from here.
            let crash_loop = self.observed.back_offs.get(&name).cloned();
            start.back_off = crash_loop.map(|crash_loop| RestartBackOff { restarted_at: self.now.wall, ..crash_loop });
        } else if let LatestRun::Exited { id, finished_at, .. } = self.observed.latest_run(&name)
            && !self.observed.replaced.contains(id)
        {
            let boot = self.observed.exits.get(id).copied().unwrap_or(BootTime::since_boot(Duration::ZERO));
            let exit = Now { wall: finished_at.unwrap_or(self.now.wall), boot };
            let present = self.observed.back_offs.get(&name);
            match restart_decision(present, image_of(container), (id, exit), self.now) {
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
                if let ContainerState::Exited(_) = run.state {
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
