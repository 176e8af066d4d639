//! `metadata.managedFields` on the way of a write.

use std::borrow::Cow;

use serde_json::Value;

use crate::context::{Call, Context};
use crate::http::status::ApiError;
use crate::kinds::Kind;
use crate::ownership::{At, Manager, Managers, note_update, nothing};
use crate::verbs::metadata::{self, seconds};
use crate::verbs::options::field_manager;
use crate::verbs::update::Part;

/// Who owns the fields of an object after a write.
#[derive(Debug, Clone)]
pub enum Owners {
    /// The client, of what it has changed.
    ByChange,
    /// As an apply has found out, in the form of `metadata.managedFields`.
    Are(Value),
}

/// A client at one door.
pub fn manager_of(call: &Call, part: Part, applies: bool) -> Manager {
    let subresource = match part {
        Part::Main => String::new(),
        Part::Status => "status".to_owned(),
        Part::EphemeralContainers => "ephemeralcontainers".to_owned(),
        Part::Resize => "resize".to_owned(),
        Part::Scale => "scale".to_owned(),
    };
    Manager { name: field_manager(call), applies, api_version: call.kind.api_version(), subresource }
}

/// The type of a kind's objects.
pub fn type_of(kind: &Kind) -> At {
    At::Struct(kind.type_name())
}

/// The owners that an object has now.
pub fn present_owners(object: &Value) -> Managers<'_> {
    object.pointer("/metadata/managedFields").and_then(Managers::parse).unwrap_or_default()
}

/// What a client says about the owners, taken out of its object.
pub fn take_owners(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("managedFields").filter(|owners| !owners.is_null())
}

/// Writes the owners into an object that is about to be stored. `given` is what the client says of them: an empty list
/// forgets them all, so that nobody is noted before the next apply.
pub fn write_owners(
    call: &Call,
    part: Part,
    present: Option<&Value>,
    next: &mut Value,
    given: Option<&Value>,
    owners: Owners,
) -> Result<(), ApiError> {
    let fields = match owners {
        Owners::Are(fields) => fields,
        Owners::ByChange => {
            let before = match (given, present) {
                (Some(given), _) if is_reset(given) => Managers::default(),
                (Some(given), Some(present)) => Managers::parse(given).unwrap_or_else(|| present_owners(present)),
                (None, Some(present)) => present_owners(present),
                (_, None) => Managers::default(),
            };
            if present.is_some() && before.0.is_empty() {
                before.to_json()
            } else {
                let old = present.map_or_else(|| Cow::Owned(nothing()), |present| call.kind.shown(present));
                let new = call.kind.shown(next);
                let manager = manager_of(call, part, false);
                note_update(&old, &new, type_of(call.kind), before, &manager, &seconds(Context::now())).to_json()
            }
        }
    };
    let metadata = metadata::of(next)?;
    if fields.as_array().is_some_and(Vec::is_empty) {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), fields);
    }
    Ok(())
}

/// `[]` or `[{}]`.
fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}
