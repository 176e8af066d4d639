//! Describes a Pod: where it runs, its containers, conditions and volumes.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::container;
use super::sheet::Sheet;
use super::{describe_head, describe_metadata};
use crate::age;
use crate::fields::{Fields as _, plain};
use crate::table::Table;

/// The Pod's page.
pub fn describe(sheet: &mut Sheet, pod: &Value, now: Timestamp) {
    describe_head(sheet, pod);
    sheet.optional(0, "Priority", &plain(pod.at("/spec/priority")));
    sheet.optional(0, "Service Account", pod.text("/spec/serviceAccountName"));
    sheet.field(0, "Node", &node(pod));
    sheet.optional(0, "Start Time", pod.text("/status/startTime"));
    describe_metadata(sheet, pod);
    sheet.field(0, "Status", &status(pod, now));
    sheet.optional(0, "Termination Grace Period", &grace(pod));
    sheet.optional(0, "Reason", pod.text("/status/reason"));
    sheet.optional(0, "Message", pod.text("/status/message"));
    sheet.field(0, "IP", pod.text("/status/podIP"));
    sheet.list(0, "IPs", pod.items("/status/podIPs").iter().map(|ip| ip.text("/ip").to_owned()));
    for owner in pod.items("/metadata/ownerReferences").iter().filter(|owner| owner.flag("/controller")) {
        sheet.field(0, "Controlled By", &format!("{}/{}", owner.text("/kind"), owner.text("/name")));
    }
    for (title, specs, statuses) in [
        ("Init Containers", "/spec/initContainers", "/status/initContainerStatuses"),
        ("Containers", "/spec/containers", "/status/containerStatuses"),
        ("Ephemeral Containers", "/spec/ephemeralContainers", "/status/ephemeralContainerStatuses"),
    ] {
        if !pod.items(specs).is_empty() {
            sheet.heading(0, title);
        }
        for spec in pod.items(specs) {
            let status = pod.items(statuses).iter().find(|status| status.text("/name") == spec.text("/name"));
            container::describe(sheet, spec, status.unwrap_or(&Value::Null));
        }
    }
    describe_conditions(sheet, pod);
    describe_volumes(sheet, pod);
    sheet.field(0, "QoS Class", pod.text("/status/qosClass"));
    let selectors = pod.entries("/spec/nodeSelector").map(|(key, value)| format!("{key}={}", plain(value)));
    sheet.list(0, "Node-Selectors", selectors);
    sheet.list(0, "Tolerations", pod.items("/spec/tolerations").iter().map(toleration));
}

fn node(pod: &Value) -> String {
    match (pod.text("/spec/nodeName"), pod.text("/status/hostIP")) {
        (node, "") => node.to_owned(),
        (node, ip) => format!("{node}/{ip}"),
    }
}

fn status(pod: &Value, now: Timestamp) -> String {
    match pod.text("/metadata/deletionTimestamp") {
        "" => pod.text("/status/phase").to_owned(),
        time => format!("Terminating (lasts {})", age::since(time, now)),
    }
}

fn grace(pod: &Value) -> String {
    match pod.integer("/metadata/deletionGracePeriodSeconds") {
        Some(seconds) => format!("{seconds}s"),
        None => String::new(),
    }
}

fn describe_conditions(sheet: &mut Sheet, pod: &Value) {
    let conditions = pod.items("/status/conditions");
    if conditions.is_empty() {
        return;
    }
    let mut table = Table::new(&["Type", "Status", "Reason", "Message"]);
    for condition in conditions {
        let cells = ["/type", "/status", "/reason", "/message"];
        table.rows.push(cells.map(|place| condition.text(place).to_owned()).to_vec());
    }
    sheet.table("Conditions", &table);
}

fn describe_volumes(sheet: &mut Sheet, pod: &Value) {
    let volumes = pod.items("/spec/volumes");
    if volumes.is_empty() {
        sheet.field(0, "Volumes", "<none>");
        return;
    }
    sheet.heading(0, "Volumes");
    for volume in volumes {
        sheet.heading(1, volume.text("/name"));
        let source = volume.entries("").find(|(key, _)| key.as_str() != "name");
        let Some((kind, source)) = source else { continue };
        sheet.field(2, "Type", &title(kind));
        for (key, value) in source.entries("") {
            match value {
                Value::Array(items) => sheet.list(2, &title(key), items.iter().map(item)),
                other => sheet.field(2, &title(key), &plain(other)),
            }
        }
    }
}

/// An item of a configMap or secret volume as `key -> path`, else as JSON.
fn item(value: &Value) -> String {
    match (value.text("/key"), value.text("/path")) {
        ("", _) | (_, "") => plain(value),
        (key, path) => format!("{key} -> {path}"),
    }
}

/// `sizeLimit` as `SizeLimit`, as kubectl writes field names.
fn title(key: &str) -> String {
    let mut letters = key.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn toleration(toleration: &Value) -> String {
    let mut text = toleration.text("/key").to_owned();
    for (mark, part) in [("=", toleration.text("/value")), (":", toleration.text("/effect"))] {
        if !part.is_empty() {
            text.extend([mark, part]);
        }
    }
    if toleration.text("/operator") == "Exists" {
        text.push_str(" op=Exists");
    }
    match toleration.integer("/tolerationSeconds") {
        Some(seconds) => format!("{text} for {}", age::human(seconds)),
        None => text,
    }
}
