//! Sets of fields, as `managedFields` writes them (`FieldsV1`; structured-merge-diff, `fieldpath`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

/// One step of a path. Most are names that stand in an object, and are not copied from there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step<'a> {
    /// `f:name`: a field, or a name in a map.
    Field(&'a str),
    /// `k:{"name":"c"}`: an element of a list by its keys, as JSON.
    Key(String),
    /// `v:"x"`: an element of a set, as JSON.
    Value(String),
}

/// Fields of one object. A node may be in the set itself, and so may what is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet<'a> {
    /// Whether the node itself is in the set.
    pub member: bool,
    /// What is below it.
    pub below: BTreeMap<Step<'a>, FieldSet<'a>>,
}

impl<'a> FieldSet<'a> {
    /// A node with nothing below it.
    pub fn leaf() -> Self {
        Self { member: true, below: BTreeMap::new() }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// Adds what is below a step, unless that is nothing.
    pub fn put(&mut self, step: Step<'a>, below: Self) {
        if !below.is_empty() {
            self.below.insert(step, below);
        }
    }

    /// All that is in one of the two.
    pub fn union(mut self, other: Self) -> Self {
        self.member |= other.member;
        if self.below.is_empty() {
            self.below = other.below;
            return self;
        }
        for (step, theirs) in other.below {
            match self.below.entry(step) {
                Entry::Vacant(place) => drop(place.insert(theirs)),
                Entry::Occupied(mut place) => {
                    let ours = std::mem::take(place.get_mut());
                    place.insert(ours.union(theirs));
                }
            }
        }
        self
    }

    /// What is in both.
    pub fn intersection(&self, other: &FieldSet<'_>) -> Self {
        let mut both = Self { member: self.member && other.member, below: BTreeMap::new() };
        for (step, ours) in &self.below {
            if let Some(theirs) = other.below.get(step) {
                both.put(step.clone(), ours.intersection(theirs));
            }
        }
        both
    }

    /// What is not in the other.
    pub fn difference(&self, other: &FieldSet<'_>) -> Self {
        let mut rest = Self { member: self.member && !other.member, below: BTreeMap::new() };
        for (step, ours) in &self.below {
            match other.below.get(step) {
                Some(theirs) => rest.put(step.clone(), ours.difference(theirs)),
                None => rest.put(step.clone(), ours.clone()),
            }
        }
        rest
    }

    /// The members' paths, as people read them: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(&mut String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, path: &mut String, paths: &mut Vec<String>) {
        if self.member {
            paths.push(path.clone());
        }
        for (step, below) in &self.below {
            let length = path.len();
            path.push_str(&step.to_string());
            below.collect_paths(path, paths);
            path.truncate(length);
        }
    }

    /// `FieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.below.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (step, below) in &self.below {
            let key = match step {
                Step::Field(name) => ["f:", name].concat(),
                Step::Key(keys) => ["k:", keys].concat(),
                Step::Value(value) => ["v:", value].concat(),
            };
            fields.insert(key, below.to_json());
        }
        Value::Object(fields)
    }

    /// Reads `FieldsV1`; `None` if it is none.
    pub fn parse(json: &'a Value) -> Option<Self> {
        let fields = json.as_object()?;
        let mut set = Self::default();
        for (key, below) in fields {
            if key == "." {
                set.member = true;
                continue;
            }
            let mut below = Self::parse(below)?;
            below.member |= below.below.is_empty();
            let step = match key.split_at_checked(2)? {
                ("f:", name) => Step::Field(name),
                ("k:", keys) => Step::Key(canonical(keys)?),
                ("v:", value) => Step::Value(canonical(value)?),
                _ => return None,
            };
            set.below.insert(step, below);
        }
        Some(set)
    }
}

fn canonical(json: &str) -> Option<String> {
    serde_json::from_str::<Value>(json).ok().map(|value| value.to_string())
}

impl std::fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(json: &Value) -> FieldSet<'_> {
        FieldSet::parse(json).unwrap()
    }

    #[test]
    fn sets_are_written_as_they_are_read() {
        let table = [
            json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}),
            json!({"f:spec": {"f:containers": {r#"k:{"name":"c"}"#: {".": {}, "f:image": {}, "f:name": {}}}}}),
            json!({"f:metadata": {"f:finalizers": {r#"v:"x""#: {}}}}),
            json!({}),
        ];
        for json in table {
            assert_eq!(set(&json).to_json(), json);
        }
        for bad in [json!([]), json!({"x": {}}), json!({"k:x": {}}), json!({"f:a": 1})] {
            assert_eq!(FieldSet::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn sets_are_joined_and_split() {
        let one = json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}});
        let two = json!({"f:b": {"f:c": {}, "f:d": {}}});
        let (one, two) = (set(&one), set(&two));
        assert_eq!(
            one.clone().union(two.clone()).to_json(),
            json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}})
        );
        assert_eq!(one.intersection(&two).to_json(), json!({"f:b": {"f:c": {}}}));
        assert_eq!(one.difference(&two).to_json(), json!({"f:a": {}, "f:b": {}}));
        assert!(two.difference(&two).is_empty());
        let ports = json!({"f:ports": {r#"k:{"containerPort":80,"protocol":"TCP"}"#: {"f:name": {}}}});
        assert_eq!(set(&ports).paths(), [r#".ports[containerPort=80,protocol="TCP"].name"#]);
    }
}
