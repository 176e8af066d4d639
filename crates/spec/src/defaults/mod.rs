//! What the API server fills in where an object says nothing, so that it is visible when the object is read.
//!
//! Source: `pkg/apis/core/v1/defaults.go` of Kubernetes. All are idempotent.

mod container;
mod objects;
mod pod;

pub use objects::{default_config_map, default_namespace, default_secret, fold_string_data};
pub use pod::default_pod;
