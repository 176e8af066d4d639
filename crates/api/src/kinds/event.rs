//! Event.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::k8s_openapi::api::core::v1::Event;
use spec::k8s_openapi::api::events::v1::Event as NewEvent;
use spec::validation::{NameForm, validate_new_event, validate_object_meta};

use crate::fields::{number_at, text_at};
use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit};
use crate::kinds::{FieldReader, Kind, Removal};
use crate::table::{Column, Row, name, text, time_since};

/// `v1` Event, as it is stored.
pub static EVENT: Kind = Kind {
    group: "",
    version: "v1",
    resource: "events",
    singular: "event",
    kind: "Event",
    namespaced: true,
    short_names: &["ev"],
    categories: &[],
    subresources: &[],
    fields: &[
        ("involvedObject.kind", FieldReader::Text("/involvedObject/kind")),
        ("involvedObject.namespace", FieldReader::Text("/involvedObject/namespace")),
        ("involvedObject.name", FieldReader::Text("/involvedObject/name")),
        ("involvedObject.uid", FieldReader::Text("/involvedObject/uid")),
        ("involvedObject.apiVersion", FieldReader::Text("/involvedObject/apiVersion")),
        ("involvedObject.resourceVersion", FieldReader::Text("/involvedObject/resourceVersion")),
        ("involvedObject.fieldPath", FieldReader::Text("/involvedObject/fieldPath")),
        ("reason", FieldReader::Text("/reason")),
        ("reportingComponent", FieldReader::Text("/reportingComponent")),
        ("source", FieldReader::Either("/source/component", "/reportingComponent")),
        ("type", FieldReader::Text("/type")),
    ],
    columns: &[
        Column::text("Last Seen", "Time since it happened last."),
        Column::text("Type", "Normal or Warning."),
        Column::text("Reason", "One word for machines."),
        Column::text("Object", "What it happened to."),
        Column::wide("Subobject", "The part it happened to."),
        Column::wide("Source", "Who reports it."),
        Column::text("Message", "What happened."),
        Column::wide("First Seen", "Time since it happened first."),
        Column::wide("Count", "How often it happened."),
        Column::wide_name("Name", "Of the event itself."),
    ],
    row,
    admit: admit_event,
    removal: Removal::AtOnce,
    orphans_by_default: false,
    counts_generations: false,
    renames: &[],
};

/// `events.k8s.io/v1` Event: the same objects under other names.
pub static NEW_EVENT: Kind = Kind {
    short_names: &["ev"],
    fields: &[
        ("regarding.kind", FieldReader::Text("/involvedObject/kind")),
        ("regarding.namespace", FieldReader::Text("/involvedObject/namespace")),
        ("regarding.name", FieldReader::Text("/involvedObject/name")),
        ("regarding.uid", FieldReader::Text("/involvedObject/uid")),
        ("regarding.apiVersion", FieldReader::Text("/involvedObject/apiVersion")),
        ("regarding.resourceVersion", FieldReader::Text("/involvedObject/resourceVersion")),
        ("regarding.fieldPath", FieldReader::Text("/involvedObject/fieldPath")),
        ("reason", FieldReader::Text("/reason")),
        ("reportingController", FieldReader::Text("/reportingComponent")),
        ("type", FieldReader::Text("/type")),
    ],
    columns: EVENT.columns,
    row,
    renames: &[
        ("involvedObject", "regarding"),
        ("message", "note"),
        ("reportingComponent", "reportingController"),
        ("source", "deprecatedSource"),
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
    ],
    ..Kind::namespaced("events.k8s.io", "events", "event", "Event", admit_new_event)
};

fn admit_new_event(value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    let is_new = admission.old.is_none();
    let mut admitted = admit(
        value,
        |_: &mut NewEvent| {},
        |event| {
            let mut errors = validate_object_meta(&event.metadata, true, NameForm::Subdomain);
            if is_new {
                errors.extend(validate_new_event(event));
            }
            errors
        },
    )?;
    admitted.object = NEW_EVENT.stored(admitted.object, &EVENT.api_version());
    Ok(admitted)
}

fn admit_event(value: Value, _admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    admit(value, |_: &mut Event| {}, |event| validate_object_meta(&event.metadata, true, NameForm::Subdomain))
}

fn row(object: &Value, now: Timestamp) -> Row {
    let last = ["/series/lastObservedTime", "/lastTimestamp", "/firstTimestamp", "/eventTime"];
    let first = ["/firstTimestamp", "/eventTime"];
    Row::new(vec![
        time_since(object, &last, now),
        text(object, "/type"),
        text(object, "/reason"),
        json!(involved(object)),
        text(object, "/involvedObject/fieldPath"),
        json!(source(object)),
        json!(text_at(object, "/message").trim()),
        time_since(object, &first, now),
        json!(occurrences(object)),
        name(object),
    ])
}

fn involved(object: &Value) -> String {
    let text = |path| text_at(object, path);
    let (kind, name) = (text("/involvedObject/kind").to_lowercase(), text("/involvedObject/name"));
    if name.is_empty() { kind } else { format!("{kind}/{name}") }
}

fn source(object: &Value) -> String {
    let text = |path| text_at(object, path);
    let (component, host) = match text("/source/component") {
        "" => (text("/reportingComponent"), text("/reportingInstance")),
        component => (component, text("/source/host")),
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

fn occurrences(object: &Value) -> i64 {
    let count = ["/series/count", "/count"].iter().find_map(|path| number_at(object, path));
    count.filter(|count| *count > 0).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_shows_when_what_and_whom() {
        let event = json!({
            "metadata": {"name": "web.1"}, "type": "Normal", "reason": "Pulled", "message": " Container image present \n",
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{nginx}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:04:00Z", "count": 3,
        });
        let cells = row(&event, "2026-01-01T00:05:00Z".parse().unwrap()).cells;
        let want = json!([
            "60s",
            "Normal",
            "Pulled",
            "pod/web",
            "spec.containers{nginx}",
            "kubelet, n1",
            "Container image present",
            "5m",
            3,
            "web.1"
        ]);
        assert_eq!(Value::from(cells), want);
    }
}
