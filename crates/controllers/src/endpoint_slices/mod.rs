//! EndpointSlices: for each Service with a selector, the addresses of its Pods, and whether they are ready.
//!
//! As Kubernetes' endpointslice controller writes them, under its name, so that tools find what they know. The slices of
//! others, such as a person's own for a Service without selector, are left alone.

mod desired;
mod packing;

use serde::Deserialize as _;
use spec::decode::{Writable as _, read};
use spec::k8s_openapi::api::core::v1::Service;
use spec::k8s_openapi::api::discovery::v1::EndpointSlice;
use store::{ObjectKey, StoreError, StoredObject, WatchEvent};

use crate::Context;
use crate::pod::ServedPod;
use crate::work::{self, Controller, Subject, Unfinished};
use desired::{MANAGED_BY, MANAGER, SERVICE_NAME, endpoints_by_ports};
use packing::{SliceChange, pack};

const SERVICES: &str = "services";
const PODS: &str = "pods";
const SLICES: &str = "endpointslices";

/// Keeps the slices of all Services true.
pub async fn run(context: Context) {
    let store = context.store.clone();
    work::run(&store, Slices(context)).await;
}

struct Slices(Context);

impl Controller for Slices {
    const RESOURCES: &'static [&'static str] = &[SERVICES, PODS, SLICES];

    fn concerned(&self, event: &WatchEvent) -> Vec<Subject> {
        match event.object.key.resource.as_str() {
            SERVICES => vec![Subject::of(&event.object)],
            SLICES => [Some(&event.object), event.previous.as_ref()].into_iter().flatten().filter_map(owner).collect(),
            _ => self.of_pod(event),
        }
    }

    fn all(&self) -> Vec<Subject> {
        self.0.store.list(SERVICES, None).objects.iter().map(Subject::of).collect()
    }

    async fn reconcile(&self, subject: &Subject) -> Result<(), Unfinished> {
        let changes = self.missing(subject);
        futures::future::try_join_all(changes.into_iter().map(|change| self.apply(change))).await?;
        Ok(())
    }
}

impl Slices {
    /// The Services that select the Pod as it is or as it was.
    fn of_pod(&self, event: &WatchEvent) -> Vec<Subject> {
        let mut services = self.0.store.list(SERVICES, event.object.key.namespace.as_deref()).objects;
        services.retain(|service| service.mentions("\"selector\""));
        if services.is_empty() {
            return Vec::new();
        }
        let pods: Vec<ServedPod<'_>> =
            [Some(&event.object), event.previous.as_ref()].into_iter().flatten().map(ServedPod::new).collect();
        let selects = |service: &&StoredObject| {
            selector(&service.value.tree()).is_some_and(|selector| pods.iter().any(|pod| pod.matches(&selector)))
        };
        services.iter().filter(selects).map(Subject::of).collect()
    }

    fn missing(&self, subject: &Subject) -> Vec<SliceChange> {
        let store = &self.0.store;
        let key = ObjectKey::namespaced(SERVICES, &subject.pod_namespace, &subject.name);
        let Some(service) = store.get(&key).and_then(|stored| read::<Service>(&stored.value).ok()) else {
            // Its slices go with it: it owns them.
            return Vec::new();
        };
        let Some(selector) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else {
            return Vec::new();
        };
        let Some(selector) = selector.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            return Vec::new();
        };
        if service.metadata.deletion_timestamp.is_some() || self.is_ending(&subject.pod_namespace) {
            return Vec::new();
        }
        let pods = store.list(PODS, Some(&subject.pod_namespace)).objects;
        // Only those that may be meant are read.
        let mention = |pod: &&StoredObject| selector.values().all(|value| pod.mentions(value));
        let pods = pods.iter().filter(mention).map(ServedPod::new);
        let pods: Vec<ServedPod<'_>> = pods.filter(|pod| pod.matches(selector)).collect();
        let slices = store.list(SLICES, Some(&subject.pod_namespace)).objects;
        let ours = slices.iter().filter(|slice| owner(slice).as_ref() == Some(subject));
        let ours: Vec<EndpointSlice> = ours.filter_map(|slice| read(&slice.value).ok()).collect();
        pack(&service, endpoints_by_ports(&service, &pods), ours, (self.0.now)())
    }

    fn is_ending(&self, pod_namespace: &str) -> bool {
        let found = self.0.store.get(&ObjectKey::cluster("namespaces", pod_namespace));
        found.is_none_or(|found| found.value.pointer("/metadata/deletionTimestamp").is_some())
    }

    /// Does it unless the slice has changed meanwhile: then that change brings the Service here again.
    async fn apply(&self, change: SliceChange) -> Result<(), StoreError> {
        let (key, seen, wanted) = match change {
            SliceChange::Create(slice) => (key_of(&slice), None, Some(slice)),
            SliceChange::Update(slice) => (key_of(&slice), slice.metadata.resource_version.clone(), Some(slice)),
            SliceChange::Delete(slice) => (key_of(&slice), slice.metadata.resource_version, None),
        };
        let wanted = wanted.and_then(|mut slice| {
            slice.metadata.resource_version = None;
            slice.write().ok()
        });
        self.0.write_as_seen(key, seen, wanted).await
    }
}

fn key_of(slice: &EndpointSlice) -> ObjectKey {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ObjectKey::namespaced(SLICES, text(&slice.metadata.namespace), text(&slice.metadata.name))
}

fn selector(service: &serde_json::Value) -> Option<std::collections::BTreeMap<String, String>> {
    std::collections::BTreeMap::deserialize(service.pointer("/spec/selector")?).ok()
}

/// The Service that a slice of this controller is for.
fn owner(slice: &StoredObject) -> Option<Subject> {
    let labels = slice.value.pointer("/metadata/labels")?;
    let text = |label: &str| labels.get(label)?.as_str();
    (text(MANAGED_BY) == Some(MANAGER)).then(|| Subject::named(slice, text(SERVICE_NAME).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
