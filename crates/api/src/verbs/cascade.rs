//! A namespace that is deleted takes its objects with it: Pods first and gracefully, then the rest, then itself.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use store::{Change, ObjectKey, StoredObject, WatchEvent, WatchKind};
use tokio::time::{Instant, sleep_until};

use crate::context::{Call, Context};
use crate::fields::{items_at, text_at};
use crate::http::query::Query;
use crate::http::status::ApiError;
use crate::kinds::{KINDS, Kind, NAMESPACE, POD};
use crate::verbs::delete::{DeleteOptions, delete_one};
use crate::verbs::metadata::{seconds, text};

/// Between two sweeps at first, and at last.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);
const MAX_SWEEP_PAUSE: Duration = Duration::from_secs(10);

/// Goes on with what an earlier run of the daemon has begun.
pub fn resume_terminating_namespaces(context: &Arc<Context>) {
    for namespace in context.store.list(NAMESPACE.resource, None).objects {
        if !text(&namespace.value, "deletionTimestamp").is_empty() {
            empty_namespace(context, &namespace.key.name);
        }
    }
}

/// Starts to empty and remove a namespace that is marked. May be started twice.
pub fn empty_namespace(context: &Arc<Context>, name: &str) {
    let (context, name) = (Arc::clone(context), name.to_owned());
    tokio::spawn(async move {
        let shutdown = context.shutdown.clone();
        let work = async {
            if let Err(error) = remove_contents(&context, &name).await {
                // The next delete of the namespace, or the next start, tries again.
                tracing::error!(namespace = name, error = error.to_string(), "cannot empty a namespace");
            }
        };
        shutdown.run_until_cancelled(work).await;
    });
}

/// Sweeps until nothing is left: an object may come while another goes (the agent tells of the end of a Pod by an
/// Event), or be held by a finalizer.
async fn remove_contents(context: &Arc<Context>, name: &str) -> Result<(), ApiError> {
    let mut pause = SWEEP_PAUSE;
    loop {
        delete_all(context, &POD, name).await?;
        pods_are_gone(context, name).await;
        for kind in namespaced_kinds().filter(|kind| kind.resource != POD.resource) {
            delete_all(context, kind, name).await?;
        }
        if namespaced_kinds().all(|kind| context.store.list(kind.resource, Some(name)).objects.is_empty()) {
            return remove_namespace(context, name).await;
        }
        note_contents(context, name, namespaced_kinds()).await;
        tokio::time::sleep(pause).await;
        pause = MAX_SWEEP_PAUSE.min(pause * 2);
    }
}

fn namespaced_kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.into_iter().filter(|kind| kind.namespaced)
}

/// Writes into the namespace's status what is left of `kinds`, as upstream's namespace controller does (package `deletion`,
/// `ProcessContentTotals`). The namespace goes on going where that fails.
async fn note_contents(context: &Context, name: &str, kinds: impl Iterator<Item = &'static Kind>) {
    let (mut objects, mut finalizers) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    for kind in kinds.filter(|kind| kind.renames.is_empty()) {
        for object in context.store.list(kind.resource, Some(name)).objects {
            *objects.entry(format!("{}.{}", kind.resource, kind.group)).or_default() += 1;
            for finalizer in items_at(&object.value, "/metadata/finalizers").filter_map(Value::as_str) {
                *finalizers.entry(finalizer.to_owned()).or_default() += 1;
            }
        }
    }
    let now = seconds(Context::now());
    let decide = move |present: Option<&StoredObject>| {
        let next = present.and_then(|present| with_conditions(&present.value, &objects, &finalizers, &now));
        Ok::<_, ApiError>((next.map_or(Change::Keep, Change::Put), ()))
    };
    let key = ObjectKey::cluster(NAMESPACE.resource, name);
    if let Err(error) = context.store.write(key, decide).await.map_err(crate::context::refuse) {
        tracing::warn!(namespace = name, error = error.to_string(), "cannot write what is left in a namespace");
    }
}

/// A namespace that is going, with its conditions; `None` if it has them, or is not going.
fn with_conditions(
    namespace: &Value,
    objects: &BTreeMap<String, usize>,
    finalizers: &BTreeMap<String, usize>,
    now: &str,
) -> Option<Value> {
    if text(namespace, "deletionTimestamp").is_empty() {
        return None;
    }
    let list = |counts: &BTreeMap<String, usize>, what: &str| {
        counts
            .iter()
            .map(|(name, count)| format!("{name} {what} {count} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let fine = |reason: &'static str, message: &str| ("False", reason, message.to_owned());
    let remaining = if objects.is_empty() {
        fine("ContentRemoved", "All content successfully removed")
    } else {
        let message = format!("Some resources are remaining: {}", list(objects, "has"));
        ("True", "SomeResourcesRemain", message)
    };
    let held = if finalizers.is_empty() {
        fine("ContentHasNoFinalizers", "All content-preserving finalizers finished")
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {}", list(finalizers, "in"));
        ("True", "SomeFinalizersRemain", message)
    };
    let conditions = [
        ("NamespaceDeletionDiscoveryFailure", fine("ResourcesDiscovered", "All resources successfully discovered")),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            fine("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            fine("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", held),
    ];
    let mut next = namespace.clone();
    let status = next.as_object_mut()?.entry("status").or_insert_with(|| json!({})).as_object_mut()?;
    let present = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut()?;
    for (kind, (is, reason, message)) in conditions {
        let old = present.iter().position(|condition| text_at(condition, "/type") == kind);
        let old = old.map(|index| present.remove(index));
        let same = old.as_ref().filter(|old| text_at(old, "/status") == is);
        let since = same.map_or(now, |old| text_at(old, "/lastTransitionTime")).to_owned();
        present.push(json!({
            "type": kind, "status": is, "lastTransitionTime": since, "reason": reason, "message": message,
        }));
    }
    (next != *namespace).then_some(next)
}

async fn delete_all(context: &Arc<Context>, kind: &'static Kind, pod_namespace: &str) -> Result<(), ApiError> {
    let call = Call {
        context: Arc::clone(context),
        kind,
        pod_namespace: Some(pod_namespace.to_owned()),
        query: Query::default(),
        headers: http::HeaderMap::new(),
        twice: OnceLock::new(),
    };
    for object in context.store.list(kind.resource, Some(pod_namespace)).objects {
        match delete_one(&call, &object.key.name, &DeleteOptions::default()).await {
            Ok(_) => {}
            Err(error) if error.code == http::StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn has_other_finalizers(event: &WatchEvent) -> bool {
    let of = |object: &StoredObject| object.value.pointer("/metadata/finalizers").cloned();
    event.previous.as_ref().is_some_and(|previous| of(previous) != of(&event.object))
}

/// Waits until the workers have removed every Pod of the namespace; says now and then how many there are.
async fn pods_are_gone(context: &Context, pod_namespace: &str) {
    // When they may be counted next, and whether there is another number to tell.
    let (mut due, mut is_told) = (Instant::now(), false);
    loop {
        let list = context.store.list(POD.resource, Some(pod_namespace));
        if list.objects.is_empty() {
            return;
        }
        if !is_told && due <= Instant::now() {
            note_contents(context, pod_namespace, std::iter::once(&POD)).await;
            (due, is_told) = (Instant::now() + MAX_SWEEP_PAUSE, true);
        }
        let Ok(mut changes) = context.store.watch(POD.resource, Some(list.revision)) else { continue };
        let ours = |object: &StoredObject| object.key.namespace.as_deref() == Some(pod_namespace);
        let one_goes = async {
            while let Some(event) = changes.next().await {
                if ours(&event.object) && (event.kind == WatchKind::Deleted || has_other_finalizers(&event)) {
                    break;
                }
            }
        };
        tokio::select! {
            () = one_goes => is_told = false,
            () = sleep_until(due), if !is_told => {}
        }
    }
}

async fn remove_namespace(context: &Context, name: &str) -> Result<(), ApiError> {
    let decide = |present: Option<&StoredObject>| {
        // Made anew in the meantime: that one stays.
        let going = present.is_some_and(|namespace| !text(&namespace.value, "deletionTimestamp").is_empty());
        let held = present.is_some_and(|namespace| items_at(&namespace.value, "/metadata/finalizers").next().is_some());
        let free = going && !held;
        Ok::<_, ApiError>((if free { Change::Delete } else { Change::Keep }, ()))
    };
    let key = ObjectKey::cluster(NAMESPACE.resource, name);
    context.store.write(key, decide).await.map_err(crate::context::refuse)?;
    Ok(())
}
