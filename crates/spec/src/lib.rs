//! The words of Monopod: identifiers, Pod fields, defaults, validation and quantities.
//!
//! No IO and no clock: everything here is a function of its arguments. Start at [`ids`] for the identifiers that all
//! crates share. An object from a client goes through [`decode`], [`support`] (what this engine does not honour is
//! refused by name), [`defaults`] and [`validation`], in that order. Kubernetes' own types come from `k8s_openapi`, re-exported here so that its version stands once.
#![forbid(unsafe_code)]

pub mod apparmor;
mod chain;
pub mod claims;
pub mod decode;
pub mod defaults;
pub mod dns;
pub mod downward;
pub mod ephemeral;
pub mod expand;
mod field;
pub mod gates;
pub mod hosts;
pub mod huge_pages;
pub mod ids;
pub mod image_ref;
pub mod label_selector;
pub mod limit_range;
pub mod mirror;
pub mod names;
pub mod ordered;
pub mod placement;
pub mod qos;
pub mod quantity;
pub mod quota;
pub mod requests;
pub mod resources;
pub mod service_links;
pub mod service_network;
pub mod support;
pub mod sysctls;
pub mod validation;
pub mod warnings;
pub mod yaml;

pub use chain::chain;
pub use field::{FieldError, FieldReason};
pub use ids::{ContainerId, ContainerName, Digest, PodRef, PodUid, SandboxId, VolumeName};
pub use k8s_openapi;
/// A point in wall time. Shown and stored; never used to measure.
pub use k8s_openapi::jiff::Timestamp;
