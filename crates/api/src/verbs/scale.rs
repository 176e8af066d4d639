//! scale: how many Pods an object wants, as an `autoscaling/v1` Scale, whatever its own kind looks like.

use http::{Method, Request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use spec::decode::read;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use spec::label_selector::as_query;
use spec::validation::{FieldError, FieldReason};

use crate::context::Call;
use crate::fields::{at, number_at, text_at};
use crate::http::body::{self, media_type};
use crate::http::reply::{Reply, json as json_reply, warn};
use crate::http::status::ApiError;
use crate::render::encode;
use crate::verbs::metadata;
use crate::verbs::patch::Change;
use crate::verbs::update::{Next, Part, rewrite};

/// What a patch of a Scale may be written in.
const PATCHES: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// Answers a request for an object's Scale.
pub async fn scale(call: &Call, name: &str, request: Request<Incoming>) -> Result<Reply, ApiError> {
    let method = request.method().clone();
    let bytes = body::read(request.into_body()).await?;
    let revised = match method {
        Method::GET => {
            let present =
                call.context.store.get(&call.key(name)).ok_or_else(|| ApiError::not_found(call.kind, name))?;
            return Ok(json_reply(encode(&scale_of(&present.value))));
        }
        Method::PUT => {
            let wanted = call.decode(&bytes)?;
            rewrite(call, name, Part::Scale, |present| scaled(name, present, &wanted)).await?
        }
        Method::PATCH if media_type(&call.headers) == "application/apply-patch+yaml" => {
            return Err(ApiError::unsupported_media_type(PATCHES));
        }
        Method::PATCH => {
            let change = Change::decode(call, &bytes)?;
            // A Scale holds no lists, so its type's name tells a patch nothing.
            rewrite(call, name, Part::Scale, |present| scaled(name, present, &change.apply("", &scale_of(present))?))
                .await?
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    let mut reply = json_reply(encode(&scale_of(&revised.value)));
    warn(&mut reply, &revised.warnings);
    Ok(reply)
}

fn scale_of(object: &Value) -> Value {
    let replicas = |path: &str| number_at(object, path).unwrap_or_default();
    let selector: LabelSelector = at(object, "/spec/selector").and_then(|value| read(value).ok()).unwrap_or_default();
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {},
        "spec": {"replicas": replicas("/spec/replicas")},
        "status": {"replicas": replicas("/status/replicas"), "selector": as_query(&selector)},
    });
    if let Some(metadata) = scale.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            let found = at(object, "/metadata").and_then(|metadata| metadata.get(field));
            metadata.extend(found.map(|value| (field.to_owned(), value.clone())));
        }
    }
    scale
}

/// The object as its Scale wants it. The Scale's own locks hold.
fn scaled(name: &str, present: &Value, scale: &Value) -> Result<Next, ApiError> {
    let replicas = number_at(scale, "/spec/replicas").unwrap_or_default();
    if replicas < 0 {
        let error = FieldError {
            field: "spec.replicas".to_owned(),
            reason: FieldReason::Invalid,
            value: json!(replicas),
            detail: "must be greater than or equal to 0".to_owned(),
        };
        return Err(ApiError::invalid("Scale", "autoscaling", name, &[error], "Scale"));
    }
    let mut next = present.clone();
    if let Some(spec) = next.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("replicas".to_owned(), json!(replicas));
    }
    let metadata = metadata::of(&mut next)?;
    for lock in ["uid", "resourceVersion"] {
        match text_at(scale, &format!("/metadata/{lock}")) {
            "" => metadata.remove(lock),
            given => metadata.insert(lock.to_owned(), json!(given)),
        };
    }
    Ok(Next::changed(next))
}
