//! What a Pod as a whole was granted and has, for its status. Pure.

use runtime::PodSandboxStatus;
use spec::k8s_openapi::api::core::v1 as core;
use spec::requests::{ResourceList, amounts, pod_limits, pod_requests, quantities};

use super::Phase;
use crate::desired::DesiredPod;

/// Writes `allocatedResources` and `resources`: as long as it does not run both are what was granted, then the limits
/// and the share of the CPU are what its cgroup says (kubelet, `convertToAPIPodLevelResourcesStatus`).
pub(super) fn fill(
    status: &mut core::PodStatus,
    desired: &DesiredPod,
    phase: Phase,
    sandbox: Option<&PodSandboxStatus>,
) {
    let requests = pod_requests(&desired.object);
    let full = |list: &ResourceList| (!list.is_empty()).then(|| quantities(list));
    status.allocated_resources = full(&requests);
    let (requests, limits) = match sandbox.filter(|_| phase == Phase::Running) {
        None => (requests, pod_limits(&desired.object)),
        Some(sandbox) => running(desired, &requests, sandbox),
    };
    status.resources =
        Some(core::ResourceRequirements { requests: full(&requests), limits: full(&limits), claims: None });
}

fn running(desired: &DesiredPod, sum: &ResourceList, sandbox: &PodSandboxStatus) -> (ResourceList, ResourceList) {
    let own = desired.spec.resources.clone().unwrap_or_default();
    let mut requests = own.requests.as_ref().map(amounts).unwrap_or_default();
    let mut limits = own.limits.as_ref().map(amounts).unwrap_or_default();
    if let Some(memory) = sum.get("memory") {
        requests.entry("memory".to_owned()).or_insert(*memory);
    }
    let has = &sandbox.resources;
    put(&mut requests, "cpu", has.cpu_request_millis);
    put(&mut limits, "cpu", has.cpu_limit_millis);
    put(&mut limits, "memory", has.memory_limit_bytes);
    (requests, limits)
}

fn put(list: &mut ResourceList, name: &str, amount: Option<u64>) {
    if let Some(amount) = amount.and_then(|amount| i64::try_from(amount).ok()) {
        list.insert(name.to_owned(), amount);
    }
}
