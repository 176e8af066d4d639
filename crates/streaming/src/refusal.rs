//! Answers to a request for an upgrade, which have no body that would need a form.

use http::{Response, StatusCode};

/// A request that is refused, for the caller to answer in its own form.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status.
    pub code: StatusCode,
    /// Why.
    pub message: String,
}

impl Refusal {
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// 500.
    pub fn internal(error: &impl std::error::Error) -> Self {
        Self { code: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() }
    }
}

/// An answer that is a status and headers alone.
pub fn empty(code: StatusCode) -> Response<()> {
    let mut reply = Response::new(());
    *reply.status_mut() = code;
    reply
}
