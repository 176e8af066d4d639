//! The Node object of this machine and the default Namespaces.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use serde_json::{Value, json};
use spec::Timestamp;
use store::{Change, ObjectKey, Store, StoreError, WriteError};

use crate::capacity::{Capacity, machine_capacity, shown};
use crate::config::{AgentConfig, StartAgentError};
use crate::eviction::thresholds::Pressure;
use crate::node_shutdown::SHUTTING_DOWN;
use crate::node_status::{pressure_conditions, taints};
use spec::ids::random_uuid;

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// What the machine has.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// All that Pods can ask for.
    pub capacity: Capacity,
    /// Addresses, the first one being the main one.
    pub addresses: Vec<IpAddr>,
}

/// What changes of the node while it runs.
#[derive(Debug, Clone, Default)]
pub struct NodeState {
    /// What it is short of.
    pub pressures: Vec<Pressure>,
    /// `status.images`.
    pub images: Value,
    /// Whether the machine is on its way down.
    pub shutting_down: bool,
}

/// Looks at the machine.
pub fn node_facts(config: &AgentConfig) -> NodeFacts {
    let system = rustix::system::sysinfo();
    let memory = u128::from(system.totalram) * u128::from(system.mem_unit);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let mut addresses = config.node_addresses.clone();
    if addresses.is_empty() {
        // A machine without any network still has itself.
        addresses.push(main_address().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)));
    }
    let (cpus, memory_bytes) = (u32::try_from(cpus).unwrap_or(u32::MAX), i64::try_from(memory).unwrap_or(i64::MAX));
    NodeFacts {
        memory_bytes,
        capacity: machine_capacity(cpus, memory_bytes, config.max_pods, &config.data_dir, &config.eviction.thresholds),
        addresses,
    }
}

/// The address that the machine would send from, to anywhere. Connecting a UDP socket sends nothing (udp(7)); the
/// address asked for is from a range for documentation (RFC 5737). As text it would bring getaddrinfo(3) along.
fn main_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

/// Writes the objects that are there before any client comes.
pub async fn write_default_objects(
    config: &AgentConfig,
    facts: &NodeFacts,
    store: &Store,
    now: Timestamp,
) -> Result<(), StartAgentError> {
    for name in NAMESPACES {
        let namespace = namespace_object(name, now);
        let written = put(store, "namespaces", name, move |present| match present {
            Some(_) => Change::Keep,
            None => Change::Put(namespace),
        });
        written.await.map_err(|source| failed("namespaces", name, source))?;
    }
    let node = node_object(config, facts, &NodeState::default(), now);
    let name = config.node_name.clone();
    let written = put(store, "nodes", &name, move |present| Change::Put(merge_node(present, node)));
    written.await.map_err(|source| failed("nodes", &name, source))
}

fn failed(resource: &'static str, name: &str, source: StoreError) -> StartAgentError {
    StartAgentError::Object { resource, name: name.to_owned(), source: Box::new(source) }
}

async fn put(
    store: &Store,
    resource: &str,
    name: &str,
    decide: impl FnOnce(Option<&Value>) -> Change + Send + 'static,
) -> Result<(), StoreError> {
    let written = store.write(ObjectKey::cluster(resource, name), move |present| {
        Ok::<_, std::convert::Infallible>((decide(present.map(|present| &*present.value)), ()))
    });
    match written.await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
}

fn namespace_object(name: &str, now: Timestamp) -> Value {
    json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "uid": random_uuid(),
            "creationTimestamp": time(now),
            "labels": { "kubernetes.io/metadata.name": name },
        },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Active" },
    })
}

/// Keeps identity, labels and transition times of the object that is there; all else is as the machine is now.
pub(crate) fn merge_node(present: Option<&Value>, mut node: Value) -> Value {
    let Some(present) = present else { return node };
    let keep = [
        "/metadata/uid",
        "/metadata/creationTimestamp",
        "/metadata/labels",
        "/metadata/annotations",
        "/metadata/resourceVersion",
    ];
    for pointer in keep {
        let Some(value) = present.pointer(pointer) else { continue };
        let field = pointer.trim_start_matches("/metadata/");
        match (node.pointer_mut("/metadata").and_then(Value::as_object_mut), field) {
            (Some(metadata), "labels") => {
                let mut labels = value.as_object().cloned().unwrap_or_default();
                labels.extend(metadata.get("labels").and_then(Value::as_object).cloned().unwrap_or_default());
                metadata.insert(field.to_owned(), Value::Object(labels));
            }
            (Some(metadata), _) => drop(metadata.insert(field.to_owned(), value.clone())),
            (None, _) => {}
        }
    }
    if let (Some(spec), Some(fields)) = (present.get("spec"), node.as_object_mut()) {
        fields.insert("spec".to_owned(), spec.clone());
    }
    set_taints(&mut node);
    keep_extended_resources(present, &mut node);
    keep_transition_times(present, &mut node);
    node
}

/// Those of the node's conditions come and go with them; others stay.
fn set_taints(node: &mut Value) {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let taints = taints(node.pointer("/spec/taints"), &conditions);
    if let Some(spec) = node.get_mut("spec").and_then(Value::as_object_mut) {
        if taints.is_empty() {
            spec.remove("taints");
        } else {
            spec.insert("taints".to_owned(), Value::Array(taints));
        }
    }
}

/// Resources of vendors (`example.com/gpu`) are written into `status.capacity` by whoever has them.
fn keep_extended_resources(present: &Value, node: &mut Value) {
    for list in ["/status/capacity", "/status/allocatable"] {
        let Some(written) = present.pointer("/status/capacity").and_then(Value::as_object) else { return };
        let extended = written.iter().filter(|(name, _)| name.contains('/'));
        if let Some(fields) = node.pointer_mut(list).and_then(Value::as_object_mut) {
            fields.extend(extended.map(|(name, amount)| (name.clone(), amount.clone())));
        }
    }
}

fn keep_transition_times(present: &Value, node: &mut Value) {
    let conditions = |object: &Value| object.pointer("/status/conditions").and_then(Value::as_array).cloned();
    let before = conditions(present).unwrap_or_default();
    let Some(after) = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    for condition in after {
        let same = before
            .iter()
            .find(|other| other.get("type") == condition.get("type") && other.get("status") == condition.get("status"));
        let time = same.and_then(|same| same.get("lastTransitionTime")).cloned();
        if let (Some(time), Some(condition)) = (time, condition.as_object_mut()) {
            condition.insert("lastTransitionTime".to_owned(), time);
        }
    }
}

pub(crate) fn node_object(config: &AgentConfig, facts: &NodeFacts, state: &NodeState, now: Timestamp) -> Value {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let architecture = match &*text(uname.machine()) {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let mut addresses: Vec<Value> =
        facts.addresses.iter().map(|address| json!({ "type": "InternalIP", "address": address.to_string() })).collect();
    addresses.push(json!({ "type": "Hostname", "address": config.node_name }));
    let now = time(now);
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let mut conditions = pressure_conditions(&state.pressures, &now);
    conditions.push(if state.shutting_down {
        condition("Ready", "False", "KubeletNotReady", SHUTTING_DOWN)
    } else {
        condition("Ready", "True", "KubeletReady", "monopod is ready to run pods")
    });
    json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": config.node_name,
            "uid": random_uuid(),
            "creationTimestamp": now,
            "labels": {
                "kubernetes.io/hostname": config.node_name,
                "kubernetes.io/arch": architecture,
                "kubernetes.io/os": "linux",
            },
        },
        "spec": {},
        "status": {
            "capacity": shown(&facts.capacity.total),
            "allocatable": shown(&facts.capacity.allocatable),
            "addresses": addresses,
            "conditions": conditions,
            "images": state.images,
            "nodeInfo": {
                "machineID": read_line("/etc/machine-id"),
                "systemUUID": read_line("/sys/class/dmi/id/product_uuid"),
                "bootID": read_line("/proc/sys/kernel/random/boot_id"),
                "kernelVersion": text(uname.release()),
                "osImage": os_image(),
                "containerRuntimeVersion": format!("monopod://{}", config.version.trim_start_matches('v')),
                "kubeletVersion": config.version,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": architecture,
            },
        },
    })
}

/// Empty where the machine has no such file.
fn read_line(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// `PRETTY_NAME` of os-release(5).
fn os_image() -> String {
    let text = read_line("/etc/os-release");
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches(['"', '\'']).to_owned())
}

fn time(wall: Timestamp) -> String {
    wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_what_others_wrote_on_the_node() {
        let config = AgentConfig::new("edge", "/data", "/logs");
        let facts = NodeFacts {
            memory_bytes: 4 << 30,
            capacity: Capacity { total: [("memory".to_owned(), 4 << 30)].into(), ..Capacity::default() },
            addresses: vec!["192.0.2.7".parse().unwrap()],
        };
        let first = node_object(&config, &facts, &NodeState::default(), "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(first.pointer("/status/capacity/memory").unwrap(), "4194304Ki");
        assert_eq!(first.pointer("/status/addresses/0/address").unwrap(), "192.0.2.7");
        let mut present = first.clone();
        present["metadata"]["labels"]["disk"] = "fast".into();
        present["spec"]["unschedulable"] = true.into();
        present["status"]["capacity"]["example.com/gpu"] = "2".into();
        let second = node_object(&config, &facts, &NodeState::default(), "2026-02-02T00:00:00Z".parse().unwrap());
        let merged = merge_node(Some(&present), second);
        assert_eq!(merged["metadata"]["uid"], first["metadata"]["uid"]);
        assert_eq!(merged["metadata"]["labels"]["disk"], "fast");
        assert_eq!(merged["spec"]["unschedulable"], true);
        assert_eq!(merged["status"]["allocatable"]["example.com/gpu"], "2");
        assert_eq!(merged.pointer("/status/conditions/3/lastTransitionTime").unwrap(), "2026-01-01T00:00:00Z");
        assert_eq!(merged.pointer("/status/conditions/3/lastHeartbeatTime").unwrap(), "2026-02-02T00:00:00Z");
    }
}
