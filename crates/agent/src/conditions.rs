//! The conditions of a pod's status, with the kubelet's reasons and messages. Pure.

use spec::Timestamp;
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::desired::DesiredPod;
use crate::status::Phase;

/// What conditions follow from.
pub struct PodFacts<'a> {
    /// The object with its stored status.
    pub desired: &'a DesiredPod,
    /// The new phase.
    pub phase: Phase,
    /// New statuses of the init containers.
    pub init: &'a [core::ContainerStatus],
    /// New statuses of the app containers.
    pub apps: &'a [core::ContainerStatus],
    /// Whether the sandbox lives and has its network.
    pub sandbox_ready: bool,
    /// For transitions.
    pub now: Timestamp,
}

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn plain(holds: bool) -> Self {
        Self { holds, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason), message }
    }
}

/// All conditions in the kubelet's order; those of other writers stay at the end.
pub fn conditions(facts: &PodFacts<'_>) -> Vec<core::PodCondition> {
    let ours = [
        ("PodReadyToStartContainers", Verdict::plain(facts.sandbox_ready)),
        ("Initialized", initialized(facts)),
        ("Ready", containers_ready(facts)),
        ("ContainersReady", containers_ready(facts)),
        ("PodScheduled", Verdict::plain(true)),
    ];
    let stored = facts.desired.status.conditions.as_deref().unwrap_or_default();
    let foreign = stored.iter().filter(|condition| ours.iter().all(|(type_, _)| condition.type_ != *type_));
    let foreign: Vec<_> = foreign.cloned().collect();
    ours.into_iter().map(|(type_, verdict)| condition(facts, stored, type_, verdict)).chain(foreign).collect()
}

fn condition(facts: &PodFacts<'_>, stored: &[core::PodCondition], type_: &str, verdict: Verdict) -> core::PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let before = stored.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    core::PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        observed_generation: facts.desired.generation(),
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(facts.now))),
        last_probe_time: None,
    }
}

/// The kubelet's `GeneratePodInitializedCondition`.
fn initialized(facts: &PodFacts<'_>) -> Verdict {
    if facts.phase == Phase::Succeeded {
        return Verdict { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let started = |status: &core::ContainerStatus| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    if facts.apps.iter().any(|app| started(app) && app.container_id.is_some()) {
        return Verdict::plain(true);
    }
    let incomplete = names(facts.init.iter().filter(|status| !status.ready));
    if incomplete.is_empty() {
        return Verdict::plain(true);
    }
    Verdict::no(
        "ContainersNotInitialized",
        Some(format!("containers with incomplete status: [{}]", incomplete.join(" "))),
    )
}

/// The kubelet's `GenerateContainersReadyCondition`; `Ready` is the same while there are no readiness gates.
fn containers_ready(facts: &PodFacts<'_>) -> Verdict {
    match facts.phase {
        Phase::Succeeded => return Verdict::no("PodCompleted", None),
        Phase::Failed => return Verdict::no("PodFailed", None),
        Phase::Pending | Phase::Running => {}
    }
    let unready = names(facts.apps.iter().filter(|status| !status.ready));
    if unready.is_empty() {
        return Verdict::plain(true);
    }
    Verdict::no("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))
}

fn names<'a>(statuses: impl Iterator<Item = &'a core::ContainerStatus>) -> Vec<&'a str> {
    statuses.map(|status| status.name.as_str()).collect()
}
