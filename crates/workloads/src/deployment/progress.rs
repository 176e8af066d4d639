//! A Deployment's status: counts, conditions, and whether a rollout gets on. Pure.

use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::deployment::rollout::Sets;
use crate::deployment::sizes::{available, max_unavailable, size, total, wanted};

const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const DONE: &str = "NewReplicaSetAvailable";

/// A status, and when it changes by itself.
pub struct Progress {
    /// The status.
    pub status: DeploymentStatus,
    /// When a rollout that does not get on is given up.
    pub again: Option<Duration>,
}

/// Whether a rollout has a deadline.
pub fn has_deadline(deployment: &Deployment) -> bool {
    deployment.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

/// A pause stops the clock of the deadline, and going on starts it anew.
pub fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let reason = condition(status, PROGRESSING).and_then(|condition| condition.reason.as_deref()).unwrap_or_default();
    if !has_deadline(deployment) || reason == TIMED_OUT {
        return;
    }
    match (deployment.spec.paused == Some(true), reason == "DeploymentPaused") {
        (true, false) => {
            set_condition(status, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", now);
        }
        (false, true) => {
            set_condition(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now);
        }
        (true, true) | (false, false) => {}
    }
}

/// Whether all Pods are of the newest template and available, and no others are left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    all.into_iter().all(|count| count.unwrap_or_default() == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// The counts, and whether enough Pods are available.
pub fn counted(deployment: &Deployment, sets: &Sets, old: DeploymentStatus, now: Timestamp) -> DeploymentStatus {
    let count = |pick: fn(&ReplicaSet) -> i32| Some(total(sets.all(), pick));
    let present = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    let going =
        |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or_default();
    let are_available = total(sets.all(), available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: count(present),
        updated_replicas: Some(total(&sets.newest, present)),
        ready_replicas: count(ready),
        available_replicas: Some(are_available),
        unavailable_replicas: Some((total(sets.all(), size) - are_available).max(0)),
        terminating_replicas: count(going),
        ..old
    };
    let (word, reason, message) = if are_available >= wanted(deployment) - max_unavailable(deployment) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, "Available", word, reason, message, now);
    status
}

/// The status in a rollout: counted, and compared with what it was.
pub fn rolled(deployment: &Deployment, sets: &Sets, old: &DeploymentStatus, now: Timestamp) -> Progress {
    let mut status = counted(deployment, sets, old.clone(), now);
    if has_deadline(deployment) {
        note_progress(deployment, sets, old, &mut status, now);
    } else {
        remove_condition(&mut status, PROGRESSING);
    }
    match replica_failure(sets) {
        Some(failure) => {
            let (reason, message) = (failure.reason.unwrap_or_default(), failure.message.unwrap_or_default());
            set_condition(&mut status, REPLICA_FAILURE, "True", &reason, &message, now);
        }
        None => remove_condition(&mut status, REPLICA_FAILURE),
    }
    let again = give_up_in(deployment, &status, now);
    Progress { status, again }
}

fn note_progress(
    deployment: &Deployment,
    sets: &Sets,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Timestamp,
) {
    let current = condition(old, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref()).unwrap_or_default();
    if current.is_none() && sets.newest.is_some() && !sets.is_new {
        let message = format!("Found new replica set {:?}", newest_name(sets));
        set_condition(status, PROGRESSING, "True", "FoundNewReplicaSet", &message, now);
    }
    if status.replicas == status.updated_replicas && reason == DONE {
        return;
    }
    let say = |what: &str| match &sets.newest {
        Some(_) => format!("ReplicaSet {:?} {what}", newest_name(sets)),
        None => format!("Deployment {:?} {what}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(deployment, status) {
        set_condition(status, PROGRESSING, "True", DONE, &say("has successfully progressed."), now);
    } else if gets_on(old, status) {
        // Each sign of progress starts the clock of the deadline anew, so the time of the update is that of now.
        remove_condition(status, PROGRESSING);
        set_condition(status, PROGRESSING, "True", "ReplicaSetUpdated", &say("is progressing."), now);
        if let Some(before) = current.filter(|before| before.status.as_deref() == Some("True"))
            && let Some(condition) =
                status.conditions.iter_mut().flatten().find(|one| one.type_.as_deref() == Some(PROGRESSING))
        {
            condition.last_transition_time = before.last_transition_time;
        }
    } else if give_up_in(deployment, status, now) == Some(Duration::ZERO) && reason != DONE {
        set_condition(status, PROGRESSING, "False", TIMED_OUT, &say("has timed out progressing."), now);
    }
}

fn newest_name(sets: &Sets) -> &str {
    sets.newest.as_ref().and_then(|newest| newest.metadata.name.as_deref()).unwrap_or_default()
}

fn gets_on(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let more = |pick: fn(&DeploymentStatus) -> Option<i32>| pick(new).unwrap_or(0) > pick(old).unwrap_or(0);
    let of_old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    more(|status| status.updated_replicas)
        || of_old(new) < of_old(old)
        || more(|status| status.ready_replicas)
        || more(|status| status.available_replicas)
}

/// How long until a rollout counts as stuck; `None` if it never will.
fn give_up_in(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let seconds = deployment.spec.progress_deadline_seconds.filter(|_| has_deadline(deployment))?;
    let current = condition(status, PROGRESSING)?;
    if matches!(current.reason.as_deref(), Some(TIMED_OUT | DONE | "DeploymentPaused")) {
        return None;
    }
    let passed = Duration::try_from(now.duration_since(current.last_update_time.as_ref()?.0)).unwrap_or_default();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).saturating_sub(passed))
}

/// What keeps a set from its Pods: the newest one's trouble before that of others.
fn replica_failure(sets: &Sets) -> Option<spec::k8s_openapi::api::apps::v1::ReplicaSetCondition> {
    let all = sets.newest.iter().chain(&sets.old);
    let mut conditions = all.flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()));
    conditions.find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE)).cloned()
}

fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_.as_deref() == Some(kind))
}

fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// Sets a condition. One that says the same for the same reason stays as it is; its transition is when its word changed.
pub fn set_condition(
    status: &mut DeploymentStatus,
    kind: &str,
    word: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let old = condition(status, kind);
    if old.is_some_and(|old| old.status.as_deref() == Some(word) && old.reason.as_deref() == Some(reason)) {
        return;
    }
    let same_word = old.filter(|old| old.status.as_deref() == Some(word));
    let transition = same_word.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(now));
    remove_condition(status, kind);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(word.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(transition),
    });
}
