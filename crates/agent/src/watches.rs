//! What wakes workers: changes of pods and of the objects that they use, and what happens in the runtime.

use std::sync::Arc;

use runtime::{LostOutput, RuntimeEvent};
use spec::claims::{CLAIM_SOURCE, claim_name};
use store::{ObjectWatch, Store, StoredObject, WatchEvent, WatchKind};
use tokio::sync::broadcast;

use crate::agent::{PODS, Shared, identity, is_gated};
use crate::claims::{CLAIMS, CLASSES, VOLUMES};
use crate::config_objects::{CONFIG_MAPS, SECRETS};
use crate::desired::DesiredPod;
use crate::events::EventSubject;
use crate::pod_tokens::{SERVICE_ACCOUNTS, account_of, projections};

/// Wakes the worker of each pod that changes, and of all pods whenever changes were missed.
pub(crate) async fn watch_pods(shared: Arc<Shared>) {
    loop {
        let Some(mut watch) = watch_from_list(&shared.store, PODS, |stored| wake(&shared, stored)) else { continue };
        while let Some(event) = watch.next().await {
            wake(&shared, &event.object);
            if gives_claims_back(&event) {
                wake_claimants(&shared);
            }
        }
        if watch.expired().is_none() {
            return;
        }
    }
}

/// Whether a pod that has claims is gone or has ended: another one may be waiting for it (`ReadWriteOncePod`).
fn gives_claims_back(event: &WatchEvent) -> bool {
    let has_ended = || {
        let pod = event.object.value.tree();
        pod.pointer("/status/phase").is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
    };
    event.object.mentions(CLAIM_SOURCE) && (event.kind == WatchKind::Deleted || has_ended())
}

/// Looks again at all pods that may wait for claims.
fn wake_claimants(shared: &Shared) {
    for stored in shared.store.list(PODS, None).objects {
        if stored.mentions(CLAIM_SOURCE)
            && stored.value.tree().pointer("/spec/nodeName").is_none()
            && let Some((uid, _)) = identity(&stored)
        {
            shared.wake(&uid);
        }
    }
}

/// Begins with new pods while they are being made durable. None of their programs runs before that: the record of a container has its
/// place among the writes after its pod's.
pub(crate) async fn watch_forthcoming_pods(shared: Arc<Shared>) {
    let mut pods = shared.store.forthcoming(PODS);
    while let Some(stored) = pods.recv().await {
        if !is_gated(&stored.value.tree()) {
            shared.start_forthcoming(stored);
        }
    }
}

/// Wakes the pods that use a `ConfigMap`, a Secret, a token or a claim when its object changes.
pub(crate) async fn watch_config(shared: Arc<Shared>) {
    tokio::join!(
        watch_config_of(&shared, CONFIG_MAPS),
        watch_config_of(&shared, SECRETS),
        watch_config_of(&shared, SERVICE_ACCOUNTS),
        watch_config_of(&shared, CLAIMS),
        watch_volumes(&shared),
    );
}

/// A volume or a class may be what a claim has waited for.
async fn watch_volumes(shared: &Arc<Shared>) {
    loop {
        let Ok(mut watches) = shared.store.watch_all([VOLUMES, CLASSES]) else { continue };
        wake_claimants(shared);
        while watches.next().await.is_some() {
            wake_claimants(shared);
        }
        if !watches.is_expired() {
            return;
        }
    }
}

async fn watch_config_of(shared: &Arc<Shared>, resource: &'static str) {
    loop {
        let Some(mut watch) = watch_from_list(&shared.store, resource, |_| ()) else { continue };
        shared.wake_all();
        while let Some(event) = watch.next().await {
            wake_users(shared, resource, &event.object);
        }
        if watch.expired().is_none() {
            return;
        }
    }
}

/// Looks for room for pods that wait whenever the node has changed.
pub(crate) async fn watch_node(shared: Arc<Shared>) {
    loop {
        let Some(mut watch) = watch_from_list(&shared.store, "nodes", |_| ()) else { continue };
        shared.look_for_room();
        while watch.next().await.is_some() {
            shared.look_for_room();
        }
        if watch.expired().is_none() {
            return;
        }
    }
}

/// Wakes the pod of each event of the runtime; all of them whenever events were missed.
pub(crate) async fn watch_runtime(shared: Arc<Shared>, mut events: broadcast::Receiver<RuntimeEvent>) {
    loop {
        match events.recv().await {
            Ok(RuntimeEvent { lost_output: Some(lost), .. }) => tell_lost_output(&shared, &lost),
            Ok(event) => shared.wake(&event.pod_uid),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events of the runtime were missed: looking at all pods");
                shared.wake_all();
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn tell_lost_output(shared: &Shared, lost: &LostOutput) {
    let Some(desired) = shared.pod(&lost.pod) else { return };
    let subject = EventSubject::container(&desired, &lost.container);
    let message = format!(
        "Output of container {} cannot be written to its log, {} bytes are lost so far: {}",
        lost.container, lost.bytes, lost.why
    );
    shared.events.warning(subject, "LogLost", message);
}

/// Lists, then watches from there. `None` if the history is already past the list: try again.
fn watch_from_list(store: &Store, resource: &str, mut each: impl FnMut(&StoredObject)) -> Option<ObjectWatch> {
    let list = store.list(resource, None);
    let watch = store.watch(resource, Some(list.revision)).ok()?;
    list.objects.iter().for_each(&mut each);
    Some(watch)
}

fn wake(shared: &Arc<Shared>, stored: &StoredObject) {
    if let Some((uid, pod)) = identity(stored) {
        shared.wake_or_start(&uid, &pod);
    }
}

fn wake_users(shared: &Arc<Shared>, resource: &str, changed: &StoredObject) {
    if shared.immutable.is_kept(&changed.key) {
        return;
    }
    for stored in shared.store.list(PODS, changed.key.namespace.as_deref()).objects {
        if stored.mentions(&changed.key.name)
            && let Ok(desired) = DesiredPod::read(&stored)
            && uses(&desired, resource, &changed.key.name)
        {
            shared.wake(&desired.uid);
        }
    }
}

/// Whether a volume or a variable of the pod comes from that object.
fn uses(desired: &DesiredPod, resource: &str, name: &str) -> bool {
    if resource == SERVICE_ACCOUNTS {
        return account_of(&desired.spec) == name && projections(&desired.spec).next().is_some();
    }
    if resource == CLAIMS {
        return desired.spec.volumes.iter().flatten().filter_map(claim_name).any(|claim| claim == name);
    }
    let of_config_maps = resource == CONFIG_MAPS;
    let in_volumes = desired.spec.volumes.iter().flatten().any(|volume| {
        let mut projections = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        if of_config_maps {
            volume.config_map.as_ref().is_some_and(|source| source.name == name)
                || projections.any(|source| source.config_map.as_ref().is_some_and(|source| source.name == name))
        } else {
            volume.secret.as_ref().is_some_and(|source| source.secret_name.as_deref() == Some(name))
                || projections.any(|source| source.secret.as_ref().is_some_and(|source| source.name == name))
        }
    });
    in_volumes
        || desired.containers().any(|(_, container)| {
            let in_env_from = container.env_from.iter().flatten().any(|source| {
                if of_config_maps {
                    source.config_map_ref.as_ref().is_some_and(|reference| reference.name == name)
                } else {
                    source.secret_ref.as_ref().is_some_and(|reference| reference.name == name)
                }
            });
            let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
            in_env_from
                || sources.into_iter().any(|source| {
                    if of_config_maps {
                        source.config_map_key_ref.as_ref().is_some_and(|reference| reference.name == name)
                    } else {
                        source.secret_key_ref.as_ref().is_some_and(|reference| reference.name == name)
                    }
                })
        })
}
