//! What exists of one pod: its sandboxes and containers, and what the stored status remembers of those that are gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use runtime::{ContainerState, ContainerStatus, PodSandboxState, PodSandboxStatus};
use spec::k8s_openapi::api::core::v1 as core;
use spec::ordered::map_of;
use spec::{ContainerId, ContainerName, PodUid, SandboxId, Timestamp};

use crate::actions::StopCause;
use crate::backoff::RestartBackOff;
use crate::clock::BootTime;
use crate::desired::DesiredPod;

/// Everything that [`crate::actions::compute_pod_actions`] may know beside the wish.
#[derive(Debug, Clone, Default)]
pub struct PodObservation {
    /// Newest first.
    pub sandboxes: Vec<PodSandboxStatus>,
    /// Newest first.
    pub containers: Vec<ContainerStatus>,
    /// When each dead container ended, on the clock that does not jump.
    pub exits: BTreeMap<ContainerId, BootTime>,
    /// Where each container stands in its crash loop.
    pub back_offs: BTreeMap<ContainerName, RestartBackOff>,
    /// Containers that could not be started lately, and when to try again.
    pub not_before: BTreeMap<ContainerName, BootTime>,
    /// Containers that were stopped in order to start them anew, whatever the restart policy says.
    pub replaced: BTreeSet<ContainerId>,
    /// Containers that were stopped because a probe or hook condemned them; they count as failed.
    pub condemned: BTreeSet<ContainerId>,
    /// What probes and hooks found out about the runs that have any.
    pub findings: BTreeMap<ContainerId, RunFindings>,
    /// Runs whose postStart hook has not returned yet. As with the kubelet they count as running only then, and nothing
    /// else starts before.
    pub in_post_start: BTreeSet<ContainerId>,
    /// What the stored status knows of containers' latest runs.
    pub remembered: BTreeMap<ContainerName, RememberedRun>,
    /// The number of the next run of containers of whose runs nothing is known any more.
    pub counted: BTreeMap<ContainerName, u32>,
}

/// What the probes and hooks of a running container found out. Without any, to run is to have started and to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFindings {
    /// Its postStart hook has returned, and its startup probe has passed.
    pub started: bool,
    /// Its readiness probe passes.
    pub ready: bool,
    /// Why it must be ended, if it must.
    pub condemned: Option<StopCause>,
}

/// The latest run of a container as the stored status tells it; its record may be gone with its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedRun {
    /// Which run it was.
    pub id: ContainerId,
    /// `restartCount`.
    pub attempt: u32,
    /// Of the ended run; `None` when it was running as the status was written.
    pub exit: Option<RememberedExit>,
}

/// How a remembered run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedExit {
    /// As Kubernetes reports it.
    pub exit_code: i32,
    /// Wall time of its end.
    pub finished_at: Option<Timestamp>,
}

/// The latest run of a container, whoever remembers it.
#[derive(Debug, Clone, Copy)]
pub enum LatestRun<'a> {
    /// It never ran.
    Never,
    /// It was created and did not start yet.
    Created(&'a ContainerStatus),
    /// It runs.
    Running(&'a ContainerStatus),
    /// It ended.
    Exited {
        /// Which run it was.
        id: &'a ContainerId,
        /// As Kubernetes reports it.
        exit_code: i32,
        /// Wall time of its end.
        finished_at: Option<Timestamp>,
    },
}

/// Exit code of a run whose end nobody saw (`ContainerStatusUnknown`).
pub const UNKNOWN_EXIT_CODE: i32 = 137;

impl PodObservation {
    /// Takes what is the pod's out of what the runtime lists.
    pub fn new(uid: &PodUid, sandboxes: Vec<PodSandboxStatus>, containers: Vec<ContainerStatus>) -> Self {
        let mut sandboxes: Vec<_> = sandboxes.into_iter().filter(|sandbox| &sandbox.uid == uid).collect();
        spec::ordered::sort_by_key(&mut sandboxes, |sandbox| Reverse((sandbox.attempt, sandbox.created_at)));
        let mut containers: Vec<_> = containers.into_iter().filter(|container| &container.pod_uid == uid).collect();
        // The name last, so that equal observations lead to equal actions.
        spec::ordered::sort_by(&mut containers, |a, b| {
            (b.attempt, b.created_at, &a.name).cmp(&(a.attempt, a.created_at, &b.name))
        });
        Self { sandboxes, containers, ..Self::default() }
    }

    /// The newest sandbox, if it lives.
    pub fn ready_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.first().filter(|sandbox| sandbox.state == PodSandboxState::Ready)
    }

    /// Whether nobody knows what the pod's containers do, since its infra process does not answer.
    pub fn is_silent(&self) -> bool {
        self.sandboxes.iter().any(|sandbox| sandbox.state == PodSandboxState::Silent)
    }

    /// Runs of one container that the runtime knows, newest first.
    pub fn runs<'a>(&'a self, name: &'a ContainerName) -> impl Iterator<Item = &'a ContainerStatus> {
        self.containers.iter().filter(move |container| &container.name == name)
    }

    /// Runs of one container in one sandbox, newest first.
    pub fn runs_in<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        name: &'a ContainerName,
    ) -> impl Iterator<Item = &'a ContainerStatus> {
        self.runs(name).filter(move |container| &container.sandbox_id == sandbox)
    }

    /// Whether an app container was made in the present sandbox: then all init containers are done, and all sidecars were
    /// started, there.
    pub fn is_initialized(&self, desired: &DesiredPod) -> bool {
        let Some(sandbox) = self.ready_sandbox() else { return false };
        let made = |name: &ContainerName| self.runs_in(&sandbox.id, name).next().is_some();
        desired.app_containers().iter().any(|app| made(&ContainerName::new(&app.name)))
    }

    /// Whether a run is as far as what waits for it demands: it runs, and its hook and startup probe are content.
    pub fn has_started(&self, run: &ContainerStatus) -> bool {
        is_running(run) && self.findings.get(&run.id).is_none_or(|findings| findings.started)
    }

    /// Whether a run may be sent work.
    pub fn is_ready(&self, run: &ContainerStatus) -> bool {
        self.has_started(run) && self.findings.get(&run.id).is_none_or(|findings| findings.ready)
    }

    /// Whether a run is told of: it was started, and its postStart hook has returned.
    pub fn is_shown(&self, run: &ContainerStatus) -> bool {
        run.state != ContainerState::Created && !self.in_post_start.contains(&run.id)
    }

    /// The latest run of a container: the runtime's word, else that of the stored status.
    pub fn latest_run(&self, name: &ContainerName) -> LatestRun<'_> {
        let remembered = self.remembered.get(name);
        match self.containers.iter().find(|run| &run.name == name) {
            Some(run) => latest_of(run),
            None => match remembered {
                None => LatestRun::Never,
                Some(RememberedRun { id, exit: Some(exit), .. }) => {
                    LatestRun::Exited { id, exit_code: exit.exit_code, finished_at: exit.finished_at }
                }
                Some(RememberedRun { id, exit: None, .. }) => {
                    LatestRun::Exited { id, exit_code: UNKNOWN_EXIT_CODE, finished_at: None }
                }
            },
        }
    }

    /// The number that the next run of a container gets: one more than the highest that was ever seen to run.
    pub fn next_attempt(&self, name: &ContainerName) -> u32 {
        // One that was lost in a crash may have run, by what the status says of it.
        let has_run = || self.runs(name).filter(|run| run.state != ContainerState::Created);
        let known = has_run().map(|run| run.attempt).max();
        // Of one that the runtime has seen to run, nobody else has to say anything.
        let remembered = self.remembered.get(name).filter(|run| has_run().all(|known| known.id != run.id));
        let remembered = remembered.map(|run| run.attempt);
        let next = known.max(remembered).map_or(0, |attempt| attempt.saturating_add(1));
        next.max(self.counted.get(name).copied().unwrap_or_default())
    }
}

/// Whether a container's first process runs.
pub fn is_running(container: &ContainerStatus) -> bool {
    match container.state {
        ContainerState::Running { .. } => true,
        ContainerState::Created | ContainerState::Exited(_) => false,
    }
}

/// What the stored status of a pod remembers of its containers' latest runs.
pub fn remembered_runs(desired: &DesiredPod) -> BTreeMap<ContainerName, RememberedRun> {
    let run = |status: &core::ContainerStatus| Some((ContainerName::new(&status.name), remembered_run(status)?));
    map_of(desired.stored_statuses().filter_map(run))
}

/// The identifier in a `containerID` such as `monopod://0a…`.
pub fn parse_container_id(text: &str) -> Option<ContainerId> {
    text.split_once("://").map(|(_, id)| id).filter(|id| !id.is_empty()).map(ContainerId::new)
}

fn remembered_run(status: &core::ContainerStatus) -> Option<RememberedRun> {
    let id = parse_container_id(status.container_id.as_deref()?)?;
    let ended = |state: &Option<core::ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let exit = ended(&status.state).or_else(|| if running { None } else { ended(&status.last_state) });
    Some(RememberedRun {
        id,
        attempt: u32::try_from(status.restart_count).unwrap_or_default(),
        exit: exit
            .map(|exit| RememberedExit { exit_code: exit.exit_code, finished_at: exit.finished_at.map(|time| time.0) }),
    })
}

fn latest_of(run: &ContainerStatus) -> LatestRun<'_> {
    match &run.state {
        ContainerState::Created => LatestRun::Created(run),
        ContainerState::Running { .. } => LatestRun::Running(run),
        ContainerState::Exited(exit) => {
            LatestRun::Exited { id: &run.id, exit_code: exit.exit_code, finished_at: Some(exit.finished_at) }
        }
    }
}
