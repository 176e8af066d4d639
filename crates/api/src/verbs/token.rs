//! token: a ServiceAccount's token on request (authentication.k8s.io/v1 TokenRequest).

use agent::{Named, TokenRequest as Wanted};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use spec::decode::decode_strict;
use spec::k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest};
use spec::validation::{FieldError, FieldReason};
use store::ObjectKey;

use crate::context::{Call, Context};
use crate::fields::text_at;
use crate::http::body;
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;
use crate::kinds::{POD, SECRET};
use crate::render::encode;
use crate::verbs::metadata::{self, seconds, text};

/// How long a token is good where nothing is said, and at least.
const DEFAULT_SECONDS: i64 = 3600;
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;

/// Issues a token for the account.
pub fn request_token(call: &Call, name: &str, bytes: &Bytes) -> Result<Reply, ApiError> {
    let account = call.context.store.get(&call.key(name)).ok_or_else(|| ApiError::not_found(call.kind, name))?;
    let mut given = body::decode(&call.headers, bytes)?;
    metadata::check_namespace(call, &mut given)?;
    let own = text(&given, "name");
    if !own.is_empty() && own != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    let (request, _unknown) = decode_strict::<TokenRequest>(given.clone())
        .map_err(|error| ApiError::bad_request(format!("TokenRequest in version \"v1\" cannot be handled: {error}")))?;
    let spec = request.spec.unwrap_or_default();
    let length = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    check_length(name, length)?;
    let mut wanted = Wanted {
        pod_namespace: call.pod_namespace.clone().unwrap_or_default(),
        account: Named { name: name.to_owned(), uid: text(&account.value, "uid").to_owned() },
        pod: None,
        secret: None,
        audiences: spec.audiences.clone().unwrap_or_default(),
        seconds: length,
    };
    if let Some(reference) = &spec.bound_object_ref {
        bind(call, name, &mut wanted, reference)?;
    }
    let id = uuid::Uuid::new_v4().to_string();
    let issued = call.context.agent.tokens().issue(&wanted, id, Context::now());
    let (token, until) = issued.ok_or_else(|| ApiError::internal_text("the kernel gives no random numbers"))?;
    Ok(answer(given, name, &wanted, &token, &seconds(until)))
}

fn answer(mut request: Value, name: &str, wanted: &Wanted, token: &str, until: &str) -> Reply {
    let audiences = if wanted.audiences.is_empty() { vec![agent::ISSUER.to_owned()] } else { wanted.audiences.clone() };
    if let Some(request) = request.as_object_mut() {
        request.insert("apiVersion".to_owned(), json!("authentication.k8s.io/v1"));
        request.insert("kind".to_owned(), json!("TokenRequest"));
        let created = seconds(Context::now());
        let metadata = json!({"name": name, "namespace": wanted.pod_namespace, "creationTimestamp": created});
        request.insert("metadata".to_owned(), metadata);
        let mut spec = request.get("spec").filter(|spec| spec.is_object()).cloned().unwrap_or_else(|| json!({}));
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("audiences".to_owned(), json!(audiences));
            spec.insert("expirationSeconds".to_owned(), json!(wanted.seconds));
        }
        request.insert("spec".to_owned(), spec);
        request.insert("status".to_owned(), json!({"token": token, "expirationTimestamp": until}));
    }
    whole(StatusCode::CREATED, "application/json", encode(&request))
}

fn check_length(name: &str, length: i64) -> Result<(), ApiError> {
    let detail = match length {
        ..LEAST_SECONDS => "may not specify a duration less than 10 minutes",
        MOST_SECONDS.. => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let (field, value) = ("spec.expirationSeconds".to_owned(), json!(length));
    let error = FieldError { field, reason: FieldReason::Invalid, value, detail: detail.to_owned() };
    Err(ApiError::invalid("TokenRequest", "authentication.k8s.io", name, &[error], "TokenRequest"))
}

/// Binds the token to a Pod of the account, or to a Secret: it is worth nothing once that is gone.
fn bind(call: &Call, name: &str, wanted: &mut Wanted, reference: &BoundObjectReference) -> Result<(), ApiError> {
    let text_of = |field: &Option<String>| field.clone().unwrap_or_default();
    let (kind, bound) = (text_of(&reference.kind), text_of(&reference.name));
    let of = match kind.as_str() {
        "Pod" => &POD,
        "Secret" => &SECRET,
        _ => return Err(ApiError::bad_request(format!("cannot bind token to object of type {kind:?}"))),
    };
    let found =
        call.context.store.get(&ObjectKey::namespaced(of.resource, wanted.pod_namespace.as_str(), bound.as_str()));
    let found = found.ok_or_else(|| ApiError::not_found(of, &bound))?;
    if of.kind == "Pod" && text_at(&found.value, "/spec/serviceAccountName") != name {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
        )));
    }
    let uid = text(&found.value, "uid").to_owned();
    let expected = text_of(&reference.uid);
    if !expected.is_empty() && expected != uid {
        let why = format!(
            "the UID in the bound object reference ({expected}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(ApiError::conflict(of, &bound, &why));
    }
    let named = Some(Named { name: bound, uid });
    if of.kind == "Pod" {
        wanted.pod = named;
    } else {
        wanted.secret = named;
    }
    Ok(())
}
