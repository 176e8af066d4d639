//! The API as a controller uses it.

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spec::Timestamp;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::events::EventRecorder;

/// Who writes, in `metadata.managedFields` and in Events.
const MANAGER: &str = "monopod-workloads";

/// Why a pass did not get to its end.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {kind} {name:?} in namespace {namespace:?}")]
pub struct ApiFailure {
    verb: &'static str,
    kind: String,
    namespace: String,
    name: String,
    #[source]
    cause: Box<kube::Error>,
}

impl ApiFailure {
    /// What the API said.
    pub fn word(&self) -> String {
        match &*self.cause {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the API is in trouble: it answers, and neither does what it was asked nor refuses this one object. A connection
    /// breaks off when the daemon itself ends.
    pub fn is_trouble(&self) -> bool {
        self.code() >= 500
    }

    /// Whether there is an object of that name already.
    pub fn is_taken(&self) -> bool {
        matches!(&*self.cause, kube::Error::Api(status) if status.reason == "AlreadyExists")
    }

    fn code(&self) -> u16 {
        if let kube::Error::Api(status) = &*self.cause { status.code } else { 0 }
    }
}

/// A kind of objects that live in namespaces.
pub trait Object:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// The API of one daemon.
#[derive(Clone)]
pub struct Client {
    kube: kube::Client,
    events: EventRecorder,
    now: fn() -> Timestamp,
}

impl Client {
    /// Speaks through this connection; `now` is the wall clock.
    pub fn new(kube: kube::Client, now: fn() -> Timestamp) -> Self {
        let events = EventRecorder::new(kube.clone(), now);
        Self { kube, events, now }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Where Events go.
    pub fn events(&self) -> &EventRecorder {
        &self.events
    }

    /// For watches.
    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }

    /// An object, if it is there.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiFailure> {
        self.api::<K>(namespace).get_opt(name).await.map_err(failed::<K>("read", namespace, name))
    }

    /// All objects of a namespace.
    pub async fn list<K: Object>(&self, namespace: &str) -> Result<Vec<K>, ApiFailure> {
        let list = self.api::<K>(namespace).list(&ListParams::default()).await;
        list.map(|list| list.items).map_err(failed::<K>("list", namespace, ""))
    }

    /// A new object.
    pub async fn create<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiFailure> {
        let meta = object.meta();
        let name = meta.name.as_ref().or(meta.generate_name.as_ref()).cloned().unwrap_or_default();
        let created = self.api::<K>(namespace).create(&params(), object).await;
        created.map_err(failed::<K>("create", namespace, &name))
    }

    /// The next version of an object, unless somebody else has changed it since it was read.
    pub async fn replace<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiFailure> {
        let name = name_of(object.meta());
        let replaced = self.api::<K>(namespace).replace(name, &params(), object).await;
        replaced.map_err(failed::<K>("update", namespace, name))
    }

    /// The next status of an object, unless somebody else has changed it since it was read.
    pub async fn replace_status<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiFailure> {
        let name = name_of(object.meta());
        let replaced = self.api::<K>(namespace).replace_status(name, &params(), object).await;
        replaced.map_err(failed::<K>("update the status of", namespace, name))
    }

    /// Changes an object's metadata, provided that it is still the same object. One that is gone needs no change.
    pub async fn patch_meta<K: Object>(
        &self,
        namespace: &str,
        meta: &ObjectMeta,
        change: Value,
    ) -> Result<(), ApiFailure> {
        let name = name_of(meta);
        let mut change = change;
        if let Some(fields) = change.as_object_mut() {
            fields.insert("uid".to_owned(), json!(meta.uid));
        }
        let patch = Patch::Merge(json!({"metadata": change}));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.api::<K>(namespace).patch_metadata(name, &params, &patch).await;
        gone_is_well(patched.map(drop).map_err(failed::<K>("change", namespace, name)))
    }

    /// Deletes an object, provided that it is still the same. One that is gone is well, too.
    pub async fn delete<K: Object>(
        &self,
        namespace: &str,
        meta: &ObjectMeta,
        propagation: PropagationPolicy,
    ) -> Result<(), ApiFailure> {
        let name = name_of(meta);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: meta.uid.clone(), resource_version: None }),
            propagation_policy: Some(propagation),
            ..DeleteParams::default()
        };
        let deleted = self.api::<K>(namespace).delete(name, &params).await;
        gone_is_well(deleted.map(drop).map_err(failed::<K>("delete", namespace, name)))
    }

    fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.kube.clone(), namespace)
    }
}

/// A failure that says that the object is gone, or is another one now.
fn gone_is_well(outcome: Result<(), ApiFailure>) -> Result<(), ApiFailure> {
    match outcome {
        Err(failure) if matches!(failure.code(), 404 | 409) => Ok(()),
        other => other,
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn failed<K: Object>(verb: &'static str, namespace: &str, name: &str) -> impl FnOnce(kube::Error) -> ApiFailure {
    let (kind, namespace, name) = (K::kind(&()).into_owned(), namespace.to_owned(), name.to_owned());
    move |cause| ApiFailure { verb, kind, namespace, name, cause: Box::new(cause) }
}
