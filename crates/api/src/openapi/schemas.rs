//! The schemas: which are needed to describe some kinds, and their text.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};

use flate2::read::GzDecoder;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Written by `cargo xtask codegen openapi`.
static COMPRESSED: &[u8] = include_bytes!("schemas.json.gz");

const REFERENCE: &str = "\"#/components/schemas/";

/// Names the content of all schemas.
pub fn digest() -> [u8; 32] {
    Sha256::digest(COMPRESSED).into()
}

/// The text of all schemas, unpacked for one document.
pub struct Schemas(String);

impl Schemas {
    /// Unpacks them.
    pub fn unpack() -> io::Result<Self> {
        let mut text = String::new();
        GzDecoder::new(COMPRESSED).read_to_string(&mut text)?;
        Ok(Self(text))
    }

    /// The schemas of kinds (by group, version and kind), with all that they are made of.
    pub fn of(&self, kinds: &BTreeSet<(&str, &str, &str)>) -> serde_json::Result<BTreeMap<&str, &RawValue>> {
        let all: BTreeMap<&str, &RawValue> = serde_json::from_str(&self.0)?;
        let mut wanted: Vec<&str> = Vec::new();
        for (name, schema) in all.iter().filter(|(_, schema)| schema.get().contains("group-version-kind")) {
            if names(schema)?.iter().any(|gvk| kinds.contains(&(&gvk.group, &gvk.version, &gvk.kind))) {
                wanted.push(name);
            }
        }
        let mut found = BTreeMap::new();
        while let Some(name) = wanted.pop() {
            let Some((name, schema)) = all.get_key_value(name) else { continue };
            if found.insert(*name, *schema).is_none() {
                wanted.extend(references(schema.get()));
            }
        }
        Ok(found)
    }
}

#[derive(serde::Deserialize)]
struct Named {
    #[serde(default, rename = "x-kubernetes-group-version-kind")]
    names: Vec<GroupVersionKind>,
}

#[derive(serde::Deserialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

fn names(schema: &RawValue) -> serde_json::Result<Vec<GroupVersionKind>> {
    Ok(serde_json::from_str::<Named>(schema.get())?.names)
}

fn references(schema: &str) -> impl Iterator<Item = &str> {
    schema.split(REFERENCE).skip(1).filter_map(|rest| rest.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_brings_what_it_is_made_of_and_no_more() {
        let schemas = Schemas::unpack().unwrap();
        let found = schemas.of(&BTreeSet::from([("", "v1", "ConfigMap")])).unwrap();
        let names: Vec<&str> = found.keys().map(|name| name.rsplit('.').next().unwrap()).collect();
        assert_eq!(names, ["ConfigMap", "FieldsV1", "ManagedFieldsEntry", "ObjectMeta", "OwnerReference", "Time"]);
        let found = schemas.of(&BTreeSet::from([("", "v1", "Pod")])).unwrap();
        let containers = &found["io.k8s.api.core.v1.PodSpec"].get();
        assert!(containers.contains("\"x-kubernetes-patch-merge-key\":\"name\""), "{containers}");
        assert!(found.values().all(|schema| references(schema.get()).all(|name| found.contains_key(name))));
    }
}
