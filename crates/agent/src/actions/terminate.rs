//! In which order the containers of a pod are ended.

use runtime::ContainerStatus;
use spec::ContainerId;

use super::{PodActions, StopCause, StopContainer, stop_container};
use crate::desired::{ContainerKind, DesiredPod};
use crate::observation::{PodObservation, is_running};

pub(super) fn terminate(desired: &DesiredPod, observed: &PodObservation) -> PodActions {
    let stop = containers_to_end(Some(desired), observed);
    PodActions { ended: stop.is_empty(), stop, ..PodActions::default() }
}

/// What still runs, each with what has to end before it: a sidecar ends after the app containers and after the sidecars
/// that were started later (KEP-753; kubelet, `terminationOrdering`). All else ends at once, also an init container that
/// is under way. Nothing is known of a pod whose object is gone: all of it ends together.
pub fn containers_to_end(desired: Option<&DesiredPod>, observed: &PodObservation) -> Vec<StopContainer> {
    let running: Vec<_> = observed.containers.iter().filter(|container| is_running(container)).collect();
    let turn = |run: &ContainerStatus| desired.map_or(Some(0), |desired| turn_of(desired, run));
    let stop = running.iter().map(|run| {
        let own = turn(run);
        let earlier =
            running.iter().filter(|other| matches!((turn(other), own), (Some(other), Some(own)) if other < own));
        let after: Vec<ContainerId> = earlier.map(|other| other.id.clone()).collect();
        StopContainer { after, ..stop_container(run, StopCause::PodEnds) }
    });
    stop.collect()
}

/// App containers first, then sidecars from the last to the first; `None` for what no one waits for.
fn turn_of(desired: &DesiredPod, run: &ContainerStatus) -> Option<usize> {
    match desired.kind_of(&run.name)? {
        ContainerKind::App => Some(0),
        ContainerKind::Init | ContainerKind::Ephemeral => None,
        ContainerKind::Sidecar => {
            let inits = desired.init_containers();
            let place = inits.iter().position(|init| init.name == run.name.as_str())?;
            Some(inits.len() - place)
        }
    }
}
