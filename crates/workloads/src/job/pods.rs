//! The Pods of a Job: how they are made, and what has become of them. Pure.

use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::api::batch::v1::Job;
use spec::k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use crate::pods::{controller_reference, is_terminating, phase, pod_from_template};

/// Keeps a Pod until its end was counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Which completion a Pod of an indexed Job works at.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longer generated names are cut by the API.
const LONGEST_PREFIX: usize = 58;

/// The first wait after a Pod has failed; each further one is twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// Whether each Pod works at a completion of its own.
pub fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.completion_mode.as_deref() == Some("Indexed"))
}

/// Whether a Pod that is being deleted is replaced only once it has ended.
pub fn replaces_only_failed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.is_some_and(|spec| spec.pod_replacement_policy.as_deref() == Some("Failed"))
}

/// A Pod that works at this completion, or at any.
pub fn new_pod(job: &Job, index: Option<i32>) -> Pod {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let suffix = index.map_or_else(|| "-".to_owned(), |index| format!("-{index}-"));
    let room = if index.is_some() { LONGEST_PREFIX.saturating_sub(suffix.len()) } else { name.len() };
    let prefix = format!("{}{suffix}", name.get(..room).unwrap_or(name));
    let mut pod = pod_from_template(&template, controller_reference(job), prefix);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if let Some(index) = index {
        let (labels, annotations) = (&mut pod.metadata.labels, &mut pod.metadata.annotations);
        for map in [labels, annotations] {
            map.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
        }
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{name}-{index}"));
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                tell_index(container);
            }
        }
    }
    pod
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field_ref = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    let value_from = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
    env.push(EnvVar { name: INDEX_VARIABLE.to_owned(), value: None, value_from: Some(value_from) });
}

/// The completion that a Pod works at, if it is one of the Job's.
pub fn index_of(job: &Job, pod: &Pod) -> Option<i32> {
    let completions = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or_default();
    let written = pod.metadata.annotations.as_ref()?.get(INDEX)?;
    written.parse().ok().filter(|index| (0..completions).contains(index))
}

/// Whether its end is still to be counted.
pub fn has_finalizer(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Whether it counts as failed. One that is being deleted does, unless it may still succeed.
pub fn has_failed(job: &Job, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => is_terminating(pod) && !replaces_only_failed(job),
    }
}

/// How long no Pod is made since too many have failed lately.
pub fn wait_after_failures(job: &Job, pods: &[Pod], now: Timestamp) -> Duration {
    let last_success = pods.iter().filter(|pod| phase(pod) == "Succeeded").map(ended_at).max();
    let failures: Vec<Timestamp> = pods
        .iter()
        .filter(|pod| has_failed(job, pod))
        .map(ended_at)
        .filter(|ended| last_success.is_none_or(|success| *ended > success))
        .collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(16);
    let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    wait.saturating_sub(Duration::try_from(now.duration_since(*last)).unwrap_or_default())
}

/// When the last of a Pod's containers ended; before that, when it was to go, or when it came.
fn ended_at(pod: &Pod) -> Timestamp {
    let sidecars = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> = sidecars
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let status = pod.status.as_ref();
    let apps = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let inits = status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let ended = apps
        .chain(inits.filter(|status| sidecars.contains(&status.name.as_str())))
        .filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
        .max();
    let meta = &pod.metadata;
    let going = || meta.deletion_timestamp.as_ref().or(meta.creation_timestamp.as_ref()).map(|time| time.0);
    ended.or_else(going).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job() -> Job {
        serde_json::from_value(json!({
            "metadata": {"name": "work", "uid": "j"},
            "spec": {"completions": 3, "completionMode": "Indexed", "template": {"spec": {"containers": [{"name": "c"}]}}},
        }))
        .unwrap()
    }

    fn ended(phase: &str, at: &str) -> Pod {
        serde_json::from_value(json!({"status": {"phase": phase, "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 1, "finishedAt": at}}}]}}))
        .unwrap()
    }

    #[test]
    fn a_pod_knows_its_index() {
        let pod = new_pod(&job(), Some(2));
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("work-2-"));
        assert_eq!((index_of(&job(), &pod), has_finalizer(&pod)), (Some(2), true));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("work-2"));
        assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
        assert_eq!(index_of(&job(), &new_pod(&job(), Some(3))), None, "beyond the completions");
        assert_eq!(new_pod(&job(), None).metadata.generate_name.as_deref(), Some("work-"));
    }

    #[test]
    fn each_failure_doubles_the_wait_until_a_success() {
        let now = "2026-01-01T00:00:30Z".parse().unwrap();
        let wait = |pods: &[Pod]| wait_after_failures(&job(), pods, now).as_secs();
        let failed = |at: &str| ended("Failed", at);
        assert_eq!(wait(&[]), 0);
        assert_eq!(wait(&[failed("2026-01-01T00:00:25Z")]), 5);
        let three = ["2026-01-01T00:00:01Z", "2026-01-01T00:00:12Z", "2026-01-01T00:00:29Z"].map(failed);
        assert_eq!(wait(&three), 39);
        let mut pods = three.to_vec();
        pods.push(ended("Succeeded", "2026-01-01T00:00:20Z"));
        assert_eq!(wait(&pods), 9);
    }
}
