//! What the tests of this crate share.

use serde_json::Value;
use std::sync::Arc;
use store::{ObjectKey, StoredObject};

use crate::desired::DesiredPod;

/// Reads a pod as if it came from the store.
pub fn desired_pod(pod: &Value) -> DesiredPod {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let stored = StoredObject {
        key: ObjectKey::namespaced("pods", text("/metadata/namespace"), text("/metadata/name")),
        revision: 1,
        value: Arc::new(pod.clone()),
        json: serde_json::to_vec(pod).unwrap().into(),
    };
    DesiredPod::read(&stored).unwrap()
}
