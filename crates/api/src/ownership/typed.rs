//! Objects seen through their types: which fields one has, how two differ, merging one into another, and taking fields
//! out (structured-merge-diff, `typed`).

use serde_json::{Map, Value};

use crate::ownership::set::{FieldSet, Step};
use crate::schema::{self, Below, Key, ListRule, Shape, TypeName};

/// What a value is to server-side apply.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// One value.
    Whole,
    /// Fields of a type.
    Struct(TypeName),
    /// Names of the client's choice.
    Map(TypeName),
    /// A list of elements that can be told apart.
    List(&'static ListRule, Below),
}

/// How two objects differ.
#[derive(Debug, Default)]
pub struct Difference<'a> {
    /// What only the new one has.
    pub added: FieldSet<'a>,
    /// What both have, with other values.
    pub modified: FieldSet<'a>,
    /// What only the old one has.
    pub removed: FieldSet<'a>,
}

/// An element of a list that cannot be told from others.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ElementError {
    /// It lacks a key.
    #[error(
        "{path}: element {index}: associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
    )]
    MissingKey {
        /// The list.
        path: String,
        /// Which of its elements.
        index: usize,
        /// What is missing.
        key: &'static str,
    },
    /// It stands there twice.
    #[error("{path}: duplicate entries for key {step}")]
    Duplicate {
        /// The list.
        path: String,
        /// The element.
        step: String,
    },
}

impl At {
    /// What a field of it is, or an entry of a map.
    fn field(self, name: &str) -> Self {
        match self {
            Self::Struct(of) => match schema::field(of, name) {
                Shape::Struct(below) if !below.atomic => Self::Struct(below.of),
                Shape::Map(below) if !below.atomic => Self::Map(below.of),
                Shape::List { apply, items, .. } if *apply != ListRule::Whole => Self::List(apply, *items),
                Shape::Whole | Shape::Struct(_) | Shape::Map(_) | Shape::List { .. } => Self::Whole,
            },
            Self::Map(of) => Self::element(Below { of, atomic: false }),
            Self::Whole | Self::List(..) => Self::Whole,
        }
    }

    fn element(below: Below) -> Self {
        if below.of.is_empty() || below.atomic { Self::Whole } else { Self::Struct(below.of) }
    }
}

/// How an element of a list is told from others.
pub fn step_of(rule: &ListRule, element: &Value) -> Result<Step<'static>, &'static str> {
    let ListRule::Keys(keys) = rule else { return Ok(Step::Value(element.to_string())) };
    let mut values = Map::new();
    for Key { name, default } in keys {
        let value = match (element.get(name).filter(|value| !value.is_null()), default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => Value::from(*default),
            (None, None) => return Err(name),
        };
        values.insert((*name).to_owned(), value);
    }
    Ok(Step::Key(Value::Object(values).to_string()))
}

/// Checks that every element of every list can be told from the others.
pub fn check_elements(value: &Value, at: At, path: &str) -> Result<(), ElementError> {
    match (value, at) {
        (Value::Object(fields), At::Struct(_) | At::Map(_)) => {
            fields.iter().try_for_each(|(name, field)| check_elements(field, at.field(name), &format!("{path}.{name}")))
        }
        (Value::Array(items), At::List(rule, below)) => {
            let mut seen = std::collections::BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let missing = |key| ElementError::MissingKey { path: path.to_owned(), index, key };
                let step = step_of(rule, item).map_err(missing)?;
                let below_path = format!("{path}{step}");
                if !seen.insert(step.clone()) {
                    return Err(ElementError::Duplicate { path: path.to_owned(), step: step.to_string() });
                }
                check_elements(item, At::element(below), &below_path)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The fields that an object has.
pub fn fields_of(value: &Value, at: At) -> FieldSet<'_> {
    let mut set = FieldSet::default();
    match (value, at) {
        (Value::Object(fields), At::Struct(_) | At::Map(_)) => {
            for (name, field) in fields {
                let mut below = fields_of(field, at.field(name));
                let empty = field.is_null() || field.as_object().is_some_and(Map::is_empty);
                below.member |= empty || matches!(at, At::Map(_));
                set.put(Step::Field(name), below);
            }
        }
        (Value::Array(items), At::List(rule, below)) => {
            for item in items {
                if let Ok(step) = step_of(rule, item) {
                    let mut fields = fields_of(item, At::element(below));
                    fields.member = true;
                    set.put(step, fields);
                }
            }
        }
        (Value::Null, At::Struct(_) | At::Map(_) | At::List(..)) => {}
        _ => set.member = true,
    }
    set
}

/// How `new` differs from `old`.
pub fn compare<'a>(old: Option<&'a Value>, new: Option<&'a Value>, at: At) -> Difference<'a> {
    let mut found = Difference::default();
    match (old, new, at) {
        (None, None, _) => {}
        (None, Some(new), _) => {
            found.added = all_of(new, at);
            found.added.member = true;
        }
        (Some(old), None, _) => {
            found.removed = all_of(old, at);
            found.removed.member = true;
        }
        (Some(Value::Object(old)), Some(Value::Object(new)), At::Struct(_) | At::Map(_)) => {
            let names = new.keys().chain(old.keys().filter(|name| !new.contains_key(*name)));
            for name in names {
                found.put(&Step::Field(name), compare(old.get(name), new.get(name), at.field(name)));
            }
        }
        (
            Some(old @ (Value::Array(_) | Value::Null)),
            Some(new @ (Value::Array(_) | Value::Null)),
            At::List(rule, below),
        ) => {
            for (step, old, new) in pair(rule, old, new) {
                found.put(&step, compare(old, new, At::element(below)));
            }
        }
        (Some(old), Some(new), _) => found.modified.member = old != new,
    }
    found
}

/// Every node of a value that comes or goes as a whole.
fn all_of(value: &Value, at: At) -> FieldSet<'_> {
    let mut set = FieldSet::leaf();
    match (value, at) {
        (Value::Object(fields), At::Struct(_) | At::Map(_)) => {
            for (name, field) in fields {
                set.put(Step::Field(name), all_of(field, at.field(name)));
            }
        }
        (Value::Array(items), At::List(rule, below)) => {
            for item in items {
                if let Ok(step) = step_of(rule, item) {
                    set.put(step, all_of(item, At::element(below)));
                }
            }
        }
        _ => {}
    }
    set
}

/// The elements of two lists side by side, those of the new one first.
fn pair<'a>(rule: &ListRule, old: &'a Value, new: &'a Value) -> Vec<(Step<'a>, Option<&'a Value>, Option<&'a Value>)> {
    let steps = |list: &'a Value| -> Vec<(Step<'a>, &'a Value)> {
        let items = list.as_array().into_iter().flatten();
        items.filter_map(|item| Some((step_of(rule, item).ok()?, item))).collect()
    };
    let (old, new) = (steps(old), steps(new));
    let find = |list: &[(Step<'a>, &'a Value)], step: &Step<'a>| {
        list.iter().find(|(other, _)| other == step).map(|(_, value)| *value)
    };
    let gone = old.iter().filter(|(step, _)| find(&new, step).is_none());
    let gone = gone.map(|(step, value)| (step.clone(), Some(*value), None));
    let present = new.iter().map(|(step, value)| (step.clone(), find(&old, step), Some(*value)));
    present.chain(gone).collect()
}

/// `applied` merged into `live`.
pub fn merge(live: &Value, applied: &Value, at: At) -> Value {
    match (live, applied, at) {
        (Value::Object(live), Value::Object(applied), At::Struct(_) | At::Map(_)) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let value = live.get(name).map_or_else(|| value.clone(), |live| merge(live, value, at.field(name)));
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(applied), At::List(rule, below)) => {
            Value::Array(merge_lists(live, applied, rule, At::element(below)))
        }
        _ => applied.clone(),
    }
}

/// What only the live list has keeps its place; what is applied stands in the order in which it is applied.
fn merge_lists(live: &[Value], applied: &[Value], rule: &ListRule, at: At) -> Vec<Value> {
    let same = |one: &Value, other: &Value| step_of(rule, one) == step_of(rule, other);
    let find = |list: &[Value], wanted: &Value| list.iter().position(|item| same(item, wanted));
    let one = |item: &Value| match find(live, item).and_then(|place| live.get(place)) {
        Some(present) => merge(present, item, at),
        None => item.clone(),
    };
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let mut next = 0;
    for present in live {
        match find(applied, present) {
            None => merged.push(present.clone()),
            Some(place) if place >= next => {
                merged.extend(applied.iter().take(place + 1).skip(next).map(one));
                next = place + 1;
            }
            Some(_written_already) => {}
        }
    }
    merged.extend(applied.iter().skip(next).map(one));
    merged
}

/// Takes fields out of a value.
pub fn remove(value: &mut Value, gone: &FieldSet<'_>, at: At) {
    match (value, at) {
        (Value::Object(fields), At::Struct(_) | At::Map(_)) => fields.retain(|name, field| {
            let Some(gone) = gone.below.get(&Step::Field(name)) else { return true };
            if !gone.member {
                remove(field, gone, at.field(name));
            }
            !gone.member
        }),
        (Value::Array(items), At::List(rule, below)) => items.retain_mut(|item| {
            let Some(gone) = step_of(rule, item).ok().and_then(|step| gone.below.get(&step)) else { return true };
            if !gone.member {
                remove(item, gone, At::element(below));
            }
            !gone.member
        }),
        _ => {}
    }
}

/// The set with each field of a struct that has something below it: who owns all that is in a struct owns the struct.
pub fn with_structs<'a>(set: &FieldSet<'a>, at: At) -> FieldSet<'a> {
    let mut wider = FieldSet { member: set.member, ..FieldSet::default() };
    for (step, below) in &set.below {
        let next = match (step, at) {
            (Step::Field(name), _) => at.field(name),
            (Step::Key(_), At::List(_, below)) => At::element(below),
            _ => At::Whole,
        };
        let mut below = with_structs(below, next);
        below.member |= matches!((step, at), (Step::Field(_), At::Struct(_)));
        wider.put(step.clone(), below);
    }
    wider
}

impl<'a> Difference<'a> {
    fn put(&mut self, step: &Step<'a>, below: Self) {
        let Self { added, modified, removed } = self;
        for (all, below) in [(added, below.added), (modified, below.modified), (removed, below.removed)] {
            if !below.is_empty() {
                all.put(step.clone(), below);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: At = At::Struct("Pod");

    #[test]
    fn an_applied_object_has_the_fields_that_it_names() {
        let pod = json!({
            "metadata": {"labels": {"a": "1"}, "finalizers": ["f"]},
            "spec": {"containers": [{"name": "c", "command": ["x"], "ports": [{"containerPort": 80}], "resources": {}}],
                     "nodeSelector": {"n": "1"}, "securityContext": null},
        });
        assert_eq!(
            fields_of(&pod, POD).to_json(),
            json!({
                "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"f\"": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"c\"}": {
                        ".": {}, "f:name": {}, "f:command": {}, "f:resources": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }},
                    "f:nodeSelector": {}, "f:securityContext": {},
                },
            })
        );
    }

    #[test]
    fn differences_are_found_by_the_keys_of_lists() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "tolerations": []}});
        let new = json!({"spec": {"containers": [{"name": "c"}, {"name": "a", "image": "2", "tty": true}], "tolerations": [1]}});
        let found = compare(Some(&old), Some(&new), POD);
        let container = |name: &str| format!("k:{{\"name\":{name:?}}}");
        assert_eq!(
            found.added.to_json(),
            json!({"f:spec": {"f:containers": {container("a"): {"f:tty": {}}, container("c"): {".": {}, "f:name": {}}}}})
        );
        assert_eq!(
            found.modified.to_json(),
            json!({"f:spec": {"f:containers": {container("a"): {"f:image": {}}}, "f:tolerations": {}}})
        );
        assert_eq!(
            found.removed.to_json(),
            json!({"f:spec": {"f:containers": {container("b"): {".": {}, "f:name": {}}}}})
        );
        let Difference { added, modified, removed } = compare(Some(&old), Some(&old), POD);
        assert!(added.is_empty() && modified.is_empty() && removed.is_empty());
    }

    #[test]
    fn what_is_applied_is_merged_in_its_order() {
        let live =
            json!({"spec": {"containers": [{"name": "x"}, {"name": "a", "image": "1", "tty": true}, {"name": "b"}]}});
        let applied =
            json!({"spec": {"containers": [{"name": "b", "image": "3"}, {"name": "a", "image": "2"}, {"name": "n"}]}});
        assert_eq!(
            merge(&live, &applied, POD),
            json!({"spec": {"containers": [
                {"name": "x"}, {"name": "b", "image": "3"}, {"name": "a", "image": "2", "tty": true}, {"name": "n"},
            ]}})
        );
    }

    #[test]
    fn elements_must_be_told_apart() {
        let check =
            |ports: Value| check_elements(&json!({"spec": {"containers": [{"name": "c", "ports": ports}]}}), POD, "");
        assert_eq!(check(json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}])), Ok(()));
        let twice = check(json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}])).unwrap_err();
        assert!(twice.to_string().starts_with(r#".spec.containers[name="c"].ports: duplicate entries"#), "{twice}");
        assert!(
            check(json!([{"name": "web"}])).unwrap_err().to_string().contains(r#"omits key field "containerPort""#)
        );
    }

    #[test]
    fn fields_are_taken_out() {
        let mut pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
        let gone = json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {}, "k:{\"name\":\"a\"}": {"f:image": {}}}},
        });
        remove(&mut pod, &FieldSet::parse(&gone).unwrap(), POD);
        assert_eq!(pod, json!({"metadata": {"labels": {"b": "2"}}, "spec": {"containers": [{"name": "a"}]}}));
    }
}
