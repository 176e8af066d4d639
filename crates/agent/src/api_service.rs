//! The Service `kubernetes`: by it, and by the variables that follow from it, containers find the API.
//!
//! Its address is the one on which the API listens for Pods, so it works without anything that forwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spec::Timestamp;
use store::{Change, ObjectKey, Store, StoreError, WriteError};

use crate::agent::Shared;
use spec::ids::random_uuid;

/// Resource name of Services in the store.
pub const SERVICES: &str = "services";
/// Name of the Service, and of all that belongs to it.
pub const NAME: &str = "kubernetes";
/// Where it is.
pub const NAMESPACE: &str = "default";

/// The resources that describe where the API is.
const RESOURCES: [&str; 3] = [SERVICES, "endpointslices", "endpoints"];
/// Wait after a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// The store's name of the object of that resource.
pub fn key(resource: &str) -> ObjectKey {
    ObjectKey::namespaced(resource, NAMESPACE, NAME)
}

/// Writes the Service and its endpoints, where they are not as they should be.
pub async fn write(store: &Store, api: SocketAddr, now: Timestamp) -> Result<(), StoreError> {
    for (resource, object) in RESOURCES.into_iter().zip(objects(api, now)) {
        let written = store.write(key(resource), move |present| {
            let next = merge(present.map(|present| &*present.value), object);
            Ok::<_, std::convert::Infallible>((next.map_or(Change::Keep, Change::Put), ()))
        });
        match written.await {
            Ok(_) => {}
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Writes them again whenever somebody changes or removes one.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let Some(api) = shared.config.api else { return };
    loop {
        let watches =
            RESOURCES.into_iter().map(|resource| shared.store.watch(resource, None)).collect::<Result<Vec<_>, _>>();
        let Ok(mut watches) = watches else { continue };
        // What came before these watches is made up for.
        let mut outcome = write(&shared.store, api, shared.clock.wall()).await;
        while outcome.is_ok() {
            let changes = watches.iter_mut().map(|watch| Box::pin(watch.next()));
            let (Some(event), _, _) = futures::future::select_all(changes).await else { break };
            let key = &event.object.key;
            if key.name == NAME && key.namespace.as_deref() == Some(NAMESPACE) {
                outcome = write(&shared.store, api, shared.clock.wall()).await;
            }
        }
        match outcome {
            // The store is closed: nothing will come.
            Ok(()) if watches.iter().all(|watch| watch.expired().is_none()) => return,
            Ok(()) => {}
            Err(StoreError::Closed { .. }) => return,
            Err(error) => {
                tracing::warn!(error = %crate::volumes::chain(&error), "cannot write where the API is");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The object with the identity that it has, and what others have written beside what is ours; `None` if all is as it should be.
fn merge(present: Option<&Value>, object: Value) -> Option<Value> {
    let Some(present) = present else { return Some(object) };
    let mut next = present.clone();
    for (field, value) in object.as_object()?.iter().filter(|(field, _)| *field != "metadata") {
        next.as_object_mut()?.insert(field.clone(), value.clone());
    }
    let labels = next.get_mut("metadata")?.as_object_mut()?.entry("labels").or_insert_with(|| json!({}));
    for (name, value) in object.pointer("/metadata/labels")?.as_object()? {
        labels.as_object_mut()?.insert(name.clone(), value.clone());
    }
    (next != *present).then_some(next)
}

fn objects(api: SocketAddr, now: Timestamp) -> [Value; 3] {
    let (address, port) = (api.ip().to_string(), api.port());
    let family = if api.is_ipv4() { "IPv4" } else { "IPv6" };
    let metadata = |labels: Value| {
        json!({
            "name": NAME, "namespace": NAMESPACE, "uid": random_uuid(), "labels": labels,
            "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        })
    };
    let port_of_endpoint = json!({"name": "https", "port": port, "protocol": "TCP"});
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": metadata(json!({"component": "apiserver", "provider": "kubernetes"})),
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
                "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "ports": [{"name": "https", "port": port, "protocol": "TCP", "targetPort": port}],
            },
            "status": {"loadBalancer": {}},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata(json!({"kubernetes.io/service-name": NAME})),
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [port_of_endpoint],
        }),
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
            "subsets": [{"addresses": [{"ip": address}], "ports": [port_of_endpoint]}],
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNode;

    #[tokio::test(start_paused = true)]
    async fn the_service_is_there_from_the_start_and_comes_back() {
        let node = TestNode::start_with(|config| config.api = Some("10.85.0.1:6440".parse().unwrap())).await;
        let service = |node: &TestNode| node.store.get(&key(SERVICES));
        let first = service(&node).unwrap();
        assert_eq!(first.value.pointer("/spec/clusterIP").unwrap(), "10.85.0.1");
        let mut watch = node.store.watch(SERVICES, None).unwrap();
        let remove = |_: Option<&store::StoredObject>| Ok::<_, std::convert::Infallible>((Change::Delete, ()));
        node.store.write(key(SERVICES), remove).await.unwrap();
        while service(&node).is_none() {
            watch.next().await.unwrap();
        }
        let mut wrong = (*service(&node).unwrap().value).clone();
        wrong["spec"]["clusterIP"] = "192.0.2.1".into();
        wrong["metadata"]["labels"]["mine"] = "yes".into();
        node.put(SERVICES, wrong).await;
        loop {
            let found = service(&node).unwrap();
            if found.value["spec"]["clusterIP"] == "10.85.0.1" {
                assert_eq!(found.value["metadata"]["labels"]["mine"], "yes");
                break;
            }
            watch.next().await.unwrap();
        }
    }
}
