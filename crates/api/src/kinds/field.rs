//! How a selectable field is read from an object.

use serde_json::Value;

use crate::fields::{flag_at, text_at};

/// Where a field stands (a path such as `/spec/nodeName`). What is absent reads as empty.
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
    pub fn of(self, object: &Value) -> &str {
        match self {
            Self::Text(path) => text_at(object, path),
            Self::Either(first, second) => match text_at(object, first) {
                "" => text_at(object, second),
                found => found,
            },
            Self::Flag(path) if flag_at(object, path) => "true",
            Self::Flag(_) => "false",
        }
    }
}
