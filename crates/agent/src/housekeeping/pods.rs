//! Which Pods that have ended go, when there are too many of them (kube-controller-manager, `podgc`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use spec::ordered::sort_by_cached_key;
use store::{Change, StoreError, StoredObject, WriteError};

use crate::agent::{PODS, Shared};

/// How often it is looked (podgc, `gcCheckPeriod`).
const PERIOD: Duration = Duration::from_secs(20);

/// Looks from time to time. Whoever runs Jobs by hand never deletes them, and each has its object and its logs.
pub(crate) async fn collect_pods(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        for pod in surplus(shared.store.list(PODS, None).objects, shared.config.terminated_pod_gc_threshold) {
            tracing::info!(pod = %pod.key, "deletes a pod that has ended: there are too many");
            if let Err(error) = delete(&shared, &pod).await {
                tracing::warn!(error = %crate::volumes::chain(&error), pod = %pod.key, "cannot delete a pod that has ended");
            }
        }
    }
}

/// The evicted ones first, then the oldest. One from a file would only come again.
fn surplus(pods: Vec<StoredObject>, threshold: usize) -> Vec<StoredObject> {
    // Where there are no more of any kind none has to be read.
    if pods.len() <= threshold {
        return Vec::new();
    }
    let may_have = |pod: &StoredObject| ["Succeeded", "Failed"].iter().any(|phase| pod.mentions(phase));
    let mut ended: Vec<_> = pods.into_iter().filter(|pod| may_have(pod) && has_ended(&pod.value.tree())).collect();
    let count = if threshold == 0 { 0 } else { ended.len().saturating_sub(threshold) };
    let text = |pod: &Value, pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    sort_by_cached_key(&mut ended, |StoredObject { key, value, .. }| {
        let pod = value.tree();
        let evicted = text(&pod, "/status/reason").as_deref() == Some("Evicted");
        (!evicted, text(&pod, "/metadata/creationTimestamp"), key.name.clone(), key.namespace.clone())
    });
    ended.truncate(count);
    ended
}

fn has_ended(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    let annotations = pod.pointer("/metadata/annotations");
    let is_mirror = annotations.is_some_and(|annotations| annotations.get("kubernetes.io/config.mirror").is_some());
    matches!(phase, Some("Succeeded" | "Failed")) && pod.pointer("/metadata/deletionTimestamp").is_none() && !is_mirror
}

/// Its worker does the rest.
async fn delete(shared: &Shared, pod: &StoredObject) -> Result<(), StoreError> {
    let (uid, now) = (pod.value.pointer("/metadata/uid").cloned(), shared.clock.wall());
    let written = shared.store.write(pod.key.clone(), move |present| {
        let same = present.filter(|present| present.value.pointer("/metadata/uid") == uid.as_ref());
        let next = same.filter(|present| has_ended(&present.value)).map(|present| {
            let mut next = Value::clone(&present.value);
            if let Some(metadata) = next.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("deletionTimestamp".to_owned(), now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
                metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
            }
            next
        });
        Ok::<_, std::convert::Infallible>((next.map_or(Change::Keep, Change::Put), ()))
    });
    match written.await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestNode, named_pod};

    #[tokio::test(start_paused = true)]
    async fn the_evicted_and_the_oldest_go_with_their_logs_when_too_many_have_ended() {
        let node = TestNode::start_with(|config| config.terminated_pod_gc_threshold = 2).await;
        node.runtime.exits_at_once("app", Some(0));
        let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "app", "image": "app:1" }] });
        for (name, day, reason) in [("new", 3, ""), ("old", 1, ""), ("held", 1, "Evicted"), ("evicted", 4, "Evicted")] {
            let mut pod = named_pod(name, &format!("u-{name}"), &spec);
            pod["metadata"]["creationTimestamp"] = format!("2026-01-0{day}T00:00:00Z").into();
            if !reason.is_empty() {
                pod["status"] = json!({ "phase": "Failed", "reason": reason });
            }
            if name == "held" {
                pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
            }
            node.create(&pod).await;
        }
        for name in ["new", "old"] {
            node.wait_for_phase(name, "Succeeded").await;
        }
        node.advance(21).await;
        node.wait_until_gone("evicted").await;
        assert!(node.get("old").is_some(), "two may stay, beside those from files");
        let mut next = named_pod("next", "u-next", &spec);
        next["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z".into();
        node.create(&next).await;
        node.wait_for_phase("next", "Succeeded").await;
        let logs = node.directory.path().join("logs/default_old_u-old");
        std::fs::create_dir_all(logs.join("app")).unwrap();
        node.advance(21).await;
        node.wait_until_gone("old").await;
        node.wait_until_clean(|| !logs.exists()).await;
        for name in ["new", "next", "held"] {
            assert!(node.get(name).is_some(), "{name}");
        }
    }
}
