//! The API as a controller uses it.

use futures::{Stream, StreamExt as _};
use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy, WatchParams,
};
use kube::core::request::Error as RequestError;
use kube::core::{NamespaceResourceScope, Request, WatchEvent};
use serde_json::{Value, json};
use spec::Timestamp;
use spec::decode::{DecodeError, Readable, Writable, read};
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
    cause: Box<Cause>,
}

/// What went wrong on the way to an object.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The API refused, or was not reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// It was not asked.
    #[error("the request cannot be written")]
    Request(#[from] RequestError),
    /// What is to be sent is no JSON.
    #[error("the object cannot be written")]
    Encode(#[from] serde_json::Error),
    /// It answered with something else.
    #[error("the answer cannot be read")]
    Decode(#[from] DecodeError),
}

impl ApiFailure {
    /// What the API said.
    pub fn word(&self) -> String {
        match &*self.cause {
            Cause::Api(kube::Error::Api(status)) => status.message.clone(),
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
        matches!(&*self.cause, Cause::Api(kube::Error::Api(status)) if status.reason == "AlreadyExists")
    }

    fn code(&self) -> u16 {
        if let Cause::Api(kube::Error::Api(status)) = &*self.cause { status.code } else { 0 }
    }
}

/// A kind of objects that live in namespaces.
pub trait Object:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + Readable
    + Writable
    + Send
    + Sync
    + 'static
{
}

impl<K> Object for K where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Readable
        + Writable
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

    /// For watches of metadata.
    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }

    /// An object, if it is there.
    pub async fn get<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiFailure> {
        let got = self.ask::<K>(namespace, |request| request.get(name, &GetParams::default())).await;
        match got.and_then(|object| Ok(read(&object)?)) {
            Ok(object) => Ok(Some(object)),
            Err(Cause::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(None),
            Err(cause) => Err(failed::<K>("read", namespace, name)(cause)),
        }
    }

    /// All objects of a namespace.
    pub async fn list<K: Object>(&self, namespace: &str) -> Result<Vec<K>, ApiFailure> {
        let list = self.ask::<K>(namespace, |request| request.list(&ListParams::default())).await;
        list.and_then(|list| items(&list)).map_err(failed::<K>("list", namespace, ""))
    }

    /// All objects of all namespaces, and what happens to them after that.
    pub async fn follow<K: Object>(
        &self,
    ) -> Result<(Vec<K>, impl Stream<Item = Result<WatchEvent<K>, Cause>> + use<K>), Cause> {
        let all = Request::new(K::url_path(&(), None));
        let list: Value = self.kube.request(all.list(&ListParams::default())?).await?;
        let revision = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let changes = self.kube.request_events::<Value>(all.watch(&WatchParams::default(), revision)?).await?;
        let read_change = |change| {
            Ok(match change? {
                WatchEvent::Added(object) => WatchEvent::Added(read(&object)?),
                WatchEvent::Modified(object) => WatchEvent::Modified(read(&object)?),
                WatchEvent::Deleted(object) => WatchEvent::Deleted(read(&object)?),
                WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
                WatchEvent::Error(status) => WatchEvent::Error(status),
            })
        };
        Ok((items(&list)?, changes.map(read_change)))
    }

    /// A new object.
    pub async fn create<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiFailure> {
        let meta = object.meta();
        let name = meta.name.as_ref().or(meta.generate_name.as_ref()).cloned().unwrap_or_default();
        self.send::<K>(namespace, object, |request, body| request.create(&params(), body))
            .await
            .map_err(failed::<K>("create", namespace, &name))
    }

    /// The next version of an object, unless somebody else has changed it since it was read.
    pub async fn replace<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiFailure> {
        let name = name_of(object.meta());
        self.send::<K>(namespace, object, |request, body| request.replace(name, &params(), body))
            .await
            .map_err(failed::<K>("update", namespace, name))
    }

    /// The next status of an object, unless somebody else has changed it since it was read.
    pub async fn replace_status<K: Object>(&self, namespace: &str, object: &K) -> Result<K, ApiFailure> {
        let name = name_of(object.meta());
        self.send::<K>(namespace, object, |request, body| request.replace_subresource("status", name, &params(), body))
            .await
            .map_err(failed::<K>("update the status of", namespace, name))
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
        let patched = self.ask::<K>(namespace, |request| request.patch_metadata(name, &params, &patch)).await;
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
        let deleted = self.ask::<K>(namespace, |request| request.delete(name, &params)).await;
        gone_is_well(deleted.map(drop).map_err(failed::<K>("delete", namespace, name)))
    }

    async fn send<K: Object>(
        &self,
        namespace: &str,
        object: &K,
        form: impl FnOnce(&Request, Vec<u8>) -> Result<http::Request<Vec<u8>>, RequestError>,
    ) -> Result<K, Cause> {
        let body = serde_json::to_vec(&object.write()?)?;
        Ok(read(&self.ask::<K>(namespace, |request| form(request, body)).await?)?)
    }

    /// Answers are taken as they come: kube's own typed calls would have each kind's reading in the program once more.
    async fn ask<K: Object>(
        &self,
        namespace: &str,
        form: impl FnOnce(&Request) -> Result<http::Request<Vec<u8>>, RequestError>,
    ) -> Result<Value, Cause> {
        Ok(self.kube.request(form(&Request::new(K::url_path(&(), Some(namespace))))?).await?)
    }
}

fn items<K: Object>(list: &Value) -> Result<Vec<K>, Cause> {
    let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
    Ok(items.map(read).collect::<Result<_, DecodeError>>()?)
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

fn failed<K: Object>(verb: &'static str, namespace: &str, name: &str) -> impl FnOnce(Cause) -> ApiFailure {
    let (kind, namespace, name) = (K::kind(&()).into_owned(), namespace.to_owned(), name.to_owned());
    move |cause| ApiFailure { verb, kind, namespace, name, cause: Box::new(cause) }
}
