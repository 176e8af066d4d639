//! Which lists a strategic merge patch merges, and by which key.

use crate::schema::{self, Key, Shape, TypeName};

/// A type whose fields matter to a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type(pub TypeName);

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListRule {
    /// The patch's list takes the place of the present one.
    Replace,
    /// Elements with the same value of this field are the same.
    ByKey(&'static str),
    /// A set of scalars.
    Set,
}

impl Type {
    /// The type of a field, and how it is merged if it is a list.
    pub fn field(self, field: &str) -> (ListRule, Self) {
        match schema::field(self.0, field) {
            Shape::Whole => (ListRule::Replace, Self("")),
            Shape::Struct(below) | Shape::Map(below) => (ListRule::Replace, Self(below.of)),
            Shape::List { patch, items, .. } => {
                let rule = match patch {
                    schema::ListRule::Whole => ListRule::Replace,
                    schema::ListRule::Set => ListRule::Set,
                    schema::ListRule::Keys(keys) => match keys.as_slice() {
                        [Key { name, .. }, ..] => ListRule::ByKey(name),
                        [] => ListRule::Replace,
                    },
                };
                (rule, Self(items.of))
            }
        }
    }
}
