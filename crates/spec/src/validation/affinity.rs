//! Rules for which Pods a Pod wants to be near, and for the selectors that say so.

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{meta, names};
use crate::field::{Errors, Path};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn pod_affinity(errors: &mut Errors, path: &Path<'_>, affinity: &Affinity) {
    if let Some(near) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        terms(errors, &path, near.required_during_scheduling_ignored_during_execution.as_deref());
        weighted_terms(errors, &path, near.preferred_during_scheduling_ignored_during_execution.as_deref());
    }
    if let Some(apart) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        terms(errors, &path, apart.required_during_scheduling_ignored_during_execution.as_deref());
        weighted_terms(errors, &path, apart.preferred_during_scheduling_ignored_during_execution.as_deref());
    }
}

fn terms(errors: &mut Errors, path: &Path<'_>, terms: Option<&[PodAffinityTerm]>) {
    let path = path.child(REQUIRED);
    for (index, one) in terms.unwrap_or_default().iter().enumerate() {
        term(errors, &path.index(index), one);
    }
}

fn weighted_terms(errors: &mut Errors, path: &Path<'_>, terms: Option<&[WeightedPodAffinityTerm]>) {
    let path = path.child(PREFERRED);
    for (index, one) in terms.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        weight(errors, &path, one.weight);
        term(errors, &path.child("podAffinityTerm"), &one.pod_affinity_term);
    }
}

/// How much a wish counts.
pub(super) fn weight(errors: &mut Errors, path: &Path<'_>, weight: i32) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn term(errors: &mut Errors, path: &Path<'_>, term: &PodAffinityTerm) {
    label_selector(errors, &path.child("labelSelector"), term.label_selector.as_ref());
    label_selector(errors, &path.child("namespaceSelector"), term.namespace_selector.as_ref());
    for name in term.namespaces.iter().flatten() {
        for fault in names::dns_label(name) {
            errors.invalid(&path.child("namespace"), name.as_str(), fault);
        }
    }
    let (same, other) = (term.match_label_keys.as_deref(), term.mismatch_label_keys.as_deref());
    label_keys(errors, path, same, other, term.label_selector.as_ref());
    let key = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&key, "can not be empty");
    }
    for fault in names::qualified_name(&term.topology_key) {
        errors.invalid(&key, term.topology_key.as_str(), fault);
    }
}

/// Keys of labels whose values the Pod itself gives; they must not be chosen by in another way, too.
pub(super) fn label_keys(
    errors: &mut Errors,
    path: &Path<'_>,
    same: Option<&[String]>,
    other: Option<&[String]>,
    selector: Option<&LabelSelector>,
) {
    let (same, other) = (same.unwrap_or_default(), other.unwrap_or_default());
    for (field, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        let path = path.child(field);
        if !keys.is_empty() && selector.is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            for fault in names::qualified_name(key) {
                errors.invalid(&path.index(index), key.as_str(), fault);
            }
        }
    }
    if let Some(selector) = selector {
        let mut seen: Vec<&String> = selector.match_labels.iter().flatten().map(|(key, _)| key).collect();
        for expression in selector.match_expressions.iter().flatten() {
            let key = &expression.key;
            if let Some(index) = same.iter().position(|one| one == key).filter(|_| seen.contains(&key)) {
                errors.invalid(&path.index(index), key.as_str(), "exists in both matchLabelKeys and labelSelector");
            }
            seen.push(key);
        }
    }
    for (index, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let fault = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&path.child("matchLabelKeys").index(index), key.as_str(), fault);
    }
}

pub(super) fn label_selector(errors: &mut Errors, path: &Path<'_>, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    if let Some(labels) = &selector.match_labels {
        meta::labels(errors, &path.child("matchLabels"), labels);
    }
    let expressions = path.child("matchExpressions");
    for (index, one) in selector.match_expressions.iter().flatten().enumerate() {
        let path = expressions.index(index);
        let values = one.values.as_deref().unwrap_or_default();
        let path_of_values = path.child("values");
        match one.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path_of_values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&path_of_values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        for fault in names::qualified_name(&one.key) {
            errors.invalid(&path.child("key"), one.key.as_str(), fault);
        }
        label_values(errors, &path_of_values, values);
    }
}

pub(super) fn label_values(errors: &mut Errors, path: &Path<'_>, values: &[String]) {
    for (index, value) in values.iter().enumerate() {
        for fault in names::label_value(value) {
            errors.invalid(&path.index(index), value.as_str(), fault);
        }
    }
}
