//! Describes one container of a Pod.

use serde_json::Value;

use super::sheet::Sheet;
use crate::fields::{Fields as _, plain};

/// The container's section.
pub fn describe(sheet: &mut Sheet, spec: &Value, status: &Value) {
    sheet.heading(1, spec.text("/name"));
    sheet.optional(2, "Container ID", status.text("/containerID"));
    sheet.field(2, "Image", spec.text("/image"));
    sheet.optional(2, "Image ID", status.text("/imageID"));
    let ports: Vec<_> = spec.items("/ports").iter().map(port).collect();
    sheet.field(2, "Ports", &ports.join(", "));
    for (title, place) in [("Command", "/command"), ("Args", "/args")] {
        if !spec.items(place).is_empty() {
            sheet.list(2, title, spec.items(place).iter().map(plain));
        }
    }
    describe_state(sheet, "State", status.at("/state"));
    if status.entries("/lastState").next().is_some() {
        describe_state(sheet, "Last State", status.at("/lastState"));
    }
    sheet.field(2, "Ready", if status.flag("/ready") { "True" } else { "False" });
    sheet.field(2, "Restart Count", &status.integer("/restartCount").unwrap_or_default().to_string());
    for (title, place) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
        let amounts: Vec<_> = spec.entries(place).map(|(key, value)| format!("{key}: {}", plain(value))).collect();
        if !amounts.is_empty() {
            sheet.list(2, title, amounts);
        }
    }
    describe_environment(sheet, spec);
    sheet.list(2, "Mounts", spec.items("/volumeMounts").iter().map(mount));
}

fn port(port: &Value) -> String {
    let protocol = Some(port.text("/protocol")).filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
    let name = match port.text("/name") {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    format!("{}/{protocol}{name}", plain(port.at("/containerPort")))
}

fn describe_state(sheet: &mut Sheet, title: &str, state: &Value) {
    let Some((kind, details)) = state.entries("").next() else {
        sheet.field(2, title, "Waiting");
        return;
    };
    let mut letters = kind.chars();
    let shown: String = letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default();
    sheet.field(2, title, &shown);
    for (key, label) in [
        ("/reason", "Reason"),
        ("/message", "Message"),
        ("/exitCode", "Exit Code"),
        ("/signal", "Signal"),
        ("/startedAt", "Started"),
        ("/finishedAt", "Finished"),
    ] {
        sheet.optional(3, label, &plain(details.at(key)));
    }
}

fn describe_environment(sheet: &mut Sheet, spec: &Value) {
    let from: Vec<_> = spec.items("/envFrom").iter().map(environment_source).collect();
    if !from.is_empty() {
        sheet.list(2, "Environment Variables from", from);
    }
    sheet.list(2, "Environment", spec.items("/env").iter().map(variable));
}

fn environment_source(source: &Value) -> String {
    let of = |place: &str, kind: &str| {
        let name = source.at(place).text("/name");
        let optional = source.at(place).flag("/optional");
        (!name.is_empty()).then(|| format!("{name}  {kind}  Optional: {optional}"))
    };
    of("/configMapRef", "ConfigMap").or_else(|| of("/secretRef", "Secret")).unwrap_or_else(|| plain(source))
}

fn variable(variable: &Value) -> String {
    let name = variable.text("/name");
    let from = variable.at("/valueFrom");
    let key_of = |place: &str| {
        let reference = from.at(place);
        reference.is_object().then(|| {
            format!(
                "<set to the key '{}' in {} '{}'>  Optional: {}",
                reference.text("/key"),
                kind_of(place),
                reference.text("/name"),
                reference.flag("/optional")
            )
        })
    };
    let value = key_of("/configMapKeyRef").or_else(|| key_of("/secretKeyRef"));
    let value = value.or_else(|| {
        let path = from.text("/fieldRef/fieldPath");
        (!path.is_empty()).then(|| format!(" ({}:{path})", from.text("/fieldRef/apiVersion")))
    });
    let value = value.or_else(|| {
        let resource = from.text("/resourceFieldRef/resource");
        (!resource.is_empty()).then(|| format!(" ({resource})"))
    });
    format!("{name}: {}", value.unwrap_or_else(|| plain(variable.at("/value"))))
}

fn kind_of(place: &str) -> &'static str {
    if place == "/secretKeyRef" { "secret" } else { "config map" }
}

fn mount(mount: &Value) -> String {
    let mode = if mount.flag("/readOnly") { "ro" } else { "rw" };
    let sub_path = match mount.text("/subPath") {
        "" => String::new(),
        path => format!(",path={path:?}"),
    };
    format!("{} from {} ({mode}{sub_path})", mount.text("/mountPath"), mount.text("/name"))
}
