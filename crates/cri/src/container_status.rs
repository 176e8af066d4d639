//! A container as CRI tells of it.

use runtime::{ContainerExit, ContainerState, ContainerStatus, ExitReason};

use crate::kept::kept;
use crate::pod_sandboxes::nanos;
use crate::proto::{self, ContainerConfig};
use crate::resources;

fn state(container: &ContainerStatus) -> i32 {
    let state = match container.state {
        ContainerState::Created => proto::ContainerState::ContainerCreated,
        ContainerState::Running { .. } => proto::ContainerState::ContainerRunning,
        ContainerState::Exited(ContainerExit { reason: ExitReason::Unknown, .. }) => {
            proto::ContainerState::ContainerUnknown
        }
        ContainerState::Exited(_) => proto::ContainerState::ContainerExited,
    };
    state as i32
}

/// As a list tells it.
pub fn item(container: &ContainerStatus) -> proto::Container {
    let config: ContainerConfig = kept(&container.labels);
    proto::Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.sandbox_id.to_string(),
        metadata: config.metadata,
        image: config.image,
        image_ref: container.image_id.to_string(),
        state: state(container),
        created_at: nanos(container.created_at),
        labels: config.labels,
        annotations: config.annotations,
        image_id: container.image_id.to_string(),
    }
}

/// Start and end in nanoseconds since 1970, code, reason and message.
fn life(state: &ContainerState) -> (i64, i64, i32, &'static str, String) {
    match state {
        ContainerState::Created => (0, 0, 0, "", String::new()),
        ContainerState::Running { started_at } => (nanos(*started_at), 0, 0, "", String::new()),
        ContainerState::Exited(exit) => {
            let (reason, message) = match &exit.reason {
                ExitReason::Exited if exit.exit_code == 0 => ("Completed", String::new()),
                ExitReason::Exited => ("Error", String::new()),
                ExitReason::OomKilled => ("OOMKilled", String::new()),
                ExitReason::StartFailed { message } => ("StartError", message.clone()),
                ExitReason::Unknown => ("Unknown", "its sandbox ended without a word of how it ended".to_owned()),
            };
            (exit.started_at.map_or(0, nanos), nanos(exit.finished_at), exit.exit_code, reason, message)
        }
    }
}

/// As its own status tells it.
pub fn status(container: &ContainerStatus) -> proto::ContainerStatus {
    let config: ContainerConfig = kept(&container.labels);
    let (started_at, finished_at, exit_code, reason, message) = life(&container.state);
    let user = container.user.as_ref().map(|user| proto::LinuxContainerUser {
        uid: i64::from(user.uid),
        gid: i64::from(user.gid),
        supplemental_groups: user.groups.iter().copied().map(i64::from).collect(),
    });
    let image = config.image.map(|image| proto::ImageSpec { image: container.image_ref.clone(), ..image });
    proto::ContainerStatus {
        id: container.id.to_string(),
        metadata: config.metadata,
        state: state(container),
        created_at: nanos(container.created_at),
        started_at,
        finished_at,
        exit_code,
        image,
        image_ref: container.image_id.to_string(),
        reason: reason.to_owned(),
        message,
        labels: config.labels,
        annotations: config.annotations,
        mounts: config.mounts,
        log_path: container.log_path.to_string_lossy().into_owned(),
        resources: Some(proto::ContainerResources {
            linux: Some(resources::tell(&container.resources)),
            windows: None,
        }),
        image_id: container.image_id.to_string(),
        user: Some(proto::ContainerUser { linux: user }),
        stop_signal: signal(&container.stop_signal) as i32,
    }
}

/// By its name, such as `SIGRTMIN+1`.
fn signal(name: &str) -> proto::Signal {
    let name = format!("SIGNAL_{}", name.replace("MIN+", "MINPLUS").replace("MAX-", "MAXMINUS"));
    proto::Signal::from_str_name(&name).unwrap_or(proto::Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::Timestamp;

    #[test]
    fn an_end_has_the_reason_that_the_kubelet_knows() {
        let exit = |exit_code, reason| {
            let finished_at = Timestamp::UNIX_EPOCH;
            ContainerState::Exited(ContainerExit { started_at: None, finished_at, exit_code, reason })
        };
        for (state, code, reason) in [
            (exit(0, ExitReason::Exited), 0, "Completed"),
            (exit(3, ExitReason::Exited), 3, "Error"),
            (exit(137, ExitReason::OomKilled), 137, "OOMKilled"),
            (exit(128, ExitReason::StartFailed { message: "no such file".into() }), 128, "StartError"),
        ] {
            let (_, _, told, why, _) = life(&state);
            assert_eq!((told, why), (code, reason));
        }
        assert_eq!(signal("SIGTERM"), proto::Signal::Sigterm);
        assert_eq!(signal("SIGRTMIN+3"), proto::Signal::Sigrtminplus3);
    }
}
