//! Server-side apply and `managedFields`: who owns which field, and what follows from it (KEP-555; structured-merge-diff,
//! `merge`).
//!
//! What the server itself keeps in `metadata` is nobody's: [`owned_part`] is an object without it.

mod managers;
mod set;
mod typed;

use serde_json::{Map, Value, json};

pub use managers::{Manager, Managers};
pub use set::FieldSet;
use set::Step;
pub use typed::{At, ElementError};

use typed::{Difference, check_elements, compare, fields_of, merge, remove, with_structs};

/// Fields of `metadata` that nobody owns.
const NOBODYS: [&str; 8] =
    ["name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "selfLink", "managedFields"];

/// The owner of what an object had before anybody was noted.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that an apply would take from others.
#[derive(Debug, PartialEq)]
pub struct Conflicts<'a>(pub Vec<(Manager, FieldSet<'a>)>);

/// Why an object cannot be applied.
#[derive(Debug)]
pub enum ApplyError<'a> {
    /// Others own what it would change.
    Conflicts(Conflicts<'a>),
    /// Elements of a list cannot be told apart.
    Element(ElementError),
}

/// An object without what nobody owns.
pub fn owned_part(object: &Value) -> Value {
    let mut part = object.clone();
    if let Some(fields) = part.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !NOBODYS.contains(&field.as_str()));
        }
    }
    part
}

/// What a new object is compared with: the parts that every object has.
pub fn nothing() -> Value {
    json!({"metadata": {}, "spec": {"containers": null}, "status": {}})
}

/// The fields of an object. `metadata` itself is nobody's.
fn of_object(object: &Value, at: At) -> FieldSet<'_> {
    let mut fields = fields_of(object, at);
    let metadata = Step::Field("metadata");
    if let Some(mut below) = fields.below.remove(&metadata) {
        below.member = false;
        fields.put(metadata, below);
    }
    fields
}

/// Fields of an object without those that nobody owns.
fn owned_fields(mut fields: FieldSet<'_>) -> FieldSet<'_> {
    for field in ["apiVersion", "kind"] {
        fields.below.remove(&Step::Field(field));
    }
    let metadata = Step::Field("metadata");
    if let Some(mut below) = fields.below.remove(&metadata) {
        below.below.retain(|step, _| !matches!(step, Step::Field(name) if NOBODYS.contains(name)));
        fields.put(metadata, below);
    }
    fields
}

/// Owners after a manager has changed `old` into `new`, whole objects, by anything but an apply.
pub fn note_update<'a>(
    old: &'a Value,
    new: &'a Value,
    at: At,
    managers: Managers<'a>,
    manager: &Manager,
    now: &str,
) -> Managers<'a> {
    let Difference { added, modified, removed } = compare(Some(old), Some(new), at);
    let (taken, removed) = (owned_fields(added.union(modified)), owned_fields(removed));
    if taken.is_empty() && removed.is_empty() {
        return managers;
    }
    let mut next = managers.clone();
    next.take(&taken, Some(manager));
    next.take(&removed, None);
    let own = next.of(manager).union(taken);
    next.set(manager, own);
    next.date(manager, &managers, now);
    next
}

/// An apply: the object that comes out of it, and its owners then.
pub struct Apply<'a> {
    /// The object as it is; `None` makes a new one.
    pub live: Option<&'a Value>,
    /// What the manager wants.
    pub wanted: &'a Value,
    /// The type of the object.
    pub at: At,
    /// The owners as they are.
    pub managers: Managers<'a>,
    /// Who applies.
    pub manager: &'a Manager,
    /// Whether fields are taken from others.
    pub force: bool,
    /// Fields that may be taken from others in any case.
    pub free: FieldSet<'a>,
}

impl<'a> Apply<'a> {
    /// Merges, removes what the manager does not want any more, and looks for conflicts.
    pub fn run(&self, now: &str) -> Result<(Value, Managers<'a>), ApplyError<'a>> {
        check_elements(self.wanted, self.at, "").map_err(ApplyError::Element)?;
        let empty = Value::Object(Map::new());
        let live = self.live.unwrap_or(&empty);
        let before = self.managers_before();
        let wanted_fields = of_object(self.wanted, self.at);
        let last = before.of(self.manager);
        let mut next = before.clone();
        next.set(self.manager, wanted_fields);
        let merged = merge(live, self.wanted, self.at);
        let result = self.prune(merged, &next, &last);

        let change = compare(Some(live), Some(&result), self.at);
        let taken = change.added.union(change.modified);
        let conflicts = self.conflicts(&next, &taken);
        if !self.force && !conflicts.0.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        next.take(&taken, Some(self.manager));
        next.take(&change.removed, None);
        next.date(self.manager, &before, now);
        Ok((result, next))
    }

    /// An object that nobody was noted for belongs to whoever made it.
    fn managers_before(&self) -> Managers<'a> {
        let mut managers = self.managers.clone();
        if let Some(live) = self.live.filter(|_| managers.0.is_empty()) {
            let first = Manager { name: BEFORE_FIRST_APPLY.to_owned(), applies: false, ..self.manager.clone() };
            managers.set(&first, of_object(live, self.at));
        }
        managers
    }

    /// Takes out what the manager applied last time, has not applied now, and nobody else owns.
    fn prune(&self, merged: Value, managers: &Managers<'_>, last: &FieldSet<'_>) -> Value {
        let at = self.at;
        let mut gone = with_structs(last, at);
        for entry in &managers.0 {
            gone = gone.difference(&with_structs(&entry.fields, at));
        }
        let mut pruned = merged;
        remove(&mut pruned, &gone, at);
        pruned
    }

    fn conflicts(&self, managers: &Managers<'a>, taken: &FieldSet<'_>) -> Conflicts<'a> {
        let others = managers.0.iter().filter(|entry| entry.manager != *self.manager);
        let conflicts =
            others.map(|entry| (entry.manager.clone(), entry.fields.intersection(taken).difference(&self.free)));
        let mut conflicts: Vec<_> = conflicts.filter(|(_, fields)| !fields.is_empty()).collect();
        spec::ordered::sort_by(&mut conflicts, |(one, _), (other, _)| one.cmp(other));
        Conflicts(conflicts)
    }
}

/// The fields of `one` that `other` has with the same values.
pub fn shared_fields<'a>(one: &'a Value, other: &'a Value, at: At) -> FieldSet<'a> {
    let change = compare(Some(one), Some(other), at);
    fields_of(one, at).difference(&change.modified).difference(&change.removed)
}

impl Conflicts<'_> {
    /// One manager and one path each.
    pub fn each(&self) -> impl Iterator<Item = (&Manager, String)> {
        self.0.iter().flat_map(|(manager, fields)| fields.paths().into_iter().map(move |path| (manager, path)))
    }
}

impl std::fmt::Display for Conflicts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each: Vec<(&Manager, String)> = self.each().collect();
        if let [(manager, path)] = each.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {}: {path}", manager.describe());
        }
        write!(f, "Apply failed with {} conflicts: ", each.len())?;
        for (number, (manager, fields)) in self.0.iter().enumerate() {
            let line = if number == 0 { "" } else { "\n" };
            write!(f, "{line}conflicts with {}:", manager.describe())?;
            for path in fields.paths() {
                write!(f, "\n- {path}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
