//! eviction (policy/v1): a Pod is asked to go, which its status then tells. There are no disruption budgets here.

use bytes::Bytes;
use serde_json::{Value, json};
use store::{Change, StoredObject};

use crate::context::{Call, Context, refuse};
use crate::fields::text_at;
use crate::http::body;
use crate::http::reply::Reply;
use crate::http::status::{self, ApiError};
use crate::verbs::delete::{DeleteOptions, delete_one};
use crate::verbs::metadata::{self, seconds, text};

/// Marks the Pod as one that is disrupted, and deletes it.
pub async fn evict(call: &Call, name: &str, bytes: &Bytes) -> Result<Reply, ApiError> {
    let eviction = body::decode(&call.headers, bytes)?;
    if text_at(&eviction, "/kind") != "Eviction" {
        return Err(ApiError::bad_request(format!("not an Eviction object: {}", text_at(&eviction, "/kind"))));
    }
    let given = text(&eviction, "name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = eviction.get("deleteOptions").filter(|options| !options.is_null());
    let options = DeleteOptions::from_object(call, options)?;
    if !options.is_dry_run() {
        let (kind, pod) = (call.kind, name.to_owned());
        let wanted = options.clone();
        let decide = move |present: Option<&StoredObject>| {
            let present = present.ok_or_else(|| ApiError::not_found(kind, &pod))?;
            wanted.check_preconditions(kind, &pod, &present.value)?;
            Ok((disrupted(&present.value).map_or(Change::Keep, Change::Put), ()))
        };
        call.context.store.write(call.key(name), decide).await.map_err(refuse)?;
    }
    // Its resourceVersion has just changed.
    delete_one(call, name, &options.without_revision()).await?;
    Ok(status::created())
}

/// The Pod with the condition; `None` if it is going already.
fn disrupted(pod: &Value) -> Option<Value> {
    if !metadata::text(pod, "deletionTimestamp").is_empty() {
        return None;
    }
    let mut pod = pod.clone();
    let status = pod.as_object_mut()?.entry("status").or_insert_with(|| json!({})).as_object_mut()?;
    let conditions = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut()?;
    conditions.retain(|condition| text_at(condition, "/type") != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": seconds(Context::now()),
    }));
    Some(pod)
}
