//! `metadata` as the server keeps it: what clients may not set, and what is checked against the path.

use serde_json::{Map, Value, json};
use spec::Timestamp;

use crate::context::Call;
use crate::http::status::ApiError;

/// A text in `metadata`; empty if absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata` as a map, made if it is missing; fails if it or the object is no map.
pub fn of(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let found = object.as_object_mut().map(|object| object.entry("metadata").or_insert(Value::Null));
    let metadata = found.ok_or_else(|| ApiError::bad_request("the body is not a JSON object"))?;
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().ok_or_else(|| ApiError::bad_request("metadata is not a JSON object"))
}

/// Whole seconds in UTC: what `metadata` holds.
pub fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Checks apiVersion and kind, or fills them in where they are missing.
pub fn check_type(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let (kind, api_version) = (call.kind.kind, call.kind.api_version());
    let object = object.as_object_mut().ok_or_else(|| ApiError::bad_request("the body is not a JSON object"))?;
    for (field, expected) in [("apiVersion", api_version.as_str()), ("kind", kind)] {
        let found = object.entry(field).or_insert(Value::Null);
        if found.is_null() || found == "" {
            *found = json!(expected);
        }
    }
    let given = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    if given("apiVersion") != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({api_version})",
            given("apiVersion")
        )));
    }
    if given("kind") != kind {
        let found = given("kind");
        return Err(ApiError::bad_request(format!(
            "{found} in version \"{}\" cannot be handled as a {kind}: the kind does not match the path",
            call.kind.version
        )));
    }
    Ok(())
}

/// Checks the namespace against the path's, or takes it from there.
pub fn check_namespace(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let metadata = of(object)?;
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    match call.pod_namespace.as_deref() {
        Some(expected) if given.is_empty() => {
            metadata.insert("namespace".to_owned(), json!(expected));
            Ok(())
        }
        Some(expected) if given == expected => Ok(()),
        None if given.is_empty() => {
            metadata.remove("namespace");
            Ok(())
        }
        _ => {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            Err(ApiError::bad_request(message))
        }
    }
}
