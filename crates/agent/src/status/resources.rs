//! What a container was granted and what it has, for its status. Pure.

use std::collections::BTreeMap;

use runtime::{ContainerState, ContainerStatus};
use spec::k8s_openapi::api::core::v1 as core;
use spec::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Writes `allocatedResources` and `resources`; `container` is the spec's with what was granted. Of a run that has ended
/// both are what was granted (kubelet, `convertContainerStatusResources`).
pub(super) fn fill(status: &mut core::ContainerStatus, container: &core::Container, run: &ContainerStatus) {
    let granted = container.resources.clone().unwrap_or_default();
    status.allocated_resources = granted.requests.clone().filter(|list| !list.is_empty());
    status.resources.clone_from(&container.resources);
    if !is_running(run) {
        return;
    }
    let mut limits = granted.limits.unwrap_or_default();
    let mut requests = granted.requests.unwrap_or_default();
    let has = &run.resources;
    // One without any limit may have those of its pod, which are not its own.
    if !limits.is_empty() {
        put(&mut limits, "cpu", has.cpu_limit_millis, Unit::Millis);
        put(&mut limits, "memory", has.memory_limit_bytes, Unit::Whole);
    }
    if !requests.is_empty() {
        put(&mut requests, "cpu", has.cpu_request_millis, Unit::Millis);
    }
    if !limits.is_empty() || !requests.is_empty() {
        let full = |list: BTreeMap<String, Quantity>| (!list.is_empty()).then_some(list);
        status.resources =
            Some(core::ResourceRequirements { limits: full(limits), requests: full(requests), claims: None });
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Millis,
    Whole,
}

/// Keeps the text of the spec where it means what the container has.
fn put(list: &mut BTreeMap<String, Quantity>, name: &str, has: Option<u64>, unit: Unit) {
    let means = list.get(name).map(|text| u64::try_from(spec::requests::amount(name, text)).unwrap_or_default());
    match has {
        // Nothing is enforced; a request of none is still one.
        None if means.is_none_or(|means| means == 0) => {}
        None => drop(list.remove(name)),
        Some(has) if means == Some(has) => {}
        Some(has) => {
            let text = match unit {
                Unit::Millis if has % 1000 == 0 => (has / 1000).to_string(),
                Unit::Millis => format!("{has}m"),
                Unit::Whole => has.to_string(),
            };
            list.insert(name.to_owned(), Quantity(text));
        }
    }
}

fn is_running(run: &ContainerStatus) -> bool {
    match run.state {
        ContainerState::Running { .. } => true,
        ContainerState::Created | ContainerState::Exited(_) => false,
    }
}
