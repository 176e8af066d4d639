//! A Pod that restarts in place: one of its containers has ended as a rule with the action `RestartAllContainers` says,
//! so all of them end, init containers and sidecars too, and the Pod begins anew in its sandbox, with its address and
//! its volumes (KEP-5532).
//!
//! As with the kubelet, the condition `AllContainersRestarting` in the stored status is what remembers it: it is durable
//! before the first container is ended, and taken back once all of them are gone.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::{ContainerState, ContainerStatus};
use spec::ContainerName;
use spec::k8s_openapi::api::core::v1::Container;
use spec::ordered::map_of;

use crate::actions::{DiscardRun, PodActions, StopCause, StopContainer};
use crate::clock::{BootTime, Now};
use crate::desired::{ContainerKind, DesiredPod};
use crate::observation::{PodObservation, is_running};
use crate::restart_rules::rule_for;
use crate::worker::{Next, PassError, PodWorker};

/// The condition.
pub const RESTARTING: &str = "AllContainersRestarting";
/// The action of a rule.
const RESTART_ALL: &str = "RestartAllContainers";
/// No back-off holds such a restart up, here as with the kubelet, but the kubelet takes up to a second to notice that a
/// container has ended (PLEG). Without it, a Pod that ends at once would begin anew hundreds of times in a second.
const NOTICED: Duration = Duration::from_secs(1);

/// Whether a rule of the Pod could ever restart it (podutil, `AllContainersCouldRestart`).
pub fn may_restart(desired: &DesiredPod) -> bool {
    let rules = members(desired).flat_map(|container| container.restart_policy_rules.iter().flatten());
    rules.into_iter().any(|rule| rule.action == RESTART_ALL)
}

/// Whether it restarts now (kubelet, `ShouldAllContainersRestart`).
pub fn is_restarting(desired: &DesiredPod, observed: &PodObservation) -> bool {
    may_restart(desired) && (has_begun(desired) || members(desired).any(|one| source(one, observed).is_some()))
}

/// Whether nothing is left of its containers (kubelet, `AllContainersRestartCleanedUp`).
pub fn is_cleaned_up(desired: &DesiredPod, observed: &PodObservation) -> bool {
    runs(desired, observed).next().is_none()
}

fn has_begun(desired: &DesiredPod) -> bool {
    let stored = desired.status.conditions.iter().flatten();
    stored.into_iter().any(|condition| condition.type_ == RESTARTING && condition.status == "True")
}

/// App containers, then init containers: the order in which they are ended.
fn members(desired: &DesiredPod) -> impl Iterator<Item = &Container> {
    desired.app_containers().iter().chain(desired.init_containers())
}

/// The latest run of the container, if its end is what restarts the Pod.
fn source<'a>(container: &Container, observed: &'a PodObservation) -> Option<&'a ContainerStatus> {
    let run = observed.containers.iter().find(|run| run.name.as_str() == container.name)?;
    let ContainerState::Exited(exit) = &run.state else { return None };
    let rule = rule_for(container, exit.exit_code)?;
    (rule.action == RESTART_ALL && !observed.replaced.contains(&run.id)).then_some(run)
}

fn runs<'a>(desired: &'a DesiredPod, observed: &'a PodObservation) -> impl Iterator<Item = &'a ContainerStatus> {
    members(desired).flat_map(|container| observed.containers.iter().filter(|run| run.name.as_str() == container.name))
}

/// What comes next on the way.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The end that began it has not been noticed yet.
    Wait(BootTime),
    /// One after the other ends.
    Stop(StopContainer),
    /// All have ended; what ended by itself goes last.
    Discard(Vec<DiscardRun>),
    /// Nothing is left: the Pod begins anew.
    Begin,
}

fn next_step(desired: &DesiredPod, observed: &PodObservation, now: Now) -> Step {
    let sources: Vec<_> = members(desired).filter_map(|container| source(container, observed)).collect();
    let ended = sources.iter().filter_map(|run| observed.exits.get(&run.id)).max();
    if let Some(noticed) = ended.map(|ended| ended.after(NOTICED)).filter(|noticed| now.boot < *noticed) {
        return Step::Wait(noticed);
    }
    let running = runs(desired, observed).find(|run| is_running(run));
    if let Some(run) = running {
        let (id, name) = (run.id.clone(), run.name.clone());
        return Step::Stop(StopContainer { id, name, cause: StopCause::PodRestarts, after: Vec::new() });
    }
    let is_source = |run: &ContainerStatus| sources.iter().any(|source| source.id == run.id);
    let mut left: Vec<_> = runs(desired, observed).collect();
    spec::ordered::sort_by_key(&mut left, |run| is_source(run));
    let discard =
        |run: &ContainerStatus| DiscardRun { id: run.id.clone(), name: run.name.clone(), attempt: run.attempt };
    if left.is_empty() { Step::Begin } else { Step::Discard(left.into_iter().map(discard).collect()) }
}

impl PodWorker {
    /// Brings a restart in place one step further; what comes instead of the rest of the pass, if it is under way.
    pub(crate) async fn restart_in_place(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        now: Now,
    ) -> Result<Option<Next>, PassError> {
        if !is_restarting(desired, observed) {
            return Ok(None);
        }
        // Before anything is ended, the status says why; and before anything begins, that it is over.
        self.publish(desired, observed, &BTreeMap::new(), false).await?;
        match next_step(desired, observed, now) {
            Step::Wait(until) => Ok(Some(Next::Wait(Some(until)))),
            Step::Stop(stop) => {
                let actions = PodActions { stop: vec![stop], ..PodActions::default() };
                let stopped = self.stop_replaced(desired, observed, &actions, now).await?;
                Ok(Some(if stopped { Next::Again } else { Next::Wait(self.stop_again_at(now.boot)) }))
            }
            Step::Discard(discard) => {
                self.discard(&PodActions { discard, ..PodActions::default() }).await?;
                Ok(Some(Next::Again))
            }
            Step::Begin => Ok(Some(Next::Again)),
        }
    }
}

/// What a status remembers of a container whose record went with such a restart.
#[must_use]
pub fn counted(desired: &DesiredPod) -> BTreeMap<ContainerName, u32> {
    let gone = desired.stored_statuses().filter(|status| status.container_id.is_none());
    map_of(gone.filter_map(|status| {
        let count = u32::try_from(status.restart_count).ok().filter(|&count| count > 0)?;
        Some((ContainerName::new(&status.name), count))
    }))
}

/// Whether a container of that kind takes part.
pub fn takes_part(kind: ContainerKind) -> bool {
    match kind {
        ContainerKind::Init | ContainerKind::Sidecar | ContainerKind::App => true,
        ContainerKind::Ephemeral => false,
    }
}
