//! Applies a strategic merge patch to an object.

use serde_json::{Map, Value};
use spec::ordered::object_of;

use crate::patch::keys::{ListRule, Type};
use crate::patch::order::{arrange, identity};
use crate::schema::TypeName;

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StrategicMergeError {
    /// An element of a list that is merged by key has none.
    #[error("an element of {field:?} does not contain its merge key {key:?}")]
    MissingKey {
        /// The list.
        field: String,
        /// The key.
        key: &'static str,
    },
    /// `$patch` with a word that there is not.
    #[error("unknown patch directive {0:?}")]
    UnknownDirective(String),
    /// A directive whose value has the wrong shape.
    #[error("the value of the directive {0:?} is not a list")]
    NotAList(String),
}

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Merges `patch` into an object of this type. No directive survives in the object.
pub fn merge(of: TypeName, object: &mut Value, patch: &Value) -> Result<(), StrategicMergeError> {
    match (object.as_object_mut(), patch.as_object()) {
        (Some(object), Some(patch)) => merge_map(Type(of), object, patch),
        _ => Ok(()),
    }
}

fn merge_map(of: Type, target: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), StrategicMergeError> {
    match directive(patch)? {
        Directive::Merge => {}
        Directive::Delete => {
            target.clear();
            return Ok(());
        }
        Directive::Replace => target.clear(),
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        let kept = list_of(RETAIN_KEYS, kept)?;
        target.retain(|field, _| kept.iter().any(|name| name == field));
    }
    let ordered = patch.keys().filter_map(|field| field.strip_prefix(SET_ORDER));
    let before = object_of(ordered.filter_map(|field| Some((field.to_owned(), target.get(field)?.clone()))));
    for (field, value) in patch {
        if let Some(field) = field.strip_prefix(DELETE_FROM) {
            let gone = list_of(field, value)?;
            if let Some(list) = target.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
        }
    }
    for (field, value) in patch.iter().filter(|(field, _)| !field.starts_with('$')) {
        merge_field(of, target, field, value)?;
    }
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(SET_ORDER) else { continue };
        let order = list_of(name, order)?;
        let rule = of.field(field).0;
        if let Some(list) = target.get_mut(field).and_then(Value::as_array_mut).filter(|_| rule != ListRule::Replace) {
            arrange(list, before.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice), order, rule);
        }
    }
    Ok(())
}

fn merge_field(
    of: Type,
    target: &mut Map<String, Value>,
    field: &str,
    value: &Value,
) -> Result<(), StrategicMergeError> {
    let (rule, below) = of.field(field);
    match value {
        Value::Null => {
            target.remove(field);
        }
        Value::Object(patch) => {
            let present = target.entry(field).or_insert(Value::Null);
            if !present.is_object() {
                *present = Value::Object(Map::new());
            }
            if let Some(present) = present.as_object_mut() {
                merge_map(below, present, patch)?;
            }
        }
        Value::Array(patch) if rule != ListRule::Replace => {
            let present = target.entry(field).or_insert(Value::Null);
            if !present.is_array() {
                *present = Value::Array(Vec::new());
            }
            if let Some(present) = present.as_array_mut() {
                merge_list(field, rule, below, present, patch)?;
            }
        }
        _ => {
            target.insert(field.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn merge_list(
    field: &str,
    rule: ListRule,
    below: Type,
    target: &mut Vec<Value>,
    patch: &[Value],
) -> Result<(), StrategicMergeError> {
    let key = match rule {
        ListRule::ByKey(key) => key,
        ListRule::Set | ListRule::Replace => {
            for item in patch {
                if !target.contains(item) {
                    target.push(item.clone());
                }
            }
            return Ok(());
        }
    };
    let replaces = |element: &Value| element.get(PATCH).is_some_and(|word| word == "replace");
    if patch.iter().any(replaces) {
        target.clear();
    }
    for element in patch {
        let element = element.as_object().filter(|element| element.contains_key(key) || element.contains_key(PATCH));
        let missing = || StrategicMergeError::MissingKey { field: field.to_owned(), key };
        let element = element.ok_or_else(missing)?;
        let Some(wanted) = element.get(key) else {
            // `{"$patch": "replace"}` alone was obeyed above; `delete` without a key says of nothing that it shall go.
            if directive(element)? == Directive::Replace {
                continue;
            }
            return Err(missing());
        };
        let present = target.iter().position(|other| identity(other, rule) == Some(wanted));
        match (directive(element)?, present) {
            (Directive::Delete, _) => target.retain(|other| identity(other, rule) != Some(wanted)),
            (_, Some(index)) => {
                if let Some(present) = target.get_mut(index).and_then(Value::as_object_mut) {
                    merge_map(below, present, element)?;
                }
            }
            (_, None) => {
                let mut fresh = Map::new();
                merge_map(below, &mut fresh, element)?;
                target.push(Value::Object(fresh));
            }
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Directive {
    Merge,
    Delete,
    Replace,
}

fn directive(patch: &Map<String, Value>) -> Result<Directive, StrategicMergeError> {
    match patch.get(PATCH) {
        None => Ok(Directive::Merge),
        Some(word) if word == "merge" => Ok(Directive::Merge),
        Some(word) if word == "delete" => Ok(Directive::Delete),
        Some(word) if word == "replace" => Ok(Directive::Replace),
        Some(other) => Err(StrategicMergeError::UnknownDirective(other.to_string())),
    }
}

fn list_of<'a>(directive: &str, value: &'a Value) -> Result<&'a Vec<Value>, StrategicMergeError> {
    value.as_array().ok_or_else(|| StrategicMergeError::NotAList(directive.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(mut object: Value, patch: &Value) -> Value {
        merge("Pod", &mut object, patch).unwrap();
        object
    }

    #[test]
    fn maps_merge_and_lists_merge_by_their_keys() {
        let table = [
            // null deletes, maps merge
            (
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
                json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
            ),
            // containers by name
            (
                json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["1", "2"]}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "y", "args": ["3"]}]}}),
                json!({"spec": {"containers": [{"name": "a", "image": "y", "args": ["3"]}, {"name": "b"}]}}),
            ),
            // env by name within containers by name, ports by number
            (
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}], "ports": [{"containerPort": 80}]}]}}),
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "F", "value": "2"}], "ports": [{"containerPort": 80, "name": "web"}]}]}}),
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}], "ports": [{"containerPort": 80, "name": "web"}]}]}}),
            ),
            // delete one element
            (
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                json!({"spec": {"containers": [{"name": "b"}]}}),
            ),
            // replace the whole list
            (
                json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
                json!({"spec": {"containers": [{"name": "c"}]}}),
            ),
            // replace and delete of maps
            (
                json!({"metadata": {"labels": {"a": "1"}, "annotations": {"x": "y"}}}),
                json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}, "annotations": {"$patch": "delete"}}}),
                json!({"metadata": {"labels": {"b": "2"}, "annotations": {}}}),
            ),
            // atomic lists are replaced
            (
                json!({"spec": {"tolerations": [{"key": "a"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
                json!({"spec": {"tolerations": [{"key": "b"}]}}),
            ),
            // retainKeys drops the other source of a volume
            (
                json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
                json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
            ),
            // sets of scalars
            (
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"finalizers": ["b", "c"]}}),
                json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            ),
            (
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
                json!({"metadata": {"finalizers": ["b"]}}),
            ),
            // directives never survive, not even in what is new
            (
                json!({}),
                json!({"spec": {"containers": [{"name": "a", "$setElementOrder/env": [{"name": "E"}], "env": [{"name": "E", "$patch": "merge"}]}]}}),
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "E"}]}]}}),
            ),
        ];
        for (object, patch, want) in table {
            assert_eq!(merged(object, &patch), want, "{patch}");
        }
    }

    #[test]
    fn elements_stand_in_the_wanted_order() {
        let names = |object: &Value| -> String {
            object["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
        };
        let object = |names: &str| {
            let containers: Vec<Value> = names.chars().map(|name| json!({"name": name.to_string()})).collect();
            json!({"spec": {"containers": containers}})
        };
        // present, added by the patch, wanted order, outcome
        let table = [
            ("ab", "", "ba", "ba"),
            ("ab", "c", "cab", "cab"),
            ("sab", "", "ba", "sba"),
            ("asb", "c", "abc", "asbc"),
            ("s", "a", "a", "sa"),
        ];
        for (present, added, order, want) in table {
            let mut patch = object(added);
            patch["spec"]["$setElementOrder/containers"] =
                order.chars().map(|name| json!({"name": name.to_string()})).collect();
            assert_eq!(names(&merged(object(present), &patch)), want, "{present} {added} {order}");
        }
    }

    #[test]
    fn a_patch_that_says_nothing_clear_is_refused() {
        let table = [
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"containers": [{"$patch": "delete"}]}}),
            json!({"spec": {"containers": ["x"]}}),
            json!({"metadata": {"labels": {"$patch": "burn"}}}),
            json!({"spec": {"$setElementOrder/containers": "x"}}),
        ];
        for patch in table {
            assert!(merge("Pod", &mut json!({"spec": {}}), &patch).is_err(), "{patch}");
        }
    }
}
