//! Which run of a container a request for logs means, by the pod's status. Pure.

use spec::k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use spec::{ContainerId, ContainerName};

use super::LogError;
use crate::desired::DesiredPod;
use crate::observation::parse_container_id;

/// The run whose logs are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SelectedRun {
    /// Which.
    pub(crate) id: ContainerId,
    /// The number in its log's name.
    pub(crate) attempt: u32,
}

/// The kubelet's `validateContainerLogStatus`.
pub(crate) fn select_run(
    desired: &DesiredPod,
    container: &ContainerName,
    previous: bool,
) -> Result<SelectedRun, LogError> {
    let (pod, container) = (desired.pod.clone(), container.clone());
    if desired.container(&container).is_none() {
        return Err(LogError::NoSuchContainer { pod, container });
    }
    let found = desired.stored_statuses().find(|status| status.name == container.as_str());
    let Some(status) = found else {
        return Err(LogError::Waiting { pod, container, why: "ContainerCreating".to_owned() });
    };
    let attempt = u32::try_from(status.restart_count).unwrap_or_default();
    let present = run_of(status);
    let last = status.last_state.as_ref().and_then(terminated_id);
    if previous {
        // While the container waits, the last state is its latest run; else the one before that.
        let attempt = if present.is_some() { attempt.saturating_sub(1) } else { attempt };
        return last.map(|id| SelectedRun { id, attempt }).ok_or(LogError::NoPreviousRun { pod, container });
    }
    if let Some(id) = present.or(last) {
        return Ok(SelectedRun { id, attempt });
    }
    match status.state.as_ref().and_then(|state| state.waiting.as_ref()) {
        Some(waiting) => {
            let why = match waiting.reason.as_deref() {
                Some("ErrImagePull") => "image can't be pulled",
                Some("ImagePullBackOff") => "trying and failing to pull image",
                Some(reason) => reason,
                None => "ContainerCreating",
            };
            Err(LogError::Waiting { pod, container, why: why.to_owned() })
        }
        None => Err(LogError::Terminated { pod, container }),
    }
}

fn run_of(status: &ContainerStatus) -> Option<ContainerId> {
    let state = status.state.as_ref()?;
    if state.running.is_some() {
        return parse_container_id(status.container_id.as_deref()?);
    }
    terminated_id(state)
}

fn terminated_id(state: &ContainerState) -> Option<ContainerId> {
    parse_container_id(state.terminated.as_ref()?.container_id.as_deref()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::desired_pod;

    fn select(status: Value, previous: bool) -> String {
        let mut pod = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        });
        if !status.is_null() {
            let mut status = status;
            status["name"] = "app".into();
            pod["status"] = json!({"containerStatuses": [status]});
        }
        match select_run(&desired_pod(&pod), &ContainerName::new("app"), previous) {
            Ok(run) => format!("{} {}", run.id, run.attempt),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_run_that_is_meant_or_the_kubelets_words() {
        let running = json!({"running": {}});
        let dead = |id: &str| json!({"terminated": {"exitCode": 1, "containerID": format!("monopod://{id}")}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let cases = [
            (json!({"state": running, "containerID": "monopod://a", "restartCount": 0}), false, "a 0"),
            (
                json!({"state": running, "containerID": "monopod://b", "restartCount": 3, "lastState": dead("a")}),
                true,
                "a 2",
            ),
            (
                json!({"state": waiting("CrashLoopBackOff"), "containerID": "monopod://a", "restartCount": 2, "lastState": dead("a")}),
                true,
                "a 2",
            ),
            (
                json!({"state": waiting("CrashLoopBackOff"), "containerID": "monopod://a", "restartCount": 2, "lastState": dead("a")}),
                false,
                "a 2",
            ),
            (json!({"state": dead("a"), "restartCount": 0}), false, "a 0"),
            (
                json!({"state": running, "containerID": "monopod://a"}),
                true,
                "previous terminated container \"app\" in pod \"web\" not found",
            ),
            (
                json!({"state": waiting("ContainerCreating")}),
                false,
                "container \"app\" in pod \"web\" is waiting to start: ContainerCreating",
            ),
            (
                json!({"state": waiting("ImagePullBackOff")}),
                false,
                "container \"app\" in pod \"web\" is waiting to start: trying and failing to pull image",
            ),
            (
                json!({"state": {"terminated": {"exitCode": 137}}}),
                false,
                "container \"app\" in pod \"web\" is terminated",
            ),
            (Value::Null, false, "container \"app\" in pod \"web\" is waiting to start: ContainerCreating"),
        ];
        for (status, previous, wanted) in cases {
            assert_eq!(select(status.clone(), previous), wanted, "{status}");
        }
    }
}
