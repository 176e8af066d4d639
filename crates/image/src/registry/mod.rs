//! Pulls images from registries that speak the OCI distribution-spec.
//!
//! Start at `pull.rs` (one pull), then `session.rs` (one request, with its proof of identity) and `http.rs` (one exchange).
//!
//! A registry is not trusted. Every byte is verified by digest before it counts, answers are bounded, credentials go to the
//! server they are for and to the token server that it names over TLS, and never along with a redirect to another one.

mod blob;
mod challenge;
mod config;
mod connect;
mod credentials;
mod endpoint;
mod error;
mod fake;
mod http;
mod manifest;
mod progress;
mod proxy;
mod pull;
mod session;

pub use self::http::HttpError;
pub use config::{InvalidRegistryOption, RegistryConfig};
pub use connect::ConnectError;
pub use credentials::{Credentials, CredentialsError, Keyring};
pub use error::{PullCause, PullError};
pub use fake::{FakePull, FakeRegistry};
pub use progress::{LayerProgress, LayerStage, PullProgress};
pub use pull::Pull;
pub(crate) use pull::Registries;
