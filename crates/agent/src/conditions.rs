//! The conditions of a pod's status, with the kubelet's reasons and messages. Pure.

use spec::Timestamp;
use spec::gates::{POD_SCHEDULED, gated_condition};
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::desired::{ContainerKind, DesiredPod, kind_of_init};
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
    /// Of a Pod that may restart in place: whether it does.
    pub restarting: Option<bool>,
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

/// All conditions in the kubelet's order, and those of other writers.
pub fn conditions(facts: &PodFacts<'_>) -> Vec<core::PodCondition> {
    let stored = facts.desired.status.conditions.as_deref().unwrap_or_default();
    let ours = [
        ("PodReadyToStartContainers", Verdict::plain(facts.sandbox_ready)),
        ("Initialized", initialized(facts)),
        ("Ready", ready(facts, stored)),
        ("ContainersReady", containers_ready(facts)),
        (POD_SCHEDULED, Verdict::plain(true)),
    ];
    let restarting = facts.restarting.map(|restarting| ("AllContainersRestarting", all_restarting(facts, restarting)));
    let foreign = stored.iter().filter(|condition| !is_ours(&condition.type_)).cloned();
    let ours = ours.into_iter().chain(restarting);
    let ours = ours.map(|(type_, verdict)| condition(facts.desired, facts.now, type_, verdict));
    foreign.chain(ours).collect()
}

/// Whether the agent writes conditions of this type; all others are kept as their writers left them.
pub fn is_ours(type_: &str) -> bool {
    OURS.contains(&type_)
}

/// In the kubelet's order (`generateAPIPodStatus`).
const OURS: [&str; 8] = [
    "PodResizePending",
    "PodResizeInProgress",
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    POD_SCHEDULED,
    "AllContainersRestarting",
];

/// Where a condition of this type stands among others: those of other writers come first, as they are.
pub fn place(type_: &str) -> usize {
    OURS.iter().position(|ours| *ours == type_).map_or(0, |place| place + 1)
}

/// The one condition of a pod that its scheduling gates keep from its node, and those of other writers.
pub fn gated_conditions(desired: &DesiredPod, now: Timestamp) -> Vec<core::PodCondition> {
    let gated = gated_condition(desired.generation(), Some(since(desired, now, POD_SCHEDULED, "False")));
    let stored = desired.status.conditions.iter().flatten();
    std::iter::once(gated).chain(stored.filter(|condition| !is_ours(&condition.type_)).cloned()).collect()
}

fn condition(desired: &DesiredPod, now: Timestamp, type_: &str, verdict: Verdict) -> core::PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    core::PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        observed_generation: desired.generation(),
        last_transition_time: Some(since(desired, now, type_, status)),
        last_probe_time: None,
    }
}

/// Since when a condition has this status: as it is stored, else from now on.
fn since(desired: &DesiredPod, now: Timestamp, type_: &str, status: &str) -> Time {
    let stored = desired.status.conditions.as_deref().unwrap_or_default();
    let before = stored.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    before.and_then(|before| before.last_transition_time.clone()).unwrap_or(Time(now))
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
    let inits = facts.desired.init_containers().iter().map(kind_of_init).zip(facts.init);
    let incomplete = inits.filter(|(kind, status)| match kind {
        ContainerKind::Sidecar => status.started != Some(true),
        ContainerKind::Init | ContainerKind::App | ContainerKind::Ephemeral => !status.ready,
    });
    let incomplete = names(incomplete.map(|(_, status)| status));
    // Once it is initialized a pod stays so, also where it has to begin anew (KEP-5532).
    let stored = facts.desired.status.conditions.iter().flatten();
    let was = stored.into_iter().any(|condition| condition.type_ == "Initialized" && condition.status == "True");
    if incomplete.is_empty() || was {
        return Verdict::plain(true);
    }
    Verdict::no(
        "ContainersNotInitialized",
        Some(format!("containers with incomplete status: [{}]", incomplete.join(" "))),
    )
}

/// The kubelet's `GeneratePodReadyCondition`: the containers, and the conditions of others that the pod waits for.
fn ready(facts: &PodFacts<'_>, stored: &[core::PodCondition]) -> Verdict {
    let containers = containers_ready(facts);
    if !containers.holds {
        return containers;
    }
    let gates = facts.desired.spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
    let shut = gates.filter_map(|gate| match stored.iter().find(|condition| condition.type_ == gate) {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => {
            Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", condition.status))
        }
        None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
    });
    let shut: Vec<_> = shut.collect();
    if shut.is_empty() { containers } else { Verdict::no("ReadinessGatesNotReady", Some(shut.join(", "))) }
}

/// The kubelet's `GenerateContainersReadyCondition`: sidecars count, init containers do not.
fn containers_ready(facts: &PodFacts<'_>) -> Verdict {
    match facts.phase {
        Phase::Succeeded => return Verdict::no("PodCompleted", None),
        Phase::Failed => return Verdict::no("PodFailed", None),
        Phase::Pending | Phase::Running => {}
    }
    let inits = facts.desired.init_containers().iter().map(kind_of_init).zip(facts.init);
    let sidecars = inits.filter(|(kind, _)| *kind == ContainerKind::Sidecar).map(|(_, status)| status);
    let unready = names(sidecars.chain(facts.apps).filter(|status| !status.ready));
    if unready.is_empty() {
        return Verdict::plain(true);
    }
    Verdict::no("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))
}

/// The kubelet's `GenerateAllContainersRestartingCondition`.
fn all_restarting(facts: &PodFacts<'_>, restarting: bool) -> Verdict {
    match facts.phase {
        Phase::Succeeded => Verdict::no("PodCompleted", None),
        Phase::Failed => Verdict::no("PodFailed", None),
        Phase::Pending | Phase::Running if restarting => Verdict {
            holds: true,
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".to_owned()),
        },
        Phase::Pending | Phase::Running => Verdict::plain(false),
    }
}

fn names<'a>(statuses: impl Iterator<Item = &'a core::ContainerStatus>) -> Vec<&'a str> {
    statuses.map(|status| status.name.as_str()).collect()
}
