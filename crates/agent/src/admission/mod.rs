//! Whether a pod may run here: the scheduler's part for pods that nobody has bound, the kubelet's for all.
//!
//! A pod without a node waits, `Pending`, until there is room for it. One that somebody has bound to this node, and that
//! does not fit, has failed, as with the kubelet. A more important pod takes room from others (`preemption`). The decisions are those of [`spec::placement`].

mod preemption;
mod room;

use serde_json::Value;
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use spec::placement::{Demand, Misfit, NodeView};
use spec::{PodUid, Timestamp};
use store::ObjectKey;

use preemption::{Bound, Preemption};
pub(crate) use room::NodeRoom;

use crate::agent::Shared;
use crate::claims::{self, Claims};
use crate::desired::DesiredPod;
use crate::events::EventSubject;
use crate::node_shutdown::{REFUSED, REFUSED_MESSAGE};
use crate::observation::PodObservation;
use crate::worker::{Next, PassError, PodWorker};

/// Who binds Pods that name nobody.
const SCHEDULER: &str = "default-scheduler";

/// Why the kubelet does not run a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// `status.reason`.
    reason: String,
    message: String,
}

impl PodWorker {
    /// Whether the pod may run; otherwise what comes instead of its pass.
    pub(crate) async fn admit(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
    ) -> Result<Option<Next>, PassError> {
        if self.is_admitted(desired, observed) {
            return Ok(None);
        }
        let (node, demand) = (self.shared.node_view(), Demand::of(&desired.object));
        let bound = desired.spec.node_name.as_deref().is_some_and(|name| !name.is_empty());
        let room = &self.shared.room;
        let rejection = if let Some(rejection) = wrong_system(desired) {
            if !bound && let Some(wait) = self.wait_for_binding(desired, &node, demand).await? {
                return Ok(Some(wait));
            }
            Some(rejection)
        } else if bound {
            match room.admit_bound(&self.uid, &desired.spec, demand.clone(), &node) {
                Ok(()) => None,
                Err(misfits) => {
                    // Others end for it only once it is there.
                    self.until_durable().await;
                    match self.shared.preempt_for_bound(desired, &desired.spec, demand, misfits) {
                        Bound::Waits => return Ok(Some(Next::Wait(None))),
                        Bound::Rejected(rejection) => Some(rejection),
                    }
                }
            }
        } else {
            if let Some(wait) = self.wait_for_binding(desired, &node, demand).await? {
                return Ok(Some(wait));
            }
            None
        };
        let rejection = rejection
            .or_else(|| self.forbidden_sysctl(desired))
            .or_else(|| self.no_apparmor(desired))
            .or_else(|| self.too_late());
        if let Some(rejection) = rejection {
            return self.reject(desired, rejection).await.map(Some);
        }
        self.admitted = true;
        Ok(None)
    }

    /// Whether the pod was let in before; then it stays, whatever has become of the node.
    pub(crate) fn is_admitted(&mut self, desired: &DesiredPod, observed: &PodObservation) -> bool {
        let runs = !observed.sandboxes.is_empty() || !observed.containers.is_empty();
        if !self.admitted && (runs || self.record.is_some() || desired.status.start_time.is_some()) {
            self.shared.room.take(&self.uid, Demand::of(&desired.object));
            self.admitted = true;
        }
        self.admitted
    }

    /// Asks for room as the scheduler does; `None` if the pod has it.
    async fn wait_for_binding(
        &mut self,
        desired: &DesiredPod,
        node: &NodeView,
        demand: Demand,
    ) -> Result<Option<Next>, PassError> {
        // It belongs to a scheduler that is not here; whoever runs one binds it.
        if desired.spec.scheduler_name.as_deref().is_some_and(|name| !name.is_empty() && name != SCHEDULER) {
            return Ok(Some(Next::Wait(None)));
        }
        let claims = match claims::look(&self.shared.store, desired, &self.uid, node) {
            Ok(claims) => claims,
            Err(why) => return self.wait_for_claims(desired, &why).await.map(Some),
        };
        let Err(misfits) = self.shared.room.schedule(&self.uid, &desired.spec, demand, node) else {
            return self.want(desired, claims, &node.name).await;
        };
        self.until_durable().await;
        let preemption = self.shared.preempt(desired, node, &misfits).await?;
        let message = unschedulable_message(&misfits, &preemption);
        let nominated = matches!(preemption, Preemption::Nominated).then(|| node.name.clone());
        self.is_unschedulable(desired, message, nominated).await.map(Some)
    }

    /// A pod that has room gets volumes for its claims, and goes on once it has them.
    async fn want(&mut self, desired: &DesiredPod, claims: Claims, node_name: &str) -> Result<Option<Next>, PassError> {
        match claims {
            Claims::Bound => return Ok(None),
            Claims::Awaited => {}
            Claims::Wanted(names) => {
                self.until_durable().await;
                for name in names {
                    claims::want(&self.shared.store, &desired.pod.pod_namespace, &name, node_name).await?;
                }
            }
        }
        Ok(Some(Next::Wait(None)))
    }

    /// Nobody's end helps a pod whose claims cannot be had.
    async fn wait_for_claims(&mut self, desired: &DesiredPod, why: &str) -> Result<Next, PassError> {
        self.until_durable().await;
        let preemption = "0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
        let message = format!("0/1 nodes are available: {why}. preemption: {preemption}");
        self.is_unschedulable(desired, message, None).await
    }

    async fn is_unschedulable(
        &mut self,
        desired: &DesiredPod,
        message: String,
        nominated: Option<String>,
    ) -> Result<Next, PassError> {
        let status = core::PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(spec::qos::qos_class(&desired.object).as_str().to_owned()),
            conditions: Some(vec![not_scheduled(desired, &message, self.shared.clock.wall())]),
            nominated_node_name: nominated,
            ..core::PodStatus::default()
        };
        if self.write_status(status, false).await?.is_some() {
            self.shared.events.warning(EventSubject::pod(desired), "FailedScheduling", message);
        }
        Ok(Next::Wait(None))
    }

    fn forbidden_sysctl(&self, desired: &DesiredPod) -> Option<Rejection> {
        let message = self.shared.config.allowed_sysctls.admit(&desired.spec).err()?;
        Some(Rejection { reason: spec::sysctls::FORBIDDEN.to_owned(), message })
    }

    fn no_apparmor(&self, desired: &DesiredPod) -> Option<Rejection> {
        let message = spec::apparmor::admit(&desired.object, self.shared.config.has_apparmor).err()?;
        Some(Rejection { reason: spec::apparmor::NOT_ADMITTED.to_owned(), message })
    }

    /// Nothing new comes to a machine that shuts down.
    fn too_late(&self) -> Option<Rejection> {
        let rejection = || Rejection { reason: REFUSED.to_owned(), message: REFUSED_MESSAGE.to_owned() };
        self.shared.shutdown.is_under_way().then(rejection)
    }

    /// The kubelet's `rejectPod`.
    async fn reject(&mut self, desired: &DesiredPod, rejection: Rejection) -> Result<Next, PassError> {
        let Rejection { reason, message } = rejection;
        let status = core::PodStatus {
            phase: Some("Failed".to_owned()),
            message: Some(format!("Pod was rejected: {message}")),
            reason: Some(reason.clone()),
            qos_class: Some(spec::qos::qos_class(&desired.object).as_str().to_owned()),
            conditions: desired.status.conditions.clone(),
            start_time: Some(Time(self.shared.clock.wall())),
            observed_generation: desired.generation(),
            ..core::PodStatus::default()
        };
        // Nothing of the pod will ever be made here, but what became of it is told for as long as its object is there.
        let directory = self.paths.directory.clone();
        let made = tokio::task::spawn_blocking(move || crate::directories::make_path(&directory, 0o700)).await?;
        made.map_err(|source| PassError::Files { step: "make the directory of the pod", source })?;
        self.shared.events.warning(EventSubject::pod(desired), reason, message);
        self.note_changes(desired, &status);
        self.shared.events.flush().await;
        self.write_status(status, true).await?;
        self.shared.make_room(&self.uid);
        Ok(Next::Again)
    }
}

impl Shared {
    /// This machine's node as it is in the store.
    pub(crate) fn node_view(&self) -> NodeView {
        let name = &self.config.node_name;
        let stored = self.store.get(&ObjectKey::cluster("nodes", name));
        NodeView::read(name, stored.as_ref().map_or(&Value::Null, |stored| &*stored.value))
    }

    /// To be called when a pod takes nothing any more: those that waited for it go on.
    pub(crate) fn make_room(&self, uid: &PodUid) {
        if self.room.leave(uid) {
            self.look_for_room();
        }
    }

    /// To be called when the node has changed.
    pub(crate) fn look_for_room(&self) {
        for uid in self.room.look_again(&self.node_view()) {
            self.wake(&uid);
        }
    }
}

fn wrong_system(desired: &DesiredPod) -> Option<Rejection> {
    let selector = desired.spec.node_selector.as_ref().and_then(|selector| selector.get("kubernetes.io/os"));
    if desired.spec.node_name.as_deref().is_some_and(|name| !name.is_empty())
        && selector.is_some_and(|os| os != "linux")
    {
        return Some(Rejection {
            reason: "PodOSSelectorNodeLabelDoesNotMatch".to_owned(),
            message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label".to_owned(),
        });
    }
    let os = desired.spec.os.as_ref().filter(|os| os.name != "linux")?;
    tracing::debug!(os = os.name, "a pod for another system");
    Some(Rejection {
        reason: "PodOSNotSupported".to_owned(),
        message: "Failed to admit pod as the OS field doesn't match node OS".to_owned(),
    })
}

fn rejection_of(misfit: &Misfit) -> Rejection {
    let predicate = |name: &str| Rejection {
        reason: name.to_owned(),
        message: format!("Predicate {name} failed: {}", misfit.reason()),
    };
    match misfit {
        Misfit::Resource { resource, requested, used, allocatable } => Rejection {
            reason: format!("OutOf{resource}"),
            message: format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: \
                 {allocatable}"
            ),
        },
        Misfit::HostPorts => predicate("NodePorts"),
        Misfit::NodeAffinity => predicate("NodeAffinity"),
        Misfit::Taint { .. } => Rejection {
            reason: "TaintToleration".to_owned(),
            message: "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate".to_owned(),
        },
        Misfit::Unschedulable => predicate("NodeUnschedulable"),
        Misfit::Topology => predicate("PodTopologySpread"),
    }
}

/// As the scheduler prints it for a cluster of one node.
fn unschedulable_message(misfits: &[Misfit], preemption: &Preemption) -> String {
    let none_of = |misfits: &[Misfit]| {
        let mut reasons: Vec<String> = misfits.iter().map(|misfit| format!("1 {}", misfit.reason())).collect();
        reasons.sort();
        format!("0/1 nodes are available: {}.", reasons.join(", "))
    };
    let preemption = match preemption {
        Preemption::Nominated => return none_of(misfits),
        Preemption::Never => "not eligible due to preemptionPolicy=Never.".to_owned(),
        Preemption::Unhelpful => "0/1 nodes are available: 1 Preemption is not helpful for scheduling.".to_owned(),
        Preemption::NobodyLower => {
            "0/1 nodes are available: 1 No preemption victims found for incoming pod.".to_owned()
        }
        Preemption::StillUnfit(misfits) => none_of(misfits),
    };
    format!("{} preemption: {preemption}", none_of(misfits))
}

fn not_scheduled(desired: &DesiredPod, message: &str, now: Timestamp) -> core::PodCondition {
    let stored = desired.status.conditions.iter().flatten();
    let before = stored.into_iter().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    core::PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        observed_generation: desired.generation(),
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
        last_probe_time: None,
    }
}

#[cfg(test)]
mod tests;
