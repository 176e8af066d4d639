//! How many Pods are missing or too many, and what the status says. Pure.

use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use spec::k8s_openapi::api::core::v1::Pod;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods::{available_in, give_up_order, has_ended, is_active, is_ready, is_terminating};

/// At most as many Pods are made or deleted by one pass; the next follows at once.
const BURST: usize = 500;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What has to be done about the number of Pods.
#[derive(Debug, PartialEq)]
pub enum Size<'a> {
    /// Nothing.
    Right,
    /// As many more are wanted.
    TooSmall(usize),
    /// These are to go.
    TooLarge(Vec<&'a Pod>),
}

/// Compares what is wanted with what there is.
pub fn plan<'a>(set: &ReplicaSet, pods: &'a [Pod]) -> Size<'a> {
    if set.metadata.deletion_timestamp.is_some() {
        return Size::Right;
    }
    let mut active: Vec<&Pod> = pods.iter().filter(|pod| is_active(pod)).collect();
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or_default();
    if active.len() < wanted {
        return Size::TooSmall((wanted - active.len()).min(BURST));
    }
    let surplus = active.len() - wanted;
    if surplus == 0 {
        return Size::Right;
    }
    spec::ordered::sort_by(&mut active, |a, b| give_up_order(a, b));
    active.truncate(surplus.min(BURST));
    Size::TooLarge(active)
}

/// The status, and after which time it changes by itself: a Pod that is ready becomes available.
pub fn status(
    set: &ReplicaSet,
    pods: &[Pod],
    failure: Option<&str>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let min_ready = Duration::from_secs(u64::try_from(set.spec.min_ready_seconds.unwrap_or_default()).unwrap_or(0));
    let old = set.status.clone().unwrap_or_default();
    let active: Vec<&Pod> = pods.iter().filter(|pod| is_active(pod)).collect();
    let template_labels = set.spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let is_labeled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template_labels
            .into_iter()
            .flatten()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    };
    let waits: Vec<Duration> = active.iter().filter_map(|pod| available_in(pod, min_ready, now)).collect();
    let next = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(|pod| is_labeled(pod)).count())),
        ready_replicas: Some(count(active.iter().filter(|pod| is_ready(pod)).count())),
        available_replicas: Some(count(waits.iter().filter(|wait| wait.is_zero()).count())),
        terminating_replicas: Some(count(pods.iter().filter(|pod| is_terminating(pod) && !has_ended(pod)).count())),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, &old, active.len(), failure, now),
    };
    (next, waits.into_iter().filter(|wait| !wait.is_zero()).min())
}

/// Only a failure has a condition; it keeps its time while it lasts.
fn conditions(
    set: &ReplicaSet,
    old: &ReplicaSetStatus,
    active: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let present = conditions.iter().any(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE));
    match failure {
        None => conditions.retain(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE)),
        Some(_) if present => {}
        Some(message) => {
            let too_few = count(active) < set.spec.replicas.unwrap_or(1);
            conditions.push(ReplicaSetCondition {
                type_: Some(REPLICA_FAILURE.to_owned()),
                status: Some("True".to_owned()),
                reason: Some(if too_few { "FailedCreate" } else { "FailedDelete" }.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now)),
            });
        }
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i32) -> ReplicaSet {
        let labels = json!({"app": "a"});
        serde_json::from_value(json!({
            "metadata": {"name": "s", "uid": "1", "generation": 3},
            "spec": {"replicas": replicas, "minReadySeconds": 5, "selector": {"matchLabels": labels},
                     "template": {"metadata": {"labels": labels}}},
        }))
        .unwrap()
    }

    fn pod(phase: &str, ready: &str, going: bool) -> Pod {
        let time = going.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"app": "a"}, "deletionTimestamp": time},
            "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    #[test]
    fn only_pods_that_run_or_will_are_counted() {
        let pods = [pod("Running", "True", false), pod("Failed", "False", false), pod("Running", "True", true)];
        assert_eq!(plan(&set(3), &pods), Size::TooSmall(2));
        assert_eq!(plan(&set(1), &pods), Size::Right);
        assert_eq!(plan(&set(0), &pods), Size::TooLarge(vec![&pods[0]]));
        assert_eq!(plan(&set(1000), &pods), Size::TooSmall(BURST));
        let mut going = set(3);
        going.metadata.deletion_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(plan(&going, &pods), Size::Right);
    }

    #[test]
    fn the_status_counts_and_says_when_it_will_change() {
        let pods = [pod("Running", "True", false), pod("Pending", "False", false), pod("Running", "True", true)];
        let now = "2026-01-01T00:00:02Z".parse().unwrap();
        let (status, again) = status(&set(2), &pods, None, now);
        assert_eq!(again, Some(Duration::from_secs(3)));
        assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, Some(1), Some(0)));
        assert_eq!((status.terminating_replicas, status.observed_generation), (Some(1), Some(3)));
        assert_eq!(status.conditions, None);
    }

    #[test]
    fn a_failure_is_a_condition_until_it_is_over() {
        let now = "2026-01-01T00:00:02Z".parse().unwrap();
        let mut set = set(2);
        let (failed, _) = status(&set, &[], Some("no room"), now);
        let condition = failed.conditions.clone().unwrap().remove(0);
        assert_eq!(
            (condition.reason.as_deref(), condition.message.as_deref()),
            (Some("FailedCreate"), Some("no room"))
        );
        set.status = Some(failed.clone());
        let later = "2026-01-01T00:00:09Z".parse().unwrap();
        assert_eq!(status(&set, &[], Some("still none"), later).0, failed);
        assert_eq!(status(&set, &[], None, later).0.conditions, None);
    }
}
