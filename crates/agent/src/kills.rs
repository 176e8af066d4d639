//! Containers that are ended while their pod lives on: a new image, a probe or a hook that failed.

use std::time::Duration;

use runtime::ContainerState;
use spec::k8s_openapi::api::core::v1::{Container, Probe};
use spec::{ContainerId, ContainerName};

use crate::actions::{PodActions, StopCause, StopContainer};
use crate::backoff::{RestartBackOff, RestartDecision, restart_decision};
use crate::clock::{BootTime, Now};
use crate::desired::{ContainerKind, DesiredPod, image_of};
use crate::events::EventSubject;
use crate::observation::PodObservation;
use crate::restart_rules::restarts_when_condemned;
use crate::terminate::grace_of;
use crate::worker::{PassError, PodWorker};

/// A container on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    stop: StopContainer,
    /// Of its hook and its program together.
    pub(crate) deadline: BootTime,
}

impl Kill {
    /// Which run.
    pub(crate) fn id(&self) -> &ContainerId {
        &self.stop.id
    }
}

/// What becomes of the container after a kill.
enum After {
    /// It starts anew at once, whatever its policy says, and this is where it then stands in its crash loop.
    AtOnce(Option<RestartBackOff>),
    /// Its policy and its crash loop decide. It counts as failed.
    ByPolicy,
}

impl PodWorker {
    /// Ends the containers that are to be started anew, or that failed. That they were is remembered before: nothing
    /// else would tell what their end means. Returns whether there was a new one.
    pub(crate) async fn stop_replaced(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        actions: &PodActions,
        now: Now,
    ) -> Result<bool, PassError> {
        let new: Vec<_> = actions.stop.iter().filter(|stop| !self.kills.contains_key(&stop.id)).cloned().collect();
        for stop in &new {
            self.remember_kill(desired, observed, stop, now).await?;
            self.announce_stop(desired, stop);
            let grace = grace_of_kill(desired, stop);
            if grace > Duration::ZERO {
                self.begin_pre_stop(desired, observed, &stop.id, &stop.name);
            }
            let deadline = now.boot.after(grace);
            self.kills.insert(stop.id.clone(), Kill { stop: stop.clone(), deadline });
        }
        for kill in self.kills.clone().into_values() {
            self.stop_after_hook(&kill.stop, kill.deadline, now);
        }
        Ok(!new.is_empty())
    }

    async fn remember_kill(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        stop: &StopContainer,
        now: Now,
    ) -> Result<(), PassError> {
        let (id, name) = (stop.id.clone(), stop.name.clone());
        let after = after_kill(desired, observed, stop, now);
        let mut known = Self::known_runs(observed);
        known.extend(observed.remembered.values().map(|run| run.id.clone()));
        self.save_record(|record| {
            record.forget_all_but(&known);
            match after {
                After::ByPolicy => record.condemned.extend([id]),
                After::AtOnce(back_off) => {
                    record.replaced.extend([id]);
                    record.back_offs.extend(back_off.map(|back_off| (name, back_off)));
                }
            }
        })
        .await
    }

    /// Sends the signal, but not before the preStop hook has returned or the grace period is over.
    pub(crate) fn stop_after_hook(&mut self, stop: &StopContainer, deadline: BootTime, now: Now) {
        if deadline <= now.boot {
            self.hooks.break_off(crate::hooks::HookKind::PreStop, &stop.id);
        }
        if !self.hooks.holds_back_stop(&stop.id) {
            self.stop_container(stop, deadline, now);
        }
    }

    /// Tells once of each run that it is being ended, also of one whose hook or turn comes first.
    pub(crate) fn announce_stop(&mut self, desired: &DesiredPod, stop: &StopContainer) {
        if self.announced_stops.insert(stop.id.clone()) {
            let subject = EventSubject::container(desired, &stop.name);
            self.shared.events.normal(subject, "Killing", stop_message(desired, &stop.name, stop.cause));
        }
    }
}

/// The kubelet's words.
fn stop_message(desired: &DesiredPod, name: &ContainerName, cause: StopCause) -> String {
    let why = match cause {
        StopCause::PodEnds => return format!("Stopping container {name}"),
        StopCause::PostStartFailed => return "FailedPostStartHook".to_owned(),
        StopCause::Resized => return format!("Container {name} resize requires restart"),
        StopCause::PodRestarts => return "killing".to_owned(),
        StopCause::DefinitionChanged => "definition changed",
        StopCause::StartupFailed => "failed startup probe",
        StopCause::LivenessFailed => "failed liveness probe",
    };
    match desired.kind_of(name) {
        Some(ContainerKind::Sidecar | ContainerKind::Init) => format!("Init container {name} {why}"),
        Some(ContainerKind::App | ContainerKind::Ephemeral) | None => {
            let again = cause.replaces() || restarts(desired, name);
            format!("Container {name} {why}{}", if again { ", will be restarted" } else { "" })
        }
    }
}

/// Of a probe that failed, its own grace period comes before the pod's (KEP-2238).
fn grace_of_kill(desired: &DesiredPod, stop: &StopContainer) -> Duration {
    let probe_of: fn(&Container) -> Option<&Probe> = match stop.cause {
        StopCause::StartupFailed => |container| container.startup_probe.as_ref(),
        StopCause::LivenessFailed => |container| container.liveness_probe.as_ref(),
        StopCause::PodRestarts => return Duration::ZERO,
        StopCause::PostStartFailed | StopCause::DefinitionChanged | StopCause::Resized | StopCause::PodEnds => |_| None,
    };
    let own = desired.container(&stop.name).and_then(probe_of);
    let own = own.and_then(|probe| u64::try_from(probe.termination_grace_period_seconds?).ok());
    own.map_or_else(|| grace_of(desired), Duration::from_secs)
}

/// Whether a container that a probe condemned starts again.
fn restarts(desired: &DesiredPod, name: &ContainerName) -> bool {
    let Some(container) = desired.container(name) else { return false };
    desired.kind_of(name).is_some_and(|kind| restarts_when_condemned(desired, kind, container))
}

/// What the kubelet does: it kills and starts in one go, and looks for a back-off at the run *before* the one that it
/// kills. So a container that fails its probe now and then restarts at once, and waits only when the waits of its crash
/// loop have grown longer than its runs.
fn after_kill(desired: &DesiredPod, observed: &PodObservation, stop: &StopContainer, now: Now) -> After {
    match stop.cause {
        StopCause::DefinitionChanged | StopCause::Resized | StopCause::PodRestarts => return After::AtOnce(None),
        StopCause::PostStartFailed | StopCause::PodEnds => return After::ByPolicy,
        StopCause::StartupFailed | StopCause::LivenessFailed if !restarts(desired, &stop.name) => {
            return After::ByPolicy;
        }
        StopCause::StartupFailed | StopCause::LivenessFailed => {}
    }
    let Some((id, exit)) = last_exit(observed, &stop.name) else { return After::AtOnce(None) };
    let boot = observed.exits.get(id).copied().unwrap_or(now.boot);
    let image = desired.container(&stop.name).map(image_of).unwrap_or_default();
    match restart_decision(observed.back_offs.get(&stop.name), image, (id, Now { wall: exit, boot }), now) {
        RestartDecision::Now(back_off) => After::AtOnce(Some(back_off)),
        RestartDecision::Wait { .. } => After::ByPolicy,
    }
}

fn last_exit<'a>(observed: &'a PodObservation, name: &'a ContainerName) -> Option<(&'a ContainerId, spec::Timestamp)> {
    observed.runs(name).find_map(|run| match &run.state {
        ContainerState::Exited(exit) => Some((&run.id, exit.finished_at)),
        ContainerState::Created | ContainerState::Running { .. } => None,
    })
}
