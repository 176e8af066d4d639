//! ResourceQuotas at the door (the API server's admission plug-in of that name): what does not fit is refused, and what
//! came in is noted in `status.used` before its client hears of it. [`keep`] notes what goes.

mod keeper;

use std::convert::Infallible;
use std::sync::Arc;

use serde_json::{Value, json};
use spec::decode::{DecodeError, read};
use spec::k8s_openapi::api::core::v1::ResourceQuota;
use spec::quota::{self, Item, charge, raw};
use store::{Change, ObjectKey, ObjectValue, Store, StoredObject, WriteError};

use crate::context::{Call, Context};
use crate::http::status::ApiError;
use crate::kinds::{Kind, RESOURCE_QUOTA, stored_kinds};
use crate::verbs::Part;

pub use keeper::keep;

/// The quotas of a namespace, with their names in the store.
fn quotas_of(store: &Store, pod_namespace: &str) -> Result<Vec<(Arc<ObjectKey>, ResourceQuota)>, ApiError> {
    let found = store.list(RESOURCE_QUOTA.resource, Some(pod_namespace)).objects;
    let read = |object: StoredObject| Ok((object.key, read(&object.value)?));
    found.into_iter().map(read).collect::<Result<_, DecodeError>>().map_err(|error| ApiError::internal(&error))
}

/// Whether writes into the namespace must see each other's usage.
pub fn has_quotas(store: &Store, pod_namespace: Option<&str>) -> bool {
    pod_namespace.is_some_and(|name| !store.list(RESOURCE_QUOTA.resource, Some(name)).objects.is_empty())
}

/// Refuses what does not fit. A quota itself gets its status here, so that it counts from its first moment.
pub fn judge(call: &Call, part: Part, old: Option<&Value>, object: &mut Value) -> Result<(), ApiError> {
    let Some(pod_namespace) = call.pod_namespace.as_deref() else { return Ok(()) };
    if call.kind.resource == RESOURCE_QUOTA.resource && part == Part::Main {
        let quota = read::<ResourceQuota>(object).map_err(|error| ApiError::internal(&error))?;
        let status = json!(recount(&call.context.store, pod_namespace, &quota)?);
        if let Some(object) = object.as_object_mut() {
            object.insert("status".to_owned(), status);
        }
    }
    let quotas = quotas_of(&call.context.store, pod_namespace)?;
    if quotas.is_empty() {
        return Ok(());
    }
    let Some(change) = Priced::of(call.kind, part, old, object)? else { return Ok(()) };
    for (_key, quota) in quotas {
        if let Err(why) = change.charge(&quota) {
            let name = crate::verbs::metadata::text(object, "name");
            return Err(ApiError::forbidden(call.kind, name, &why));
        }
    }
    Ok(())
}

/// Notes what has been stored. Nobody else writes into the namespace until then ([`Call::turn`]).
pub async fn note(call: &Call, part: Part, old: Option<&Value>, object: &ObjectValue) -> Result<(), ApiError> {
    let Some(pod_namespace) = call.pod_namespace.as_deref() else { return Ok(()) };
    if !has_quotas(&call.context.store, Some(pod_namespace)) {
        return Ok(());
    }
    let Some(change) = Priced::of(call.kind, part, old, object)? else { return Ok(()) };
    for (key, quota) in quotas_of(&call.context.store, pod_namespace)? {
        if let Ok(Some(used)) = change.charge(&quota) {
            set_status(&call.context, key, "used", json!(raw(&used))).await?;
        }
    }
    Ok(())
}

/// A new object, or a change that may take more.
struct Priced {
    new: Item,
    old: Option<Item>,
}

impl Priced {
    /// Of a change of what counts the same before and after, nothing.
    fn of(kind: &Kind, part: Part, old: Option<&Value>, object: &Value) -> Result<Option<Self>, ApiError> {
        let read = |object: &Value| Item::read(&kind.qualified(), object).map_err(|error| ApiError::internal(&error));
        let is_counted = match (kind.resource, part, old) {
            // Nobody pays for what the owner of another name wrote already.
            _ if !kind.renames.is_empty() => false,
            (_, Part::Main, None)
            | ("services" | "persistentvolumeclaims", Part::Main, Some(_))
            | ("pods", Part::Resize, Some(_)) => true,
            ("pods", Part::Main, Some(old)) => has_deadline(old) != has_deadline(object),
            _ => false,
        };
        if !is_counted {
            return Ok(None);
        }
        Ok(Some(Self { new: read(object)?, old: old.map(read).transpose()? }))
    }

    fn charge(&self, quota: &ResourceQuota) -> Result<Option<spec::requests::QuantityList>, String> {
        charge(quota, &self.new, self.old.as_ref(), Context::now())
    }
}

fn has_deadline(pod: &Value) -> bool {
    pod.pointer("/spec/activeDeadlineSeconds").is_some_and(|seconds| !seconds.is_null())
}

/// A quota's status by the objects that there are.
fn recount(
    store: &Store,
    pod_namespace: &str,
    quota: &ResourceQuota,
) -> Result<spec::k8s_openapi::api::core::v1::ResourceQuotaStatus, ApiError> {
    let mut items = Vec::new();
    for kind in stored_kinds().filter(|kind| kind.namespaced && quota::tracks(quota, &kind.qualified())) {
        for object in store.list(kind.resource, Some(pod_namespace)).objects {
            items.push(Item::read(&kind.qualified(), &object.value).map_err(|error| ApiError::internal(&error))?);
        }
    }
    let resources: Vec<String> = stored_kinds().filter(|kind| kind.namespaced).map(Kind::qualified).collect();
    Ok(quota::count(quota, resources.iter().map(String::as_str), items.iter(), Context::now()))
}

async fn set_status(context: &Context, key: Arc<ObjectKey>, field: &'static str, value: Value) -> Result<(), ApiError> {
    let decide = move |present: Option<&StoredObject>| {
        let Some(present) = present else { return Ok::<_, Infallible>((Change::Keep, ())) };
        let mut next = present.value.as_ref().clone();
        if let Some(status) = next.pointer_mut("/status").and_then(Value::as_object_mut) {
            status.insert(field.to_owned(), value);
        }
        Ok((Change::Put(next), ()))
    };
    match context.store.write(key, decide).await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(ApiError::internal(&error)),
    }
}
