//! Describes a node: its conditions, what it has, and which Pods use it.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::sheet::Sheet;
use super::{describe_head, describe_metadata};
use crate::age;
use crate::fields::{Fields as _, plain};
use crate::table::Table;

/// The node's page.
pub fn describe(sheet: &mut Sheet, node: &Value, pods: &[Value], now: Timestamp) {
    describe_head(sheet, node);
    describe_metadata(sheet, node);
    sheet.field(0, "CreationTimestamp", node.text("/metadata/creationTimestamp"));
    let taints = node.items("/spec/taints").iter().map(|taint| match taint.text("/value") {
        "" => format!("{}:{}", taint.text("/key"), taint.text("/effect")),
        value => format!("{}={value}:{}", taint.text("/key"), taint.text("/effect")),
    });
    sheet.list(0, "Taints", taints);
    sheet.field(0, "Unschedulable", &node.flag("/spec/unschedulable").to_string());
    sheet.table("Conditions", &conditions(node));
    sheet.heading(0, "Addresses");
    for address in node.items("/status/addresses") {
        sheet.field(1, address.text("/type"), address.text("/address"));
    }
    for (title, place) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        sheet.heading(0, title);
        for (resource, amount) in node.entries(place) {
            sheet.field(1, resource, &plain(amount));
        }
    }
    sheet.heading(0, "System Info");
    for (key, title) in [
        ("machineID", "Machine ID"),
        ("bootID", "Boot ID"),
        ("kernelVersion", "Kernel Version"),
        ("osImage", "OS Image"),
        ("operatingSystem", "Operating System"),
        ("architecture", "Architecture"),
        ("containerRuntimeVersion", "Container Runtime Version"),
        ("kubeletVersion", "Kubelet Version"),
    ] {
        sheet.optional(1, title, node.at("/status/nodeInfo").get(key).and_then(Value::as_str).unwrap_or_default());
    }
    sheet.optional(0, "PodCIDR", node.text("/spec/podCIDR"));
    describe_pods(sheet, pods, now);
}

fn conditions(node: &Value) -> Table {
    let mut table = Table::new(&["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"]);
    for condition in node.items("/status/conditions") {
        let cells = ["/type", "/status", "/lastHeartbeatTime", "/lastTransitionTime", "/reason", "/message"];
        table.rows.push(cells.map(|place| condition.text(place).to_owned()).to_vec());
    }
    table
}

fn describe_pods(sheet: &mut Sheet, pods: &[Value], now: Timestamp) {
    let mut table =
        Table::new(&["Namespace", "Name", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age"]);
    for pod in pods {
        let mut cells = vec![pod.namespace().to_owned(), pod.name().to_owned()];
        for (resource, kind) in [("cpu", "requests"), ("cpu", "limits"), ("memory", "requests"), ("memory", "limits")] {
            cells.push(amounts(pod, resource, kind));
        }
        cells.push(age::since(pod.text("/metadata/creationTimestamp"), now));
        table.rows.push(cells);
    }
    sheet.table(&format!("Non-terminated Pods ({} in total)", pods.len()), &table);
}

/// What the containers of a Pod ask for, added up as a person would write it.
fn amounts(pod: &Value, resource: &str, kind: &str) -> String {
    let of_container = |container: &Value| container.at("/resources").get(kind)?.get(resource).map(plain);
    let all: Vec<_> = pod.items("/spec/containers").iter().filter_map(of_container).collect();
    if all.is_empty() { "0".to_owned() } else { all.join("+") }
}
