//! Pods that their node ends: evicted, in the way of a more important one, or because the machine shuts down.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use spec::{PodUid, Timestamp};

use crate::clock::{BootTime, Now};
use crate::desired::DesiredPod;
use crate::ending::Ending;
use crate::terminate::grace_of;
use crate::worker::{PassError, PodWorker};

/// Reason of `DisruptionTarget` when the node ends a pod (KEP-3329).
pub const BY_THE_NODE: &str = "TerminationByKubelet";

/// Endings that workers have not seen yet.
#[derive(Debug, Default)]
pub(crate) struct Endings(Mutex<HashMap<PodUid, Ending>>);

impl Endings {
    /// The first decision stands.
    pub(crate) fn decide(&self, uid: &PodUid, ending: Ending) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.clone()).or_insert(ending);
    }

    fn take(&self, uid: &PodUid) -> Option<Ending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid)
    }
}

impl PodWorker {
    /// Makes an ending durable that was decided since the last pass.
    pub(crate) async fn note_ending(&mut self) -> Result<(), PassError> {
        let Some(ending) = self.shared.endings.take(&self.uid) else { return Ok(()) };
        if let Err(error) =
            self.save_record(|record| record.ending = record.ending.take().or_else(|| Some(ending.clone()))).await
        {
            self.shared.endings.decide(&self.uid, ending);
            return Err(error);
        }
        Ok(())
    }

    /// When the containers of a pod that ends early must have ended.
    pub(crate) fn ending_deadline(&self, desired: &DesiredPod, now: Now) -> Option<BootTime> {
        let (own, ending) = (grace_of(desired), self.record.as_ref()?.ending.as_ref()?);
        let grace = ending.grace_seconds.map_or(own, |seconds| Duration::from_secs(seconds).min(own));
        Some(now.boot.after(grace))
    }
}

/// The object of a pod as the API's graceful delete makes it.
pub(crate) fn gracefully_deleted(object: &Value, now: Timestamp) -> Option<Value> {
    let grace = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    let end = Timestamp::from_second(now.as_second().saturating_add(grace)).unwrap_or(Timestamp::MAX);
    let mut next = object.clone();
    let metadata = next.get_mut("metadata")?.as_object_mut()?;
    metadata.insert("deletionTimestamp".to_owned(), json!(end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or_default();
    metadata.insert("generation".to_owned(), json!(generation + 1));
    Some(next)
}

/// Says of a pod that the node ends it, and not for its own doing.
pub fn disrupt(status: &mut core::PodStatus, ending: &Ending, stored: &core::PodStatus, now: Timestamp) {
    let Some(reason) = &ending.disruption else { return };
    let is_disruption = |condition: &core::PodCondition| condition.type_ == "DisruptionTarget";
    let before = stored.conditions.iter().flatten().find(|condition| is_disruption(condition));
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| !is_disruption(condition));
    conditions.push(core::PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.clone()),
        message: Some(ending.disruption_message.as_ref().unwrap_or(&ending.message).clone()),
        observed_generation: status.observed_generation,
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
        last_probe_time: None,
    });
}
