//! The doors into running Pods: `log`, `exec`, `attach` and `portforward`.

mod attach;
mod container;
mod exec;
mod log;
mod port_forward;

use http::{Method, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use streaming::Refusal;

use crate::context::Call;
use crate::http::reply::{self, Reply};
use crate::http::status::ApiError;

/// Answers a request for one of the doors of a Pod.
pub fn answer(call: &Call, name: &str, door: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    match (door, request.method()) {
        ("log", &Method::GET) => log::log(call, name, request),
        ("exec", &(Method::GET | Method::POST)) => exec::exec(call, name, request),
        ("attach", &(Method::GET | Method::POST)) => attach::attach(call, name, request),
        ("portforward", &(Method::GET | Method::POST)) => port_forward::port_forward(call, name, request),
        ("log" | "exec" | "attach" | "portforward", _) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::no_such_resource()),
    }
}

/// The answer to a request for an upgrade, in the API's own form.
fn switched(answered: Result<http::Response<()>, Refusal>) -> Result<Reply, ApiError> {
    match answered {
        Ok(head) => Ok(head.map(|()| reply::no_body())),
        Err(Refusal { code: StatusCode::BAD_REQUEST, message }) => Err(ApiError::bad_request(message)),
        Err(Refusal { message, .. }) => Err(ApiError::internal_text(&message)),
    }
}
