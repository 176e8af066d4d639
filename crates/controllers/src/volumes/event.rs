//! What claims and volumes are told by events: each word once, until it is forgotten.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Value, json};
use spec::decode::Writable;
use spec::k8s_openapi::Metadata;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use store::ObjectKey;

use crate::Context;
use crate::metadata::seconds;
use crate::work::Unfinished;

/// Who says so, as in Kubernetes.
const CONTROLLER: &str = "persistentvolume-controller";
/// Where events about objects without a namespace are.
const DEFAULT_NAMESPACE: &str = "default";

/// One word about one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// `involvedObject`.
    about: Value,
    event_type: &'static str,
    reason: &'static str,
    message: String,
}

impl Said {
    /// As it should be.
    pub fn normal<T: Metadata<Ty = ObjectMeta> + Writable>(
        object: &T,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { event_type: "Normal", ..Self::warning(object, reason, message) }
    }

    /// Something to look at.
    pub fn warning<T: Metadata<Ty = ObjectMeta> + Writable>(
        object: &T,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let metadata = object.metadata();
        let about = json!({
            "kind": T::KIND,
            "apiVersion": T::API_VERSION,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        });
        Self { about, event_type: "Warning", reason, message: message.into() }
    }

    /// The reason.
    #[cfg(test)]
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// Writes it, unless the same was said before.
pub async fn say(context: &Context, said: Said) -> Result<(), Unfinished> {
    let text = |field: &str| said.about.get(field).and_then(Value::as_str).unwrap_or_default();
    let namespace = Some(text("namespace")).filter(|namespace| !namespace.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
    let mut hasher = DefaultHasher::new();
    (text("uid"), said.reason, &said.message).hash(&mut hasher);
    let name = format!("{}.{:016x}", text("name"), hasher.finish());
    let now: Time = seconds((context.now)());
    let event = json!({
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": spec::ids::random_uuid(),
            "creationTimestamp": now,
        },
        "involvedObject": said.about,
        "type": said.event_type,
        "reason": said.reason,
        "message": said.message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": CONTROLLER},
        "reportingComponent": CONTROLLER,
        "reportingInstance": "",
    });
    let key = ObjectKey::namespaced(store::EVENTS, namespace, name);
    Ok(context.write_as_seen(key, None, Some(event)).await?)
}
