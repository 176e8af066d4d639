//! How a selectable field is read from an object.

use std::borrow::Cow;

use serde_json::Value;

use crate::fields::{flag_at, number_at, text_at};

/// Where a field stands (a path such as `/spec/nodeName`). What is absent reads as empty.
#[derive(Debug, Clone, Copy)]
pub enum FieldReader {
    /// A text.
    Text(&'static str),
    /// The first of two texts that is not empty.
    Either(&'static str, &'static str),
    /// A boolean; absent reads as `false`.
    Flag(&'static str),
    /// A whole number; absent reads as `0`.
    Number(&'static str),
}

impl FieldReader {
    /// The field's value as the selector compares it.
    pub fn of(self, object: &Value) -> Cow<'_, str> {
        match self {
            Self::Text(path) => text_at(object, path).into(),
            Self::Either(first, second) => match text_at(object, first) {
                "" => text_at(object, second).into(),
                found => found.into(),
            },
            Self::Flag(path) if flag_at(object, path) => "true".into(),
            Self::Flag(_) => "false".into(),
            Self::Number(path) => number_at(object, path).unwrap_or_default().to_string().into(),
        }
    }
}
