//! What has to be done to running containers so that they have what was granted. Pure.

use runtime::{ContainerState, ContainerStatus, LinuxResources};
use spec::k8s_openapi::api::core::v1::Container;
use spec::placement::{Demand, Misfit, NodeView};
use spec::{ContainerId, ContainerName};

use crate::container_config::container_resources;
use crate::desired::DesiredPod;
use crate::observation::PodObservation;

/// One container that does not have what was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which run.
    pub id: ContainerId,
    /// Whose.
    pub name: ContainerName,
    /// What it is to have.
    pub resources: LinuxResources,
    /// What it has.
    pub present: LinuxResources,
    /// Whether its program must start anew to notice.
    pub restart: bool,
}

/// The steps that are to be taken in a sandbox.
pub fn steps(desired: &DesiredPod, observed: &PodObservation, node_memory: i64) -> Vec<Step> {
    let Some(sandbox) = observed.ready_sandbox() else { return Vec::new() };
    let runs = observed.containers.iter().filter(|run| run.sandbox_id == sandbox.id && is_running(run));
    runs.filter_map(|run| {
        let container = desired.container(&run.name)?;
        let wanted = container_resources(desired, container, node_memory);
        let cpu = wanted.cpu_request_millis != run.resources.cpu_request_millis
            || wanted.cpu_limit_millis != run.resources.cpu_limit_millis;
        let memory = wanted.memory_limit_bytes != run.resources.memory_limit_bytes;
        let restart = (cpu && restarts(container, "cpu")) || (memory && restarts(container, "memory"));
        (cpu || memory).then(|| Step {
            id: run.id.clone(),
            name: run.name.clone(),
            resources: LinuxResources {
                cpu_request_millis: wanted.cpu_request_millis,
                cpu_limit_millis: wanted.cpu_limit_millis,
                memory_limit_bytes: wanted.memory_limit_bytes,
                ..run.resources.clone()
            },
            present: run.resources.clone(),
            restart,
        })
    })
    .collect()
}

/// Limits that hold both before and after a change: of each the larger one.
pub fn widest(one: &LinuxResources, other: &LinuxResources) -> LinuxResources {
    let larger = |one: Option<u64>, other: Option<u64>| one.zip(other).map(|(one, other)| one.max(other));
    LinuxResources {
        cpu_request_millis: one.cpu_request_millis.max(other.cpu_request_millis),
        cpu_limit_millis: larger(one.cpu_limit_millis, other.cpu_limit_millis),
        memory_limit_bytes: larger(one.memory_limit_bytes, other.memory_limit_bytes),
        ..other.clone()
    }
}

/// Why no room on this node could ever be enough, in the kubelet's words.
pub fn infeasible(demand: &Demand, node: &NodeView) -> Option<String> {
    ["cpu", "memory"].into_iter().find_map(|resource| {
        let requested = demand.requests.get(resource).copied().unwrap_or_default();
        let capacity = node.allocatable.get(resource).copied().unwrap_or_default();
        let too_much =
            format!("Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}");
        (requested > capacity).then_some(too_much)
    })
}

/// Why there is no room now.
pub fn deferred(misfit: &Misfit) -> String {
    match misfit {
        Misfit::Resource { resource, requested, used, allocatable } => format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {allocatable}"
        ),
        Misfit::Unschedulable | Misfit::Taint { .. } | Misfit::NodeAffinity | Misfit::HostPorts | Misfit::Topology => {
            misfit.reason()
        }
    }
}

fn restarts(container: &Container, resource: &str) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
}

fn is_running(run: &ContainerStatus) -> bool {
    match run.state {
        ContainerState::Running { .. } => true,
        ContainerState::Created | ContainerState::Exited(_) => false,
    }
}
