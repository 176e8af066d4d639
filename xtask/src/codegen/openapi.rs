//! From JSON schema, as `kubernetes-validate` has it, to the schemas of OpenAPI v3, as an apiserver serves them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

/// Groups whose kinds may be served, and what they are made of.
const PACKAGES: [&str; 17] = [
    "io.k8s.api.apps.v1",
    "io.k8s.api.authentication.v1",
    "io.k8s.api.authorization.v1",
    "io.k8s.api.autoscaling.v1",
    "io.k8s.api.batch.v1",
    "io.k8s.api.coordination.v1",
    "io.k8s.api.core.v1",
    "io.k8s.api.discovery.v1",
    "io.k8s.api.events.v1",
    "io.k8s.api.networking.v1",
    "io.k8s.api.node.v1",
    "io.k8s.api.policy.v1",
    "io.k8s.api.rbac.v1",
    "io.k8s.api.scheduling.v1",
    "io.k8s.api.storage.v1",
    "io.k8s.apimachinery.pkg",
    "io.k8s.apimachinery.pkg.apis.meta.v1",
];

/// All schemas as one JSON object.
pub fn schemas(definitions: &Path) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read(definitions).with_context(|| format!("cannot read {}", definitions.display()))?;
    let document: Value = serde_json::from_slice(&text).context("the definitions are not JSON")?;
    let all = document.get("$defs").and_then(Value::as_object).context("the definitions have no `$defs`")?;
    let mut schemas = BTreeMap::new();
    for (name, schema) in all.iter().filter(|(name, _)| is_wanted(name)) {
        let mut schema = schema.clone();
        convert(&mut schema);
        schemas.insert(name, schema);
    }
    anyhow::ensure!(schemas.len() > 300, "only {} schemas; are these the full definitions?", schemas.len());
    Ok(serde_json::to_vec(&schemas)?)
}

fn is_wanted(name: &str) -> bool {
    PACKAGES.iter().any(|package| name.starts_with(package))
}

/// `["string", "null"]` is `string`, a reference with a description is `allOf` (in OpenAPI 3.0 a reference stands
/// alone), and the values of `kind` and `apiVersion` are not told.
fn convert(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(convert),
        Value::Object(fields) => {
            fields.values_mut().for_each(convert);
            fields.remove("$schema");
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                for name in ["kind", "apiVersion"] {
                    if let Some(property) = properties.get_mut(name).and_then(Value::as_object_mut) {
                        property.remove("enum");
                    }
                }
            }
            if let Some(Value::Array(types)) = fields.get("type") {
                let kept = types.iter().find(|kind| **kind != "null").cloned().unwrap_or_default();
                fields.insert("type".to_owned(), kept);
            }
            convert_reference(fields);
        }
        _ => {}
    }
}

fn convert_reference(fields: &mut Map<String, Value>) {
    let Some(target) = fields.get("$ref").and_then(Value::as_str) else { return };
    let target = json!(target.replace("#/$defs/", "#/components/schemas/"));
    if fields.len() == 1 {
        fields.insert("$ref".to_owned(), target);
        return;
    }
    fields.remove("$ref");
    fields.insert("allOf".to_owned(), json!([{"$ref": target}]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_become_those_of_openapi() {
        let mut schema = json!({
            "type": ["object", "null"],
            "properties": {
                "kind": {"type": ["string", "null"], "enum": ["Pod"]},
                "spec": {"$ref": "#/$defs/a.Spec", "description": "d"},
                "many": {"type": ["array", "null"], "items": {"$ref": "#/$defs/a.Item"}},
            },
        });
        convert(&mut schema);
        let want = json!({
            "type": "object",
            "properties": {
                "kind": {"type": "string"},
                "spec": {"allOf": [{"$ref": "#/components/schemas/a.Spec"}], "description": "d"},
                "many": {"type": "array", "items": {"$ref": "#/components/schemas/a.Item"}},
            },
        });
        assert_eq!(schema, want);
    }
}
