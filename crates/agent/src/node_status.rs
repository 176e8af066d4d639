//! Keeps the Node object true: conditions, taints, capacity, images. It is written when it has changed, and otherwise every
//! five minutes (kubelet, `nodeStatusReportFrequency`), but then in memory only: a quiet node writes nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use store::{Change, ObjectKey, Store, StoredObject, WriteError};

use crate::agent::Shared;
use crate::events::{EventRecorder, EventSubject};
use crate::eviction::thresholds::Pressure;
use crate::node::{NodeState, merge_node, node_facts, node_object};

/// A node that has nothing to say says so.
const HEARTBEAT: Duration = Duration::from_mins(5);
/// The kubelet's `nodeStatusMaxImages`.
const MOST_IMAGES: usize = 50;
/// Names of one image.
const MOST_NAMES: usize = 5;

/// How a pressure is told.
struct Words {
    pressure: Pressure,
    condition: &'static str,
    taint: &'static str,
    /// Reason and message where there is none.
    good: [&'static str; 2],
    /// Reason and message where there is.
    bad: [&'static str; 2],
    /// What an event says when it goes, and when it comes.
    turns: [&'static str; 2],
}

const PRESSURES: [Words; 3] = [
    Words {
        pressure: Pressure::Memory,
        condition: "MemoryPressure",
        taint: "node.kubernetes.io/memory-pressure",
        good: ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        bad: ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
        turns: ["NodeHasSufficientMemory", "NodeHasInsufficientMemory"],
    },
    Words {
        pressure: Pressure::Disk,
        condition: "DiskPressure",
        taint: "node.kubernetes.io/disk-pressure",
        good: ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        bad: ["KubeletHasDiskPressure", "kubelet has disk pressure"],
        turns: ["NodeHasNoDiskPressure", "NodeHasDiskPressure"],
    },
    Words {
        pressure: Pressure::Pid,
        condition: "PIDPressure",
        taint: "node.kubernetes.io/pid-pressure",
        good: ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        bad: ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
        turns: ["NodeHasSufficientPID", "NodeHasInsufficientPID"],
    },
];

/// Reports until the agent ends.
pub(crate) async fn report(shared: Arc<Shared>) {
    let mut written = shared.clock.boot();
    let mut cordoned = shared.node_view().unschedulable;
    loop {
        let pause = tokio::time::sleep(shared.config.housekeeping_interval);
        tokio::select! {
            biased;
            () = pause => {}
            () = shared.node_changed.notified() => {}
        }
        if std::mem::replace(&mut cordoned, shared.node_view().unschedulable) != cordoned {
            let status = if cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" };
            tell_turn(&shared.events, &shared.config.node_name, status);
        }
        let beats = shared.clock.boot().since(written) >= HEARTBEAT;
        match write_node(&shared, beats).await {
            Ok(true) => written = shared.clock.boot(),
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %crate::volumes::chain(&error), "cannot write the node"),
        }
    }
}

/// Writes what has changed of the node, or all of it if it `beats`; whether it did.
async fn write_node(shared: &Shared, beats: bool) -> Result<bool, store::StoreError> {
    let facts = node_facts(&shared.config);
    let state = NodeState {
        pressures: shared.pressure.get(),
        images: images(shared),
        shutting_down: shared.shutdown.is_under_way(),
    };
    let fresh = node_object(&shared.config, &facts, &state, shared.clock.wall());
    let key = ObjectKey::cluster("nodes", &shared.config.node_name);
    let present = shared.store.get(&key);
    let next = merge_node(present.as_ref().map(|present| &*present.value), fresh.clone());
    let is_same = |present: &StoredObject| without_heartbeats(&present.value) == without_heartbeats(&next);
    let quiet = present.as_ref().is_some_and(is_same);
    if quiet && !beats {
        return Ok(false);
    }
    let decide = move |present: Option<&StoredObject>| {
        let next = merge_node(present.map(|present| &*present.value), fresh);
        Ok::<_, std::convert::Infallible>((Change::Put(next), ()))
    };
    let written =
        if quiet { shared.store.write_in_memory(key, decide).await } else { shared.store.write(key, decide).await };
    match written {
        Ok(_) => {
            tell_changes(
                &shared.events,
                &shared.config.node_name,
                present.as_ref().map(|before| &*before.value),
                &next,
            );
            Ok(true)
        }
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
}

/// Tells that the daemon has begun, and what is new of the node since the last one.
pub(crate) fn tell_start(events: &EventRecorder, store: &Store, name: &str, before: Option<&StoredObject>) {
    events.normal(EventSubject::node(name), "Starting", "Starting monopod.");
    let Some(after) = store.get(&ObjectKey::cluster("nodes", name)) else { return };
    let boot = |node: &Value| node.pointer("/status/nodeInfo/bootID").and_then(Value::as_str).map(str::to_owned);
    let before = before.map(|before| &*before.value);
    if let (Some(last), Some(this)) = (before.and_then(boot), boot(&after.value))
        && !last.is_empty()
        && last != this
    {
        let message = format!("Node {name} has been rebooted, boot id: {this}");
        events.warning(EventSubject::node(name), "Rebooted", message);
    }
    tell_changes(events, name, before, &after.value);
}

/// Tells which of the node's conditions have turned (kubelet, `recordNodeStatusEvent`).
fn tell_changes(events: &EventRecorder, name: &str, before: Option<&Value>, after: &Value) {
    for status in turns(before, after) {
        tell_turn(events, name, status);
    }
}

fn tell_turn(events: &EventRecorder, name: &str, status: &'static str) {
    events.normal(EventSubject::node(name), status, format!("Node {name} status is now: {status}"));
}

fn turns(before: Option<&Value>, after: &Value) -> Vec<&'static str> {
    let holds = |node: Option<&Value>, type_: &str| {
        let conditions = node.and_then(|node| node.pointer("/status/conditions")?.as_array());
        let found = conditions.and_then(|conditions| conditions.iter().find(|one| one["type"] == type_));
        found.map(|one| one["status"] == "True")
    };
    let turned = |type_: &str| holds(Some(after), type_).filter(|now| holds(before, type_) != Some(*now));
    let pressures = PRESSURES.iter().filter_map(|words| {
        let [goes, comes] = words.turns;
        turned(words.condition).map(|holds| if holds { comes } else { goes })
    });
    // Of a new node that it is ready is no news.
    let ready = turned("Ready").filter(|_| holds(before, "Ready").is_some());
    let ready = ready.map(|ready| if ready { "NodeReady" } else { "NodeNotReady" });
    pressures.chain(ready).collect()
}

/// The conditions that a node has beside `Ready`.
pub(crate) fn pressure_conditions(pressures: &[Pressure], now: &str) -> Vec<Value> {
    let condition = |words: &Words| {
        let holds = pressures.contains(&words.pressure);
        let [reason, message] = if holds { words.bad } else { words.good };
        json!({
            "type": words.condition, "status": if holds { "True" } else { "False" }, "reason": reason,
            "message": message, "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    PRESSURES.iter().map(condition).collect()
}

/// The node's taints with those of its conditions, as the node controller sets them: who does not tolerate a pressure does
/// not come to a node that is under it, and nobody to one that is not ready.
pub(crate) fn taints(present: Option<&Value>, conditions: &[Value]) -> Vec<Value> {
    let mut taints: Vec<Value> = present.and_then(Value::as_array).cloned().unwrap_or_default();
    let of_pressures = PRESSURES.iter().map(|words| (words.condition, "True", words.taint));
    for (condition, status, key) in of_pressures.chain([("Ready", "False", "node.kubernetes.io/not-ready")]) {
        let has = |one: &Value| one["type"] == condition && one["status"] == status;
        let (wanted, present) = (conditions.iter().any(has), taints.iter().any(|taint| taint["key"] == key));
        if wanted && !present {
            taints.push(json!({"key": key, "effect": "NoSchedule"}));
        } else if !wanted {
            taints.retain(|taint| taint["key"] != key);
        }
    }
    taints
}

/// The largest first (kubelet, `nodestatus.Images`).
fn images(shared: &Shared) -> Value {
    let mut images = shared.images.list();
    spec::ordered::sort_by(&mut images, |a, b| (b.size, &a.id).cmp(&(a.size, &b.id)));
    let shown = images.into_iter().take(MOST_IMAGES).map(|image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.references).take(MOST_NAMES).collect();
        json!({"names": names, "sizeBytes": image.size})
    });
    Value::Array(shown.collect())
}

fn without_heartbeats(node: &Value) -> Value {
    let mut node = node.clone();
    if let Some(metadata) = node.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    for condition in node.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastHeartbeatTime");
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_a_condition_and_a_taint_that_come_and_go() {
        let own = json!([{"key": "mine", "effect": "NoExecute"}]);
        let short = pressure_conditions(&[Pressure::Disk], "t");
        let says = |conditions: &[Value], type_: &str| {
            let found = conditions.iter().find(|one| one["type"] == type_).unwrap();
            format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
        };
        assert_eq!(says(&short, "DiskPressure"), "True KubeletHasDiskPressure");
        assert_eq!(says(&short, "MemoryPressure"), "False KubeletHasSufficientMemory");
        let tainted = taints(Some(&own), &short);
        assert_eq!(tainted[1]["key"], "node.kubernetes.io/disk-pressure");
        let again = taints(Some(&Value::Array(tainted.clone())), &short);
        assert_eq!(again, tainted);
        let node = |pressures: &[Pressure], ready: &str| {
            let mut conditions = pressure_conditions(pressures, "t");
            conditions.push(json!({"type": "Ready", "status": ready}));
            json!({"status": {"conditions": conditions}})
        };
        let (good, bad) = (node(&[], "True"), node(&[Pressure::Disk], "False"));
        let new = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
        assert_eq!(turns(None, &good), new);
        assert_eq!(turns(Some(&good), &good), [] as [&str; 0]);
        assert_eq!(turns(Some(&good), &bad), ["NodeHasDiskPressure", "NodeNotReady"]);
        assert_eq!(turns(Some(&bad), &good), ["NodeHasNoDiskPressure", "NodeReady"]);
        let healed = taints(Some(&Value::Array(tainted)), &pressure_conditions(&[], "t"));
        assert_eq!(Value::Array(healed), own);
    }
}
