//! The status of one container, from its runs, the stored status, and why it waits.

use runtime::{ContainerExit, ContainerState, ContainerStatus, ExitReason};
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use spec::{ContainerId, ContainerName};

use super::resources;
use super::{StatusInputs, Waiting};
use crate::desired::{ContainerKind, DesiredPod, image_of};
use crate::observation::{LatestRun, PodObservation, UNKNOWN_EXIT_CODE};
use crate::restart_all;
use crate::restart_rules::starts_again;
use crate::volumes::is_recursive;

pub(super) fn exit_code(state: Option<&core::ContainerState>) -> Option<i32> {
    state?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

pub(super) fn container_statuses(
    desired: &DesiredPod,
    of: impl Fn(ContainerKind) -> bool,
    observed: &PodObservation,
    inputs: &StatusInputs,
    restarting: bool,
) -> Vec<core::ContainerStatus> {
    let containers = desired.containers().filter(|(kind, _)| of(*kind));
    let status = |(kind, container)| {
        let restarting = restarting && restart_all::takes_part(kind);
        container_status(desired, kind, container, observed, inputs, restarting)
    };
    containers.map(status).collect()
}

fn container_status(
    desired: &DesiredPod,
    kind: ContainerKind,
    container: &core::Container,
    observed: &PodObservation,
    inputs: &StatusInputs,
    restarting: bool,
) -> core::ContainerStatus {
    let name = ContainerName::new(&container.name);
    let stored = stored_status(desired, &name);
    let removed = stored.filter(|stored| restarting && stored.container_id.is_some()).map(removed_to_restart);
    let was_removed = removed.is_some() && observed.runs(&name).next().is_none();
    let stored = if was_removed { removed.as_ref() } else { stored };
    let mut runs = observed.runs(&name).filter(|run| observed.is_shown(run)).peekable();
    let mut status = core::ContainerStatus {
        name: container.name.clone(),
        image: image_of(container).to_owned(),
        started: Some(false),
        ..core::ContainerStatus::default()
    };
    match runs.next() {
        Some(run) => {
            resources::fill(&mut status, container, run);
            fill_from_run(&mut status, run, inputs, stored);
            status.volume_mounts = volume_mounts(container);
            status.last_state = runs
                .find_map(|older| terminated_state(older, inputs, stored))
                .or_else(|| stored.and_then(|stored| last_state_before(stored, run)));
        }
        None => fill_from_stored(&mut status, stored),
    }
    if was_removed {
        status.state = stored.and_then(|stored| stored.state.clone());
    }
    if let Some(image_id) = inputs.image_ids.get(&name) {
        status.image_id.clone_from(image_id);
    } else if let Some(stored) = stored.filter(|stored| status.image_id.is_empty() && stored.image == status.image) {
        status.image_id.clone_from(&stored.image_id);
    }
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    if !running {
        let run = observed.latest_run(&name);
        // While a hook is under way, or the end that its failure brings, nothing else is told of the container.
        let waiting = inputs.waiting.get(&name).filter(|_| !matches!(run, LatestRun::Running(_)));
        let stored = stored.filter(|_| !inputs.ended && desired.object.metadata.deletion_timestamp.is_none());
        wait_if_it_will_run(&mut status, desired, kind, container, run, waiting, stored);
    }
    let done = exit_code(status.state.as_ref()) == Some(0);
    let run = observed.runs(&name).next();
    status.started = match kind {
        ContainerKind::Init | ContainerKind::Sidecar | ContainerKind::App => {
            Some(run.is_some_and(|run| observed.has_started(run)))
        }
        ContainerKind::Ephemeral => None,
    };
    status.ready = match kind {
        ContainerKind::Init => done,
        ContainerKind::Ephemeral => false,
        ContainerKind::Sidecar | ContainerKind::App => run.is_some_and(|run| observed.is_ready(run)),
    };
    status
}

fn stored_status<'a>(desired: &'a DesiredPod, name: &ContainerName) -> Option<&'a core::ContainerStatus> {
    desired.stored_statuses().find(|status| status.name == name.as_str())
}

fn fill_from_run(
    status: &mut core::ContainerStatus,
    run: &ContainerStatus,
    inputs: &StatusInputs,
    stored: Option<&core::ContainerStatus>,
) {
    status.container_id = Some(container_id(&run.id));
    status.image.clone_from(&run.image_ref);
    status.image_id = run.image_id.to_string();
    // What is stored of this run counts for nothing: others may write it.
    let of_another = stored.filter(|stored| stored.container_id != status.container_id);
    let count = i32::try_from(run.attempt).unwrap_or(i32::MAX);
    status.restart_count = count.max(of_another.map_or(0, |stored| stored.restart_count));
    status.user = run.user.as_ref().map(|user| core::ContainerUser {
        linux: Some(core::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: Some(user.groups.iter().map(|&group| group.into()).collect()),
        }),
    });
    status.stop_signal = Some(run.stop_signal.clone());
    status.state = match &run.state {
        ContainerState::Created => None,
        ContainerState::Running { started_at } => Some(core::ContainerState {
            running: Some(core::ContainerStateRunning { started_at: Some(Time(*started_at)) }),
            ..core::ContainerState::default()
        }),
        ContainerState::Exited(_) => terminated_state(run, inputs, stored),
    };
}

/// What each of its volume mounts has become (KEP-3857).
fn volume_mounts(container: &core::Container) -> Option<Vec<core::VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let status = |mount: &core::VolumeMount| core::VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|&read_only| read_only),
        recursive_read_only: (mount.read_only == Some(true))
            .then(|| if is_recursive(mount) { "Enabled" } else { "Disabled" }.to_owned()),
        ..core::VolumeMountStatus::default()
    };
    Some(mounts.iter().map(status).collect())
}

/// The runtime has no record of the container: what the stored status says of it stands.
fn fill_from_stored(status: &mut core::ContainerStatus, stored: Option<&core::ContainerStatus>) {
    let Some(stored) = stored else { return };
    status.restart_count = stored.restart_count;
    status.container_id.clone_from(&stored.container_id);
    status.image_id.clone_from(&stored.image_id);
    status.last_state.clone_from(&stored.last_state);
    status.user.clone_from(&stored.user);
    status.stop_signal.clone_from(&stored.stop_signal);
    let Some(state) = &stored.state else { return };
    if state.terminated.is_some() {
        status.state = Some(state.clone());
    } else if stored.container_id.is_none() {
        // It waits for its first run, or for the first one after a restart of the whole pod.
    } else if state.waiting.is_some() {
        // It waited after a run, whose end is its state once it waits no longer.
        status.state = status.last_state.take();
    } else if let Some(running) = &state.running {
        status.state = Some(core::ContainerState {
            terminated: Some(core::ContainerStateTerminated {
                exit_code: UNKNOWN_EXIT_CODE,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("The container could not be located when the pod was looked at".to_owned()),
                started_at: running.started_at.clone(),
                container_id: stored.container_id.clone(),
                ..core::ContainerStateTerminated::default()
            }),
            ..core::ContainerState::default()
        });
    }
}

/// What the status tells of a container that was removed so that its pod restarts in place (kubelet,
/// `convertToAPIContainerStatuses`): one that waited already goes on waiting. No run is left to be restarted, so its next
/// one is counted here.
fn removed_to_restart(stored: &core::ContainerStatus) -> core::ContainerStatus {
    let mut status = core::ContainerStatus {
        container_id: None,
        restart_count: stored.restart_count.saturating_add(1),
        ..stored.clone()
    };
    if stored.state.as_ref().is_some_and(|state| state.waiting.is_some()) {
        return status;
    }
    let (reason, message) =
        ("RestartingAllContainers", "The container is removed because RestartAllContainers in place");
    status.state = Some(core::ContainerState {
        waiting: Some(core::ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
        }),
        ..core::ContainerState::default()
    });
    status.last_state = Some(core::ContainerState {
        terminated: Some(core::ContainerStateTerminated {
            exit_code: UNKNOWN_EXIT_CODE,
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..core::ContainerStateTerminated::default()
        }),
        ..core::ContainerState::default()
    });
    status
}

/// What was before `run`, as the stored status remembers it.
fn last_state_before(stored: &core::ContainerStatus, run: &ContainerStatus) -> Option<core::ContainerState> {
    let id = container_id(&run.id);
    let ended = |state: &Option<core::ContainerState>| state.clone().filter(|state| state.terminated.is_some());
    if stored.container_id.as_deref() == Some(id.as_str()) {
        // Of the same run: in a crash loop its own end is the last state, which is not one before it.
        return ended(&stored.last_state).filter(|state| {
            state.terminated.as_ref().and_then(|terminated| terminated.container_id.as_deref()) != Some(id.as_str())
        });
    }
    ended(&stored.state).or_else(|| ended(&stored.last_state))
}

/// The kubelet shows a dead container that will run again as waiting once it knows why it does not run yet.
fn wait_if_it_will_run(
    status: &mut core::ContainerStatus,
    desired: &DesiredPod,
    kind: ContainerKind,
    container: &core::Container,
    run: LatestRun<'_>,
    waiting: Option<&Waiting>,
    stored: Option<&core::ContainerStatus>,
) {
    let waiting_state = |reason: &str, message: Option<&str>| {
        Some(core::ContainerState {
            waiting: Some(core::ContainerStateWaiting {
                reason: Some(reason.to_owned()),
                message: message.map(str::to_owned),
            }),
            ..core::ContainerState::default()
        })
    };
    if let Some(Waiting { reason, message }) = waiting {
        if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
            status.last_state = status.state.take();
        }
        status.state = waiting_state(reason, Some(message));
        return;
    }
    let will_run = match run {
        // Of one that runs and is not shown the postStart hook has not returned.
        LatestRun::Never | LatestRun::Created(_) | LatestRun::Running(_) => true,
        LatestRun::Exited { exit_code, .. } => match kind {
            ContainerKind::Init => exit_code != 0 && starts_again(desired, kind, container, exit_code),
            ContainerKind::Sidecar | ContainerKind::App | ContainerKind::Ephemeral => {
                starts_again(desired, kind, container, exit_code)
            }
        },
    };
    if will_run && status.state.is_none() {
        let default = if desired.init_containers().is_empty() { "ContainerCreating" } else { "PodInitializing" };
        status.state = waiting_state(default, None);
    }
    // Until it runs again it waits as it did after this run (kubelet, `reasonCache`).
    let waited = stored.filter(|stored| stored.container_id == status.container_id);
    let waited = waited.and_then(|stored| stored.state.clone()).filter(|state| state.waiting.is_some());
    if will_run
        && status.state.as_ref().is_some_and(|state| state.terminated.is_some())
        && let Some(waited) = waited
    {
        status.last_state = status.state.replace(waited);
    }
}

fn terminated_state(
    run: &ContainerStatus,
    inputs: &StatusInputs,
    stored: Option<&core::ContainerStatus>,
) -> Option<core::ContainerState> {
    let ContainerState::Exited(exit) = &run.state else { return None };
    let id = container_id(&run.id);
    let message = match &exit.reason {
        ExitReason::StartFailed { message } => Some(message.clone()),
        ExitReason::Exited | ExitReason::OomKilled | ExitReason::Unknown => inputs
            .termination_messages
            .get(&run.id)
            .cloned()
            .filter(|message| !message.is_empty())
            .or_else(|| stored.and_then(|stored| stored_message(stored, &id))),
    };
    Some(core::ContainerState {
        terminated: Some(core::ContainerStateTerminated {
            exit_code: exit.exit_code,
            // The exit code tells of it (kubelet, `convertToAPIContainerStatuses`).
            signal: None,
            reason: Some(terminated_reason(exit).to_owned()),
            message,
            started_at: exit.started_at.map(Time),
            finished_at: Some(Time(exit.finished_at)),
            container_id: Some(id),
        }),
        ..core::ContainerState::default()
    })
}

fn stored_message(stored: &core::ContainerStatus, id: &str) -> Option<String> {
    [&stored.state, &stored.last_state]
        .into_iter()
        .filter_map(|state| state.as_ref()?.terminated.as_ref())
        .find(|terminated| terminated.container_id.as_deref() == Some(id))
        .and_then(|terminated| terminated.message.clone())
}

fn terminated_reason(exit: &ContainerExit) -> &'static str {
    match &exit.reason {
        ExitReason::Exited if exit.exit_code == 0 => "Completed",
        ExitReason::Exited => "Error",
        ExitReason::OomKilled => "OOMKilled",
        ExitReason::StartFailed { .. } => "StartError",
        ExitReason::Unknown => "ContainerStatusUnknown",
    }
}

/// As `status.containerStatuses[].containerID` prints it.
fn container_id(id: &ContainerId) -> String {
    format!("monopod://{id}")
}
