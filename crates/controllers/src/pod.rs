//! What controllers read of a Pod, without reading the whole of it: they look at all Pods of a namespace.

use std::collections::BTreeMap;

use serde_json::Value;
use store::StoredObject;

/// A Pod as a Service sees it.
#[derive(Debug, Clone)]
pub struct ServedPod<'a> {
    object: &'a Value,
    pub pod_namespace: &'a str,
    pub name: &'a str,
}

impl<'a> ServedPod<'a> {
    pub fn new(stored: &'a StoredObject) -> Self {
        let pod_namespace = stored.key.namespace.as_deref().unwrap_or_default();
        Self { object: &stored.value, pod_namespace, name: &stored.key.name }
    }

    pub fn text(&self, pointer: &str) -> &'a str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn uid(&self) -> &'a str {
        self.text("/metadata/uid")
    }

    /// Whether it has all labels of the selector; an empty one selects nothing here.
    pub fn matches(&self, selector: &BTreeMap<String, String>) -> bool {
        let labels = self.object.pointer("/metadata/labels");
        let has = |(key, value): (&String, &String)| {
            labels.and_then(|labels| labels.get(key)).and_then(Value::as_str) == Some(value)
        };
        !selector.is_empty() && selector.iter().all(has)
    }

    /// Its condition Ready.
    pub fn is_ready(&self) -> bool {
        self.items("/status/conditions").any(|condition| {
            let is = |field: &str, word: &str| condition.get(field).and_then(Value::as_str) == Some(word);
            is("type", "Ready") && is("status", "True")
        })
    }

    /// Whether it is asked to end.
    pub fn is_terminating(&self) -> bool {
        !self.text("/metadata/deletionTimestamp").is_empty()
    }

    /// Whether it has ended.
    pub fn is_terminal(&self) -> bool {
        matches!(self.text("/status/phase"), "Succeeded" | "Failed")
    }

    /// Its addresses, the main one first.
    pub fn addresses(&self) -> Vec<&'a str> {
        let all = self.items("/status/podIPs").filter_map(|entry| entry.get("ip")?.as_str());
        let all: Vec<&str> = all.collect();
        if !all.is_empty() {
            return all;
        }
        Some(self.text("/status/podIP")).filter(|address| !address.is_empty()).into_iter().collect()
    }

    /// The number of the port with this name, of its containers and its sidecars.
    pub fn port(&self, name: &str, protocol: &str) -> Option<i32> {
        let is_sidecar = |container: &&Value| container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        let sidecars = self.items("/spec/initContainers").filter(is_sidecar);
        let ports = self.items("/spec/containers").chain(sidecars).filter_map(|container| container.get("ports"));
        let named = ports.filter_map(Value::as_array).flatten().find(|port| {
            let text = |field: &str| port.get(field).and_then(Value::as_str);
            text("name") == Some(name) && text("protocol").unwrap_or("TCP") == protocol
        })?;
        named.get("containerPort")?.as_i64()?.try_into().ok()
    }

    fn items(&self, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }
}
