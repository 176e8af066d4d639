//! What `apply` sends: the live object with the manifest's wishes laid over it, as a three-way merge.

use serde_json::{Map, Value, json};

use crate::fields::Fields as _;

/// The annotation in which kubectl and Monopod remember what was applied last, so that fields can be taken back.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object to create: the manifest with its own text as annotation.
pub fn with_last_applied(manifest: &Value) -> Value {
    let mut text = manifest.clone();
    if let Some(annotations) = text.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let mut object = text.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(LAST_APPLIED.to_owned(), Value::String(format!("{text}\n")));
        }
    }
    object
}

/// The live object as the manifest wants it; equal to `live` when nothing is to be done.
pub fn merged(live: &Value, manifest: &Value) -> Value {
    let last = live.pointer("/metadata/annotations").and_then(|annotations| annotations.get(LAST_APPLIED));
    let last = last.and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    let wanted = folded(manifest);
    let mut result = merge(live, &folded(&last), &wanted, "");
    let unchanged = without_annotation(&result) == without_annotation(live);
    if unchanged && last_applied_equals(&last, manifest) {
        return live.clone();
    }
    if let Some(annotation) =
        with_last_applied(manifest).pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED))
        && let Some(metadata) = result.get_mut("metadata").and_then(Value::as_object_mut)
    {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(LAST_APPLIED.to_owned(), annotation.clone());
        }
    }
    result
}

fn last_applied_equals(last: &Value, manifest: &Value) -> bool {
    last.is_null() || without_annotation(last) == without_annotation(manifest)
}

fn without_annotation(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        if metadata.get("annotations").is_some_and(|annotations| annotations.as_object().is_some_and(Map::is_empty)) {
            metadata.remove("annotations");
        }
    }
    object
}

/// `stringData` of a Secret is write-only: what lives is `data`, in base64.
fn folded(manifest: &Value) -> Value {
    use base64::Engine as _;
    let mut object = manifest.clone();
    if object.text("/kind") != "Secret" {
        return object;
    }
    if let Some(secret) = object.as_object_mut()
        && let Some(Value::Object(texts)) = secret.remove("stringData")
    {
        let data = secret.entry("data").or_insert_with(|| json!({}));
        if let Some(data) = data.as_object_mut() {
            for (key, text) in texts {
                let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
                data.insert(key, Value::String(encoded));
            }
        }
    }
    object
}

/// Takes back what `last` had and `wanted` has not, then lays `wanted` over the rest.
fn merge(live: &Value, last: &Value, wanted: &Value, field: &str) -> Value {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => merge_objects(live, last, wanted),
        (Value::Array(live), Value::Array(wanted)) => match merge_key(field, live, wanted) {
            Some(key) => Value::Array(merge_lists(live, last, wanted, key)),
            None => Value::Array(wanted.clone()),
        },
        _ => wanted.clone(),
    }
}

fn merge_objects(live: &Map<String, Value>, last: &Value, wanted: &Map<String, Value>) -> Value {
    let mut result = live.clone();
    for (key, _) in last.as_object().into_iter().flatten() {
        if !wanted.contains_key(key) {
            result.remove(key);
        }
    }
    for (key, value) in wanted {
        // A null in a manifest means that the field is not set.
        if value.is_null() {
            result.remove(key);
            continue;
        }
        let before = last.get(key).unwrap_or(&Value::Null);
        let merged = live.get(key).map_or_else(|| value.clone(), |live| merge(live, before, value, key));
        // Writing an empty map or list where nothing is changes nothing.
        if !(live.get(key).is_none() && is_empty(&merged)) {
            result.insert(key.clone(), merged);
        }
    }
    Value::Object(result)
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// The items in the manifest's order, then those that others added.
fn merge_lists(live: &[Value], last: &Value, wanted: &[Value], key: &str) -> Vec<Value> {
    let find = |list: &[Value], id: &Value| list.iter().find(|item| item.get(key) == Some(id)).cloned();
    let last = last.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut result: Vec<Value> = Vec::with_capacity(wanted.len());
    for item in wanted {
        let id = item.get(key).unwrap_or(&Value::Null);
        let before = find(last, id).unwrap_or_default();
        result.push(find(live, id).map_or_else(|| item.clone(), |live| merge(&live, &before, item, "")));
    }
    for item in live {
        let id = item.get(key).unwrap_or(&Value::Null);
        if find(wanted, id).is_none() && find(last, id).is_none() {
            result.push(item.clone());
        }
    }
    result
}

/// By which key the items of a list are the same ones (the API's `x-kubernetes-patch-merge-key`).
fn merge_key(field: &str, live: &[Value], wanted: &[Value]) -> Option<&'static str> {
    let key = match field {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => "name",
        "volumeMounts" => "mountPath",
        "ports" => "containerPort",
        "hostAliases" => "ip",
        _ => return None,
    };
    let unique = |list: &[Value]| {
        let ids: Vec<_> = list.iter().map(|item| item.get(key)).collect();
        ids.iter().enumerate().all(|(index, id)| id.is_some() && !ids.iter().take(index).any(|other| other == id))
    };
    (unique(live) && unique(wanted)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
    }

    /// What the server would hold after the manifest was applied: with defaults and its own metadata.
    fn live(manifest: &Value) -> Value {
        let mut object = without_unset(&with_last_applied(manifest));
        object["metadata"]["uid"] = json!("u1");
        object["metadata"]["resourceVersion"] = json!("7");
        object["spec"]["restartPolicy"] = json!("Always");
        for container in object["spec"]["containers"].as_array_mut().unwrap() {
            container["imagePullPolicy"] = json!("IfNotPresent");
        }
        object["status"] = json!({"phase": "Running"});
        object
    }

    /// Kubernetes does not store null, nor empty lists.
    fn without_unset(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let set =
                    fields.iter().filter(|(_, value)| !value.is_null() && !value.as_array().is_some_and(Vec::is_empty));
                Value::Object(set.map(|(key, value)| (key.clone(), without_unset(value))).collect())
            }
            Value::Array(items) => items.iter().map(without_unset).collect(),
            other => other.clone(),
        }
    }

    #[test]
    fn the_same_manifest_changes_nothing() {
        let manifest =
            pod(&json!({"containers": [{"name": "a", "image": "x", "env": null, "args": []}], "volumes": []}));
        let live = live(&manifest);
        assert_eq!(merged(&live, &manifest), live);
    }

    #[test]
    fn changed_added_and_removed_fields_are_merged() {
        let before =
            pod(&json!({"containers": [{"name": "a", "image": "x", "tty": true}, {"name": "b", "image": "y"}],
            "activeDeadlineSeconds": 5}));
        let after = pod(&json!({"containers": [{"name": "b", "image": "z"}, {"name": "a", "image": "x"}]}));
        let result = merged(&live(&before), &after);
        assert_eq!(
            result["spec"],
            json!({"restartPolicy": "Always", "containers": [
            {"name": "b", "image": "z", "imagePullPolicy": "IfNotPresent"},
            {"name": "a", "image": "x", "imagePullPolicy": "IfNotPresent"}]})
        );
        assert_eq!(result["metadata"]["uid"], "u1");
        let remembered = result["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(remembered).unwrap(), after);
        assert_eq!(merged(&result, &after), result);
    }

    #[test]
    fn what_others_added_stays() {
        let manifest = pod(&json!({"containers": [{"name": "a", "image": "x", "args": ["1"]}]}));
        let mut live = live(&manifest);
        live["metadata"]["labels"] = json!({"theirs": "1"});
        live["spec"]["containers"][0]["env"] = json!([{"name": "INJECTED", "value": "1"}]);
        assert_eq!(merged(&live, &manifest), live);
        let mut changed = manifest.clone();
        changed["spec"]["containers"][0]["env"] = json!([{"name": "OURS", "value": "2"}]);
        changed["spec"]["containers"][0]["args"] = json!(["2"]);
        let container = &merged(&live, &changed)["spec"]["containers"][0];
        assert_eq!(container["env"], json!([{"name": "OURS", "value": "2"}, {"name": "INJECTED", "value": "1"}]));
        assert_eq!(container["args"], json!(["2"]));
    }

    #[test]
    fn a_secret_of_texts_equals_its_encoded_form() {
        let manifest =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "hi"}});
        let mut live = with_last_applied(&manifest);
        live.as_object_mut().unwrap().remove("stringData");
        live["data"] = json!({"a": "aGk="});
        assert_eq!(merged(&live, &manifest), live);
        let emptied =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"b": "yo"}});
        assert_eq!(merged(&live, &emptied)["data"], json!({"b": "eW8="}));
    }

    #[test]
    fn an_object_that_was_created_otherwise_can_be_adopted() {
        let manifest = pod(&json!({"containers": [{"name": "a", "image": "x"}]}));
        let mut live = live(&manifest);
        live["metadata"].as_object_mut().unwrap().remove("annotations");
        assert_eq!(merged(&live, &manifest), live);
    }
}
