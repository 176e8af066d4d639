//! Which Pods have to go so that a more important one has room: as the scheduler chooses them (plugin
//! `DefaultPreemption`), and as the kubelet does for one that was bound to its node (`pkg/kubelet/preemption`). Pure.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::PodSpec;

use super::{Demand, Misfit, NodeView, Used, scheduler_misfits};
use crate::qos::QosClass;
use crate::{PodUid, Timestamp};

/// A Pod that has room on the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// Which.
    pub uid: PodUid,
    /// What it has, and its priority.
    pub demand: Demand,
    /// When the node took it: of two that are as important, who came first stays.
    pub started: Option<Timestamp>,
    /// The kubelet spares the better classes.
    pub qos: QosClass,
    /// Whether the node would be worse off without it (kubelet, `IsCriticalPod`).
    pub critical: bool,
    /// It goes already.
    pub leaving: bool,
    /// Whether it could be made to go: not where it would only come again.
    pub removable: bool,
}

/// Whom the scheduler deletes so that the Pod has room; `Err` with what would still be in its way without any of the less
/// important ones, or with nothing if there is none. `used` is by all holders, and by more important Pods that wait.
///
/// As many as possible are spared, the more important ones first. Those that go already are never spared.
pub fn scheduler_victims(
    spec: &PodSpec,
    demand: &Demand,
    node: &NodeView,
    used: &Used,
    holders: &[Holder],
) -> Result<Vec<PodUid>, Vec<Misfit>> {
    let lower = holders.iter().filter(|holder| holder.demand.priority < demand.priority);
    let mut lower: Vec<_> = lower.filter(|holder| holder.removable || holder.leaving).collect();
    if lower.is_empty() {
        return Err(Vec::new());
    }
    let mut rest = used.clone();
    for holder in &lower {
        rest.remove(&holder.demand);
    }
    let misfits = scheduler_misfits(spec, demand, node, &rest);
    if !misfits.is_empty() {
        return Err(misfits);
    }
    crate::ordered::sort_by_key(&mut lower, |holder| {
        (Reverse(holder.demand.priority), holder.started.is_none(), holder.started)
    });
    let mut victims = Vec::new();
    for holder in lower.into_iter().filter(|holder| !holder.leaving) {
        let mut with = rest.clone();
        with.add(&holder.demand);
        if scheduler_misfits(spec, demand, node, &with).is_empty() {
            rest = with;
        } else {
            victims.push(holder.uid.clone());
        }
    }
    Ok(victims)
}

/// Whom the kubelet ends so that a Pod has room that was bound to its node; `Err` with what would be missing all the same,
/// in the kubelet's words. Few of them rather than many, small ones rather than large ones, and of the better classes as
/// few as can be.
pub fn kubelet_victims(
    demand: &Demand,
    critical: bool,
    missing: &[Misfit],
    holders: &[Holder],
) -> Result<Vec<PodUid>, String> {
    let mut needs = Needs(missing.iter().filter_map(need).collect());
    for leaving in holders.iter().filter(|holder| holder.leaving) {
        needs = needs.without([leaving]);
    }
    let lower = |holder: &&Holder| (critical && !holder.critical) || demand.priority > holder.demand.priority;
    let mut candidates = [Vec::new(), Vec::new(), Vec::new()];
    for holder in holders.iter().filter(|holder| holder.removable && !holder.leaving).filter(lower) {
        let [best_effort, burstable, guaranteed] = &mut candidates;
        match holder.qos {
            QosClass::BestEffort => best_effort.push(holder),
            QosClass::Burstable => burstable.push(holder),
            QosClass::Guaranteed => guaranteed.push(holder),
        }
    }
    let all = candidates.iter().flatten().copied();
    let beyond = needs.without(all);
    if !beyond.0.is_empty() {
        return Err(beyond.to_string());
    }
    let [best_effort, burstable, guaranteed] = candidates;
    let others = best_effort.iter().chain(&burstable).copied();
    let guaranteed = nearest(guaranteed, needs.without(others))?;
    let others = best_effort.iter().chain(&guaranteed).copied();
    let burstable = nearest(burstable, needs.without(others))?;
    let others = burstable.iter().chain(&guaranteed).copied();
    let best_effort = nearest(best_effort, needs.without(others))?;
    let victims = best_effort.into_iter().chain(burstable).chain(guaranteed);
    Ok(victims.map(|victim| victim.uid.clone()).collect())
}

/// Resources and how much of each has to become free.
struct Needs(Vec<(String, i64)>);

fn need(misfit: &Misfit) -> Option<(String, i64)> {
    match misfit {
        Misfit::Resource { resource, requested, used, allocatable } => {
            Some((resource.clone(), requested.saturating_add(*used).saturating_sub(*allocatable)))
        }
        Misfit::Unschedulable | Misfit::Taint { .. } | Misfit::NodeAffinity | Misfit::HostPorts | Misfit::Topology => {
            None
        }
    }
}

fn request(holder: &Holder, resource: &str) -> i64 {
    if resource == "pods" { 1 } else { holder.demand.requests.get(resource).copied().unwrap_or_default() }
}

impl Needs {
    /// What remains without these Pods.
    fn without<'a>(&self, holders: impl IntoIterator<Item = &'a Holder>) -> Self {
        let holders: Vec<_> = holders.into_iter().collect();
        let left = self.0.iter().map(|(resource, amount)| {
            let freed = holders.iter().map(|holder| request(holder, resource));
            (resource.clone(), freed.fold(*amount, i64::saturating_sub))
        });
        Self(left.filter(|(_, amount)| *amount > 0).collect())
    }

    /// How far the Pod is from meeting them: each counts as much as the others.
    #[expect(clippy::cast_precision_loss, reason = "distances are compared, and two that are so near are as good")]
    fn distance(&self, holder: &Holder) -> f64 {
        let missing = self.0.iter().map(|(resource, amount)| {
            let missing = amount.saturating_sub(request(holder, resource)).max(0);
            (missing as f64 / *amount as f64).powi(2)
        });
        missing.sum()
    }
}

impl std::fmt::Display for Needs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[")?;
        self.0.iter().try_for_each(|(resource, amount)| write!(formatter, "(res: {resource}, q: {amount}), "))?;
        formatter.write_str("]")
    }
}

/// Takes the nearest one, again and again, until the needs are met.
fn nearest(mut holders: Vec<&Holder>, mut needs: Needs) -> Result<Vec<&Holder>, String> {
    let size = |holder: &Holder| (request(holder, "memory"), request(holder, "cpu"));
    let mut taken = Vec::new();
    while !needs.0.is_empty() {
        let order = |one: &&Holder, other: &&Holder| {
            needs.distance(one).total_cmp(&needs.distance(other)).then_with(|| size(one).cmp(&size(other)))
        };
        let best = holders.iter().enumerate().min_by(|(_, one), (_, other)| order(one, other));
        let Some((place, best)) = best.map(|(place, best)| (place, *best)) else { return Err(needs.to_string()) };
        needs = needs.without([best]);
        taken.push(best);
        holders.swap_remove(place);
    }
    Ok(taken)
}
