//! Errors as Kubernetes words them: a `v1.Status` with code, reason, message and details.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
pub use spec::chain;
use spec::validation::{FieldError, FieldReason};

use crate::http::reply::{Reply, whole};
use crate::kinds::Kind;
use crate::ownership::Conflicts;

/// An error on its way to a client. Each constructor is one row of apimachinery's `pkg/api/errors`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status, repeated as `code`.
    pub code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Box<Details>>,
    /// `metadata.continue`: where a client may go on whose page is lost.
    token: Option<String>,
}

/// `details` of a `v1.Status`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its API group; empty for the core group.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub group: &'static str,
    /// The plural resource, but the kind in validation errors, as upstream has it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: &'static str,
    /// Of the object that a delete removed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One per field at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to ask again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One field at fault.
#[derive(Debug, Serialize)]
pub struct Cause {
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
}

#[derive(Serialize)]
struct WireStatus<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: serde_json::Map<String, serde_json::Value>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

impl ApiError {
    /// An error that only one door has.
    pub fn plain(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, token: None }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: kind.group,
            kind: kind.resource,
            ..Details::default()
        }));
        self
    }

    fn caused(mut self, reason: &'static str, message: String) -> Self {
        self.details.get_or_insert_default().causes.push(Cause { reason, message, field: String::new() });
        self
    }

    /// 404 of an object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::plain(StatusCode::NOT_FOUND, "NotFound", format!("{} {name:?} not found", kind.qualified()))
            .about(kind, name)
    }

    /// 404 of a path.
    pub fn no_such_resource() -> Self {
        Self::plain(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 409 of a create.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::plain(StatusCode::CONFLICT, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified()))
            .about(kind, name)
    }

    /// 409 of an optimistic lock.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// 409 with a reason of its own, such as a failed precondition.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::plain(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// The same of a door below the object: `pods/binding`.
    pub fn conflict_at(kind: &Kind, door: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {}/{door} {name:?}: {why}", kind.qualified());
        Self::plain(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// 409 of an apply: others own what it would change.
    pub fn apply_conflict(conflicts: &Conflicts<'_>) -> Self {
        let mut error = Self::plain(StatusCode::CONFLICT, "Conflict", conflicts.to_string());
        let causes = conflicts.each().map(|(manager, field)| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {}", manager.describe()),
            field,
        });
        error.details = Some(Box::new(Details { causes: causes.collect(), ..Details::default() }));
        error
    }

    /// 403: understood, but refused.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", kind.qualified());
        Self::plain(StatusCode::FORBIDDEN, "Forbidden", message).about(kind, name)
    }

    /// 403 of a create in a namespace that is going away.
    pub fn namespace_terminating(kind: &Kind, name: &str, pod_namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {pod_namespace} because it is being terminated");
        let cause = format!("namespace {pod_namespace} is being terminated");
        Self::forbidden(kind, name, &why).caused("NamespaceTerminating", cause)
    }

    /// 422 with one cause per field at fault.
    pub fn invalid(kind: &str, group: &'static str, name: &str, errors: &[FieldError], shown: &'static str) -> Self {
        let list = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let subject = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut error =
            Self::plain(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("{subject} {name:?} is invalid: {list}"));
        let causes = errors.iter().map(Cause::of_field).collect();
        error.details =
            Some(Box::new(Details { name: name.to_owned(), group, kind: shown, causes, ..Details::default() }));
        error
    }

    /// 422 of an object of `kind`.
    pub fn invalid_object(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid(kind.kind, kind.group, name, errors, kind.kind)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::plain(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::plain(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 415, with what would have been taken.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 410: the changes after this revision are no longer kept.
    pub fn expired(wanted: u64, oldest: u64) -> Self {
        Self::gone(format!("too old resource version: {wanted} ({oldest})"))
    }

    /// 410 with a message of its own.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::plain(StatusCode::GONE, "Expired", message)
    }

    /// 410 of a page whose list is no longer known; `token` goes on in the list as it is now.
    pub fn continue_expired(token: String) -> Self {
        let mut error = Self::gone(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
             results. Continuing with the provided token results in an inconsistent list - objects that were created, \
             modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        error.token = Some(token);
        error
    }

    /// 422 of a parameter of list or watch.
    pub fn invalid_option(field: &str, reason: FieldReason, value: Option<&str>, detail: &str) -> Self {
        let value = value.map_or(serde_json::Value::Null, serde_json::Value::from);
        let error = FieldError { field: field.to_owned(), reason, value, detail: detail.to_owned() };
        Self::invalid("ListOptions", "meta.k8s.io", "", &[error], "ListOptions")
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::plain(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 422 without fields.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::plain(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 504: the client knows a revision that this store has not reached.
    pub fn too_large_resource_version(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let mut error = Self::plain(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            .caused("ResourceVersionTooLarge", "Too large resource version".to_owned());
        error.details.get_or_insert_default().retry_after_seconds = Some(1);
        error
    }

    /// 429: as much is under way as may be.
    pub fn too_many(why: &str) -> Self {
        let message = format!("{why}, please try again later");
        let mut error = Self::plain(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.details.get_or_insert_default().retry_after_seconds = Some(1);
        error
    }

    /// When to ask again, if that is known.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref()?.retry_after_seconds
    }

    /// 408.
    pub fn slow_body() -> Self {
        Self::plain(StatusCode::REQUEST_TIMEOUT, "Timeout", "the body of the request did not arrive in time")
    }

    /// 500, with the whole chain of causes in one line.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::internal_text(&chain(error))
    }

    /// 500.
    pub fn internal_text(what: &str) -> Self {
        Self::plain(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("Internal error occurred: {what}"))
            .caused("", what.to_owned())
    }

    /// The Status as JSON.
    pub fn to_json(&self) -> Bytes {
        let token = self.token.as_deref();
        encode(&WireStatus {
            kind: "Status",
            api_version: "v1",
            metadata: token.map(|token| ("continue".to_owned(), token.into())).into_iter().collect(),
            status: "Failure",
            message: &self.message,
            reason: self.reason,
            details: self.details.as_deref(),
            code: Some(self.code.as_u16()),
        })
    }
}

impl Cause {
    fn of_field(error: &FieldError) -> Self {
        Self { reason: error.reason.cause(), message: error.message(), field: error.field.clone() }
    }
}

/// The Status that answers a delete which removed the object.
pub fn success(details: &Details) -> Bytes {
    encode(&WireStatus {
        kind: "Status",
        api_version: "v1",
        metadata: serde_json::Map::new(),
        status: "Success",
        message: "",
        reason: "",
        details: Some(details),
        code: None,
    })
}

/// 201 for what an action has done.
pub fn created() -> Reply {
    let body = encode(&WireStatus {
        kind: "Status",
        api_version: "v1",
        metadata: serde_json::Map::new(),
        status: "Success",
        message: "",
        reason: "",
        details: None,
        code: Some(StatusCode::CREATED.as_u16()),
    });
    whole(StatusCode::CREATED, "application/json", body)
}

fn encode(status: &WireStatus<'_>) -> Bytes {
    // Strings and numbers always serialize; an empty body would only cost the client its message.
    serde_json::to_vec(status).map(Bytes::from).unwrap_or_default()
}
