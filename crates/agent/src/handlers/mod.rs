//! What probes and lifecycle hooks do: one action each, run from the daemon against the Pod. Nothing of it is needed
//! inside an image.

mod action;
mod dial;
pub(crate) mod exec;
mod grpc;
mod http;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use action::{Action, InvalidAction};
pub(crate) use dial::{DialError, dial, leave};
pub(crate) use exec::ExecFailure;
pub(crate) use grpc::{GrpcCheck, GrpcFailure};
pub(crate) use http::{HttpCause, HttpFailure, HttpGet};
pub use tls::secure as secure_unverified;

/// What a probe keeps of a body or of what a command prints (kubelet, `maxRespBodyLength`).
pub(crate) const OUTPUT_LIMIT: usize = 10 << 10;

/// `HOST:PORT`, an IPv6 address in brackets.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
