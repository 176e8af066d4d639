//! What controllers ask of a Pod. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::client::Object;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A reference to an object that controls another one.
pub fn controller_reference<K: Object>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Who controls an object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A Pod of a template, named after its owner when it is made.
pub fn pod_from_template(template: &PodTemplateSpec, owner: OwnerReference, prefix: String) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `Pending`, `Running`, `Succeeded` or `Failed`; empty before the Pod has a status.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether it is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it has ended.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it counts as one that runs or will.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_terminating(pod)
}

/// Whether it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|ready| ready.status == "True")
}

/// How long until it has been ready for `min_ready`: nothing if it has, and `None` if it is not ready.
pub fn available_in(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let ready = ready_condition(pod).filter(|ready| ready.status == "True")?;
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(min_ready.saturating_sub(passed))
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")
}

/// How often its containers were started again, the most of all.
fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or_default()
}

/// Which of two Pods is given up first, when there are too many: `Less` goes first. In this order: without a node, pending,
/// not ready, cheaper to lose, ready for a shorter time, restarted more often, younger.
pub fn give_up_order(a: &Pod, b: &Pod) -> Ordering {
    let placed = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let progress = |pod: &Pod| match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = |pod: &Pod| -> i32 {
        let given = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
        given.and_then(|cost| cost.parse().ok()).unwrap_or_default()
    };
    let ready_since =
        |pod: &Pod| ready_condition(pod).filter(|_| is_ready(pod))?.last_transition_time.as_ref().map(|time| time.0);
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    placed(a)
        .cmp(&placed(b))
        .then_with(|| progress(a).cmp(&progress(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| ready_since(b).cmp(&ready_since(a)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| created(b).cmp(&created(a)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []}, "status": status}),
        )
        .unwrap()
    }

    fn ready(since: &str) -> Pod {
        pod(
            &json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}),
        )
    }

    #[test]
    fn a_pod_is_available_after_it_was_ready_for_a_while() {
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(available_in(&pod(&json!({"phase": "Running"})), seconds(0), now), None);
        assert_eq!(available_in(&ready("2026-01-01T00:00:07Z"), seconds(0), now), Some(seconds(0)));
        assert_eq!(available_in(&ready("2026-01-01T00:00:07Z"), seconds(5), now), Some(seconds(2)));
        assert_eq!(available_in(&ready("2026-01-01T00:00:01Z"), seconds(5), now), Some(seconds(0)));
    }

    #[test]
    fn what_serves_least_is_given_up_first() {
        let pending = pod(&json!({"phase": "Pending"}));
        let (old, young) = (ready("2026-01-01T00:00:00Z"), ready("2026-01-01T00:00:05Z"));
        let mut dear = young.clone();
        dear.metadata.annotations = Some([(DELETION_COST.to_owned(), "10".to_owned())].into());
        let mut unplaced = old.clone();
        unplaced.spec.as_mut().unwrap().node_name = None;
        let mut all = [&dear, &old, &young, &pending, &unplaced];
        spec::ordered::sort_by(&mut all, |a, b| give_up_order(a, b));
        for (got, want) in all.into_iter().zip([&unplaced, &pending, &young, &old, &dear]) {
            assert!(std::ptr::eq(got, want));
        }
    }
}
