//! What a kubelet answers at `/api/v1/nodes/NAME/proxy/…`. The node's own daemon is this one, so it answers by itself.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::context::Context;
use crate::fields::text_at;
use crate::http::reply::{self, Reply, whole};
use crate::http::status::ApiError;
use crate::kinds::{NODE, POD};
use crate::metrics;
use crate::render::encode;

/// Answers a request for `path` below the node's proxy; `id` is `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
pub async fn answer(context: &Context, id: &str, path: &str, method: &Method) -> Result<Reply, ApiError> {
    let name = match id.split(':').collect::<Vec<_>>().as_slice() {
        [name] | [name, _] | ["http" | "https", name, _] => (*name).to_owned(),
        _ => return Err(ApiError::bad_request(format!("invalid node request {id:?}"))),
    };
    if name != context.node_name {
        return Err(ApiError::not_found(&NODE, &name));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(ApiError::method_not_allowed());
    }
    match path.trim_end_matches('/') {
        "/healthz" | "/healthz/ping" => Ok(whole(StatusCode::OK, "text/plain; charset=utf-8", "ok")),
        "/metrics" => Ok(metrics::page(context)),
        "/metrics/resource" => Ok(metrics::resource_page(context).await),
        "/pods" | "/runningpods" => Ok(reply::json(encode(&pods(context)))),
        _ => Ok(whole(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")),
    }
}

/// The Pods that are bound to the node.
fn pods(context: &Context) -> Value {
    let stored = context.store.list(POD.resource, None).objects.into_iter();
    let bound = stored.filter(|pod| text_at(&pod.value, "/spec/nodeName") == context.node_name);
    let items: Vec<Value> = bound.map(|pod| pod.value.as_ref().clone()).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}
