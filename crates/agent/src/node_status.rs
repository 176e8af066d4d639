//! Keeps the Node object true: conditions, taints, capacity, images. It is written when it has changed, and otherwise every
//! five minutes (kubelet, `nodeStatusReportFrequency`), so that a quiet node writes next to nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use store::{Change, ObjectKey, WriteError};

use crate::agent::Shared;
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
}

const PRESSURES: [Words; 3] = [
    Words {
        pressure: Pressure::Memory,
        condition: "MemoryPressure",
        taint: "node.kubernetes.io/memory-pressure",
        good: ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        bad: ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
    },
    Words {
        pressure: Pressure::Disk,
        condition: "DiskPressure",
        taint: "node.kubernetes.io/disk-pressure",
        good: ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        bad: ["KubeletHasDiskPressure", "kubelet has disk pressure"],
    },
    Words {
        pressure: Pressure::Pid,
        condition: "PIDPressure",
        taint: "node.kubernetes.io/pid-pressure",
        good: ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        bad: ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
    },
];

/// Reports until the agent ends.
pub(crate) async fn report(shared: Arc<Shared>) {
    let mut written = shared.clock.boot();
    loop {
        let pause = tokio::time::sleep(shared.config.housekeeping_interval);
        tokio::select! {
            () = pause => {}
            () = shared.node_changed.notified() => {}
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
    let state = NodeState { pressures: shared.pressure.get(), images: images(shared) };
    let fresh = node_object(&shared.config, &facts, &state, shared.clock.wall());
    let key = ObjectKey::cluster("nodes", &shared.config.node_name);
    let present = shared.store.get(&key);
    let next = merge_node(present.as_ref().map(|present| &*present.value), fresh.clone());
    if !beats && present.is_some_and(|present| without_heartbeats(&present.value) == without_heartbeats(&next)) {
        return Ok(false);
    }
    let written = shared.store.write(key, move |present| {
        let next = merge_node(present.map(|present| &*present.value), fresh);
        Ok::<_, std::convert::Infallible>((Change::Put(next), ()))
    });
    match written.await {
        Ok(_) => Ok(true),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
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
/// not come to a node that is under it.
pub(crate) fn taints(present: Option<&Value>, conditions: &[Value]) -> Vec<Value> {
    let mut taints: Vec<Value> = present.and_then(Value::as_array).cloned().unwrap_or_default();
    for Words { condition, taint: key, .. } in &PRESSURES {
        let has = |one: &Value| one["type"] == *condition && one["status"] == "True";
        let (wanted, present) = (conditions.iter().any(has), taints.iter().any(|taint| taint["key"] == *key));
        if wanted && !present {
            taints.push(json!({"key": key, "effect": "NoSchedule"}));
        } else if !wanted {
            taints.retain(|taint| taint["key"] != *key);
        }
    }
    taints
}

/// The largest first (kubelet, `nodestatus.Images`).
fn images(shared: &Shared) -> Value {
    let mut images = shared.images.list();
    images.sort_by(|a, b| (b.size, &a.id).cmp(&(a.size, &b.id)));
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
        let healed = taints(Some(&Value::Array(tainted)), &pressure_conditions(&[], "t"));
        assert_eq!(Value::Array(healed), own);
    }
}
