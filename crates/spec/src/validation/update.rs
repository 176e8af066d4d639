//! What may change of a Pod once it exists: a Pod is replaced, not changed.
//!
//! Source: kubernetes.io "Pod update and replacement".

use k8s_openapi::api::core::v1::{Affinity, Container, NodeSelectorTerm, Pod, PodIP, PodSpec, Toleration};
use serde_json::Value;

use super::{apparmor, container, meta, mirror, names, pod};
use crate::field::{Errors, FieldError, Path};
use crate::gates::is_gated;

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
    let mut with_old = with_old_values(new_spec, old_spec);
    if is_gated(old_spec) {
        narrowed_placement(&mut errors, &path, new_spec, old_spec);
        with_old.node_selector.clone_from(&old_spec.node_selector);
        with_old.affinity = with_old_node_affinity(new_spec.affinity.as_ref(), old_spec.affinity.as_ref());
    }
    let changed = changed_fields(&with_old, old_spec);
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

/// Conditions whose names are Kubernetes' own.
const OWN_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Checks a status that a client has written (`ValidatePodStatusUpdate`).
pub fn validate_pod_status_update(new: &Pod, old: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("status");
    let nominated = |pod: &Pod| pod.status.as_ref().and_then(|status| status.nominated_node_name.clone());
    if let Some(name) = nominated(new).filter(|name| !name.is_empty() && nominated(old).as_ref() != Some(name)) {
        for fault in names::dns_subdomain(&name) {
            errors.invalid(&path.child("nominatedNodeName"), name.as_str(), fault);
        }
    }
    let Some(status) = &new.status else { return errors.into_vec() };
    pod_ips(&mut errors, &path.child("podIPs"), status.pod_ips.as_deref().unwrap_or_default());
    let conditions = path.child("conditions");
    for (index, condition) in status.conditions.iter().flatten().enumerate() {
        for fault in names::qualified_name(&condition.type_) {
            if !OWN_CONDITIONS.contains(&condition.type_.as_str()) {
                errors.invalid(&conditions.index(index).child("type"), condition.type_.as_str(), fault);
            }
        }
    }
    errors.into_vec()
}

fn pod_ips(errors: &mut Errors, path: &Path<'_>, addresses: &[PodIP]) {
    for (index, address) in addresses.iter().enumerate() {
        for fault in names::ip_address(&address.ip) {
            errors.invalid(&path.index(index), address.ip.as_str(), fault);
        }
    }
    let families: Vec<_> = addresses.iter().map(|address| address.ip.contains(':')).collect();
    if addresses.len() > 2 || matches!(families.as_slice(), [one, other] if one == other) {
        errors.invalid(path, as_value(addresses), "may specify no more than one IP for each IP family");
    }
    for (index, address) in addresses.iter().enumerate() {
        if addresses.iter().take(index).any(|earlier| earlier == address) {
            errors.duplicate(&path.index(index), as_value(address));
        }
    }
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
            let fault = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.forbidden(&path.index(index).child("name"), fault);
        }
    }
}

/// Where a Pod may go can only get narrower while it is gated (KEP-3838; `validateNodeSelectorMutation`,
/// `validateNodeAffinityMutation`).
fn narrowed_placement(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) {
    let chosen = |spec: &PodSpec| spec.node_selector.clone().unwrap_or_default();
    let (new_labels, old_labels) = (chosen(new), chosen(old));
    if old_labels.iter().any(|(key, value)| new_labels.get(key) != Some(value)) {
        let fault = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&path.child("nodeSelector"), as_value(&new_labels), fault);
    }
    let (new_terms, old_terms) = (required_terms(new), required_terms(old));
    let path = path.child("affinity");
    let path = path.child("nodeAffinity");
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
    let path = path.child("nodeSelectorTerms");
    if old_terms.is_empty() {
        return;
    }
    if old_terms.len() != new_terms.len() {
        let fault = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&path, as_value(new_terms), fault);
    }
    for (index, (new, old)) in new_terms.iter().zip(old_terms).enumerate() {
        if !has_only_additions(new, old) {
            let fault = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&path.index(index), as_value(new), fault);
        }
    }
}

fn required_terms(spec: &PodSpec) -> &[NodeSelectorTerm] {
    let nodes = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = nodes.and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution.as_ref());
    required.map(|required| required.node_selector_terms.as_slice()).unwrap_or_default()
}

/// A term without requirements matches nothing; with one it would match something.
fn has_only_additions(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let lists = |term: &NodeSelectorTerm| {
        [&term.match_expressions, &term.match_fields].map(|list| list.clone().unwrap_or_default())
    };
    let (new, old) = (lists(new), lists(old));
    let was_empty = old.iter().all(Vec::is_empty);
    new.iter().zip(&old).all(|(new, old)| new.starts_with(old) && (!was_empty || new.is_empty()))
}

/// The new affinity with the old one of nodes; an affinity that is empty then is none.
fn with_old_node_affinity(new: Option<&Affinity>, old: Option<&Affinity>) -> Option<Affinity> {
    let nodes = old.and_then(|old| old.node_affinity.clone());
    let next = Affinity { node_affinity: nodes, ..new.cloned().unwrap_or_default() };
    (old.is_some() || next != Affinity::default()).then_some(next)
}

fn as_value(value: &(impl serde::Serialize + ?Sized)) -> Value {
    serde_json::to_value(value).unwrap_or_default()
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

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
