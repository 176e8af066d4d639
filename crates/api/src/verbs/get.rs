//! get: one object.

use http::StatusCode;

use crate::context::{Call, Context};
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;

/// Answers with the object. Its `status` subresource is the same object.
pub fn get(call: &Call, name: &str) -> Result<Reply, ApiError> {
    let renderer = call.renderer()?;
    let object = call.context.store.get(&call.key(name)).ok_or_else(|| ApiError::not_found(call.kind, name))?;
    let body = renderer.object(&object.value, &object.json, Context::now());
    Ok(whole(StatusCode::OK, renderer.content_type(), body))
}
