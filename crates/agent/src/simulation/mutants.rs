//! Bugs that are planted on purpose, to show that the simulation finds them.

use std::cell::Cell;

use runtime::{ContainerExit, ContainerState, ExitReason};
use spec::ContainerName;

use crate::actions::{PodActions, PodLifecycle, StopCause, StopContainer};
use crate::clock::Now;
use crate::desired::{ContainerKind, DesiredPod};
use crate::observation::PodObservation;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// What follows a sidecar does not wait until it has started.
    SidecarGateSkipped,
    /// App containers start while an init container runs.
    InitNotAwaited,
    /// A new daemon does not know of crash loops.
    BackOffForgotten,
    /// Each wait of a crash loop is as long as the first.
    BackOffNotDoubled,
    /// What has ended for good starts again.
    FinishedStartsAgain,
    /// A new daemon believes the status only: what was started after it was written starts twice.
    StartedTwice,
    /// Sidecars are ended together with the app.
    SidecarsEndAtOnce,
    /// Nobody wakes a Pod whose wait is over.
    NeverLooksAgain,
    /// A changed image is not noticed.
    ImageIgnored,
    /// The restart policy of a container itself is not read.
    OwnPolicyIgnored,
}

pub const MUTANTS: [Mutant; 10] = [
    Mutant::SidecarGateSkipped,
    Mutant::InitNotAwaited,
    Mutant::BackOffForgotten,
    Mutant::BackOffNotDoubled,
    Mutant::FinishedStartsAgain,
    Mutant::StartedTwice,
    Mutant::SidecarsEndAtOnce,
    Mutant::NeverLooksAgain,
    Mutant::ImageIgnored,
    Mutant::OwnPolicyIgnored,
];

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    static DAEMONS: Cell<u32> = const { Cell::new(0) };
}

/// From now on this thread has that bug, or none.
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
    DAEMONS.set(0);
}

/// Another daemon begins on this thread.
pub fn note_daemon() {
    DAEMONS.set(DAEMONS.get() + 1);
}

/// In place of [`crate::actions::compute_pod_actions`] in tests.
pub fn compute_pod_actions(
    desired: &DesiredPod,
    lifecycle: PodLifecycle,
    observed: &PodObservation,
    now: Now,
) -> PodActions {
    let original = crate::actions::compute_pod_actions;
    let Some(mutant) = PLANTED.get() else { return original(desired, lifecycle, observed, now) };
    let (mut desired, mut observed) = (desired.clone(), observed.clone());
    distort(mutant, &mut desired, &mut observed, now);
    let mut actions = original(&desired, lifecycle, &observed, now);
    if mutant == Mutant::NeverLooksAgain {
        actions.look_again = None;
        // Who tells of a wait again would look, too.
        actions.backing_off.clear();
    }
    if mutant == Mutant::ImageIgnored {
        actions.stop.retain(|stop| stop.cause != StopCause::DefinitionChanged);
    }
    if mutant == Mutant::FinishedStartsAgain && actions.ended {
        desired.spec.restart_policy = Some("Always".to_owned());
        actions = original(&desired, lifecycle, &observed, now);
    }
    actions
}

fn distort(mutant: Mutant, desired: &mut DesiredPod, observed: &mut PodObservation, now: Now) {
    let kind = |name: &ContainerName| desired.kind_of(name);
    match mutant {
        Mutant::SidecarGateSkipped => {
            let sidecars = observed.containers.iter().filter(|run| kind(&run.name) == Some(ContainerKind::Sidecar));
            for id in sidecars.map(|run| run.id.clone()).collect::<Vec<_>>() {
                observed.findings.entry(id).and_modify(|findings| findings.started = true);
            }
        }
        Mutant::InitNotAwaited => {
            for run in observed.containers.iter_mut().filter(|run| kind(&run.name) == Some(ContainerKind::Init)) {
                if let ContainerState::Running { started_at } = run.state {
                    let (started_at, finished_at) = (Some(started_at), now.wall);
                    let (exit_code, reason) = (0, ExitReason::Exited);
                    run.state = ContainerState::Exited(ContainerExit { started_at, finished_at, exit_code, reason });
                }
            }
        }
        Mutant::BackOffForgotten if DAEMONS.get() > 1 => observed.back_offs.clear(),
        Mutant::BackOffNotDoubled => {
            for back_off in observed.back_offs.values_mut() {
                back_off.delay_ms = back_off.delay_ms.min(10_000);
            }
        }
        Mutant::StartedTwice if DAEMONS.get() > 1 => {
            let known: Vec<_> = observed.remembered.values().map(|run| run.id.clone()).collect();
            observed.containers.retain(|run| known.contains(&run.id));
        }
        Mutant::OwnPolicyIgnored => {
            for container in &mut desired.spec.containers {
                container.restart_policy = None;
                container.restart_policy_rules = None;
            }
        }
        Mutant::BackOffForgotten
        | Mutant::StartedTwice
        | Mutant::FinishedStartsAgain
        | Mutant::SidecarsEndAtOnce
        | Mutant::NeverLooksAgain
        | Mutant::ImageIgnored => {}
    }
}

/// In place of [`crate::actions::containers_to_end`] in tests.
pub fn containers_to_end(desired: Option<&DesiredPod>, observed: &PodObservation) -> Vec<StopContainer> {
    let mut stop = crate::actions::containers_to_end(desired, observed);
    if PLANTED.get() == Some(Mutant::SidecarsEndAtOnce) {
        for stop in &mut stop {
            stop.after.clear();
        }
    }
    stop
}
