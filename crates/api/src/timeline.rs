//! A door beside Kubernetes' paths: what has happened to a Pod, moment by moment.

use agent::TimelineError;
use serde_json::json;
use spec::PodRef;

use crate::context::Context;
use crate::http::reply::{self, Reply};
use crate::http::status::ApiError;
use crate::kinds::Kind;
use crate::render::encode;

/// Answers with `{"moments": […]}` in the order of time, each as [`agent::Moment`] is written.
pub async fn answer(context: &Context, pod_namespace: &str, name: &str) -> Result<Reply, ApiError> {
    let moments = context.agent.timeline(&PodRef::new(pod_namespace, name)).await.map_err(|error| match error {
        TimelineError::NoSuchPod { .. } => match Kind::find("", "v1", "pods") {
            Some(pods) => ApiError::not_found(pods, name),
            None => ApiError::no_such_resource(),
        },
        TimelineError::Read { .. } => ApiError::internal(&error),
    })?;
    Ok(reply::json(encode(&json!({"moments": moments}))))
}
