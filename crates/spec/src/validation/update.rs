//! What may change of a Pod once it exists: a Pod is replaced, not changed.
//!
//! Source: kubernetes.io "Pod update and replacement".

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};
use serde_json::Value;

use super::{apparmor, container, meta, mirror, pod};
use crate::field::{Errors, FieldError, Path};

/// The fields that may change, as the API server lists them.
const MAY_CHANGE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be \
     set to 1 if it was previously negative)";

/// Checks an update of a Pod through its main door, both with their defaults.
pub fn validate_pod_update(new: &Pod, old: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    meta::object_meta_update(&mut errors, &new.metadata, &old.metadata);
    mirror::changed_pod(&mut errors, new, old);
    let empty = PodSpec::default();
    let (new_spec, old_spec) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let metadata = Path::root("metadata");
    apparmor::changed_annotations(&mut errors, &metadata.child("annotations"), &new.metadata, &old.metadata);
    let path = Path::root("spec");
    let has_same_containers = same_containers(&mut errors, &path, new_spec, old_spec);
    if !has_same_containers {
        return errors.into_vec();
    }
    deadline(&mut errors, &path.child("activeDeadlineSeconds"), new_spec, old_spec);
    tolerations(&mut errors, &path.child("tolerations"), new_spec, old_spec);
    scheduling_gates(&mut errors, &path.child("schedulingGates"), new_spec, old_spec);
    let changed = changed_fields(&with_old_values(new_spec, old_spec), old_spec);
    if !changed.is_empty() {
        let detail =
            format!("pod updates may not change fields other than {MAY_CHANGE}\nchanged: {}", changed.join(", "));
        errors.forbidden(&path, detail);
    }
    if errors.is_empty() {
        pod::pod_spec(&mut errors, &path, new_spec);
    }
    errors.into_vec()
}

fn same_containers(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) -> bool {
    let lists: [(&str, &[Container], &[Container]); 2] = [
        ("containers", &new.containers, &old.containers),
        (
            "initContainers",
            new.init_containers.as_deref().unwrap_or_default(),
            old.init_containers.as_deref().unwrap_or_default(),
        ),
    ];
    for (field, new, old) in lists {
        let path = path.child(field);
        if new.len() != old.len() {
            errors.forbidden(&path, "pod updates may not add or remove containers");
            return false;
        }
        for (index, new) in new.iter().enumerate() {
            container::image(errors, &path.index(index).child("image"), new);
        }
    }
    true
}

fn deadline(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, new, "must be less than or equal to previous value");
        }
        (None, Some(_)) => errors.invalid(path, Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

/// They hold back until the last one is taken away; none is added.
fn scheduling_gates(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) {
    let old = old.scheduling_gates.as_deref().unwrap_or_default();
    for (index, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !old.contains(gate) {
            errors.forbidden(&path.index(index), "only deletion is allowed, but found new scheduling gate");
        }
    }
}

fn tolerations(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) {
    let new = new.tolerations.as_deref().unwrap_or_default();
    for old in old.tolerations.iter().flatten() {
        let is_kept =
            |new: &Toleration| Toleration { toleration_seconds: old.toleration_seconds, ..new.clone() } == *old;
        if !new.iter().any(is_kept) {
            errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
            return;
        }
    }
}

/// The new spec with the old values of all that may change.
fn with_old_values(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = new.clone();
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.tolerations.clone_from(&old.tolerations);
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && new.termination_grace_period_seconds == Some(1)
    {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    let init = spec.init_containers.iter_mut().flatten().zip(old.init_containers.iter().flatten());
    for (new, old) in spec.containers.iter_mut().zip(&old.containers).chain(init) {
        new.image.clone_from(&old.image);
    }
    spec
}

/// The deepest fields that differ, by path.
fn changed_fields(new: &PodSpec, old: &PodSpec) -> Vec<String> {
    let value = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut changed = Vec::new();
    compare(&Path::root("spec"), &value(new), &value(old), &mut changed);
    changed
}

fn compare(path: &Path<'_>, new: &Value, old: &Value, changed: &mut Vec<String>) {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            for (name, value) in new {
                compare(&path.child(name), value, old.get(name).unwrap_or(&Value::Null), changed);
            }
            for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                compare(&path.child(name), &Value::Null, value, changed);
            }
        }
        (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
            for (index, (new, old)) in new.iter().zip(old).enumerate() {
                compare(&path.index(index), new, old, changed);
            }
        }
        // An absent list or map is an empty one.
        _ if new == old || (is_empty(new) && is_empty(old)) => {}
        _ => changed.push(path.to_string()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
