//! The paths of a document, from the table of kinds. kubectl looks for the actions, the kinds they act on, the parameters
//! `dryRun` and `fieldValidation`, and the media types of a patch.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use spec::ordered::object_of;

use crate::kinds::{KINDS, Kind, Subresource};

/// A method and what Kubernetes calls it.
const COLLECTION: [(&str, &str); 3] = [("get", "list"), ("post", "post"), ("delete", "deletecollection")];
const OBJECT: [(&str, &str); 4] = [("get", "get"), ("put", "put"), ("patch", "patch"), ("delete", "delete")];

const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// `api/v1` and the like, of all that is served.
pub fn group_versions() -> Vec<String> {
    let mut all: Vec<String> = KINDS.iter().map(|kind| place(kind)).collect();
    all.sort();
    all.dedup();
    all
}

/// The kinds of a group and version, as group, version and kind; those of subresources, too.
pub fn kinds(path: &str) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    served(path).flat_map(|kind| {
        let below = kind.subresources.iter().map(|part| part.kind);
        std::iter::once(kind.kind).chain(below).map(|name| (kind.group, kind.version, name))
    })
}

/// All paths of a group and version.
pub fn paths(path: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for kind in served(path) {
        let base = format!("/{}", place(kind));
        let collection = if kind.namespaced {
            all.insert(format!("{base}/{}", kind.resource), operations(kind, kind.kind, &[("get", "list")]));
            format!("{base}/namespaces/{{namespace}}/{}", kind.resource)
        } else {
            format!("{base}/{}", kind.resource)
        };
        let object = format!("{collection}/{{name}}");
        for part in kind.subresources {
            all.insert(format!("{object}/{}", part.name), operations(kind, part.kind, &methods(part)));
        }
        all.insert(collection, operations(kind, kind.kind, &COLLECTION));
        all.insert(object, operations(kind, kind.kind, &OBJECT));
    }
    all
}

fn served(path: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS.into_iter().filter(move |kind| place(kind) == path)
}

fn place(kind: &Kind) -> String {
    if kind.group.is_empty() { format!("api/{}", kind.version) } else { format!("apis/{}", kind.api_version()) }
}

fn methods(part: &Subresource) -> Vec<(&'static str, &'static str)> {
    let of = |verb: &&str| match *verb {
        "create" => Some(("post", "connect")),
        "get" => Some(("get", "get")),
        "update" => Some(("put", "put")),
        "patch" => Some(("patch", "patch")),
        _ => None,
    };
    part.verbs.iter().filter_map(of).collect()
}

fn operations(kind: &Kind, speaks: &str, methods: &[(&str, &str)]) -> Value {
    let mut operations = Map::new();
    for (method, action) in methods {
        let mut operation = json!({
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": speaks},
        });
        if let Some(fields) = operation.as_object_mut() {
            if *method != "get" {
                let names = ["dryRun", "fieldManager", "fieldValidation"];
                fields.insert("parameters".to_owned(), names.into_iter().map(parameter).collect());
            }
            if *method == "patch" {
                let patch = |kind: &str| (kind.to_owned(), json!({"schema": {"type": "object"}}));
                let content = object_of(PATCHES.into_iter().map(patch));
                fields.insert("requestBody".to_owned(), json!({"content": content, "required": true}));
            }
        }
        operations.insert((*method).to_owned(), operation);
    }
    let name = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let mut named = vec![name("name")];
    if kind.namespaced {
        named.push(name("namespace"));
    }
    operations.insert("parameters".to_owned(), Value::Array(named));
    Value::Object(operations)
}

fn parameter(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}})
}
