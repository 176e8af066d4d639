//! What a pod was granted, beside what its spec wishes for. Pure.
//!
//! Between a change of resources through the `resize` door and the node's consent they differ; everything but that
//! decision works with what was granted (KEP-1287).

use std::collections::BTreeMap;

use spec::ContainerName;
use spec::k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use spec::ordered::map_of;

use crate::desired::DesiredPod;

/// Resources by container, and under the empty name those of the pod itself; who has none is left out.
pub type Allocation = BTreeMap<ContainerName, ResourceRequirements>;

/// What the spec wishes for.
pub fn allocation_of(spec: &PodSpec) -> Allocation {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let containers = spec.containers.iter().chain(sidecars);
    let asked = containers.map(|container| (ContainerName::new(&container.name), container.resources.as_ref()));
    let asked = asked.chain([(the_pod(), spec.resources.as_ref())]);
    map_of(asked.filter_map(|(name, resources)| Some((name, resources.and_then(something)?))))
}

/// No container is called like that.
fn the_pod() -> ContainerName {
    ContainerName::new("")
}

fn something(resources: &ResourceRequirements) -> Option<ResourceRequirements> {
    Some(plain(resources.clone())).filter(|resources| *resources != nothing())
}

/// Writes what was granted into the pod; answers with what its spec wishes for instead, if that is something else.
pub fn apply(desired: &mut DesiredPod, granted: &Allocation) -> Option<Allocation> {
    let wanted = allocation_of(&desired.spec);
    if wanted == *granted {
        return None;
    }
    set(&mut desired.spec, granted);
    if let Some(spec) = &mut desired.object.spec {
        set(spec, granted);
    }
    Some(wanted)
}

/// Writes resources into a spec.
pub fn set(spec: &mut PodSpec, allocation: &Allocation) {
    let sidecars = spec.init_containers.iter_mut().flatten().filter(|container| is_sidecar(container));
    for container in spec.containers.iter_mut().chain(sidecars) {
        let granted = allocation.get(&ContainerName::new(&container.name)).cloned().unwrap_or_default();
        let claims = container.resources.take().and_then(|resources| resources.claims);
        container.resources = Some(ResourceRequirements { claims, ..granted });
    }
    let granted = allocation.get(&the_pod()).cloned();
    if granted.is_some() || spec.resources.as_ref().and_then(something).is_some() {
        spec.resources = granted;
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Requests and limits alone, the empty as the absent.
fn plain(resources: ResourceRequirements) -> ResourceRequirements {
    ResourceRequirements {
        limits: resources.limits.filter(|list| !list.is_empty()),
        requests: resources.requests.filter(|list| !list.is_empty()),
        claims: None,
    }
}

fn nothing() -> ResourceRequirements {
    ResourceRequirements::default()
}
