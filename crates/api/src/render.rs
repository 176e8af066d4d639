//! From stored objects to bytes, in the form that a client wants.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use spec::Timestamp;
use store::{ObjectList, ObjectValue, StoredObject};

use crate::fields::text_at;
use crate::http::accept::Form;
use crate::http::query::Query;
use crate::http::status::ApiError;
use crate::kinds::Kind;
use crate::table::{Column, Row};

/// How objects of one kind are written for one client.
#[derive(Debug, Clone, Copy)]
pub struct Renderer {
    kind: &'static Kind,
    form: Form,
    include: Include,
}

/// `includeObject` of a Table: what a row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

#[derive(Serialize)]
struct TableRow<'a> {
    cells: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<RowObject<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RowObject<'a> {
    Metadata(Partial<'a>),
    Whole(Cow<'a, Value>),
}

/// `meta.k8s.io/v1` PartialObjectMetadata.
#[derive(Serialize)]
struct Partial<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta<'a> {
    resource_version: &'a str,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_item_count: Option<usize>,
}

/// What a page of a list leaves out.
#[derive(Debug, Default)]
pub struct Rest {
    /// Where the next page begins.
    pub token: Option<String>,
    /// How many objects are left, if that is known.
    pub remaining: Option<usize>,
}

impl Renderer {
    /// Reads what the client wants besides the form.
    pub fn new(kind: &'static Kind, form: Form, query: &Query) -> Result<Self, ApiError> {
        let include = match query.get("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("Object") => Include::Object,
            Some("None") => Include::Nothing,
            Some(other) => {
                let supported = r#"supported values: "Metadata", "None", "Object""#;
                return Err(ApiError::bad_request(format!("includeObject: Unsupported value: {other:?}: {supported}")));
            }
        };
        Ok(Self { kind, form, include })
    }

    /// Content type of what the others write.
    pub fn content_type(&self) -> &'static str {
        self.form.content_type()
    }

    /// One object.
    pub fn object(&self, value: &ObjectValue, json: &Bytes, now: Timestamp) -> Bytes {
        self.written(value, json, self.kind.columns, now)
    }

    fn written(&self, value: &ObjectValue, json: &Bytes, columns: &'static [Column], now: Timestamp) -> Bytes {
        match self.form {
            Form::Object => self.whole(value, json),
            Form::Metadata => encode(&metadata_only(&value.tree())),
            Form::Table => {
                let value = value.tree();
                table(&ListMeta::of(revision_text(&value)), columns, std::iter::once(self.row(&value, now)))
            }
        }
    }

    /// A list or a page of it. Plain objects are copied from the bytes that the store keeps.
    pub fn list(&self, list: &ObjectList, rest: &Rest, now: Timestamp) -> Bytes {
        let revision = list.revision.to_string();
        let metadata = ListMeta {
            resource_version: &revision,
            token: rest.token.as_deref(),
            remaining_item_count: rest.remaining,
        };
        match self.form {
            Form::Table => {
                let rows = list.objects.iter().map(|object| self.row(&object.value.tree(), now));
                table(&metadata, self.kind.columns, rows)
            }
            Form::Object => {
                let head = (format!("{}List", self.kind.kind), self.kind.api_version());
                envelope(
                    (&head.0, &head.1),
                    &metadata,
                    list.objects.iter().map(|object| self.whole(&object.value, &object.json)),
                )
            }
            Form::Metadata => {
                let items = list.objects.iter().map(|object| encode(&metadata_only(&object.value.tree())));
                envelope(("PartialObjectMetadataList", "meta.k8s.io/v1"), &metadata, items)
            }
        }
    }

    /// One line of a watch. Of a Table only the first line names the columns.
    pub fn event(&self, change: &str, object: &StoredObject, first: bool, now: Timestamp) -> Bytes {
        let columns = if first { self.kind.columns } else { &[] };
        line(change, &self.written(&object.value, &object.json, columns, now))
    }

    /// Whether clients get the very bytes of the store.
    pub fn is_as_stored(&self) -> bool {
        self.form == Form::Object && self.kind.is_shown_as_stored()
    }

    /// A bookmark: nothing but a revision to go on from; `initial_end` ends the initial events of a WatchList.
    pub fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if let (true, Some(metadata)) = (initial_end, metadata.as_object_mut()) {
            metadata.insert("annotations".to_owned(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let (kind, api_version) = match self.form {
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Form::Object | Form::Table => (self.kind.kind, self.kind.api_version()),
        };
        let object = encode(&json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}));
        if self.form != Form::Table {
            return line("BOOKMARK", &object);
        }
        let row = json!({"cells": [], "object": {"kind": kind, "apiVersion": api_version, "metadata": metadata}});
        let table = json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
            "columnDefinitions": [], "rows": [row],
        });
        line("BOOKMARK", &encode(&table))
    }

    /// The bytes that the store keeps, unless this kind shows its objects otherwise.
    fn whole(&self, value: &ObjectValue, json: &Bytes) -> Bytes {
        if self.kind.is_shown_as_stored() { json.clone() } else { encode(&self.kind.shown(&value.tree())) }
    }

    /// A row of a Table, written at once: the objects of a list are read one after the other.
    fn row(&self, value: &Value, now: Timestamp) -> Bytes {
        let object = match self.include {
            Include::Nothing => None,
            Include::Metadata => Some(RowObject::Metadata(metadata_only(value))),
            Include::Object => Some(RowObject::Whole(self.kind.shown(value))),
        };
        let Row { cells, conditions } = (self.kind.row)(value, now);
        encode(&TableRow { cells, conditions, object })
    }
}

/// A watch line that reports an error.
pub fn error_event(error: &ApiError) -> Bytes {
    line("ERROR", &error.to_json())
}

/// `value` as JSON.
pub fn encode(value: &impl Serialize) -> Bytes {
    // Maps with text keys and plain structs always serialize.
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

fn line(change: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(change.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

impl<'a> ListMeta<'a> {
    fn of(resource_version: &'a str) -> Self {
        Self { resource_version, token: None, remaining_item_count: None }
    }
}

fn envelope((kind, api_version): (&str, &str), metadata: &ListMeta<'_>, items: impl Iterator<Item = Bytes>) -> Bytes {
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":"#);
    joined(&[head.as_bytes(), &encode(metadata), br#","items":["#], items)
}

fn table(metadata: &ListMeta<'_>, columns: &'static [Column], rows: impl Iterator<Item = Bytes>) -> Bytes {
    let head = br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#;
    joined(&[head, &encode(metadata), br#","columnDefinitions":"#, &encode(&columns), br#","rows":["#], rows)
}

fn joined(head: &[&[u8]], items: impl Iterator<Item = Bytes>) -> Bytes {
    let items: Vec<Bytes> = items.collect();
    let head = head.concat();
    let mut body = Vec::with_capacity(items.iter().map(|item| item.len() + 1).sum::<usize>() + head.len() + 2);
    body.extend_from_slice(&head);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&item);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

fn metadata_only(value: &Value) -> Partial<'_> {
    Partial { kind: "PartialObjectMetadata", api_version: "meta.k8s.io/v1", metadata: value.get("metadata") }
}

fn revision_text(value: &Value) -> &str {
    text_at(value, "/metadata/resourceVersion")
}
