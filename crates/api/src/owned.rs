//! Objects that have owners go with them (kubernetes.io, "Garbage Collection"): in the background, before their owner
//! (foreground), or not at all (orphan).
//!
//! One task follows all kinds. What it decides on is in the store, so a restart or a lost event costs time, not truth.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use store::{Change, ObjectKey, StoredObject, WatchEvent, WatchKind};

use crate::context::{Call, Context};
use crate::fields::{flag_at, items_at, text_at};
use crate::http::query::Query;
use crate::http::status::ApiError;
use crate::kinds::{KINDS, stored_kinds};
use crate::verbs::delete::{DeleteOptions, delete_one};
use crate::verbs::metadata::{self, text};

/// Finalizers of owners: what must happen to those they own before they go.
pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What an object mentions that has an owner: all others need not be read.
const OWNERS: &str = "ownerReferences";

/// Between two attempts after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// Starts to follow owners and owned.
pub fn keep_owned(context: &Arc<Context>) {
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let shutdown = context.shutdown.clone();
        shutdown.run_until_cancelled(follow(&context)).await;
    });
}

async fn follow(context: &Arc<Context>) {
    loop {
        let Ok(mut watches) = context.store.watch_all(stored_kinds().map(|kind| kind.resource)) else { continue };
        let mut graph = Graph::default();
        let present = stored_kinds().flat_map(|kind| context.store.list(kind.resource, None).objects);
        // All others are looked at when they change: most of a large store has no owner and stays unread.
        let is_concerned = |object: &StoredObject| object.mentions(OWNERS) || object.mentions("deletionTimestamp");
        let present: Vec<StoredObject> = present.filter(is_concerned).collect();
        for object in &present {
            graph.note(object);
        }
        let mut outcome = Ok(());
        for object in &present {
            outcome = outcome.and(graph.settle(context, object).await);
        }
        while outcome.is_ok() {
            let Some(event) = watches.next().await else { break };
            outcome = graph.take(context, &event).await;
        }
        match outcome {
            // The store is closed.
            Ok(()) if !watches.is_expired() => return,
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(error = error.to_string(), "cannot remove what has lost its owner");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Who is owned by whom: by the owner's uid.
#[derive(Debug, Default)]
struct Graph(HashMap<String, HashSet<Arc<ObjectKey>>>);

impl Graph {
    fn note(&mut self, object: &StoredObject) {
        if !object.mentions(OWNERS) {
            return;
        }
        for owner in owners(&object.value.tree()) {
            self.0.entry(text_at(owner, "/uid").to_owned()).or_default().insert(Arc::clone(&object.key));
        }
    }

    fn forget(&mut self, object: &StoredObject) {
        if !object.mentions(OWNERS) {
            return;
        }
        for owner in owners(&object.value.tree()) {
            let uid = text_at(owner, "/uid");
            if let Some(owned) = self.0.get_mut(uid) {
                owned.remove(&object.key);
                if owned.is_empty() {
                    self.0.remove(uid);
                }
            }
        }
    }

    async fn take(&mut self, context: &Arc<Context>, event: &WatchEvent) -> Result<(), ApiError> {
        if let Some(previous) = &event.previous {
            self.forget(previous);
        }
        if event.kind != WatchKind::Deleted {
            self.note(&event.object);
            return self.settle(context, &event.object).await;
        }
        if self.0.is_empty() && !event.object.mentions(OWNERS) {
            return Ok(());
        }
        for key in self.owned_by(&event.object.value) {
            if let Some(owned) = context.store.get(&key) {
                settle_owned(context, &owned).await?;
            }
        }
        // An owner may have waited for this one.
        for owner in owners(&event.object.value) {
            if let Owner::Present(owner) = find_owner(context, owner, event.object.key.namespace.as_deref()) {
                self.settle(context, &owner).await?;
            }
        }
        Ok(())
    }

    /// Does what an object's owners, or its own finalizers, ask for.
    async fn settle(&self, context: &Arc<Context>, object: &StoredObject) -> Result<(), ApiError> {
        if !object.mentions(OWNERS) && !object.mentions("deletionTimestamp") {
            return Ok(());
        }
        if owners(&object.value).next().is_some() && text(&object.value, "deletionTimestamp").is_empty() {
            settle_owned(context, object).await?;
        }
        if text(&object.value, "deletionTimestamp").is_empty() {
            return Ok(());
        }
        let owned: Vec<StoredObject> =
            self.owned_by(&object.value).iter().filter_map(|key| context.store.get(key)).collect();
        let uid = text(&object.value, "uid");
        if has_finalizer(&object.value, ORPHAN) {
            for owned in &owned {
                let uid = uid.to_owned();
                change(context, owned, move |value| drop_owners(value, &[uid])).await?;
            }
            return release(context, object, ORPHAN).await;
        }
        if has_finalizer(&object.value, FOREGROUND) {
            let mut waits = false;
            for owned in &owned {
                let blocks = owners(&owned.value)
                    .any(|owner| text_at(owner, "/uid") == uid && flag_at(owner, "/blockOwnerDeletion"));
                waits |= blocks;
                if text(&owned.value, "deletionTimestamp").is_empty() {
                    settle_owned(context, owned).await?;
                }
            }
            let left = owned.iter().any(|owned| context.store.get(&owned.key).is_some());
            if !(waits && left) {
                return release(context, object, FOREGROUND).await;
            }
        }
        Ok(())
    }

    fn owned_by(&self, owner: &Value) -> Vec<Arc<ObjectKey>> {
        self.0.get(text(owner, "uid")).into_iter().flatten().cloned().collect()
    }
}

/// Deletes an object whose owners are all gone or about to go; of several takes out those that are gone.
async fn settle_owned(context: &Arc<Context>, object: &StoredObject) -> Result<(), ApiError> {
    let (mut gone, mut solid) = (Vec::new(), false);
    let mut waiting = false;
    for owner in owners(&object.value) {
        match find_owner(context, owner, object.key.namespace.as_deref()) {
            Owner::Gone => gone.push(text_at(owner, "/uid").to_owned()),
            Owner::Present(owner) if ends_in_foreground(&owner.value) => waiting = true,
            // Nobody knows whether one of an unknown kind is gone.
            Owner::Present(_) | Owner::Unknown => solid = true,
        }
    }
    if solid {
        if !gone.is_empty() {
            change(context, object, move |value| drop_owners(value, &gone)).await?;
        }
        return Ok(());
    }
    if gone.is_empty() && !waiting {
        return Ok(());
    }
    let Some(kind) = stored_kinds().find(|kind| kind.resource == object.key.resource) else { return Ok(()) };
    let call = Call {
        context: Arc::clone(context),
        kind,
        pod_namespace: object.key.namespace.clone(),
        query: Query::default(),
        headers: http::HeaderMap::new(),
        twice: OnceLock::new(),
    };
    match delete_one(&call, &object.key.name, &DeleteOptions::of(text(&object.value, "uid"))).await {
        Err(error) if !matches!(error.code.as_u16(), 404 | 409) => Err(error),
        _ => Ok(()),
    }
}

/// What has become of an owner.
enum Owner {
    Present(StoredObject),
    Gone,
    /// Its kind is not served.
    Unknown,
}

fn find_owner(context: &Context, owner: &Value, pod_namespace: Option<&str>) -> Owner {
    let (group, _version) = text_at(owner, "/apiVersion").rsplit_once('/').unwrap_or_default();
    let kind = KINDS.into_iter().find(|kind| kind.kind == text_at(owner, "/kind") && kind.group == group);
    let Some(kind) = kind else { return Owner::Unknown };
    let name = text_at(owner, "/name");
    let key = match pod_namespace.filter(|_| kind.namespaced) {
        Some(pod_namespace) => ObjectKey::namespaced(kind.resource, pod_namespace, name),
        None => ObjectKey::cluster(kind.resource, name),
    };
    let found = context.store.get(&key).filter(|found| text(&found.value, "uid") == text_at(owner, "/uid"));
    found.map_or(Owner::Gone, Owner::Present)
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    items_at(object, "/metadata/ownerReferences")
}

fn ends_in_foreground(owner: &Value) -> bool {
    has_finalizer(owner, FOREGROUND) && !text(owner, "deletionTimestamp").is_empty()
}

fn has_finalizer(object: &Value, wanted: &str) -> bool {
    items_at(object, "/metadata/finalizers").any(|finalizer| finalizer == wanted)
}

/// Takes a finalizer away; with the last one the object goes if it waits for nothing else.
async fn release(context: &Context, object: &StoredObject, finalizer: &'static str) -> Result<(), ApiError> {
    change(context, object, move |value| {
        if let Ok(metadata) = metadata::of(value)
            && let Some(finalizers) = metadata.get_mut("finalizers").and_then(Value::as_array_mut)
        {
            finalizers.retain(|present| present != finalizer);
            if finalizers.is_empty() {
                metadata.remove("finalizers");
            }
        }
    })
    .await
}

fn drop_owners(value: &mut Value, uids: &[String]) {
    if let Ok(metadata) = metadata::of(value)
        && let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut)
    {
        owners.retain(|owner| !uids.iter().any(|uid| uid == text_at(owner, "/uid")));
        if owners.is_empty() {
            metadata.remove("ownerReferences");
        }
    }
}

async fn change(
    context: &Context,
    object: &StoredObject,
    change: impl FnOnce(&mut Value) + Send + 'static,
) -> Result<(), ApiError> {
    let uid = text(&object.value, "uid").to_owned();
    let decide = move |present: Option<&StoredObject>| {
        let Some(present) = present.filter(|present| text(&present.value, "uid") == uid) else {
            return Ok::<_, Infallible>((Change::Keep, ()));
        };
        let mut next = present.value.as_ref().clone();
        change(&mut next);
        Ok((if crate::verbs::is_released(&next) { Change::Delete } else { Change::Put(next) }, ()))
    };
    match context.store.write(object.key.clone(), decide).await {
        Ok(_) => Ok(()),
        Err(store::WriteError::Refused(never)) => match never {},
        Err(store::WriteError::Store(error)) => Err(ApiError::internal(&error)),
    }
}
