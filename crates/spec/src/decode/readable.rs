//! The types that are read and written, each compiled once.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus,
    PodTemplate, PodTemplateSpec, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize as _;
use serde_json::Value;

use super::reader::Reader;

/// A type of Kubernetes that is read from JSON.
///
/// The code that reads such a type is long, and generic: it would be in the program once for each crate that reads one. So it
/// is called here, and by nobody else.
pub trait Readable: Sized {
    /// Reads one.
    fn read(from: Reader<'_, '_>) -> Result<Self, serde_json::Error>;
}

/// A type of Kubernetes that is written as JSON: by one call and in one form, for the same reason.
pub trait Writable {
    /// Writes it.
    fn write(&self) -> Result<Value, serde_json::Error>;
}

macro_rules! readable {
    ($($type:ty),* $(,)?) => {
        $(impl Readable for $type {
            fn read(from: Reader<'_, '_>) -> Result<Self, serde_json::Error> {
                Self::deserialize(from)
            }
        }

        impl Writable for $type {
            fn write(&self) -> Result<Value, serde_json::Error> {
                serde_json::to_value(self)
            }
        })*
    };
}

readable! {
    ClusterRole, ClusterRoleBinding, ConfigMap, Deployment, EndpointSlice, Endpoints, Event, Job, LabelSelector, Lease,
    LimitRange, Namespace, NewEvent, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, PodTemplate,
    PodTemplateSpec, PriorityClass, ReplicaSet, ResourceQuota, Role, RoleBinding, RuntimeClass, Secret, Service, ServiceAccount,
    StorageClass, TokenRequest,
}
