//! The Services `kubernetes` and `kube-dns`: by them containers find the API and ask for names, as in any cluster.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use spec::Timestamp;
use store::{Change, ObjectKey, Store, StoreError, WriteError};

use crate::agent::Shared;
use crate::config::{AgentConfig, ServicePlace};
use spec::ids::random_uuid;

/// Resource name of Services in the store.
pub const SERVICES: &str = "services";
/// Name of the Service, and of all that belongs to it.
pub const NAME: &str = "kubernetes";
/// Where it is.
pub const NAMESPACE: &str = "default";

/// The resources that describe where a server of ours is.
const RESOURCES: [&str; 3] = [SERVICES, "endpointslices", "endpoints"];
/// Wait after a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// The store's name of the object of that resource.
pub fn key(resource: &str) -> ObjectKey {
    ObjectKey::namespaced(resource, NAMESPACE, NAME)
}

/// Writes the Services and their endpoints, where they are not as they should be.
pub async fn write(store: &Store, config: &AgentConfig, now: Timestamp) -> Result<(), StoreError> {
    for own in own_services(config) {
        for (resource, object) in RESOURCES.into_iter().zip(own.objects(now)) {
            let key = ObjectKey::namespaced(resource, own.namespace, own.name);
            let written = store.write(key, move |present| {
                let next = merge(present.map(|present| &*present.value), object);
                Ok::<_, std::convert::Infallible>((next.map_or(Change::Keep, Change::Put), ()))
            });
            match written.await {
                Ok(_) => {}
                Err(WriteError::Refused(never)) => match never {},
                Err(WriteError::Store(error)) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Writes them again whenever somebody changes or removes one.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let own = own_services(&shared.config);
    if own.is_empty() {
        return;
    }
    let is_own =
        |key: &ObjectKey| own.iter().any(|own| key.name == own.name && key.namespace.as_deref() == Some(own.namespace));
    loop {
        let Ok(mut watches) = shared.store.watch_all(RESOURCES) else { continue };
        // What came before these watches is made up for.
        let mut outcome = write(&shared.store, &shared.config, shared.clock.wall()).await;
        while outcome.is_ok() {
            let Some(event) = watches.next().await else { break };
            if is_own(&event.object.key) {
                outcome = write(&shared.store, &shared.config, shared.clock.wall()).await;
            }
        }
        match outcome {
            // The store is closed: nothing will come.
            Ok(()) if !watches.is_expired() => return,
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

/// A Service of this daemon's own.
struct OwnService {
    namespace: &'static str,
    name: &'static str,
    place: ServicePlace,
    labels: Value,
    /// Names and protocols of its ports.
    ports: &'static [(&'static str, &'static str)],
}

fn own_services(config: &AgentConfig) -> Vec<OwnService> {
    let api = config.api.map(|place| OwnService {
        namespace: NAMESPACE,
        name: NAME,
        place,
        labels: json!({"component": "apiserver", "provider": "kubernetes"}),
        ports: &[("https", "TCP")],
    });
    let dns = config.dns.map(|place| OwnService {
        namespace: "kube-system",
        name: "kube-dns",
        place,
        labels: json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}),
        ports: &[("dns", "UDP"), ("dns-tcp", "TCP")],
    });
    api.into_iter().chain(dns).collect()
}

impl OwnService {
    fn objects(&self, now: Timestamp) -> [Value; 3] {
        let Self { namespace, name, place: ServicePlace { service, server }, labels, ports } = self;
        let (address, family) = (service.ip().to_string(), if service.is_ipv4() { "IPv4" } else { "IPv6" });
        let metadata = |labels: &Value| {
            json!({
                "name": name, "namespace": namespace, "uid": random_uuid(), "labels": labels,
                "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            })
        };
        let each = |port: &dyn Fn(&str, &str) -> Value| {
            Value::Array(ports.iter().map(|(name, protocol)| port(name, protocol)).collect())
        };
        let of_service = each(
            &|name, protocol| json!({"name": name, "port": service.port(), "protocol": protocol, "targetPort": server.port()}),
        );
        let of_endpoints = each(&|name, protocol| json!({"name": name, "port": server.port(), "protocol": protocol}));
        [
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata(labels),
                "spec": {
                    "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
                    "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
                    "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "ports": of_service,
                },
                "status": {"loadBalancer": {}},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": metadata(&json!({"kubernetes.io/service-name": name})), "addressType": family,
                "endpoints": [{"addresses": [server.ip().to_string()], "conditions": {"ready": true}}],
                "ports": of_endpoints,
            }),
            json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": metadata(&json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
                "subsets": [{"addresses": [{"ip": server.ip().to_string()}], "ports": of_endpoints}],
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNode;

    #[tokio::test(start_paused = true)]
    async fn the_service_is_there_from_the_start_and_comes_back() {
        let node = TestNode::start_with(|config| {
            let (service, server) = ("10.96.0.1:443".parse().unwrap(), "10.85.0.1:6440".parse().unwrap());
            config.api = Some(ServicePlace { service, server });
            let (service, server) = ("10.96.0.10:53".parse().unwrap(), "10.85.0.1:5300".parse().unwrap());
            config.dns = Some(ServicePlace { service, server });
        })
        .await;
        let service = |node: &TestNode| node.store.get(&key(SERVICES));
        let first = service(&node).unwrap();
        assert_eq!(first.value.pointer("/spec/clusterIP").unwrap(), "10.96.0.1");
        let slice = node.store.get(&key("endpointslices")).unwrap();
        assert_eq!(slice.value["endpoints"][0]["addresses"], json!(["10.85.0.1"]));
        let dns = node.store.get(&ObjectKey::namespaced(SERVICES, "kube-system", "kube-dns")).unwrap();
        assert_eq!(
            dns.value["spec"]["ports"][1],
            json!({"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 5300})
        );
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
            if found.value["spec"]["clusterIP"] == "10.96.0.1" {
                assert_eq!(found.value["metadata"]["labels"]["mine"], "yes");
                break;
            }
            watch.next().await.unwrap();
        }
    }
}
