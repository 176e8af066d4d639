//! The words of Monopod: identifiers, Pod fields, defaults, validation and quantities.
//!
//! No IO and no clock: everything here is a function of its arguments. Start at [`ids`] for the identifiers that all
//! crates share. Kubernetes' own types come from `k8s_openapi`, re-exported here so that its version stands once.
#![forbid(unsafe_code)]

pub mod ids;

pub use ids::{ContainerId, ContainerName, Digest, PodRef, PodUid, SandboxId, VolumeName};
/// A point in wall time. Shown and stored; never used to measure.
pub use k8s_openapi::jiff::Timestamp;
pub use k8s_openapi;
