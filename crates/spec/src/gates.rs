//! What keeps a Pod from being placed on a node (`spec.schedulingGates`, KEP-3521), and how its status says so.

use k8s_openapi::api::core::v1::{PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition that tells whether a Pod is placed.
pub const POD_SCHEDULED: &str = "PodScheduled";

/// Whether something still keeps it from being placed.
pub fn is_gated(spec: &PodSpec) -> bool {
    spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
}

/// The condition of a Pod that has gates, in the words of Kubernetes (`applySchedulingGatedCondition`).
pub fn gated_condition(generation: Option<i64>, since: Option<Time>) -> PodCondition {
    PodCondition {
        type_: POD_SCHEDULED.to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        observed_generation: generation,
        last_transition_time: since,
        last_probe_time: None,
    }
}
