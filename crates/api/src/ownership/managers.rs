//! `metadata.managedFields`: who owns which fields of an object.

use serde_json::{Value, json};

use crate::ownership::set::FieldSet;

/// How many owners by update are told apart; the oldest beyond are one.
const MAX_UPDATERS: usize = 10;

/// The name of those.
const ANCIENT: &str = "ancient-changes";

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// `fieldManager`.
    pub name: String,
    /// Whether by server-side apply.
    pub applies: bool,
    /// The API version that it writes.
    pub api_version: String,
    /// The door that it uses; empty for the main one.
    pub subresource: String,
}

/// What one manager owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// Who.
    pub manager: Manager,
    /// What.
    pub fields: FieldSet<'a>,
    /// Since when it is so.
    pub time: Option<String>,
}

/// All owners of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Managers<'a>(pub Vec<Entry<'a>>);

impl<'a> Managers<'a> {
    /// Reads `metadata.managedFields`; `None` if it cannot be read.
    pub fn parse(list: &'a Value) -> Option<Self> {
        list.as_array()?.iter().map(parse_entry).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Writes `metadata.managedFields`: appliers first, then by age.
    pub fn to_json(&self) -> Value {
        let mut entries: Vec<&Entry<'_>> = self.0.iter().collect();
        spec::ordered::sort_by_key(&mut entries, |entry| {
            (!entry.manager.applies, entry.time.clone(), entry.manager.clone())
        });
        entries.into_iter().map(entry_json).collect()
    }

    /// What a manager owns.
    pub fn of(&self, manager: &Manager) -> FieldSet<'a> {
        self.0.iter().find(|entry| entry.manager == *manager).map(|entry| entry.fields.clone()).unwrap_or_default()
    }

    /// Says what a manager owns from now on; nothing means that it is no owner.
    pub fn set(&mut self, manager: &Manager, fields: FieldSet<'a>) {
        match self.0.iter_mut().find(|entry| entry.manager == *manager) {
            Some(entry) => entry.fields = fields,
            None => self.0.push(Entry { manager: manager.clone(), fields, time: None }),
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Takes fields away from all but one manager, or from all.
    pub fn take(&mut self, fields: &FieldSet<'_>, but: Option<&Manager>) {
        for entry in self.0.iter_mut().filter(|entry| but != Some(&entry.manager)) {
            entry.fields = entry.fields.difference(fields);
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Dates the entry of a manager, unless it is as it was.
    pub fn date(&mut self, manager: &Manager, before: &Self, now: &str) {
        let old = before.0.iter().find(|entry| entry.manager == *manager);
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.manager == *manager) {
            let same = old.filter(|old| old.fields == entry.fields);
            entry.time = same.map_or_else(|| Some(now.to_owned()), |old| old.time.clone());
        }
        self.join_ancient();
    }

    fn join_ancient(&mut self) {
        let updaters = || self.0.iter().filter(|entry| !entry.manager.applies);
        if updaters().count() <= MAX_UPDATERS {
            return;
        }
        let mut updaters: Vec<Entry<'a>> = updaters().cloned().collect();
        spec::ordered::sort_by_key(&mut updaters, |entry| entry.time.clone());
        let surplus = updaters.len() - MAX_UPDATERS + 1;
        for Entry { manager, fields, time } in updaters.into_iter().take(surplus) {
            self.set(&manager, FieldSet::default());
            let ancient = Manager { name: ANCIENT.to_owned(), ..manager };
            let joined = self.of(&ancient).union(fields);
            self.set(&ancient, joined);
            if let Some(entry) = self.0.iter_mut().find(|entry| entry.manager == ancient) {
                entry.time = time;
            }
        }
    }
}

fn parse_entry(entry: &Value) -> Option<Entry<'_>> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let applies = match text("operation").as_str() {
        "Apply" => true,
        "Update" => false,
        _ => return None,
    };
    if text("fieldsType") != "FieldsV1" {
        return None;
    }
    let manager =
        Manager { name: text("manager"), applies, api_version: text("apiVersion"), subresource: text("subresource") };
    let time = Some(text("time")).filter(|time| !time.is_empty());
    let fields = entry.get("fieldsV1").map_or(Some(FieldSet::default()), FieldSet::parse)?;
    Some(Entry { manager, fields, time })
}

fn entry_json(Entry { manager, fields, time }: &Entry<'_>) -> Value {
    let mut entry = json!({
        "manager": manager.name, "operation": if manager.applies { "Apply" } else { "Update" },
        "apiVersion": manager.api_version, "fieldsType": "FieldsV1", "fieldsV1": fields.to_json(),
    });
    if let Some(entry) = entry.as_object_mut() {
        entry.extend(time.iter().map(|time| ("time".to_owned(), json!(time))));
        if !manager.subresource.is_empty() {
            entry.insert("subresource".to_owned(), json!(manager.subresource));
        }
    }
    entry
}

impl Manager {
    /// As a conflict names it.
    pub fn describe(&self) -> String {
        let door = match self.subresource.as_str() {
            "" => String::new(),
            subresource => format!(" with subresource {subresource:?}"),
        };
        let version = if self.applies { String::new() } else { format!(" using {}", self.api_version) };
        format!("{:?}{door}{version}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_updaters_are_not_told_apart() {
        let fields: Vec<Value> = (0..12).map(|number| json!({format!("f:{number}"): {}})).collect();
        let mut managers = Managers::default();
        for (number, fields) in fields.iter().enumerate() {
            let manager = Manager {
                name: format!("m{number:02}"),
                applies: false,
                api_version: "v1".to_owned(),
                subresource: String::new(),
            };
            let before = managers.clone();
            managers.set(&manager, FieldSet::parse(fields).unwrap());
            managers.date(&manager, &before, &format!("2026-01-01T00:00:{number:02}Z"));
        }
        let names: Vec<&str> = managers.0.iter().map(|entry| entry.manager.name.as_str()).collect();
        assert_eq!(managers.0.len(), MAX_UPDATERS, "{names:?}");
        let json = managers.to_json();
        assert_eq!(
            (&json[0]["manager"], &json[0]["fieldsV1"]),
            (&json!(ANCIENT), &json!({"f:0": {}, "f:1": {}, "f:2": {}}))
        );
        assert_eq!(Managers::parse(&json).unwrap().to_json(), json);
    }
}
