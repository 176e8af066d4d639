//! Whether a node suits a Pod: what the scheduler asks before it binds one, and the kubelet before it runs one.
//!
//! Sources: kubernetes.io "Assigning Pods to Nodes", "Taints and Tolerations" and "Kubernetes Scheduler"; the order of
//! the questions is that of the scheduler's filters, of which the first that says no gives the reason.

mod affinity;
mod preemption;
mod taints;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodSpec, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use serde_json::Value;

use crate::ordered::{map_of, set_of};
use crate::qos::{QosClass, qos_class};
use crate::requests::{ResourceList, pod_requests};

pub use affinity::{matches_node_affinity, matches_node_selector};
pub use preemption::{Holder, kubelet_victims, scheduler_victims};
pub use taints::{tolerates, untolerated};

/// Priority from which on a Pod is critical (`system-cluster-critical`).
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// The classes that each cluster has, with their values.
pub const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", CRITICAL_PRIORITY), ("system-node-critical", CRITICAL_PRIORITY + 1_000)];

/// Whether the machine itself needs the Pod: the kernel kills all others before it (kubelet, `IsNodeCriticalPod`).
pub fn is_node_critical(spec: &PodSpec) -> bool {
    spec.priority_class_name.as_deref() == Some("system-node-critical")
}

/// Taint of a node that takes no new Pods (`kubectl cordon`).
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Taint of a node that is short of memory. The control plane lets Pods tolerate it that asked for some.
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// What a node is and has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeView {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `status.allocatable`; a resource that is absent is not there at all.
    pub allocatable: ResourceList,
}

impl NodeView {
    /// Reads a Node as it is stored: others may label and taint it, and give it resources of their own.
    pub fn read(name: &str, node: &Value) -> Self {
        let allocatable = node.pointer("/status/allocatable").and_then(Value::as_object).into_iter().flatten();
        let amount = |resource: &str, quantity: &Value| {
            Some(crate::requests::amount(resource, &RawQuantity(quantity.as_str()?.to_owned())))
        };
        let labels = node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        let taints = node.pointer("/spec/taints").cloned();
        Self {
            name: name.to_owned(),
            labels: map_of(labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))),
            taints: taints.and_then(|taints| serde_json::from_value(taints).ok()).unwrap_or_default(),
            unschedulable: node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)),
            allocatable: map_of(allocatable.filter_map(|(key, value)| Some((key.clone(), amount(key, value)?)))),
        }
    }
}

/// What Pods on a node use up together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// How many they are.
    pub pods: i64,
    /// The sums of their requests.
    pub requests: ResourceList,
    /// The node's ports that they hold.
    pub host_ports: BTreeSet<HostPort>,
}

/// A port of the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// `0.0.0.0` for all addresses.
    pub address: String,
    /// Its number.
    pub port: i32,
}

/// What one Pod takes of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// What it sets aside.
    pub requests: ResourceList,
    /// Ports of the node.
    pub host_ports: BTreeSet<HostPort>,
    /// Whether it may come to a node that is short of memory: not with the class `BestEffort`.
    pub copes_with_memory_pressure: bool,
    /// `spec.priority`.
    pub priority: i32,
}

/// Why a node does not suit a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// It takes no new Pods.
    Unschedulable,
    /// It has a taint that the Pod does not tolerate.
    Taint {
        /// Of the taint.
        key: String,
        /// Of the taint.
        value: String,
    },
    /// Its labels are not those that the Pod asks for.
    NodeAffinity,
    /// Another Pod has a port that this one wants.
    HostPorts,
    /// It lacks the label of a topology that the Pod must be spread over.
    Topology,
    /// It has not enough of something.
    Resource {
        /// Of what; `pods` for the number of Pods.
        resource: String,
        /// By the Pod.
        requested: i64,
        /// By the others.
        used: i64,
        /// Of the node.
        allocatable: i64,
    },
}

impl Demand {
    /// Of a Pod.
    pub fn of(pod: &Pod) -> Self {
        Self {
            requests: pod_requests(pod),
            host_ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(),
            copes_with_memory_pressure: qos_class(pod) != QosClass::BestEffort,
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default(),
        }
    }
}

impl Used {
    /// One more Pod.
    pub fn add(&mut self, demand: &Demand) {
        self.pods += 1;
        for (name, amount) in &demand.requests {
            let sum = self.requests.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
        self.host_ports.extend(demand.host_ports.iter().cloned());
    }

    /// One Pod less, which was added before.
    pub fn remove(&mut self, demand: &Demand) {
        self.pods -= 1;
        for (name, amount) in &demand.requests {
            let sum = self.requests.entry(name.clone()).or_default();
            *sum = sum.saturating_sub(*amount);
        }
        for port in &demand.host_ports {
            self.host_ports.remove(port);
        }
    }
}

impl Misfit {
    /// The scheduler's words, as they stand behind a number of nodes.
    pub fn reason(&self) -> String {
        match self {
            Self::Unschedulable => "node(s) were unschedulable".to_owned(),
            Self::Taint { key, value } => format!("node(s) had untolerated taint {{{key}: {value}}}"),
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector".to_owned(),
            Self::HostPorts => "node(s) didn't have free ports for the requested pod ports".to_owned(),
            Self::Topology => {
                "node(s) didn't match pod topology spread constraints (missing required label)".to_owned()
            }
            Self::Resource { resource, .. } if resource == "pods" => "Too many pods".to_owned(),
            Self::Resource { resource, .. } => format!("Insufficient {resource}"),
        }
    }

    /// Whether it would help if other Pods went.
    pub fn others_are_in_the_way(&self) -> bool {
        match self {
            Self::HostPorts => true,
            Self::Resource { requested, allocatable, .. } => requested <= allocatable,
            Self::Unschedulable | Self::Taint { .. } | Self::NodeAffinity | Self::Topology => false,
        }
    }
}

/// Everything that keeps the scheduler from giving the Pod this node; empty if nothing does.
pub fn scheduler_misfits(spec: &PodSpec, demand: &Demand, node: &NodeView, used: &Used) -> Vec<Misfit> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let cordon = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    if node.unschedulable && !tolerates(tolerations, &cordon) {
        return vec![Misfit::Unschedulable];
    }
    let strict = |taint: &&Taint| taint.key != MEMORY_PRESSURE || !demand.copes_with_memory_pressure;
    let taints: Vec<Taint> = node.taints.iter().filter(strict).cloned().collect();
    if let Some(taint) = untolerated(&taints, tolerations, &["NoSchedule", "NoExecute"]) {
        return vec![Misfit::Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default() }];
    }
    if !matches_node_affinity(spec, node) {
        return vec![Misfit::NodeAffinity];
    }
    if ports_clash(&demand.host_ports, &used.host_ports) {
        return vec![Misfit::HostPorts];
    }
    let missing = resource_misfits(demand, node, used);
    if !missing.is_empty() {
        return missing;
    }
    // One node is one domain of each topology: nothing is ever spread unevenly over it.
    let constraints = spec.topology_spread_constraints.iter().flatten();
    let mut hard = constraints.filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule");
    if hard.any(|constraint| !node.labels.contains_key(&constraint.topology_key)) {
        return vec![Misfit::Topology];
    }
    Vec::new()
}

/// Everything that keeps the kubelet from running a Pod that somebody has bound to this node; what is short comes first.
///
/// It looks at no taint but those that also drive out running Pods, and does not miss resources that only a cluster has.
pub fn kubelet_misfits(spec: &PodSpec, demand: &Demand, node: &NodeView, used: &Used) -> Vec<Misfit> {
    let mut known = demand.clone();
    known.requests.retain(|name, _| !name.contains('/') || node.allocatable.contains_key(name));
    let mut found = resource_misfits(&known, node, used);
    if !matches_node_affinity(spec, node) {
        found.push(Misfit::NodeAffinity);
    }
    if ports_clash(&demand.host_ports, &used.host_ports) {
        found.push(Misfit::HostPorts);
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    if let Some(taint) = untolerated(&node.taints, tolerations, &["NoExecute"]) {
        found.push(Misfit::Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default() });
    }
    found
}

/// What there is not enough of.
pub fn resource_misfits(demand: &Demand, node: &NodeView, used: &Used) -> Vec<Misfit> {
    let misfit = |resource: &str, requested: i64, used: i64| {
        let allocatable = node.allocatable.get(resource).copied().unwrap_or_default();
        let lacks = requested > 0 && requested > allocatable.saturating_sub(used);
        lacks.then(|| Misfit::Resource { resource: resource.to_owned(), requested, used, allocatable })
    };
    let used_of = |name: &str| used.requests.get(name).copied().unwrap_or_default();
    let amounts = demand.requests.iter().filter_map(|(name, amount)| misfit(name, *amount, used_of(name)));
    misfit("pods", 1, used.pods).into_iter().chain(amounts).collect()
}

fn host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    set_of(ports.filter_map(|port| {
        Some(HostPort {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            address: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY_ADDRESS.to_owned()),
            port: port.host_port.filter(|port| *port > 0)?,
        })
    }))
}

const ANY_ADDRESS: &str = "0.0.0.0";

fn ports_clash(wanted: &BTreeSet<HostPort>, held: &BTreeSet<HostPort>) -> bool {
    wanted.iter().any(|one| {
        held.iter().any(|other| {
            one.port == other.port
                && one.protocol == other.protocol
                && (one.address == other.address || [&one.address, &other.address].iter().any(|ip| *ip == ANY_ADDRESS))
        })
    })
}

#[cfg(test)]
mod tests;
