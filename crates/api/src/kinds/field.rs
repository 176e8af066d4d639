//! How a selectable field is read from an object.

use std::borrow::Cow;

use serde_json::Value;

/// Where a field stands (JSON pointer, RFC 6901). What is absent reads as empty.
#[derive(Debug, Clone, Copy)]
pub enum FieldReader {
    /// A text.
    Text(&'static str),
    /// The first of two texts that is not empty.
    Either(&'static str, &'static str),
    /// A boolean; absent reads as `false`.
    Flag(&'static str),
}

impl FieldReader {
    /// The field's value as the selector compares it.
    pub fn of(self, object: &Value) -> Cow<'_, str> {
        match self {
            Self::Text(pointer) => Cow::Borrowed(text(object, pointer)),
            Self::Either(first, second) => match text(object, first) {
                "" => Cow::Borrowed(text(object, second)),
                found => Cow::Borrowed(found),
            },
            Self::Flag(pointer) => {
                let set = object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
                Cow::Borrowed(if set { "true" } else { "false" })
            }
        }
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
