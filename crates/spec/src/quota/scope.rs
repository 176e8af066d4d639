//! Which objects a quota means: its scopes and its scope selector.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ResourceQuotaSpec};

use super::Item;
use crate::qos::{QosClass, qos_class};

/// One scope that an object must be in.
struct Wanted<'a> {
    scope: &'a str,
    operator: &'a str,
    values: &'a [String],
}

/// Whether the object is in all scopes of the quota; what has no scopes is in none.
pub(super) fn matches(quota: &ResourceQuota, item: &Item) -> bool {
    let Some(spec) = &quota.spec else { return true };
    wanted(spec).all(|wanted| match item {
        Item::Pod(pod) => wanted.is_of_pod(pod),
        Item::Claim(claim) => wanted.is_of_claim(claim),
        Item::Service(_) | Item::Other(_) => false,
    })
}

fn wanted(spec: &ResourceQuotaSpec) -> impl Iterator<Item = Wanted<'_>> {
    let plain = spec.scopes.iter().flatten().map(|scope| Wanted { scope, operator: "Exists", values: &[] });
    let selected = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    plain.chain(selected.map(|one| Wanted {
        scope: &one.scope_name,
        operator: &one.operator,
        values: one.values.as_deref().unwrap_or_default(),
    }))
}

impl Wanted<'_> {
    fn is_of_pod(&self, pod: &Pod) -> bool {
        let spec = pod.spec.clone().unwrap_or_default();
        let is_terminating = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
        match self.scope {
            "Terminating" => is_terminating,
            "NotTerminating" => !is_terminating,
            "BestEffort" => qos_class(pod) == QosClass::BestEffort,
            "NotBestEffort" => qos_class(pod) != QosClass::BestEffort,
            "PriorityClass" => self.is_among(spec.priority_class_name.as_deref().filter(|name| !name.is_empty())),
            "CrossNamespacePodAffinity" => crosses_namespaces(pod),
            _ => false,
        }
    }

    fn is_of_claim(&self, claim: &PersistentVolumeClaim) -> bool {
        if self.scope != "VolumeAttributesClass" {
            return false;
        }
        let asked = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
        let status = claim.status.as_ref();
        let present = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
        let named: Vec<&str> = [asked, present].into_iter().flatten().filter(|name| !name.is_empty()).collect();
        if named.is_empty() { self.is_among(None) } else { named.into_iter().any(|name| self.is_among(Some(name))) }
    }

    fn is_among(&self, name: Option<&str>) -> bool {
        let listed = name.is_some_and(|name| self.values.iter().any(|value| value == name));
        match self.operator {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => name.is_some(),
            "DoesNotExist" => name.is_none(),
            _ => false,
        }
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let crosses = |term: &PodAffinityTerm| {
        term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|names| !names.is_empty())
    };
    let required =
        near.iter().flat_map(|near| near.required_during_scheduling_ignored_during_execution.iter().flatten());
    let of_near =
        near.iter().flat_map(|near| near.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    let also =
        apart.iter().flat_map(|apart| apart.required_during_scheduling_ignored_during_execution.iter().flatten());
    let of_apart =
        apart.iter().flat_map(|apart| apart.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    required.chain(also).any(crosses) || of_near.chain(of_apart).any(|weighted| crosses(&weighted.pod_affinity_term))
}
