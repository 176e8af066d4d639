//! What an object says, as a tree that is made when somebody looks at it for the first time.
//!
//! A tree takes eight times the memory of its JSON and most of the time of an open. Most of what a large store holds is never
//! looked at between two starts, only handed out as bytes.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The content of an object. Clones share the tree.
#[derive(Clone)]
pub struct ObjectValue(Arc<Lazy>);

struct Lazy {
    /// Checked JSON; empty where the tree was first.
    json: Bytes,
    tree: OnceLock<Value>,
}

impl ObjectValue {
    /// Takes over JSON after a look at all of it.
    pub(crate) fn read(json: Bytes) -> Result<Self, serde_json::Error> {
        // Text first, which is quick and lets the rest be passed over.
        let text = std::str::from_utf8(&json).map_err(serde::de::Error::custom)?;
        serde_json::from_str::<IgnoredAny>(text)?;
        Ok(Self::without_tree(json))
    }

    /// The same without its tree; `json` is what it was written as.
    pub(crate) fn without_tree(json: Bytes) -> Self {
        Self(Arc::new(Lazy { json, tree: OnceLock::new() }))
    }

    pub(crate) fn has_tree(&self) -> bool {
        self.0.tree.get().is_some()
    }
}

impl Deref for ObjectValue {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.0.tree.get_or_init(|| {
            // What was passed over is of the right form; numbers and nesting beyond the parser's bounds are not written here.
            serde_json::from_slice(&self.0.json).unwrap_or_else(|error| {
                tracing::error!(%error, "an object of the store cannot be read");
                Value::Null
            })
        })
    }
}

impl AsRef<Value> for ObjectValue {
    fn as_ref(&self) -> &Value {
        self
    }
}

impl From<Value> for ObjectValue {
    fn from(value: Value) -> Self {
        Self(Arc::new(Lazy { json: Bytes::new(), tree: OnceLock::from(value) }))
    }
}

impl PartialEq for ObjectValue {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for ObjectValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_over_is_read_later() {
        let text = r#"{"a": [1, -2.5e3, true, null, "\u00e9\ud83d\ude00"], "b": {"c": ""}}"#;
        let value = ObjectValue::read(Bytes::from_static(text.as_bytes())).unwrap();
        assert!(value.0.tree.get().is_none());
        assert_eq!(*value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(value, ObjectValue::from((*value).clone()));
    }

    #[test]
    fn what_is_not_json_is_not_taken_over() {
        let wrong: [&[u8]; 7] = [b"", b"{", b"{\"a\":}", b"{\"a\":1}x", b"\"\xff\"", b"\"\\q\"", b"\"\x01\""];
        for json in wrong {
            let text = String::from_utf8_lossy(json);
            assert!(serde_json::from_slice::<Value>(json).is_err(), "{text:?}");
            assert!(ObjectValue::read(Bytes::copy_from_slice(json)).is_err(), "{text:?}");
        }
    }
}
