//! What the API server fills in where an object says nothing, so that it is visible when the object is read.
//!
//! Source: `pkg/apis/core/v1/defaults.go` of Kubernetes. All are idempotent.

mod container;
mod kinds;
mod objects;
mod pod;
mod workloads;

pub use kinds::{
    default_cluster_role_binding, default_endpoint_slice, default_endpoints, default_limit_range,
    default_persistent_volume, default_persistent_volume_claim, default_pod_template, default_priority_class,
    default_role_binding, default_service, default_storage_class,
};
pub use objects::{default_config_map, default_namespace, default_secret, fold_string_data};
pub use pod::{add_default_tolerations, default_pod};
pub use workloads::{default_deployment, default_job, default_replica_set};
