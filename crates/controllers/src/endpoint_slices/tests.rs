//! EndpointSlices as they are computed, and as they follow the store.

use std::sync::Arc;

use serde_json::{Value, json};
use spec::Timestamp;
use spec::k8s_openapi::api::core::v1::Service;
use spec::k8s_openapi::api::discovery::v1::EndpointSlice;
use store::{Change, ObjectKey, Store, StoredObject};

use super::desired::endpoints_by_ports;
use super::packing::{SliceChange, pack};
use super::{PODS, SERVICES, SLICES};
use crate::Controllers;
use crate::pod::ServedPod;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn service(spec: &Value) -> Service {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "s1", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                 "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    });
    value["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

/// A Pod with the address 10.85.0.N and the named port 8080.
fn pod(number: usize, change: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": format!("p{number}"), "namespace": "default", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "edge", "containers": [{"ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.85.{}.{}", number / 200, 2 + number % 200)}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut pod, change);
    pod
}

fn merge(value: &mut Value, change: &Value) {
    match (value, change) {
        (Value::Object(value), Value::Object(change)) => {
            for (key, change) in change {
                merge(value.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change.clone(),
    }
}

fn stored(value: Value) -> StoredObject {
    let text = |pointer: &str| value.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let key = ObjectKey::namespaced(PODS, text("/metadata/namespace"), text("/metadata/name"));
    StoredObject { key: key.into(), revision: 1, json: Vec::new().into(), value: value.into() }
}

fn packed(service: &Service, pods: &[Value], present: &[EndpointSlice]) -> Vec<SliceChange> {
    let pods: Vec<StoredObject> = pods.iter().cloned().map(stored).collect();
    let pods: Vec<ServedPod<'_>> = pods.iter().map(ServedPod::new).collect();
    pack(service, endpoints_by_ports(service, &pods), present.to_vec(), now())
}

fn created(changes: &[SliceChange]) -> Vec<EndpointSlice> {
    let made = changes.iter().map(|change| match change {
        SliceChange::Create(slice) => slice.clone(),
        other => panic!("{other:?}"),
    });
    made.collect()
}

fn endpoints(slice: &EndpointSlice) -> Vec<(String, [bool; 3])> {
    let read = slice.endpoints.iter().flatten().map(|endpoint| {
        let conditions = endpoint.conditions.as_ref().unwrap();
        let all = [conditions.ready, conditions.serving, conditions.terminating];
        (endpoint.addresses[0].clone(), all.map(Option::unwrap))
    });
    read.collect()
}

#[test]
fn conditions_follow_readiness_and_deletion() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let table = [
        (json!({}), Some([true, true, false])),
        (not_ready.clone(), Some([false, false, false])),
        (deleted.clone(), Some([false, true, true])),
        (json!({"status": {"phase": "Succeeded"}}), None),
        (json!({"status": {"podIPs": null}}), None),
        (json!({"status": {"podIPs": null, "podIP": "10.85.0.9"}}), Some([true, true, false])),
    ];
    for (change, expected) in table {
        let slices = created(&packed(&service(&json!({})), &[pod(0, &change)], &[]));
        let found: Vec<_> = slices.iter().flat_map(endpoints).map(|(_, conditions)| conditions).collect();
        assert_eq!(found, Vec::from_iter(expected), "{change}");
    }
    let publishes = service(&json!({"publishNotReadyAddresses": true}));
    for change in [not_ready, deleted] {
        let slices = created(&packed(&publishes, &[pod(0, &change)], &[]));
        assert!(endpoints(&slices[0])[0].1[0], "{change}");
    }
}

#[test]
fn a_slice_says_whose_it_is_and_where_its_pods_are() {
    let own = service(&json!({}));
    let named = json!({"spec": {"hostname": "first", "subdomain": "web"}});
    let slices = created(&packed(&own, &[pod(0, &named)], &[]));
    let slice = serde_json::to_value(&slices[0]).unwrap();
    assert!(slice["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", "kubernetes.io/service-name": "web",
               "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(
        slice["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s1", "controller": true, "blockOwnerDeletion": true}])
    );
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.85.0.2"], "conditions": {"ready": true, "serving": true, "terminating": false},
                "hostname": "first", "nodeName": "edge",
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "p0", "uid": "u0"}}])
    );
    let headless = service(&json!({"clusterIP": "None", "ports": null}));
    let slices = created(&packed(&headless, &[pod(0, &json!({"spec": {"hostname": "a", "subdomain": "other"}}))], &[]));
    assert_eq!(slices[0].metadata.labels.as_ref().unwrap()["service.kubernetes.io/headless"], "");
    assert_eq!((&slices[0].ports, &slices[0].endpoints.as_ref().unwrap()[0].hostname), (&Some(Vec::new()), &None));
}

#[test]
fn pods_whose_named_port_differs_stand_apart() {
    let other =
        json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]}]}});
    let sidecar = json!({"spec": {"containers": [{}], "initContainers": [
        {"restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 7070}]}]}});
    let without =
        json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 1, "protocol": "UDP"}]}]}});
    let pods = [pod(0, &json!({})), pod(1, &other), pod(2, &sidecar), pod(3, &without), pod(4, &json!({}))];
    let slices = created(&packed(&service(&json!({})), &pods, &[]));
    let mut found: Vec<(Vec<i32>, usize)> = slices
        .iter()
        .map(|slice| (slice.ports.iter().flatten().filter_map(|port| port.port).collect(), endpoints(slice).len()))
        .collect();
    found.sort();
    assert_eq!(found, [(vec![], 1), (vec![7070], 1), (vec![8080], 2), (vec![9090], 1)]);
    let numbers = service(
        &json!({"ports": [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 53, "protocol": "UDP"}]}),
    );
    let slices = created(&packed(&numbers, &pods, &[]));
    assert_eq!(slices.len(), 1);
    assert_eq!(
        serde_json::to_value(&slices[0].ports).unwrap(),
        json!([{"name": "a", "port": 8080, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}])
    );
}

#[test]
fn a_change_of_one_pod_writes_one_slice() {
    let own = service(&json!({}));
    let mut pods: Vec<Value> = (0..250).map(|number| pod(number, &json!({}))).collect();
    let mut slices = created(&packed(&own, &pods, &[]));
    let sizes: Vec<usize> = slices.iter().map(|slice| endpoints(slice).len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(packed(&own, &pods, &slices), []);
    merge(&mut pods[7], &json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    let changes = packed(&own, &pods, &slices);
    let [SliceChange::Update(slice)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(slice.metadata.generation, Some(2));
    let place = slices.iter().position(|former| former.metadata.name == slice.metadata.name).unwrap();
    slices[place] = slice.clone();
    // A new Pod goes where there is room; nothing else is written.
    pods.push(pod(250, &json!({})));
    let changes = packed(&own, &pods, &slices);
    let [SliceChange::Update(slice)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(endpoints(slice).len(), 51);
    // Without Pods one empty slice stays, so that the Service is known to have none.
    let changes = packed(&own, &[], &slices);
    let deleted = changes.iter().filter(|change| matches!(change, SliceChange::Delete(_))).count();
    assert_eq!((changes.len(), deleted), (4, 3), "{changes:?}");
    let empty = created(&packed(&own, &[], &[]));
    assert_eq!((empty.len(), endpoints(&empty[0]).len()), (1, 0));
    assert_eq!(packed(&own, &[], &empty), []);
}

#[test]
fn slices_of_a_former_service_of_that_name_go() {
    let slices = created(&packed(&service(&json!({})), &[pod(0, &json!({}))], &[]));
    let mut next = service(&json!({}));
    next.metadata.uid = Some("s2".to_owned());
    let changes = packed(&next, &[pod(0, &json!({}))], &slices);
    assert!(matches!(changes.as_slice(), [SliceChange::Delete(_), SliceChange::Create(_)]), "{changes:?}");
}

struct Cluster {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let this = Self { store, _directory: directory };
        this.put(ObjectKey::cluster("namespaces", "default"), json!({"metadata": {"name": "default"}})).await;
        this
    }

    async fn put(&self, key: ObjectKey, value: Value) {
        self.store.write(key, |_| Ok::<_, std::convert::Infallible>((Change::Put(value), ()))).await.unwrap();
    }

    async fn put_pod(&self, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.put(ObjectKey::namespaced(PODS, "default", name), pod).await;
    }

    /// Waits until the ready addresses of all slices of `web` are these.
    async fn wait_for(&self, expected: &[&str]) {
        loop {
            let mut watch = self.store.watch(SLICES, None).unwrap();
            let slices = self.store.list(SLICES, Some("default")).objects;
            let ours = slices.iter().filter(|slice| slice.key.name.starts_with("web-"));
            let slices: Vec<EndpointSlice> =
                ours.map(|slice| serde_json::from_value((*slice.value).clone()).unwrap()).collect();
            let mut ready: Vec<String> = slices
                .iter()
                .flat_map(endpoints)
                .filter(|(_, [ready, ..])| *ready)
                .map(|(address, _)| address)
                .collect();
            ready.sort();
            if !slices.is_empty() && ready == expected {
                return;
            }
            let changed = tokio::time::timeout(std::time::Duration::from_secs(30), watch.next()).await;
            changed.unwrap_or_else(|_elapsed| panic!("{ready:?} instead of {expected:?}"));
        }
    }
}

#[tokio::test]
async fn slices_follow_pods_and_services_also_over_restarts() {
    let cluster = Cluster::start().await;
    let clock: crate::WallClock = Arc::new(now);
    let controllers = Controllers::start(cluster.store.clone(), nowhere(), Arc::clone(&clock));
    cluster.put_pod(pod(0, &json!({}))).await;
    let key = ObjectKey::namespaced(SERVICES, "default", "web");
    cluster.put(key.clone(), serde_json::to_value(service(&json!({}))).unwrap()).await;
    cluster.wait_for(&["10.85.0.2"]).await;
    cluster.put_pod(pod(1, &json!({}))).await;
    cluster.wait_for(&["10.85.0.2", "10.85.0.3"]).await;
    // Nobody is there when it changes; the next start makes up for it.
    controllers.shutdown().await;
    cluster.put_pod(pod(0, &json!({"metadata": {"labels": {"app": "other"}}}))).await;
    let _controllers = Controllers::start(cluster.store.clone(), nowhere(), clock);
    cluster.wait_for(&["10.85.0.3"]).await;
    // Somebody meddles with what is the controller's.
    let slices = cluster.store.list(SLICES, Some("default")).objects;
    let mut meddled = (*slices[0].value).clone();
    meddled["endpoints"] = json!([]);
    cluster.put(ObjectKey::clone(&slices[0].key), meddled).await;
    cluster.wait_for(&["10.85.0.3"]).await;
    // A slice of somebody else's for the same Service stays as it is.
    let mut foreign = (*slices[0].value).clone();
    foreign["metadata"]["name"] = "by-hand".into();
    foreign["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = "me".into();
    let foreign_key = ObjectKey::namespaced(SLICES, "default", "by-hand");
    cluster.put(foreign_key.clone(), foreign).await;
    cluster.put_pod(pod(1, &json!({"status": {"phase": "Failed"}}))).await;
    cluster.wait_for(&[]).await;
    let kept = cluster.store.get(&foreign_key).unwrap();
    assert_eq!(kept.value["endpoints"].as_array().unwrap().len(), 1);
}

fn nowhere() -> crate::LocalVolumes {
    let nothing = |_: &std::path::Path| Ok(());
    crate::LocalVolumes { directory: "/nowhere".into(), node_name: "box".to_owned(), make: nothing, remove: nothing }
}
