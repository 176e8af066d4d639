//! How the fields of Kubernetes' types merge: which are structs, maps, lists by key or sets, and which are one value.
//!
//! `schema.txt` says it, written by `generate.py` from the definitions that Kubernetes publishes. Server-side apply and
//! strategic merge patch agree on most of it.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::kinds::Kind;

/// A type by its name; the empty one has no fields.
pub type TypeName = &'static str;

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    Whole,
    /// Fields of a type.
    Struct(Below),
    /// Names of the client's choice.
    Map(Below),
    /// A list.
    List {
        /// What its elements are.
        items: Below,
        /// How server-side apply takes it.
        apply: ListRule,
        /// How strategic merge patch takes it.
        patch: ListRule,
    },
}

/// What is below a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Below {
    /// Its type.
    pub of: TypeName,
    /// Whether server-side apply takes each as one value.
    pub atomic: bool,
}

/// How a list is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListRule {
    /// As one value.
    Whole,
    /// As a set of scalars.
    Set,
    /// Elements with the same values of these fields are the same.
    Keys(Vec<Key>),
}

/// A field that tells elements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is where it is not given.
    pub default: Option<&'static str>,
}

static WHOLE: Shape = Shape::Whole;

static TYPES: LazyLock<HashMap<TypeName, HashMap<&'static str, Shape>>> =
    LazyLock::new(|| include_str!("schema.txt").lines().filter_map(parse_line).collect());

/// What a field of a type holds.
pub fn field(of: TypeName, field: &str) -> &'static Shape {
    TYPES.get(of).and_then(|fields| fields.get(field)).unwrap_or(&WHOLE)
}

impl Kind {
    /// The type of its objects.
    pub fn type_name(&self) -> TypeName {
        let found = match self.group.split('.').next().unwrap_or_default() {
            "" => TYPES.get_key_value(self.kind),
            group => TYPES.get_key_value(format!("{group}.{}.{}", self.version, self.kind).as_str()),
        };
        found.map_or("", |(name, _)| name)
    }
}

fn parse_line(line: &'static str) -> Option<(TypeName, HashMap<&'static str, Shape>)> {
    let (name, fields) = line.split_once(' ').filter(|_| !line.starts_with('#'))?;
    Some((name, fields.split(' ').filter_map(parse_field).collect()))
}

fn parse_field(text: &'static str) -> Option<(&'static str, Shape)> {
    let (name, shape) = text.split_once(':')?;
    let shape = match shape.split_at_checked(1)? {
        ("{", rest) => {
            let (of, atomic) = rest.split_once('}')?;
            Shape::Map(Below { of, atomic: atomic == "!" })
        }
        ("[", rest) => {
            let (rules, items) = rest.split_once(']')?;
            let (apply, patch) = rules.split_once('|').unwrap_or((rules, rules));
            Shape::List { items: below(items), apply: list_rule(apply), patch: list_rule(patch) }
        }
        _ => Shape::Struct(below(shape)),
    };
    Some((name, shape))
}

fn below(text: &'static str) -> Below {
    match text.strip_suffix('!') {
        Some(of) => Below { of, atomic: true },
        None => Below { of: text, atomic: false },
    }
}

fn list_rule(text: &'static str) -> ListRule {
    match text {
        "!" => ListRule::Whole,
        "*" => ListRule::Set,
        keys => ListRule::Keys(
            keys.split(',')
                .map(|key| match key.split_once('=') {
                    Some((name, default)) => Key { name, default: Some(default) },
                    None => Key { name: key, default: None },
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::KINDS;

    #[test]
    fn every_kind_has_its_type_and_every_type_its_fields() {
        for kind in KINDS {
            assert!(matches!(field(kind.type_name(), "metadata"), Shape::Struct(_)), "{}", kind.qualified());
        }
        let Shape::List { items, apply, patch } = field("Container", "ports") else { panic!() };
        let port = Key { name: "containerPort", default: None };
        assert_eq!(apply, &ListRule::Keys(vec![port, Key { name: "protocol", default: Some("TCP") }]));
        assert_eq!((patch, items.of), (&ListRule::Keys(vec![port]), "ContainerPort"));
        assert_eq!(field("PodSpec", "nodeSelector"), &Shape::Map(Below { of: "", atomic: true }));
        assert_eq!(field("Container", "command"), &Shape::Whole);
        // Whatever is named stands there.
        for (name, fields) in TYPES.iter() {
            for (field, shape) in fields {
                let of = match shape {
                    Shape::Whole => "",
                    Shape::Struct(below) | Shape::Map(below) | Shape::List { items: below, .. } => below.of,
                };
                assert!(!of.contains(['[', '{', '!', '|']), "{name}.{field}: {shape:?}");
            }
        }
    }
}
