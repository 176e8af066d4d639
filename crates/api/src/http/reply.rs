//! Answers: whole or streamed.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

use crate::http::status::ApiError;

/// Body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer.
pub type Reply = Response<Body>;

/// An answer that is at hand.
pub fn whole(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    with_body(code, content_type, Full::new(body.into()).map_err(|never| match never {}).boxed_unsync())
}

/// 200 with JSON.
pub fn json(body: impl Into<Bytes>) -> Reply {
    whole(StatusCode::OK, "application/json", body)
}

/// An answer without an end known now; each item is flushed as a chunk of its own.
pub fn stream(content_type: &'static str, chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Reply {
    with_body(StatusCode::OK, content_type, StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync())
}

/// An answer without a body, such as 304.
pub fn empty(code: StatusCode) -> Reply {
    let mut reply = Response::new(no_body());
    *reply.status_mut() = code;
    reply
}

/// The body of an answer that has none.
pub fn no_body() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

/// The answer that an error is.
pub fn error(error: &ApiError) -> Reply {
    let mut reply = whole(error.code, "application/json", error.to_json());
    if let Some(seconds) = error.retry_after_seconds() {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

/// Adds `Warning: 299 - "text"` headers (RFC 7234 §5.5), which kubectl prints.
pub fn warn(reply: &mut Reply, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = quoted.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            reply.headers_mut().append(WARNING, value);
        }
    }
}

fn with_body(code: StatusCode, content_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
