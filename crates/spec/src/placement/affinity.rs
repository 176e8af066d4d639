//! `nodeSelector` and the required part of `nodeAffinity`. What is only preferred changes nothing with one node.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::NodeView;

/// Whether the node is one that the Pod asks for.
pub fn matches_node_affinity(spec: &PodSpec, node: &NodeView) -> bool {
    let mut wanted = spec.node_selector.iter().flatten();
    if !wanted.all(|(key, value)| node.labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| matches_node_selector(required, node))
}

/// Whether one of the terms matches.
pub fn matches_node_selector(selector: &NodeSelector, node: &NodeView) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, node))
}

/// All that a term says must hold; one that says nothing matches nothing.
fn matches_term(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let by_label = term.match_expressions.as_deref().unwrap_or_default();
    let by_field = term.match_fields.as_deref().unwrap_or_default();
    if by_label.is_empty() && by_field.is_empty() {
        return false;
    }
    let name = |field: &str| (field == "metadata.name").then_some(node.name.as_str());
    by_label.iter().all(|one| matches_requirement(one, node.labels.get(&one.key).map(String::as_str)))
        && by_field.iter().all(|one| matches_requirement(one, name(&one.key)))
}

fn matches_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(present, bound)| present > bound),
        "Lt" => numbers().is_some_and(|(present, bound)| present < bound),
        // Validation lets nothing else through.
        _ => false,
    }
}
