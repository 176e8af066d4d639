//! Events about the objects of controllers. The same word again is one Event with a count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Resource as _;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use spec::Timestamp;
use spec::decode::Writable as _;
use spec::k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::client::{Cause, Object};

/// As many words as are remembered; who says more than these begins anew.
const REMEMBERED: usize = 1024;

/// Whether an Event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something to look at.
    Warning,
}

/// One thing said of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word {
    uid: String,
    event_type: EventType,
    reason: &'static str,
    message: String,
}

/// Writes Events in the background: they hold up no pass.
#[derive(Clone)]
pub struct EventRecorder {
    kube: kube::Client,
    now: fn() -> Timestamp,
    said: Arc<Mutex<HashMap<Word, (String, i32)>>>,
}

impl EventRecorder {
    /// Writes through this connection.
    pub fn new(kube: kube::Client, now: fn() -> Timestamp) -> Self {
        Self { kube, now, said: Arc::default() }
    }

    /// Something went as it should.
    pub fn normal<K: Object>(&self, controller: &'static str, object: &K, reason: &'static str, message: String) {
        self.record(controller, object, EventType::Normal, reason, message);
    }

    /// Something went wrong.
    pub fn warning<K: Object>(&self, controller: &'static str, object: &K, reason: &'static str, message: String) {
        self.record(controller, object, EventType::Warning, reason, message);
    }

    fn record<K: Object>(
        &self,
        controller: &'static str,
        object: &K,
        event_type: EventType,
        reason: &'static str,
        message: String,
    ) {
        let meta = object.meta();
        let uid = meta.uid.clone().unwrap_or_default();
        let now = (self.now)();
        let word = Word { uid, event_type, reason, message };
        let (name, count) = self.count(&word, meta.name.as_deref().unwrap_or_default(), now);
        let event = event(controller, object, &word, &name, now);
        let kube = self.kube.clone();
        tokio::spawn(async move {
            if let Err(error) = write(&kube, &event, count).await {
                tracing::debug!(error = error.to_string(), event = name, "an event was not written");
            }
        });
    }

    /// The name of the Event for a word, and how often it has been said now.
    fn count(&self, word: &Word, object_name: &str, now: Timestamp) -> (String, i32) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= REMEMBERED && !said.contains_key(word) {
            said.clear();
        }
        let fresh = || (format!("{object_name}.{:x}", now.as_nanosecond()), 0);
        let (name, count) = said.entry(word.clone()).or_insert_with(fresh);
        *count += 1;
        (name.clone(), *count)
    }
}

/// A new Event, or the count of one that is there.
async fn write(kube: &kube::Client, event: &Event, count: i32) -> Result<(), Cause> {
    let request = Request::new(Event::url_path(&(), event.metadata.namespace.as_deref()));
    let request = if count == 1 {
        request.create(&PostParams::default(), serde_json::to_vec(&event.write()?)?)?
    } else {
        let patch = Patch::Merge(json!({"count": count, "lastTimestamp": event.last_timestamp}));
        request.patch(event.metadata.name.as_deref().unwrap_or_default(), &PatchParams::default(), &patch)?
    };
    kube.request::<Value>(request).await?;
    Ok(())
}

fn event<K: Object>(controller: &'static str, object: &K, word: &Word, name: &str, now: Timestamp) -> Event {
    let meta = object.meta();
    let event_type = match word.event_type {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: meta.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        },
        reason: Some(word.reason.to_owned()),
        message: Some(word.message.clone()),
        type_: Some(event_type.to_owned()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(controller.to_owned()), host: None }),
        reporting_component: Some(controller.to_owned()),
        ..Event::default()
    }
}
