//! The doors into running Pods: `log`, `exec` and `attach`.

mod attach;
mod container;
mod exec;
mod frame;
mod log;
pub mod session;
pub mod websocket;

use http::Method;
use hyper::Request;
use hyper::body::Incoming;

use crate::context::Call;
use crate::http::reply::Reply;
use crate::http::status::ApiError;

/// Answers a request for one of the doors of a Pod.
pub fn answer(call: &Call, name: &str, door: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    match (door, request.method()) {
        ("log", &Method::GET) => log::log(call, name),
        ("exec", &(Method::GET | Method::POST)) => exec::exec(call, name, request),
        ("attach", &(Method::GET | Method::POST)) => attach::attach(call, name, request),
        ("log" | "exec" | "attach", _) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::no_such_resource()),
    }
}
