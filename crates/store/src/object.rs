//! What is kept: objects, their keys, and what may become of them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::value::ObjectValue;

/// The longest encoded object or record, in bytes. The reserve for a full disk (`ballast.rs`) is made for writes of
/// this size; etcd takes 1.5 MiB.
pub const MAX_VALUE_BYTES: usize = 2 << 20;

/// Names one object. Sorts by resource, namespace (none first), name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The plural as in the API's paths: `pods`.
    pub resource: String,
    /// `None` for what lives in no namespace, such as a Node.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectKey {
    /// Names an object that lives in a namespace.
    pub fn namespaced(resource: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource: resource.into(), namespace: Some(namespace.into()), name: name.into() }
    }

    /// Names an object that lives in no namespace.
    pub fn cluster(resource: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource: resource.into(), namespace: None, name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.resource, self.name),
            None => write!(f, "{} {}", self.resource, self.name),
        }
    }
}

/// One version of an object. A clone shares the content.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredObject {
    /// All versions of an object have the same one.
    pub key: Arc<ObjectKey>,
    /// When it was written, in the one order of all writes; `metadata.resourceVersion` says the same.
    pub revision: u64,
    pub value: ObjectValue,
    /// `value` as JSON, encoded once for the disk and for everyone who reads it.
    pub json: Bytes,
}

impl StoredObject {
    /// As it is kept, whoever has looked at this one.
    pub(crate) fn unread(mut self) -> Self {
        self.value = self.value.unread();
        self
    }

    /// Whether a word is anywhere in the JSON: what has a field of this name mentions it. The object need not be read for that.
    pub fn mentions(&self, word: &str) -> bool {
        memchr::memmem::find(&self.json, word.as_bytes()).is_some()
    }
}

/// What a write makes of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Leave it as it is.
    Keep,
    /// Create or replace it. The store sets `metadata.resourceVersion`; a value equal to the present one, that field
    /// aside, is a `Keep`.
    Put(Value),
    /// Remove it. Without a present object this is a `Keep`.
    Delete,
}

/// A write that is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Written<T> {
    /// The object as it is now; after a delete the removed one, with the revision of its removal.
    pub object: Option<StoredObject>,
    /// What the closure gave back.
    pub outcome: T,
}

/// The objects of one resource at one revision, sorted by namespace and name.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectList {
    /// The revision of the whole store when the list was taken: where a watch goes on from.
    pub revision: u64,
    pub objects: Vec<StoredObject>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchKind {
    Added,
    Modified,
    Deleted,
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchEvent {
    pub kind: WatchKind,
    /// The object after the change; of a deleted one its last content, with the revision of the delete.
    pub object: StoredObject,
    /// The object before the change; `None` when it was added. A selector needs both.
    pub previous: Option<StoredObject>,
    /// The change as a line of a watch, such as `{"type":"ADDED","object":{…}}` and a line end: made once, for everyone who
    /// watches. `object.json` is a part of these bytes.
    pub line: Bytes,
}

impl WatchKind {
    /// As a watch spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}
