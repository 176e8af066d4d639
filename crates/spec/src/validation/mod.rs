//! What the API server checks before it keeps an object, in its words. All take the object *after* defaulting.
//!
//! Source: `pkg/apis/core/validation` of Kubernetes, for what each field may hold and for the sentences. Fields that
//! this engine does not support are refused by [`crate::support`]; they are not checked here.

mod affinity;
mod annotations;
mod apparmor;
mod classes;
#[cfg(test)]
mod conformance;
mod container;
mod env;
mod ephemeral;
mod job;
mod meta;
mod mirror;
mod names;
mod namespaces;
mod objects;
mod placement;
mod pod;
mod pod_resources;
mod ports;
mod probe;
mod quotas;
mod rbac;
mod resize;
mod resources;
mod restart;
mod security;
mod services;
mod storage;
#[cfg(test)]
mod tests;
mod update;
mod volume;
mod workloads;

pub use crate::field::{FieldError, FieldReason};
pub(crate) use apparmor::is_valid_app_armor_profile;
pub use classes::{validate_lease, validate_pod_template, validate_priority_class, validate_runtime_class};
pub use ephemeral::validate_ephemeral_containers_update;
pub use job::validate_job;
pub use meta::{NameForm, validate_object_meta, validate_object_meta_update};
pub use names::{config_key, dns_label, dns_subdomain, environment_name, label_value, qualified_name};
pub use objects::{
    validate_config_map, validate_config_map_update, validate_namespace, validate_namespace_update, validate_new_event,
    validate_secret, validate_secret_update,
};
pub use pod::validate_pod;
pub use quotas::{validate_limit_range, validate_resource_quota};
pub use rbac::{validate_cluster_role, validate_cluster_role_binding, validate_role, validate_role_binding};
pub use resize::validate_pod_resize;
pub use services::{validate_endpoint_slice, validate_endpoints, validate_service};
pub use storage::{validate_persistent_volume, validate_persistent_volume_claim, validate_storage_class};
pub use update::{validate_pod_status_update, validate_pod_update};
pub use workloads::{validate_deployment, validate_replica_set};
