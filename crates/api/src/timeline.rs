//! Doors beside Kubernetes' paths: what has happened to a Pod, moment by moment, and what was done for it, step by step.

use agent::TimelineError;
use serde_json::json;
use spec::PodRef;
use store::ObjectKey;

use crate::context::Context;
use crate::http::reply::{self, Reply};
use crate::http::status::ApiError;
use crate::kinds::Kind;
use crate::render::encode;

/// Answers with `{"moments": […]}` in the order of time, each as [`agent::Moment`] is written.
pub async fn answer(context: &Context, pod_namespace: &str, name: &str) -> Result<Reply, ApiError> {
    let moments = context.agent.timeline(&PodRef::new(pod_namespace, name)).await.map_err(|error| match error {
        TimelineError::NoSuchPod { .. } => no_such_pod(name),
        TimelineError::Read { .. } => ApiError::internal(&error),
    })?;
    Ok(reply::json(encode(&json!({"moments": moments}))))
}

/// Answers with `{"steps": […]}`, each as [`steps::Step`] is written: those that are still known.
pub fn steps(context: &Context, pod_namespace: &str, name: &str) -> Result<Reply, ApiError> {
    let pod =
        context.store.get(&ObjectKey::namespaced("pods", pod_namespace, name)).ok_or_else(|| no_such_pod(name))?;
    let uid = spec::mirror::pod_uid(&pod.value).unwrap_or_default();
    Ok(reply::json(encode(&json!({"steps": context.steps.steps(uid)}))))
}

fn no_such_pod(name: &str) -> ApiError {
    match Kind::find("", "v1", "pods") {
        Some(pods) => ApiError::not_found(pods, name),
        None => ApiError::no_such_resource(),
    }
}
