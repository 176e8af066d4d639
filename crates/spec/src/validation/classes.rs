//! Rules for small kinds: Lease, PriorityClass, RuntimeClass and PodTemplate.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PodTemplate;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::pod::one_of;
use super::{meta, names, resources, workloads};
use crate::field::{Errors, FieldError, Path};
use crate::placement::SYSTEM_CLASSES;

/// The highest priority that is not the system's.
const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;

/// Checks a Lease.
pub fn validate_lease(new: &Lease, _old: Option<&Lease>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let Some(spec) = &new.spec else { return Vec::new() };
    if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
        errors.invalid(&path.child("leaseTransitions"), count, "must be greater than or equal to 0");
    }
    errors.into_vec()
}

/// Checks a PriorityClass.
pub fn validate_priority_class(new: &PriorityClass, old: Option<&PriorityClass>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let (name, value) = (new.metadata.name.as_deref().unwrap_or_default(), new.value.unwrap_or_default());
    let is_system = SYSTEM_CLASSES.contains(&(name, value));
    if name.starts_with("system-") && !is_system {
        let detail = "priority class names with 'system-' prefix are reserved for system use only. error: the name is \
                      not one of the system's, or its value is another";
        errors.forbidden(&Path::root("metadata").child("name"), detail);
    }
    if value > HIGHEST_USER_PRIORITY && !is_system {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        errors.forbidden(&Path::root("value"), detail);
    }
    let policies = ["Never", "PreemptLowerPriority"];
    one_of(&mut errors, &Path::root("preemptionPolicy"), new.preemption_policy.as_deref(), &policies);
    if let Some(old) = old {
        for (field, same) in
            [("value", old.value == new.value), ("preemptionPolicy", old.preemption_policy == new.preemption_policy)]
        {
            if !same {
                errors.forbidden(&Path::root(field), "may not be changed in an update.");
            }
        }
    }
    errors.into_vec()
}

/// Checks a RuntimeClass.
pub fn validate_runtime_class(new: &RuntimeClass, old: Option<&RuntimeClass>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    for fault in names::dns_label(&new.handler) {
        errors.invalid(&Path::root("handler"), new.handler.as_str(), fault);
    }
    let overhead = Path::root("overhead");
    let overhead = overhead.child("podFixed");
    for (name, amount) in new.overhead.iter().flat_map(|overhead| overhead.pod_fixed.iter().flatten()) {
        resources::amount(&mut errors, &overhead, name, amount);
    }
    if let Some(selector) = new.scheduling.as_ref().and_then(|scheduling| scheduling.node_selector.as_ref()) {
        meta::labels(&mut errors, &Path::root("scheduling").child("nodeSelector"), selector);
    }
    if old.is_some_and(|old| old.handler != new.handler) {
        errors.invalid(&Path::root("handler"), new.handler.as_str(), "field is immutable");
    }
    errors.into_vec()
}

/// Checks a PodTemplate.
pub fn validate_pod_template(new: &PodTemplate, _old: Option<&PodTemplate>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    workloads::template(&mut errors, &Path::root("template"), &new.template.clone().unwrap_or_default());
    errors.into_vec()
}
