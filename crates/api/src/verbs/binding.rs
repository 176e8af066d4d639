//! binding: another scheduler gives a Pod its node.

use bytes::Bytes;
use serde_json::{Value, json};
use spec::validation::{FieldError, FieldReason};
use store::{Change, StoredObject};

use crate::context::{Call, Context, refuse};
use crate::fields::{items_at, text_at};
use crate::http::body;
use crate::http::reply::Reply;
use crate::http::status::{self, ApiError};
use crate::verbs::metadata::{self, seconds, text};
use crate::verbs::options::dry_run;

/// Writes the node into the Pod; the agent then starts it.
pub async fn bind(call: &Call, name: &str, bytes: &Bytes) -> Result<Reply, ApiError> {
    let binding = body::decode(&call.headers, bytes)?;
    let given = text(&binding, "name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    let node = node_of(call, name, &binding)?;
    let (kind, pod, dry) = (call.kind, name.to_owned(), dry_run(&call.query)?);
    let uid = text(&binding, "uid").to_owned();
    let decide = move |present: Option<&StoredObject>| {
        let present = present.ok_or_else(|| ApiError::not_found(kind, &pod))?;
        let conflict = |why: String| Err(ApiError::conflict_at(kind, "binding", &pod, &why));
        let assigned = text_at(&present.value, "/spec/nodeName");
        if !uid.is_empty() && uid != text(&present.value, "uid") {
            return conflict(format!("Precondition failed: UID in precondition: {uid}"));
        }
        if !text(&present.value, "deletionTimestamp").is_empty() {
            return conflict(format!("pod {pod} is being deleted, cannot be assigned to a host"));
        }
        if !assigned.is_empty() {
            return conflict(format!("pod {pod} is already assigned to node {assigned:?}"));
        }
        if items_at(&present.value, "/spec/schedulingGates").next().is_some() {
            return conflict(format!("pod {pod} has non-empty .spec.schedulingGates"));
        }
        let next = if dry { None } else { bound(&present.value, &binding, &node) };
        Ok((next.map_or(Change::Keep, Change::Put), ()))
    };
    call.context.store.write(call.key(name), decide).await.map_err(refuse)?;
    Ok(status::created())
}

fn node_of(call: &Call, name: &str, binding: &Value) -> Result<String, ApiError> {
    let error = |field: &str, reason, value: Value, detail: String| {
        let error = FieldError { field: field.to_owned(), reason, value, detail };
        ApiError::invalid("Binding", "", name, &[error], "Binding")
    };
    let (kind, node) = (text_at(binding, "/target/kind"), text_at(binding, "/target/name"));
    if !matches!(kind, "" | "Node") {
        let detail = r#"supported values: "<empty>", "Node""#.to_owned();
        return Err(error("target.kind", FieldReason::NotSupported, json!(kind), detail));
    }
    match node {
        "" => Err(error("target.name", FieldReason::Required, Value::Null, String::new())),
        node if node != call.context.node_name => {
            let detail = format!("the only node is {:?}", call.context.node_name);
            Err(error("target.name", FieldReason::Invalid, json!(node), detail))
        }
        node => Ok(node.to_owned()),
    }
}

/// The Pod on its node, with the binding's labels and annotations, and the condition that tells of it.
fn bound(pod: &Value, binding: &Value, node: &str) -> Option<Value> {
    let mut pod = pod.clone();
    let spec = pod.as_object_mut()?.get_mut("spec")?.as_object_mut()?;
    spec.insert("nodeName".to_owned(), json!(node));
    for field in ["labels", "annotations"] {
        let Some(given) = binding.pointer(&format!("/metadata/{field}")).and_then(Value::as_object) else { continue };
        let metadata = metadata::of(&mut pod).ok()?;
        let present = metadata.entry(field).or_insert_with(|| json!({})).as_object_mut()?;
        present.extend(given.clone());
    }
    let status = pod.as_object_mut()?.entry("status").or_insert_with(|| json!({})).as_object_mut()?;
    let conditions = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut()?;
    conditions.retain(|condition| text_at(condition, "/type") != "PodScheduled");
    let now = seconds(Context::now());
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now}));
    Some(pod)
}
