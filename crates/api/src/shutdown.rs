//! A door beside Kubernetes' paths: the machine shuts down, so Pods are to end in their time.

use std::sync::Arc;

use http::Method;
use serde_json::json;

use crate::context::Context;
use crate::http::reply::{self, Reply};
use crate::http::status::{ApiError, chain};
use crate::render::encode;

/// POST ends the Pods and answers when they have ended or their time is over; DELETE says that the machine stays.
pub async fn answer(context: &Arc<Context>, method: &Method) -> Result<Reply, ApiError> {
    match *method {
        Method::POST => {
            let agent = context.agent.clone();
            // Who asks may go away: the machine shuts down all the same.
            let ended = tokio::spawn(async move { agent.shutdown_node().await }).await;
            let ended = ended.map_err(|error| ApiError::bad_request(chain(&error)))?;
            Ok(reply::json(encode(&json!({ "ended": ended }))))
        }
        Method::DELETE => {
            context.agent.cancel_node_shutdown();
            Ok(reply::json(encode(&json!({}))))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}
