//! The node's sign of life: a Lease in `kube-node-lease` that it renews every ten seconds (KEP-589).
//!
//! It is for those who watch, so it stays in memory: a quiet machine writes nothing to its disk for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spec::Timestamp;
use store::{Change, ObjectKey, StoreError, WriteError};

use crate::agent::Shared;
use spec::ids::random_uuid;

const NAMESPACE: &str = "kube-node-lease";
/// The kubelet's `nodeLeaseDurationSeconds`: who has not renewed it for so long counts as gone.
const DURATION_SECONDS: u32 = 40;
/// A quarter of that (kubelet, `nodeLeaseRenewIntervalFraction`).
pub(crate) const RENEW: Duration = Duration::from_secs(10);

/// Renews it until the agent ends.
pub(crate) async fn keep_lease(shared: Arc<Shared>) {
    loop {
        if let Err(error) = renew(&shared).await {
            tracing::warn!(error = %crate::volumes::chain(&error), "cannot renew the lease of the node");
        }
        tokio::time::sleep(shared.config.lease_interval).await;
    }
}

async fn renew(shared: &Shared) -> Result<(), StoreError> {
    let (name, now) = (shared.config.node_name.clone(), shared.clock.wall());
    let node = shared.store.get(&ObjectKey::cluster("nodes", &name));
    let node_uid = node.and_then(|node| Some(node.value.pointer("/metadata/uid")?.as_str()?.to_owned()));
    let key = ObjectKey::namespaced("leases", NAMESPACE, &name);
    let written = shared.store.write_in_memory(key, move |present| {
        let metadata = present.and_then(|present| present.value.get("metadata").cloned());
        let lease = lease(&name, metadata, node_uid.as_deref(), now);
        Ok::<_, std::convert::Infallible>((Change::Put(lease), ()))
    });
    match written.await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
}

/// As the kubelet writes it; what others wrote into its metadata stays.
fn lease(name: &str, metadata: Option<Value>, node_uid: Option<&str>, now: Timestamp) -> Value {
    let created = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let fresh = json!({ "name": name, "namespace": NAMESPACE, "uid": random_uuid(), "creationTimestamp": created });
    let mut metadata = metadata.unwrap_or(fresh);
    if let (Some(uid), Some(fields)) = (node_uid, metadata.as_object_mut()) {
        let owner = json!([{ "apiVersion": "v1", "kind": "Node", "name": name, "uid": uid }]);
        fields.entry("ownerReferences").or_insert(owner);
    }
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        },
    })
}
