//! The probes of one Pod: which of them run now, and what they have found.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::{ContainerState, ContainerStatus, Runtime};
use spec::k8s_openapi::api::core::v1::{Container, Probe};
use spec::{ContainerId, ContainerName, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::ProbeKind;
use super::task::{ProbeTask, settled};
use super::verdict::{Thresholds, Verdict, VerdictCell};
use crate::clock::wall_between;
use crate::desired::DesiredPod;
use crate::events::{EventRecorder, EventSubject};
use crate::handlers::Action;

/// What is known of a container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    /// `started` of its status.
    pub(crate) started: bool,
    /// `ready` of its status.
    pub(crate) ready: bool,
    /// The probe that wants it to be restarted.
    pub(crate) failed: Option<ProbeKind>,
}

/// What probes need of the daemon.
pub(crate) struct ProbeContext<'a> {
    pub(crate) runtime: &'a Arc<dyn Runtime>,
    pub(crate) events: &'a EventRecorder,
    pub(crate) wake: &'a Arc<Notify>,
    /// Wall time now.
    pub(crate) now: Timestamp,
    /// When the daemon began: what ran before is not probed all at once.
    pub(crate) daemon_started: Timestamp,
    /// The Pod's address, or the node's with `hostNetwork`.
    pub(crate) address: Option<IpAddr>,
}

/// The probes of the containers that run.
#[derive(Default)]
pub(crate) struct PodProbes {
    runs: BTreeMap<ContainerId, RunProbes>,
}

struct RunProbes {
    startup: VerdictCell,
    readiness: VerdictCell,
    liveness: VerdictCell,
    tasks: BTreeMap<ProbeKind, AbortOnDropHandle<()>>,
}

impl PodProbes {
    /// Forgets runs that ended, and gets to know new ones. What the stored status says of a run that an earlier daemon
    /// started stands until a probe says otherwise.
    pub(crate) fn see(&mut self, desired: &DesiredPod, running: &[ContainerStatus]) {
        self.runs.retain(|id, _| running.iter().any(|run| run.id == *id));
        for run in running {
            if !self.runs.contains_key(&run.id) {
                self.runs.insert(run.id.clone(), RunProbes::of(desired, run));
            }
        }
    }

    /// What is known of a run.
    pub(crate) fn health(&self, container: &Container, id: &ContainerId) -> Health {
        let Some(run) = self.runs.get(id) else { return Health { started: false, ready: false, failed: None } };
        let passed = |probe: &Option<Probe>, cell: &VerdictCell| probe.is_none() || cell.get() == Verdict::Success;
        let started = passed(&container.startup_probe, &run.startup);
        let failed = |cell: &VerdictCell| cell.get() == Verdict::Failure;
        let startup = failed(&run.startup).then_some(ProbeKind::Startup);
        Health {
            started,
            ready: started && passed(&container.readiness_probe, &run.readiness),
            failed: startup.or_else(|| failed(&run.liveness).then_some(ProbeKind::Liveness)),
        }
    }

    /// Begins the probes of a run whose time has come, and ends the others.
    pub(crate) fn probe(
        &mut self,
        desired: &DesiredPod,
        container: &Container,
        run: &ContainerStatus,
        ending: bool,
        context: &ProbeContext<'_>,
    ) {
        let health = self.health(container, &run.id);
        let Some(probes) = self.runs.get_mut(&run.id) else { return };
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            let wanted = match kind {
                // The kubelet's order of things: readiness goes on while a Pod ends, the others do not.
                ProbeKind::Startup => !health.started && !ending,
                ProbeKind::Readiness => health.started,
                ProbeKind::Liveness => health.started && !ending,
            };
            match kind.of(container) {
                Some(probe) if wanted && health.failed.is_none() => {
                    if !probes.tasks.contains_key(&kind) {
                        let task = probes.task(kind, desired, container, probe, run, context);
                        probes.tasks.insert(kind, AbortOnDropHandle::new(tokio::spawn(task.run())));
                    }
                }
                // After a failure readiness goes on until the container is gone.
                Some(_) if wanted && kind == ProbeKind::Readiness => {}
                Some(_) | None => drop(probes.tasks.remove(&kind)),
            }
        }
    }
}

impl RunProbes {
    fn of(desired: &DesiredPod, run: &ContainerStatus) -> Self {
        let before = stored(desired, &run.name, &run.id);
        let cell = |known: bool| VerdictCell::new(if known { Verdict::Success } else { Verdict::Open });
        Self {
            startup: cell(before.is_some_and(|(started, _)| started)),
            readiness: cell(before.is_some_and(|(_, ready)| ready)),
            liveness: cell(false),
            tasks: BTreeMap::new(),
        }
    }

    fn task(
        &self,
        kind: ProbeKind,
        desired: &DesiredPod,
        container: &Container,
        probe: &Probe,
        run: &ContainerStatus,
        context: &ProbeContext<'_>,
    ) -> ProbeTask {
        let seconds = |field: Option<i32>, default: u32| field.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
        let duration = |field, default| Duration::from_secs(seconds(field, default).into());
        let period = duration(probe.period_seconds, 10).max(Duration::from_secs(1));
        let delay = duration(probe.initial_delay_seconds, 0);
        let (now, age) = (Instant::now(), age_of(run, context.now));
        let taken_over = started_at(run).is_some_and(|started| started < context.daemon_started);
        let jitter = if taken_over { period.mul_f64(fraction(&run.id)) } else { Duration::ZERO };
        ProbeTask {
            kind,
            id: run.id.clone(),
            action: Action::of_probe(probe, container, context.address),
            first_at: now + delay.saturating_sub(age) + jitter,
            settled_at: settled(now).checked_sub(age).unwrap_or(now).max(now),
            period,
            timeout: duration(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            thresholds: Thresholds::new(seconds(probe.success_threshold, 1), seconds(probe.failure_threshold, 3)),
            verdict: match kind {
                ProbeKind::Startup => &self.startup,
                ProbeKind::Readiness => &self.readiness,
                ProbeKind::Liveness => &self.liveness,
            }
            .clone(),
            runtime: Arc::clone(context.runtime),
            events: context.events.clone(),
            subject: EventSubject::container(desired, &run.name),
            wake: Arc::clone(context.wake),
        }
    }
}

/// Between 0 and 1. Identifiers are random, so probes that begin together spread over their period.
fn fraction(id: &ContainerId) -> f64 {
    let digits = id.as_str().get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    f64::from(digits.unwrap_or_default()) / f64::from(u32::MAX)
}

fn started_at(run: &ContainerStatus) -> Option<Timestamp> {
    match &run.state {
        ContainerState::Running { started_at } => Some(*started_at),
        ContainerState::Created | ContainerState::Exited(_) => None,
    }
}

fn age_of(run: &ContainerStatus, now: Timestamp) -> Duration {
    started_at(run).map_or(Duration::ZERO, |started| wall_between(started, now))
}

/// `started` and `ready` of the same run, as the status was written last.
fn stored(desired: &DesiredPod, name: &ContainerName, id: &ContainerId) -> Option<(bool, bool)> {
    let lists = [&desired.status.init_container_statuses, &desired.status.container_statuses];
    let status = lists.into_iter().flatten().flatten().find(|status| status.name == name.as_str())?;
    let same = status.container_id.as_deref().and_then(crate::observation::parse_container_id)? == *id;
    same.then(|| (status.started.unwrap_or(false), status.ready))
}
