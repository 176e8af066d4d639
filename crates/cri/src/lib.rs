//! The door for a kubelet and for crictl: the container runtime interface (CRI v1), gRPC in, calls of `runtime` and `image` out.
//!
//! It translates and decides nothing: what runs, and for how long, is the client's to say. It keeps nothing of its own but the
//! files that CRI leaves to the runtime (`/etc/resolv.conf`): what a caller said of a sandbox or container lies with it in
//! the runtime's record. It does not serve Kubernetes' API, and knows no object of it.
//!
//! Start reading at [`service`], where each call of the protocol stands; `sandbox_config` and `container_config` translate
//! what is asked for, and [`streaming`] is where exec, attach and port-forward lead.
#![forbid(unsafe_code)]

mod container_config;
mod container_status;
mod containers;
mod errors;
mod events;
mod exec;
mod filter;
mod grpc;
mod images;
mod kept;
mod node;
mod pod_sandboxes;
mod resources;
mod sandbox_config;
mod sandbox_files;
mod security;
mod service;
mod stats;
pub mod streaming;

#[cfg(test)]
mod tests;

/// The messages and services of `proto/runtime.v1.proto`, which is Kubernetes' own, as `cargo xtask codegen` writes them.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    deprecated,
    unused_qualifications,
    reason = "generated; tonic's and prost's style is not ours"
)]
pub mod proto;

pub use service::{Cri, CriConfig, ServeError, serve};
