//! What a pod's end makes of containers that never ran (kubelet, status manager, `TerminatePod`).

use spec::k8s_openapi::api::core::v1 as core;

use super::container::exit_code;
use crate::desired::{ContainerKind, DesiredPod, kind_of_init};
use crate::observation::UNKNOWN_EXIT_CODE;

/// Of an ended Pod, containers whose turn had come count as failed; those behind an init container that was not done go
/// on waiting.
pub fn end_what_never_ran(
    desired: &DesiredPod,
    init: &mut [core::ContainerStatus],
    apps: &mut [core::ContainerStatus],
) {
    if is_initialized(desired, init, apps) {
        apps.iter_mut().for_each(end);
    }
    let reached = init.iter().rposition(was_reached).unwrap_or_default() + 1;
    init.iter_mut().take(reached).for_each(end);
}

fn end(status: &mut core::ContainerStatus) {
    status.ready &= exit_code(status.state.as_ref()) == Some(0);
    if status.state.as_ref().is_none_or(|state| state.terminated.is_none()) {
        status.state = Some(never_located());
    }
}

fn is_initialized(desired: &DesiredPod, init: &[core::ContainerStatus], apps: &[core::ContainerStatus]) -> bool {
    let Some(last) = desired.init_containers().last().zip(init.last()) else { return true };
    let last_is_done = match kind_of_init(last.0) {
        ContainerKind::Sidecar => last.1.started == Some(true),
        ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral => {
            exit_code(last.1.state.as_ref()) == Some(0)
        }
    };
    last_is_done || apps.iter().any(was_reached)
}

/// It is or was more than a container that waits for its first run.
fn was_reached(status: &core::ContainerStatus) -> bool {
    let waits = status.state.as_ref().is_none_or(|state| state.running.is_none() && state.terminated.is_none());
    !waits || status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
}

/// A container of an ended Pod that never ran.
fn never_located() -> core::ContainerState {
    core::ContainerState {
        terminated: Some(core::ContainerStateTerminated {
            exit_code: UNKNOWN_EXIT_CODE,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..core::ContainerStateTerminated::default()
        }),
        ..core::ContainerState::default()
    }
}
