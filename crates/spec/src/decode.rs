//! From JSON to a typed object, naming each field that the type does not know.

mod duplicates;
mod readable;
mod reader;

use std::cell::RefCell;

use serde_json::Value;

pub use duplicates::{read_json, read_yaml};
pub use readable::{Readable, Writable};
use reader::Notes;
pub use reader::Reader;

/// Why a document is not an object of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("json: cannot unmarshal {}: {why}", if field.is_empty() { "the object" } else { field })]
pub struct DecodeError {
    /// The field whose value has the wrong type: `spec.containers[0].ports[0].containerPort`; empty for the document.
    pub field: String,
    /// What was found and what was expected.
    pub why: String,
}

/// Reads an object that was read strictly before it was stored, without its owners (`metadata.managedFields`): nobody but the API
/// looks at them, and it does so by itself.
pub fn read<T: Readable>(object: &Value) -> Result<T, DecodeError> {
    let notes = Notes { without_owners: true, ..Notes::default() };
    read_and_note(object, notes).map(|(object, _unknown)| object)
}

/// Reads `document` as a `T`; the second part names the fields that `T` does not have, in the order of the document.
///
/// Quantities may be bare numbers (`cpu: 1`), as the API server accepts them.
pub fn decode_strict<T: Readable>(mut document: Value) -> Result<(T, Vec<String>), DecodeError> {
    quote_quantities(&mut document);
    read_and_note(&document, Notes::default())
}

fn read_and_note<T: Readable>(document: &Value, notes: Notes) -> Result<(T, Vec<String>), DecodeError> {
    let notes = RefCell::new(notes);
    let object = T::read(Reader::new(document, &notes));
    let notes = notes.into_inner();
    match object {
        Ok(object) => Ok((object, notes.unknown)),
        Err(error) => Err(DecodeError { field: notes.failed.unwrap_or_default(), why: error.to_string() }),
    }
}

/// How the API server reports faults where `fieldValidation=Strict`, each from [`unknown_field`] or [`duplicate_field`].
pub fn strict_decoding_faults(faults: impl IntoIterator<Item = String>) -> String {
    format!("strict decoding error: {}", faults.into_iter().collect::<Vec<_>>().join(", "))
}

/// One unknown field, as a warning or a part of the error says it.
pub fn unknown_field(field: &str) -> String {
    format!("unknown field {field:?}")
}

/// One field that stands twice, as a warning or a part of the error says it.
pub fn duplicate_field(field: &str) -> String {
    format!("duplicate field {field:?}")
}

/// Where a quantity stands: below the first name as a map of quantities, or as the second's own value.
fn quote_quantities(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(quote_quantities),
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "resources" => {
                        quote_members(field, "requests");
                        quote_members(field, "limits");
                    }
                    "overhead"
                    | "capacity"
                    | "allocatable"
                    | "allocatedResources"
                    | "hard"
                    | "used"
                    | "min"
                    | "max"
                    | "default"
                    | "defaultRequest"
                    | "maxLimitRequestRatio" => quote_all(field),
                    "emptyDir" => quote_member(field, "sizeLimit"),
                    "resourceFieldRef" => quote_member(field, "divisor"),
                    _ => quote_quantities(field),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn quote_members(value: &mut Value, name: &str) {
    if let Some(member) = value.get_mut(name) {
        quote_all(member);
    }
}

fn quote_member(value: &mut Value, name: &str) {
    if let Some(member) = value.get_mut(name) {
        quote(member);
    }
}

fn quote_all(value: &mut Value) {
    if let Value::Object(members) = value {
        members.values_mut().for_each(quote);
    }
}

fn quote(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
    use serde_json::json;

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let document = json!({
            "apiVersion": "v1", "kind": "Pod", "extra": 1,
            "metadata": {"name": "p", "label": {}},
            "spec": {"containers": [{"name": "a"}, {"name": "b", "imagePullPolice": "x", "resources": {"limit": {}}}], "foo": {"bar": 1}},
        });
        let (pod, mut unknown) = decode_strict::<Pod>(document).unwrap();
        unknown.sort();
        let expected = [
            "extra",
            "metadata.label",
            "spec.containers[1].imagePullPolice",
            "spec.containers[1].resources.limit",
            "spec.foo",
        ];
        assert_eq!(unknown, expected);
        assert_eq!(pod.spec.unwrap().containers.len(), 2);
        assert_eq!(
            strict_decoding_faults([unknown_field("a"), duplicate_field("b[0].c")]),
            "strict decoding error: unknown field \"a\", duplicate field \"b[0].c\""
        );
    }

    #[test]
    fn null_is_unset_everywhere() {
        let document = json!({
            "metadata": {"name": "p", "creationTimestamp": null, "labels": null},
            "spec": {"containers": [{"name": "a", "args": null, "resources": null}], "volumes": null},
            "status": {},
        });
        let (pod, unknown) = decode_strict::<Pod>(document).unwrap();
        assert!(unknown.is_empty());
        assert_eq!(pod.metadata.creation_timestamp, None);
    }

    #[test]
    fn quantities_may_be_numbers() {
        let document = json!({"spec": {
            "containers": [{"name": "a", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 0.5}}}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": 1024}}],
        }});
        let spec = decode_strict::<Pod>(document).unwrap().0.spec.unwrap();
        let resources = spec.containers[0].resources.clone().unwrap();
        assert_eq!(resources.limits.unwrap()["cpu"].0, "1");
        assert_eq!(resources.requests.unwrap()["cpu"].0, "0.5");
        assert_eq!(spec.volumes.unwrap()[0].empty_dir.clone().unwrap().size_limit.unwrap().0, "1024");
    }

    #[test]
    fn texts_numbers_and_bytes_are_read_where_a_field_takes_them() {
        let document = json!({"spec": {"containers": [{"name": "a", "readinessProbe": {"httpGet": {"port": "web"}},
            "livenessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": -1}}]}});
        let container = decode_strict::<Pod>(document.clone()).unwrap().0.spec.unwrap().containers.remove(0);
        assert_eq!(json!(container), document["spec"]["containers"][0]);
        let document = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"k": "AP8="}});
        let secret = read::<Secret>(&document).unwrap();
        assert_eq!(secret.data.unwrap()["k"].0, [0, 255]);
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_field() {
        let table = [
            (
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": "x"}]}]}}),
                "spec.containers[0].ports[0].containerPort",
            ),
            (json!({"spec": {"containers": {}}}), "spec.containers"),
            (
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "A", "value": 1}]}]}}),
                "spec.containers[0].env[0].value",
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 5_000_000_000_u64}]}]}}),
                "spec.containers[0].ports[1].containerPort",
            ),
            (json!({"spec": {"containers": [], "priority": 1.5}}), "spec.priority"),
            (json!({"metadata": {"labels": {"a.b/c": true}}}), "metadata.labels.a.b/c"),
            (json!({"metadata": {"creationTimestamp": "yesterday"}}), "metadata.creationTimestamp"),
            (json!({"spec": {"containers": [{"image": ["a"]}]}}), "spec.containers[0].image"),
            (json!({"kind": "ConfigMap"}), ""),
            (json!([]), ""),
        ];
        for (document, field) in table {
            let error = decode_strict::<Pod>(document).unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
        assert!(decode_strict::<ConfigMap>(json!({"data": {"a": 1}})).is_err());
    }
}
