//! Tables (`meta.k8s.io/v1`): columns and cells made by the server, so that every client prints the same.

mod duration;

use serde::Serialize;
use serde_json::{Value, json};
use spec::Timestamp;

pub use duration::human_duration;

use crate::fields::{at, text_at};

/// One column.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Column {
    name: &'static str,
    #[serde(rename = "type")]
    value_type: &'static str,
    format: &'static str,
    description: &'static str,
    /// 0 always, 1 with `-o wide`; kubectl drops what it does not show.
    priority: u8,
}

/// The first column of every kind but Event.
pub const NAME: Column = Column { format: "name", ..Column::text("Name", "Unique among its kind in its namespace.") };

/// Time since creation.
pub const AGE: Column = Column::text("Age", "Time since its creation.");

/// The date of creation, for kinds that Kubernetes shows so.
pub const CREATED_AT: Column = Column { value_type: "date", ..Column::text("Created At", "When it was created.") };

impl Column {
    /// A text that is always shown.
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, value_type: "string", format: "", description, priority: 0 }
    }

    /// A number.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { value_type: "integer", ..Self::text(name, description) }
    }

    /// A yes or no.
    pub const fn flag(name: &'static str, description: &'static str) -> Self {
        Self { value_type: "boolean", ..Self::text(name, description) }
    }

    /// A text that `-o wide` shows.
    pub const fn wide(name: &'static str, description: &'static str) -> Self {
        Self { priority: 1, ..Self::text(name, description) }
    }

    /// The object's name where it is not the first thing to show.
    pub const fn wide_name(name: &'static str, description: &'static str) -> Self {
        Self { format: "name", ..Self::wide(name, description) }
    }
}

/// One object as cells, one per column.
#[derive(Debug)]
pub struct Row {
    /// In the order of the columns.
    pub cells: Vec<Value>,
    /// `Completed` for what has ended.
    pub conditions: Vec<Value>,
}

impl Row {
    /// A row without conditions.
    pub fn new(cells: Vec<Value>) -> Self {
        Self { cells, conditions: Vec::new() }
    }
}

/// The cell of `metadata.name`.
pub fn name(object: &Value) -> Value {
    text(object, "/metadata/name")
}

/// A text cell; empty if the field is absent.
pub fn text(object: &Value, path: &str) -> Value {
    text_or(object, path, "")
}

/// A text cell; `absent` if the field is absent or empty.
pub fn text_or(object: &Value, path: &str, absent: &str) -> Value {
    let found = text_at(object, path);
    json!(if found.is_empty() { absent } else { found })
}

/// How many entries a list or map has.
pub fn count(object: &Value, path: &str) -> usize {
    match at(object, path) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// The cell of time since creation.
pub fn age(object: &Value, now: Timestamp) -> Value {
    time_since(object, &["/metadata/creationTimestamp"], now)
}

/// The cell of time since the first of these fields that is set.
pub fn time_since(object: &Value, paths: &[&str], now: Timestamp) -> Value {
    let since = paths.iter().find_map(|path| text_at(object, path).parse().ok());
    json!(since.map_or_else(|| "<unknown>".to_owned(), |since| human_duration(since, now)))
}
