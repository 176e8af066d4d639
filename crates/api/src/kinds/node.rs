//! Node.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::k8s_openapi::api::core::v1::Node;
use spec::validation::{NameForm, validate_object_meta};

use crate::fields::{at, flag_at, items_at, text_at};
use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit};
use crate::kinds::{FieldReader, Kind, Removal, Subresource};
use crate::table::{AGE, Column, NAME, Row, age, name, text, text_or};

/// `v1` Node.
pub static NODE: Kind = Kind {
    group: "",
    version: "v1",
    resource: "nodes",
    singular: "node",
    kind: "Node",
    namespaced: false,
    short_names: &["no"],
    categories: &[],
    subresources: &[
        Subresource { name: "proxy", kind: "NodeProxyOptions", verbs: &["get"] },
        Subresource::status("Node"),
    ],
    fields: &[("spec.unschedulable", FieldReader::Flag("/spec/unschedulable"))],
    columns: &[
        NAME,
        Column::text("Status", "Whether it is able to run Pods."),
        Column::text("Roles", "Its node-role.kubernetes.io labels."),
        AGE,
        Column::text("Version", "Of the engine on the node."),
        Column::wide("Internal-IP", "Its address in its own network."),
        Column::wide("External-IP", "Its address for others."),
        Column::wide("OS-Image", "Its distribution."),
        Column::wide("Kernel-Version", "Its kernel."),
        Column::wide("Container-Runtime", "What runs its containers."),
    ],
    row,
    admit: admit_node,
    removal: Removal::AtOnce,
    orphans_by_default: false,
    counts_generations: false,
    renames: &[],
};

fn admit_node(value: Value, _admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    admit(value, |_: &mut Node| {}, |node| validate_object_meta(&node.metadata, false, NameForm::Subdomain))
}

fn row(object: &Value, now: Timestamp) -> Row {
    Row::new(vec![
        name(object),
        json!(status(object)),
        json!(roles(object)),
        age(object, now),
        text(object, "/status/nodeInfo/kubeletVersion"),
        json!(address(object, "InternalIP")),
        json!(address(object, "ExternalIP")),
        text_or(object, "/status/nodeInfo/osImage", "<unknown>"),
        text_or(object, "/status/nodeInfo/kernelVersion", "<unknown>"),
        text_or(object, "/status/nodeInfo/containerRuntimeVersion", "<unknown>"),
    ])
}

fn status(object: &Value) -> String {
    let ready = items_at(object, "/status/conditions").find(|condition| text_at(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| text_at(condition, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag_at(object, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(object: &Value) -> String {
    let labels = at(object, "/metadata/labels").and_then(Value::as_object);
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.as_str() {
            "kubernetes.io/role" => value.as_str(),
            _ => key.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address<'a>(object: &'a Value, wanted: &str) -> &'a str {
    let mut addresses = items_at(object, "/status/addresses");
    match addresses.find(|address| text_at(address, "/type") == wanted) {
        Some(address) => text_at(address, "/address"),
        None => "<none>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_shows_its_state_and_addresses() {
        let node = json!({
            "metadata": {
                "name": "n1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/worker": ""},
            },
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian"},
            },
        });
        let cells = row(&node, "2026-01-01T00:01:00Z".parse().unwrap()).cells;
        let want = [
            "n1",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "60s",
            "v1.37.0",
            "10.0.0.1",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>",
        ];
        assert_eq!(cells, want.map(Value::from));
        assert_eq!(status(&json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})), "NotReady");
        assert_eq!(status(&json!({})), "Unknown");
    }
}
