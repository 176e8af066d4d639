//! Room for a more important pod, at the cost of others: the scheduler deletes them for a pod that waits, the kubelet ends
//! them for a critical one that was bound here.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spec::k8s_openapi::api::core::v1::PodSpec;
use spec::placement::{Demand, Holder, Misfit, NodeView};
use spec::{PodUid, Timestamp, mirror};
use store::{Change, StoreError, WriteError};

use super::{Rejection, rejection_of};
use crate::agent::{PODS, Shared, pod_key};
use crate::desired::DesiredPod;
use crate::ending::Ending;
use crate::endings::{BY_THE_NODE, gracefully_deleted};
use crate::events::EventSubject;
use crate::eviction::is_critical;

/// Reason of `DisruptionTarget` when the scheduler deletes a pod (KEP-3329).
const BY_THE_SCHEDULER: &str = "PreemptionByScheduler";
/// The kubelet's words (`pkg/kubelet/preemption`).
const PREEMPTING: &str = "Preempting";
const PREEMPTED: &str = "Preempted in order to admit critical pod";
const PREEMPTED_FOR: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// What the scheduler could do for a pod that has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Preemption {
    /// Others go, and the pod is to have what they leave.
    Nominated,
    /// It is not to take room from anybody.
    Never,
    /// It would not help if others went.
    Unhelpful,
    /// Nobody is less important.
    NobodyLower,
    /// Without all that are less important there would still be this in the way.
    StillUnfit(Vec<Misfit>),
}

/// What the kubelet does with a critical pod that was bound here and does not fit.
pub(super) enum Bound {
    /// It waits until those are gone that make room for it.
    Waits,
    /// It does not run here.
    Rejected(Rejection),
}

impl Shared {
    /// Makes room for a pod that nobody has bound, if it may (scheduler, `DefaultPreemption`).
    pub(super) async fn preempt(
        &self,
        desired: &DesiredPod,
        node: &NodeView,
        misfits: &[Misfit],
    ) -> Result<Preemption, StoreError> {
        if desired.spec.preemption_policy.as_deref() == Some("Never") {
            return Ok(Preemption::Never);
        }
        if !misfits.iter().all(Misfit::others_are_in_the_way) {
            return Ok(Preemption::Unhelpful);
        }
        if !self.room.has_less_important(desired.spec.priority.unwrap_or_default()) {
            return Ok(Preemption::NobodyLower);
        }
        let victims = match self.room.preempt(&desired.uid, node, self.holders()) {
            Ok(victims) => victims,
            Err(misfits) if misfits.is_empty() => return Ok(Preemption::NobodyLower),
            Err(misfits) => return Ok(Preemption::StillUnfit(misfits)),
        };
        for victim in victims {
            self.delete_for(desired, &victim).await?;
        }
        Ok(Preemption::Nominated)
    }

    /// Makes room for a pod that somebody has bound here (kubelet, `CriticalPodAdmissionHandler`). Only what is short can
    /// be made to be there.
    pub(super) fn preempt_for_bound(
        &self,
        desired: &DesiredPod,
        spec: &PodSpec,
        demand: Demand,
        misfits: Vec<Misfit>,
    ) -> Bound {
        let is_short = |misfit: &Misfit| match misfit {
            Misfit::Resource { .. } => true,
            Misfit::Unschedulable
            | Misfit::Taint { .. }
            | Misfit::NodeAffinity
            | Misfit::HostPorts
            | Misfit::Topology => false,
        };
        let critical = is_critical(desired);
        let decisive = misfits.iter().find(|misfit| !critical || !is_short(misfit));
        if let Some(misfit) = decisive {
            return Bound::Rejected(rejection_of(misfit));
        }
        let victims = match self.room.preempt_for_bound(&desired.uid, spec, demand, misfits, self.holders()) {
            Ok(victims) => victims,
            Err(missing) => {
                let message = format!(
                    "Unexpected error while attempting to recover from admission failure: preemption: error finding a \
                     set of pods to preempt: no set of running pods found to reclaim resources: {missing}"
                );
                return Bound::Rejected(Rejection { reason: "UnexpectedAdmissionError".to_owned(), message });
            }
        };
        for stored in self.store.list(PODS, None).objects {
            if let Ok(victim) = DesiredPod::read(&stored)
                && victims.contains(&victim.uid)
            {
                self.end_for_critical(&victim);
            }
        }
        Bound::Waits
    }

    fn end_for_critical(&self, victim: &DesiredPod) {
        self.events.warning(EventSubject::pod(victim), PREEMPTING, PREEMPTED);
        let ending = Ending {
            reason: PREEMPTING.to_owned(),
            message: PREEMPTED.to_owned(),
            grace_seconds: None,
            disruption: Some(BY_THE_NODE.to_owned()),
            disruption_message: Some(PREEMPTED_FOR.to_owned()),
        };
        self.endings.decide(&victim.uid, ending);
        self.wake(&victim.uid);
    }

    /// What is known of those that may have room here.
    fn holders(&self) -> BTreeMap<PodUid, Holder> {
        let mut holders = BTreeMap::new();
        for stored in self.store.list(PODS, None).objects {
            let Ok(desired) = DesiredPod::read(&stored) else { continue };
            let holder = Holder {
                uid: desired.uid.clone(),
                demand: Demand::of(&desired.object),
                started: desired.status.start_time.as_ref().map(|time| time.0),
                qos: spec::qos::qos_class(&desired.object),
                critical: is_critical(&desired),
                leaving: desired.object.metadata.deletion_timestamp.is_some(),
                // The Pod of a file would only be made again.
                removable: mirror::hash(&stored.value).is_none(),
            };
            holders.insert(desired.uid, holder);
        }
        holders
    }

    async fn delete_for(&self, preemptor: &DesiredPod, victim: &PodUid) -> Result<(), StoreError> {
        let objects = self.store.list(PODS, None).objects;
        let Some(victim) =
            objects.iter().filter_map(|stored| DesiredPod::read(stored).ok()).find(|one| one.uid == *victim)
        else {
            return Ok(());
        };
        let scheduler = preemptor.spec.scheduler_name.clone().filter(|name| !name.is_empty());
        let scheduler = scheduler.unwrap_or_else(|| super::SCHEDULER.to_owned());
        let (uid, now) = (victim.uid.clone(), self.clock.wall());
        let written = self.store.write(pod_key(&victim.pod), move |present| {
            let same = present.filter(|present| mirror::pod_uid(&present.value) == Some(uid.as_str()));
            let next = same.and_then(|present| preempted(&present.value, &scheduler, now));
            Ok::<_, std::convert::Infallible>((next.map_or(Change::Keep, Change::Put), ()))
        });
        match written.await {
            Ok(_) => {}
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(error)) => return Err(error),
        }
        let message = format!("Preempted by pod {} on node {}", preemptor.uid, self.config.node_name);
        self.events.normal(EventSubject::pod(&victim), "Preempted", message);
        Ok(())
    }
}

/// The object of a pod that the scheduler deletes; `None` if it is being deleted already.
fn preempted(object: &Value, scheduler: &str, now: Timestamp) -> Option<Value> {
    if object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null()) {
        return None;
    }
    let generation = object.pointer("/metadata/generation").cloned();
    let mut next = gracefully_deleted(object, now)?;
    let status = next.as_object_mut()?.entry("status").or_insert_with(|| json!({})).as_object_mut()?;
    let conditions = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut()?;
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    let mut condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": BY_THE_SCHEDULER,
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    if let (Some(generation), Some(condition)) = (generation, condition.as_object_mut()) {
        condition.insert("observedGeneration".to_owned(), generation);
    }
    conditions.push(condition);
    Some(next)
}
