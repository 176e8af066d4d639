//! `/openapi/v3`: what there is and how it is written, for kubectl's `explain`, `apply`, `create` and `edit`.
//!
//! Schemas are Kubernetes' own, with descriptions and merge keys (`cargo xtask codegen openapi`); paths are made from the
//! table of kinds.

mod document;
mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use http::{Response, StatusCode};
use serde_json::json;
use spec::ordered::object_of;

use crate::http::query::Query;
use crate::http::reply::{Reply, empty, json as json_reply};
use crate::http::status::ApiError;
use crate::render::encode;

/// Documents that were asked for, by `api/v1` or `apis/<group>/<version>`; they never change while we run.
static MADE: Mutex<BTreeMap<String, Bytes>> = Mutex::new(BTreeMap::new());

/// `/openapi/v3`: where each group and version is described.
pub fn index(headers: &HeaderMap) -> Reply {
    let paths = object_of(paths::group_versions().into_iter().map(|path| {
        let url = format!("/openapi/v3/{path}?hash={}", document::hash(&path));
        (path, json!({"serverRelativeURL": url}))
    }));
    let body = encode(&json!({"paths": paths}));
    let tag = document::digest([body.as_ref()]);
    tagged(headers, &tag, || body.clone())
}

/// `/openapi/v3/<path>`: the document of one group and version.
pub fn document(path: &str, query: &Query, headers: &HeaderMap) -> Result<Reply, ApiError> {
    if !paths::group_versions().iter().any(|known| known == path) {
        return Err(ApiError::no_such_resource());
    }
    let hash = document::hash(path);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let body = if let Some(body) = made.get(path) {
        body.clone()
    } else {
        let body = document::document(path).map_err(|error| ApiError::internal(&error))?;
        made.entry(path.to_owned()).or_insert(body).clone()
    };
    drop(made);
    let mut reply = tagged(headers, &hash, || body);
    // What a hash names stays the same for ever.
    let fresh = query.get("hash") == Some(hash.as_str());
    let caching = if fresh { "public, immutable" } else { "no-cache, private" };
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    Ok(reply)
}

/// 304 for a client that has it already.
fn tagged(headers: &HeaderMap, tag: &str, body: impl FnOnce() -> Bytes) -> Reply {
    let tag = format!("\"{tag}\"");
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let has_it = known.flat_map(|value| value.split(',')).any(|value| value.trim() == tag);
    let mut reply: Response<_> = if has_it { empty(StatusCode::NOT_MODIFIED) } else { json_reply(body()) };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        reply.headers_mut().insert(ETAG, tag);
    }
    reply
}
