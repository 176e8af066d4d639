//! Reads fields of API objects without trusting their shape: what is missing or odd reads as empty.

use serde_json::Value;

/// Lenient access by JSON pointer (RFC 6901), such as `/status/podIP`.
pub trait Fields {
    /// The value there, or null.
    fn at(&self, pointer: &str) -> &Value;
    /// The string there, or "".
    fn text(&self, pointer: &str) -> &str;
    /// The list there, or none.
    fn items(&self, pointer: &str) -> &[Value];
    /// The integer there.
    fn integer(&self, pointer: &str) -> Option<i64>;
    /// Whether `true` is there.
    fn flag(&self, pointer: &str) -> bool;
    /// The entries of the object there.
    fn entries(&self, pointer: &str) -> impl Iterator<Item = (&String, &Value)>;
    /// `metadata.name`.
    fn name(&self) -> &str {
        self.text("/metadata/name")
    }
    /// `metadata.namespace`.
    fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }
}

impl Fields for Value {
    fn at(&self, pointer: &str) -> &Value {
        self.pointer(pointer).unwrap_or(&Value::Null)
    }

    fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    fn items(&self, pointer: &str) -> &[Value] {
        self.at(pointer).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn integer(&self, pointer: &str) -> Option<i64> {
        self.at(pointer).as_i64()
    }

    fn flag(&self, pointer: &str) -> bool {
        self.at(pointer).as_bool().unwrap_or_default()
    }

    fn entries(&self, pointer: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.at(pointer).as_object().into_iter().flatten()
    }
}

/// The value as a person reads it: strings bare, null empty, all else as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
