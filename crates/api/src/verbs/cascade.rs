//! A namespace that is deleted takes its objects with it: Pods first and gracefully, then the rest, then itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use store::{Change, ObjectKey, StoredObject, WatchKind};

use crate::context::{Call, Context};
use crate::fields::items_at;
use crate::http::query::Query;
use crate::http::status::ApiError;
use crate::kinds::{KINDS, Kind, NAMESPACE, POD};
use crate::verbs::delete::{DeleteOptions, delete_one};
use crate::verbs::metadata::text;

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
        tokio::time::sleep(pause).await;
        pause = MAX_SWEEP_PAUSE.min(pause * 2);
    }
}

fn namespaced_kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.into_iter().filter(|kind| kind.namespaced)
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

/// Waits until the workers have removed every Pod of the namespace.
async fn pods_are_gone(context: &Context, pod_namespace: &str) {
    loop {
        let list = context.store.list(POD.resource, Some(pod_namespace));
        if list.objects.is_empty() {
            return;
        }
        let Ok(mut changes) = context.store.watch(POD.resource, Some(list.revision)) else { continue };
        let ours = |object: &StoredObject| object.key.namespace.as_deref() == Some(pod_namespace);
        while let Some(event) = changes.next().await {
            if event.kind == WatchKind::Deleted && ours(&event.object) {
                break;
            }
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
