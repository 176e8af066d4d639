//! Rules for where a Pod wants to be: node affinity and topology spread.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, TopologySpreadConstraint};

use super::pod::one_of;
use super::{meta, names};
use crate::field::{Errors, Path};

const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];

pub(super) fn placement(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if let Some(selector) = &spec.node_selector {
        meta::labels(errors, &path.child("nodeSelector"), selector);
    }
    let affinity = path.child("affinity");
    let path_of_nodes = affinity.child("nodeAffinity");
    if let Some(nodes) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        if let Some(required) = &nodes.required_during_scheduling_ignored_during_execution {
            let required_path = path_of_nodes.child("requiredDuringSchedulingIgnoredDuringExecution");
            let path = required_path.child("nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                errors.required(&path, "must have at least one node selector term");
            }
            for (index, one) in required.node_selector_terms.iter().enumerate() {
                term(errors, &path.index(index), one);
            }
        }
        let path = path_of_nodes.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, one) in nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let path = path.index(index);
            for fault in names::between(i64::from(one.weight), 1, 100) {
                errors.invalid(&path.child("weight"), one.weight, fault);
            }
            term(errors, &path.child("preference"), &one.preference);
        }
    }
    let path = path.child("topologySpreadConstraints");
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        spread(errors, &path.index(index), constraint);
    }
}

fn term(errors: &mut Errors, path: &Path<'_>, term: &NodeSelectorTerm) {
    let expressions = path.child("matchExpressions");
    for (index, one) in term.match_expressions.iter().flatten().enumerate() {
        let path = expressions.index(index);
        for fault in names::qualified_name(&one.key) {
            errors.invalid(&path.child("key"), one.key.as_str(), fault);
        }
        requirement(errors, &path, one);
    }
    let fields = path.child("matchFields");
    for (index, one) in term.match_fields.iter().flatten().enumerate() {
        let path = fields.index(index);
        if one.key != "metadata.name" {
            errors.invalid(&path.child("key"), one.key.as_str(), "not a valid field selector key");
        }
        requirement(errors, &path, one);
    }
}

fn requirement(errors: &mut Errors, path: &Path<'_>, requirement: &NodeSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let path_of_values = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&path_of_values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&path_of_values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&path_of_values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        operator if !OPERATORS.contains(&operator) => {
            errors.invalid(&path.child("operator"), operator, "not a valid selector operator");
        }
        _ => {}
    }
}

fn spread(errors: &mut Errors, path: &Path<'_>, constraint: &TopologySpreadConstraint) {
    if constraint.max_skew <= 0 {
        errors.invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
    }
    if constraint.topology_key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    let words = ["DoNotSchedule", "ScheduleAnyway"];
    one_of(errors, &path.child("whenUnsatisfiable"), Some(&constraint.when_unsatisfiable), &words);
}
