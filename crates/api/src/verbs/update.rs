//! update (PUT), and the way every change of a present object goes.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use store::{Change, ObjectValue, StoredObject};

use crate::context::{Call, Context, refuse};
use crate::fields::{at, items_at, number_at};
use crate::http::reply::{Reply, warn, whole};
use crate::http::status::ApiError;
use crate::quotas;
use crate::render::encode;
use crate::verbs::admit::{Accepted, admit};
use crate::verbs::metadata;
use crate::verbs::options::WriteOptions;
use crate::verbs::owners::{Owners, take_owners, write_owners};

/// How often a change without a lock of the client's is tried again when another write comes between.
const ATTEMPTS: usize = 8;

/// Which half of an object a door may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but status.
    Main,
    /// Status alone.
    Status,
    /// `spec.ephemeralContainers` alone.
    EphemeralContainers,
    /// Resources of containers alone.
    Resize,
    /// `spec.replicas` alone.
    Scale,
}

/// Replaces the object by the body.
pub async fn update(call: &Call, name: &str, part: Part, mut object: Value) -> Result<Reply, ApiError> {
    metadata::check_type(call, &mut object)?;
    revise(call, name, part, |_present| Ok(Next::changed(object.clone()))).await
}

/// What an object is to become.
pub struct Next {
    /// The object.
    pub object: Value,
    /// Who owns its fields then.
    pub owners: Owners,
}

impl Next {
    /// An object that the client has changed.
    pub fn changed(object: Value) -> Self {
        Self { object, owners: Owners::ByChange }
    }
}

/// Why a write has to be thought over.
enum Race {
    Changed,
    Gone,
}

/// Lets `change` make the new object out of the present one, judges it and stores it, provided that nobody else has
/// written between; then it starts anew. A resourceVersion in the new object is the client's lock.
pub async fn revise(
    call: &Call,
    name: &str,
    part: Part,
    change: impl Fn(&Value) -> Result<Next, ApiError>,
) -> Result<Reply, ApiError> {
    let renderer = call.renderer()?;
    let revised = rewrite(call, name, part, change).await?;
    let body = renderer.object(&revised.value, &revised.json, Context::now());
    let mut reply = whole(StatusCode::OK, renderer.content_type(), body);
    warn(&mut reply, &revised.warnings);
    Ok(reply)
}

/// An object after a change.
pub struct Revised {
    /// The object.
    pub value: ObjectValue,
    json: Bytes,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// The same without an answer to the client.
pub async fn rewrite(
    call: &Call,
    name: &str,
    part: Part,
    change: impl Fn(&Value) -> Result<Next, ApiError>,
) -> Result<Revised, ApiError> {
    let options = WriteOptions::parse(&call.query)?;
    let _turn = call.turn().await;
    for _ in 0..ATTEMPTS {
        let present = call.context.store.get(&call.key(name)).ok_or_else(|| ApiError::not_found(call.kind, name))?;
        let Next { object: mut wanted, owners } = change(&call.kind.shown(&present.value))?;
        let given = take_owners(&mut wanted);
        check_identity(call, name, &present.value, &mut wanted)?;
        let inherited = inherit(&present.value, wanted, part)?;
        let Accepted { object: mut next, warnings, .. } =
            admit(call, inherited, Some(&present.value), part, options.unknown)?;
        count_generation(call, &present.value, &mut next)?;
        write_owners(call, part, Some(&present.value), &mut next, given.as_ref(), owners)?;
        let (value, json) = if options.dry_run {
            (next.clone().into(), encode(&next))
        } else {
            match store(call, &present, next).await? {
                Ok(stored) => {
                    quotas::note(call, part, Some(&present.value), &stored.value).await?;
                    (stored.value, stored.json)
                }
                Err(Race::Gone) => return Err(ApiError::not_found(call.kind, name)),
                Err(Race::Changed) => continue,
            }
        };
        return Ok(Revised { value, json, warnings });
    }
    Err(ApiError::modified(call.kind, name))
}

fn check_identity(call: &Call, name: &str, present: &Value, wanted: &mut Value) -> Result<(), ApiError> {
    metadata::check_type(call, wanted)?;
    metadata::check_namespace(call, wanted)?;
    let given = metadata::text(wanted, "name");
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let (uid, present_uid) = (metadata::text(wanted, "uid"), metadata::text(present, "uid"));
    if !uid.is_empty() && uid != present_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {present_uid}");
        return Err(ApiError::conflict(call.kind, name, &why));
    }
    let revision = metadata::text(wanted, "resourceVersion");
    if !revision.is_empty() && revision != metadata::text(present, "resourceVersion") {
        return Err(ApiError::modified(call.kind, name));
    }
    Ok(())
}

/// Takes over from the present object what this door may not change.
fn inherit(present: &Value, mut wanted: Value, part: Part) -> Result<Value, ApiError> {
    if part == Part::Resize {
        return Ok(with_resources(present, &wanted));
    }
    if part == Part::Scale {
        return Ok(with_replicas(present, &wanted));
    }
    let old = present.get("metadata");
    let metadata = metadata::of(&mut wanted)?;
    metadata.remove("selfLink");
    let kept = ["uid", "creationTimestamp", "resourceVersion", "generation"];
    for field in kept.into_iter().chain(["deletionTimestamp", "deletionGracePeriodSeconds"]) {
        match old.and_then(|old| old.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    let Some(wanted_fields) = wanted.as_object_mut() else { return Ok(wanted) };
    if part == Part::EphemeralContainers {
        let wanted = wanted_fields.get_mut("spec").and_then(Value::as_object_mut);
        let list = wanted.and_then(|spec| spec.remove("ephemeralContainers"));
        let mut next = present.clone();
        if let Some(spec) = next.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("ephemeralContainers");
            spec.extend(list.map(|list| ("ephemeralContainers".to_owned(), list)));
        }
        metadata::of(&mut next)?.remove("managedFields");
        return Ok(next);
    }
    if part == Part::Status {
        let status = wanted_fields.remove("status");
        let metadata = wanted_fields.remove("metadata");
        let mut next = present.clone();
        if let Some(next) = next.as_object_mut() {
            next.extend(metadata.map(|metadata| ("metadata".to_owned(), metadata)));
            next.extend(status.map(|status| ("status".to_owned(), status)));
        }
        return Ok(next);
    }
    match present.get("status") {
        Some(status) => wanted_fields.insert("status".to_owned(), status.clone()),
        None => wanted_fields.remove("status"),
    };
    Ok(wanted)
}

/// The present Pod with the resources that it and its containers have in the wanted one; nothing else is taken over. Containers
/// that come or go stay, to be refused (upstream: `dropNonResizeUpdates()`).
fn with_resources(present: &Value, wanted: &Value) -> Value {
    let mut next = present.clone();
    for (list, path) in [("containers", "/spec/containers"), ("initContainers", "/spec/initContainers")] {
        let names = |pod| items_at(pod, path).map(|container| container.get("name"));
        let Some(spec) = next.get_mut("spec").and_then(Value::as_object_mut) else { continue };
        if !names(present).eq(names(wanted)) {
            spec.insert(list.to_owned(), items_at(wanted, path).cloned().collect());
            continue;
        }
        for (container, same) in
            spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(items_at(wanted, path))
        {
            let Some(fields) = container.as_object_mut() else { continue };
            for field in ["resources", "resizePolicy"] {
                match same.get(field) {
                    Some(value) => fields.insert(field.to_owned(), value.clone()),
                    None => fields.remove(field),
                };
            }
        }
    }
    let of_the_pod = wanted.pointer("/spec/resources").cloned();
    if let Some(spec) = next.pointer_mut("/spec").and_then(Value::as_object_mut) {
        match of_the_pod {
            Some(resources) => spec.insert("resources".to_owned(), resources),
            None => spec.remove("resources"),
        };
    }
    next
}

/// The present object with as many replicas as the wanted one.
fn with_replicas(present: &Value, wanted: &Value) -> Value {
    let mut next = present.clone();
    if let (Some(spec), Some(replicas)) =
        (next.get_mut("spec").and_then(Value::as_object_mut), at(wanted, "/spec/replicas"))
    {
        spec.insert("replicas".to_owned(), replicas.clone());
    }
    next
}

fn count_generation(call: &Call, present: &Value, next: &mut Value) -> Result<(), ApiError> {
    if !call.kind.counts_generations || present.get("spec") == next.get("spec") {
        return Ok(());
    }
    let generation = number_at(present, "/metadata/generation").unwrap_or_default() + 1;
    metadata::of(next)?.insert("generation".to_owned(), json!(generation));
    Ok(())
}

/// The last finalizer of an object that waited for nothing else is gone: so is the object.
pub fn is_released(object: &Value) -> bool {
    number_at(object, "/metadata/deletionGracePeriodSeconds") == Some(0)
        && items_at(object, "/metadata/finalizers").next().is_none()
}

async fn store(call: &Call, present: &StoredObject, next: Value) -> Result<Result<StoredObject, Race>, ApiError> {
    let revision = present.revision;
    let change = if is_released(&next) { Change::Delete } else { Change::Put(next) };
    let decide = move |now: Option<&StoredObject>| match now {
        Some(now) if now.revision == revision => Ok::<_, ApiError>((change, None)),
        Some(_) => Ok((Change::Keep, Some(Race::Changed))),
        None => Ok((Change::Keep, Some(Race::Gone))),
    };
    let written = call.context.store.write(present.key.clone(), decide).await.map_err(refuse)?;
    Ok(match (written.outcome, written.object) {
        (None, Some(object)) => Ok(object),
        (Some(race), _) => Err(race),
        (None, None) => Err(Race::Gone),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_door_changes_its_own_half() {
        let present = json!({
            "metadata": {"name": "a", "uid": "1", "resourceVersion": "5", "creationTimestamp": "t"},
            "spec": {"x": 1}, "status": {"phase": "Running"},
        });
        let wanted = json!({"metadata": {"name": "a", "uid": "", "labels": {"l": "v"}, "deletionTimestamp": "now"}, "spec": {"x": 2}, "status": {"phase": "Failed"}});
        let metadata =
            json!({"name": "a", "uid": "1", "resourceVersion": "5", "creationTimestamp": "t", "labels": {"l": "v"}});
        assert_eq!(
            inherit(&present, wanted.clone(), Part::Main).unwrap(),
            json!({"metadata": metadata, "spec": {"x": 2}, "status": {"phase": "Running"}})
        );
        assert_eq!(
            inherit(&present, wanted, Part::Status).unwrap(),
            json!({"metadata": metadata, "spec": {"x": 1}, "status": {"phase": "Failed"}})
        );
    }
}
