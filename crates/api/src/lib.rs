//! Serves the Kubernetes API: REST, watches and streams, over TLS and on a unix socket.
//!
//! A kind is a declaration in `kinds`; the verbs in `verbs` are generic over it and work on JSON values. This crate
//! decides nothing about Pods: it writes what is wanted into the store, which the agent watches, and opens the agent's
//! doors (`log`, `exec`, `attach`, images).
//!
//! Start reading at `dispatch` (from a request to its verb), then `verbs::create` and `kinds::pod`.
#![forbid(unsafe_code)]

mod access;
mod backup;
mod context;
mod discovery;
mod dispatch;
mod fields;
mod health;
mod http;
mod images;
mod kinds;
mod kubeconfig;
mod limits;
mod metrics;
mod openapi;
mod owned;
mod ownership;
mod patch;
mod protobuf;
mod proxy;
mod quotas;
mod render;
mod route;
mod schema;
mod selector;
mod server;
mod shutdown;
mod standing;
mod streams;
mod table;
mod timeline;
mod tls;
mod verbs;

#[cfg(test)]
mod tests;

pub use backup::{Backup, BackupError, Manifest, floor_after, read_backup};
pub use kubeconfig::{ADMIN, CLUSTER, User, kubeconfig, write_kubeconfig};
pub use server::{ApiConfig, Doors, ServeError, listen, serve};
pub use tls::{Authority, AuthorityError};
