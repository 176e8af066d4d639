//! Who asks, and whether they may.

mod authenticate;
mod authorize;
mod identity;
pub mod impersonate;
mod rbac;
pub mod reviews;
pub mod roles;
mod rules;
pub mod tokens;

pub use authenticate::{Peer, authenticate};
pub use authorize::authorize;
pub use identity::{Identity, MASTERS};
pub use impersonate::impersonate;
