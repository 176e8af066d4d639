//! The doors into running Pods: `log`, `exec`, `attach` and `portforward`.

mod attach;
mod channels;
mod connect;
mod container;
mod exec;
mod frame;
mod log;
mod port_forward;
pub mod session;
mod spdy_session;
mod spdy_upgrade;
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
        ("portforward", &(Method::GET | Method::POST)) => port_forward::port_forward(call, name, request),
        ("log" | "exec" | "attach" | "portforward", _) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::no_such_resource()),
    }
}
