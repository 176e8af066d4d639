//! Keeps `status.used` of quotas true when objects go or come to count less, whoever did it.
//!
//! Without a quota it follows nothing but quotas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;
use spec::ordered::set_of;
use spec::quota::{self, Item};
use store::{WatchEvent, WatchKind};

use crate::context::Context;
use crate::http::status::ApiError;
use crate::kinds::{Kind, RESOURCE_QUOTA, stored_kinds};
use crate::quotas::{quotas_of, recount, set_status};

/// How often all is counted anew: a Pod that should be gone stops to count without any event.
const RECOUNT: Duration = Duration::from_mins(5);

/// Between two attempts after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// Starts to follow.
pub fn keep(context: &Arc<Context>) {
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let shutdown = context.shutdown.clone();
        shutdown.run_until_cancelled(follow(&context)).await;
    });
}

async fn follow(context: &Context) {
    loop {
        let Ok(mut quotas) = context.store.watch(RESOURCE_QUOTA.resource, None) else { continue };
        if context.store.list(RESOURCE_QUOTA.resource, None).objects.is_empty() {
            if quotas.next().await.is_none() && quotas.expired().is_none() {
                return;
            }
            continue;
        }
        match follow_objects(context).await {
            Ok(Outcome::Again) => {}
            Ok(Outcome::Closed) => return,
            Err(error) => {
                tracing::warn!(error = error.to_string(), "cannot count what quotas limit");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

enum Outcome {
    /// There are no quotas any more, or a watch fell behind, or it is time.
    Again,
    /// The store is closed.
    Closed,
}

async fn follow_objects(context: &Context) -> Result<Outcome, ApiError> {
    let kinds: Vec<&Kind> = stored_kinds().filter(|kind| kind.namespaced).collect();
    let watches = context.store.watch_all(kinds.iter().map(|kind| kind.resource));
    let Ok(mut watches) = watches else { return Ok(Outcome::Again) };
    let all: BTreeSet<String> = quota_namespaces(context);
    for pod_namespace in &all {
        count_anew(context, pod_namespace).await?;
    }
    let end = tokio::time::Instant::now() + RECOUNT;
    while !quota_namespaces(context).is_empty() {
        let Ok(first) = tokio::time::timeout_at(end, watches.next()).await else {
            return Ok(Outcome::Again);
        };
        let Some(first) = first else {
            return Ok(if watches.is_expired() { Outcome::Again } else { Outcome::Closed });
        };
        // What has happened by now is counted once.
        let mut changed = BTreeSet::new();
        let mut next = Some(first);
        while let Some(event) = next {
            if let Some(kind) = kinds.iter().find(|kind| kind.resource == event.object.key.resource) {
                changed.extend(affected(context, kind, &event)?);
            }
            next = watches.next().now_or_never().flatten();
        }
        for pod_namespace in changed {
            count_anew(context, &pod_namespace).await?;
        }
    }
    Ok(Outcome::Again)
}

fn quota_namespaces(context: &Context) -> BTreeSet<String> {
    let quotas = context.store.list(RESOURCE_QUOTA.resource, None).objects;
    set_of(quotas.into_iter().filter_map(|quota| quota.key.namespace.clone()))
}

/// The namespace whose quotas may see a change in this.
fn affected(context: &Context, kind: &Kind, event: &WatchEvent) -> Result<Option<String>, ApiError> {
    let Some(pod_namespace) = event.object.key.namespace.clone() else { return Ok(None) };
    let name = kind.qualified();
    let quotas = quotas_of(&context.store, &pod_namespace)?;
    let matters = kind.resource == RESOURCE_QUOTA.resource || quotas.iter().any(|(_, own)| quota::tracks(own, &name));
    if !matters {
        return Ok(None);
    }
    let is_same = match (&event.previous, event.kind) {
        (Some(previous), WatchKind::Modified) if kind.resource != RESOURCE_QUOTA.resource => {
            let usage = |object: &store::StoredObject| {
                let item = Item::read(&name, &object.value).map_err(|error| ApiError::internal(&error))?;
                Ok::<_, ApiError>(item.usage(Context::now()))
            };
            let deadline = |object: &store::StoredObject| object.value.pointer("/spec/activeDeadlineSeconds").cloned();
            usage(previous)? == usage(&event.object)? && deadline(previous) == deadline(&event.object)
        }
        _ => false,
    };
    Ok((!is_same).then_some(pod_namespace))
}

async fn count_anew(context: &Context, pod_namespace: &str) -> Result<(), ApiError> {
    let _turn = context.shared_writes.lock().await;
    for (key, quota) in quotas_of(&context.store, pod_namespace)? {
        let status = recount(&context.store, pod_namespace, &quota)?;
        if quota.status.as_ref() != Some(&status) {
            set_status(context, key.clone(), "hard", json!(status.hard)).await?;
            set_status(context, key, "used", json!(status.used)).await?;
        }
    }
    Ok(())
}
