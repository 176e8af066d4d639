//! Server-side apply: a client says what it wants of an object, and owns that.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use spec::validation::FieldReason;
use steps::{Scope, Within as _};

use crate::context::{Call, Context};
use crate::fields::text_at;
use crate::http::body;
use crate::http::reply::Reply;
use crate::http::status::ApiError;
use crate::ownership::{Apply, ApplyError, owned_part, shared_fields};
use crate::verbs::create::create_owned;
use crate::verbs::metadata::{self, seconds};
use crate::verbs::options::patch_option;
use crate::verbs::owners::{Owners, manager_of, present_owners, type_of};
use crate::verbs::update::{Next, Part, revise};

/// Where kubectl keeps what it applied last, when it does so on its own side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How often it is begun anew when the object comes or goes in the meantime.
const ATTEMPTS: usize = 8;

/// Merges the body into the object, or makes the object.
pub async fn apply(call: &Call, name: &str, part: Part, bytes: &Bytes) -> Result<Reply, ApiError> {
    let wanted = decode(call, name, part, bytes)?;
    for _ in 0..ATTEMPTS {
        if call.context.store.get(&call.key(name)).is_some() {
            match revise(call, name, part, |present| onto(call, part, present, &wanted)).await {
                Err(gone) if gone.code == StatusCode::NOT_FOUND => {}
                outcome => return outcome,
            }
        } else {
            if part != Part::Main {
                return Err(ApiError::not_found(call.kind, name));
            }
            let uid = metadata::text(&wanted, "uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(ApiError::conflict(call.kind, name, &why));
            }
            let (_, owners) = run(call, part, None, &wanted)?;
            let created = create_owned(call, wanted.clone(), Owners::Are(owners));
            match created.within(Scope::of_new_pod(&call.context.steps)).await {
                Err(taken) if taken.code == StatusCode::CONFLICT => {}
                outcome => return outcome,
            }
        }
    }
    Err(ApiError::modified(call.kind, name))
}

fn decode(call: &Call, name: &str, part: Part, bytes: &Bytes) -> Result<Value, ApiError> {
    if call.query.get("fieldManager").is_none() {
        return Err(patch_option("fieldManager", FieldReason::Required, "is required for apply patch"));
    }
    let mut wanted = call.note_twice(body::yaml(bytes)?);
    metadata::check_type(call, &mut wanted)?;
    metadata::check_namespace(call, &mut wanted)?;
    let given = metadata::text(&wanted, "name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let metadata = metadata::of(&mut wanted)?;
    if metadata.get("managedFields").is_some_and(|owners| !owners.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    metadata.insert("name".to_owned(), json!(name));
    // Each door takes its own half.
    if let Some(fields) = wanted.as_object_mut() {
        match part {
            Part::Main if call.kind.has_subresource("status") => drop(fields.remove("status")),
            // The door of a Scale takes no apply.
            Part::Main | Part::Scale => {}
            Part::Status => {
                fields.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            }
            Part::Resize => {
                fields.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "spec"));
                if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.retain(|field, _| matches!(field.as_str(), "containers" | "initContainers"));
                }
            }
            Part::EphemeralContainers => {
                fields.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "spec"));
                if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.retain(|field, _| field == "ephemeralContainers");
                }
            }
        }
    }
    Ok(wanted)
}

/// The present object with what is wanted merged into it.
fn onto(call: &Call, part: Part, present: &Value, wanted: &Value) -> Result<Next, ApiError> {
    let (mut object, owners) = run(call, part, Some(present), wanted)?;
    let metadata = metadata::of(&mut object)?;
    for (field, value) in present.get("metadata").and_then(Value::as_object).into_iter().flatten() {
        if !metadata.contains_key(field) && is_servers(field) {
            metadata.insert(field.clone(), value.clone());
        }
    }
    for lock in ["uid", "resourceVersion"] {
        if let Some(given) = wanted.pointer(&format!("/metadata/{lock}")) {
            metadata.insert(lock.to_owned(), given.clone());
        }
    }
    keep_last_applied(call, metadata, wanted);
    Ok(Next { object, owners: Owners::Are(owners) })
}

fn is_servers(field: &str) -> bool {
    ["name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion"].contains(&field)
}

/// The object that comes out of it, and its `metadata.managedFields`.
fn run(call: &Call, part: Part, present: Option<&Value>, wanted: &Value) -> Result<(Value, Value), ApiError> {
    let at = type_of(call.kind);
    let manager = manager_of(call, part, true);
    let (live, wanted) = (present.map(owned_part), owned_part(wanted));
    let last = live.as_ref().filter(|_| manager.name == "kubectl").and_then(applied_on_clients_side);
    let free = live.as_ref().zip(last.as_ref()).map(|(live, last)| shared_fields(last, live, at)).unwrap_or_default();
    let apply = Apply {
        live: live.as_ref(),
        wanted: &wanted,
        at,
        managers: present.map(present_owners).unwrap_or_default(),
        manager: &manager,
        force: call.query.flag("force"),
        free,
    };
    match apply.run(&seconds(Context::now())) {
        Ok((object, managers)) => Ok((object, managers.to_json())),
        Err(ApplyError::Conflicts(conflicts)) => Err(ApiError::apply_conflict(&conflicts)),
        Err(ApplyError::Element(error)) => {
            let why = format!("failed to create typed patch object ({}): {error}", call.kind.kind);
            Err(ApiError::bad_request(why))
        }
    }
}

/// kubectl that has applied on its own side may go on by server-side apply: what it applied then is its own.
fn applied_on_clients_side(live: &Value) -> Option<Value> {
    let text = live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    serde_json::from_str(text).ok().map(|last: Value| owned_part(&last))
}

/// So that a kubectl that goes on to apply on its own side starts from what was applied here.
fn keep_last_applied(call: &Call, metadata: &mut serde_json::Map<String, Value>, wanted: &Value) {
    if call.query.get("fieldManager") != Some("kubectl") {
        return;
    }
    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
    if let Some(last) = annotations.and_then(|annotations| annotations.get_mut(LAST_APPLIED)) {
        let mut applied = wanted.clone();
        if let Some(of_applied) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            of_applied.remove(LAST_APPLIED);
        }
        if text_at(&applied, "/kind").is_empty() {
            return;
        }
        *last = json!(format!("{applied}\n"));
    }
}
