//! Rules for where a Pod wants to be: node affinity and topology spread; `affinity` has those for other Pods.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, TopologySpreadConstraint};

use super::affinity::{label_keys, label_selector, label_values, pod_affinity, weight};
use super::{meta, names};
use crate::field::{Errors, Path};

const OPERATORS: [&str; 6] = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];

pub(super) fn placement(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if let Some(selector) = &spec.node_selector {
        meta::labels(errors, &path.child("nodeSelector"), selector);
    }
    let affinity = path.child("affinity");
    if let Some(own) = &spec.affinity {
        pod_affinity(errors, &affinity, own);
    }
    let path_of_nodes = affinity.child("nodeAffinity");
    if let Some(nodes) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        if let Some(required) = &nodes.required_during_scheduling_ignored_during_execution {
            let required_path = path_of_nodes.child("requiredDuringSchedulingIgnoredDuringExecution");
            let path = required_path.child("nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                errors.required(&path, "must have at least one node selector term");
            }
            for (index, one) in required.node_selector_terms.iter().enumerate() {
                term(errors, &path.index(index), one, true);
            }
        }
        let path = path_of_nodes.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (index, one) in nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let path = path.index(index);
            weight(errors, &path, one.weight);
            term(errors, &path.child("preference"), &one.preference, false);
        }
    }
    let path = path.child("topologySpreadConstraints");
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (index, constraint) in constraints.iter().enumerate() {
        spread(errors, &path.index(index), constraint, constraints.get(index + 1..).unwrap_or_default());
    }
}

/// What is only preferred may name values that no label can have.
fn term(errors: &mut Errors, path: &Path<'_>, term: &NodeSelectorTerm, is_required: bool) {
    let expressions = path.child("matchExpressions");
    for (index, one) in term.match_expressions.iter().flatten().enumerate() {
        let path = expressions.index(index);
        requirement(errors, &path, one);
        for fault in names::qualified_name(&one.key) {
            errors.invalid(&path.child("key"), one.key.as_str(), fault);
        }
        if is_required {
            label_values(errors, &path.child("values"), one.values.as_deref().unwrap_or_default());
        }
    }
    let fields = path.child("matchFields");
    for (index, one) in term.match_fields.iter().flatten().enumerate() {
        field_requirement(errors, &fields.index(index), one);
    }
}

/// The only field is the node's name, and it is compared with one other.
fn field_requirement(errors: &mut Errors, path: &Path<'_>, requirement: &NodeSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let fault = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&path.child("values"), fault);
        }
        "In" | "NotIn" => {}
        operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
    }
    if requirement.key != "metadata.name" {
        errors.invalid(&path.child("key"), requirement.key.as_str(), "not a valid field selector key");
        return;
    }
    for (index, value) in values.iter().enumerate() {
        for fault in names::dns_subdomain(value) {
            errors.invalid(&path.child("values").index(index), value.as_str(), fault);
        }
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

fn spread(
    errors: &mut Errors,
    path: &Path<'_>,
    constraint: &TopologySpreadConstraint,
    later: &[TopologySpreadConstraint],
) {
    let action = constraint.when_unsatisfiable.as_str();
    if constraint.max_skew <= 0 {
        errors.invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
    }
    if constraint.topology_key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    let actions = ["DoNotSchedule", "ScheduleAnyway"];
    if !actions.contains(&action) {
        errors.not_supported(&path.child("whenUnsatisfiable"), action, &actions);
    }
    let same = |other: &&TopologySpreadConstraint| {
        other.topology_key == constraint.topology_key && other.when_unsatisfiable == action
    };
    if later.iter().any(|other| same(&other)) {
        let shown = format!("{{{}, {action}}}", constraint.topology_key);
        errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), shown);
    }
    if let Some(domains) = constraint.min_domains {
        let path = path.child("minDomains");
        if domains <= 0 {
            errors.invalid(&path, domains, "must be greater than zero");
        }
        if action != "DoNotSchedule" {
            let fault = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            errors.invalid(&path, domains, fault);
        }
    }
    let policies = [
        ("nodeAffinityPolicy", constraint.node_affinity_policy.as_deref()),
        ("nodeTaintsPolicy", constraint.node_taints_policy.as_deref()),
    ];
    for (field, policy) in policies {
        if let Some(policy) = policy.filter(|policy| !["Honor", "Ignore"].contains(policy)) {
            errors.not_supported(&path.child(field), policy, &["Honor", "Ignore"]);
        }
    }
    label_keys(errors, path, constraint.match_label_keys.as_deref(), None, constraint.label_selector.as_ref());
    label_selector(errors, &path.child("labelSelector"), constraint.label_selector.as_ref());
}
