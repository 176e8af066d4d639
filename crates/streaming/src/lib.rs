//! Carries sessions with a container's processes, and TCP connections to a Pod's ports, over upgraded HTTP connections.
//!
//! Two doors lead here: Kubernetes' API and CRI. Each finds out who is meant and what is wanted, and hands over the
//! request; the protocols are the same behind both: WebSocket with Kubernetes' subprotocols, and SPDY/3.1. This crate
//! knows no Pod and no container, only what its callers connect it to.
//!
//! Start reading at [`connect()`] and [`port_forward()`]; [`send_all()`] is for what is only read, such as a log.
#![forbid(unsafe_code)]

mod channels;
mod connect;
mod frame;
mod port_forward;
mod reader;
mod refusal;
mod session;
mod spdy;
mod spdy_session;
mod spdy_upgrade;
mod websocket;

#[cfg(test)]
mod session_tests;

pub use connect::{Wanted, connect};
pub use port_forward::{Target, port_forward};
pub use reader::{is_websocket_wanted, send_all};
pub use refusal::Refusal;
pub use spdy_upgrade::is_wanted as is_spdy_wanted;
