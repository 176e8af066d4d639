//! The kinds that are served. A kind is a declaration; the verbs are generic over it.

mod admission;
mod config_map;
mod event;
mod face;
mod field;
mod lease;
mod limit_ranges;
mod namespace;
mod node;
mod plain;
mod pod;
mod pod_account;
mod pod_row;
mod pod_runtime_class;
mod pod_template;
mod priority;
mod quotas;
mod rbac;
mod scheduling;
mod secret;
mod service_account;
mod services;
mod storage;
mod submitted;
mod workloads;

use serde_json::Value;
use spec::Timestamp;

pub use admission::{Admission, AdmissionError, Admitted};
pub use config_map::CONFIG_MAP;
pub use event::{EVENT, NEW_EVENT};
pub use field::FieldReader;
pub use lease::LEASE;
pub use namespace::NAMESPACE;
pub use node::NODE;
pub use pod::POD;
pub use pod_template::POD_TEMPLATE;
pub use quotas::{LIMIT_RANGE, RESOURCE_QUOTA};
pub use rbac::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
pub use scheduling::{PRIORITY_CLASS, RUNTIME_CLASS};
pub use secret::SECRET;
pub use service_account::SERVICE_ACCOUNT;
pub use services::{ENDPOINT_SLICE, ENDPOINTS, SERVICE};
pub use storage::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
pub use submitted::Submitted;
pub use workloads::{DEPLOYMENT, JOB, REPLICA_SET};

use crate::table::{Column, Row};

/// Every kind, in the order of discovery.
pub static KINDS: [&Kind; 27] = [
    &CONFIG_MAP,
    &ENDPOINTS,
    &EVENT,
    &LIMIT_RANGE,
    &NAMESPACE,
    &NODE,
    &PERSISTENT_VOLUME_CLAIM,
    &PERSISTENT_VOLUME,
    &POD,
    &POD_TEMPLATE,
    &RESOURCE_QUOTA,
    &SECRET,
    &SERVICE,
    &SERVICE_ACCOUNT,
    &DEPLOYMENT,
    &REPLICA_SET,
    &JOB,
    &LEASE,
    &ENDPOINT_SLICE,
    &NEW_EVENT,
    &RUNTIME_CLASS,
    &CLUSTER_ROLE_BINDING,
    &CLUSTER_ROLE,
    &ROLE_BINDING,
    &ROLE,
    &PRIORITY_CLASS,
    &STORAGE_CLASS,
];

/// The kinds that have objects of their own.
pub fn stored_kinds() -> impl Iterator<Item = &'static Kind> {
    KINDS.into_iter().filter(|kind| kind.renames.is_empty())
}

/// What the verbs must know of a kind.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "`kind` is Kubernetes' word for the field of that name")]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, such as `v1`.
    pub version: &'static str,
    /// Plural name in paths, and the name in the store.
    pub resource: &'static str,
    /// Singular name.
    pub singular: &'static str,
    /// Name in `kind`.
    pub kind: &'static str,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// As in `kubectl get po`.
    pub short_names: &'static [&'static str],
    /// As in `kubectl get all`.
    pub categories: &'static [&'static str],
    /// What lies below an object.
    pub subresources: &'static [Subresource],
    /// Fields to select by, beside `metadata.name` and `metadata.namespace`.
    pub fields: &'static [(&'static str, FieldReader)],
    /// Columns of its Table.
    pub columns: &'static [Column],
    /// One row of its Table; the time is for ages.
    pub row: fn(&Value, Timestamp) -> Row,
    /// Decodes, completes and validates an object that a client has sent.
    pub admit: fn(Value, &Admission<'_>) -> Result<Admitted, AdmissionError>,
    /// What a delete does.
    pub removal: Removal,
    /// Whether what an object owns stays when it is deleted and nobody says what is to become of that.
    pub orphans_by_default: bool,
    /// Whether `metadata.generation` counts changes of its spec.
    pub counts_generations: bool,
    /// Another kind's objects under other names: each stored field, and what it is called here. Empty for a kind that
    /// has objects of its own.
    pub renames: &'static [(&'static str, &'static str)],
}

/// What lies below an object, for discovery.
#[derive(Debug)]
pub struct Subresource {
    /// Last segment of its path.
    pub name: &'static str,
    /// Kind that it speaks.
    pub kind: &'static str,
    /// Its verbs.
    pub verbs: &'static [&'static str],
}

impl Subresource {
    /// Group and version of the kind that it speaks, where these are not the object's own.
    pub fn group_version(&self) -> Option<(&'static str, &'static str)> {
        match self.kind {
            "Eviction" => Some(("policy", "v1")),
            "Scale" => Some(("autoscaling", "v1")),
            "TokenRequest" => Some(("authentication.k8s.io", "v1")),
            _ => None,
        }
    }

    /// The door to how many Pods an object wants.
    pub const SCALE: Self = Self { name: "scale", kind: "Scale", verbs: &["get", "patch", "update"] };

    /// The door to the status of objects of this kind.
    pub const fn status(kind: &'static str) -> Self {
        Self { name: "status", kind, verbs: &["get", "patch", "update"] }
    }
}

/// What a delete does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The object goes at once, unless it has finalizers.
    AtOnce,
    /// The object is marked, and its worker removes it after its grace period.
    Graceful,
    /// All that is in the namespace goes first.
    Cascade,
}

impl Kind {
    /// Finds a kind by its place in a path.
    pub fn find(group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
        KINDS.into_iter().find(|kind| (kind.resource, kind.group, kind.version) == (resource, group, version))
    }

    /// `v1`, or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, or `deployments.apps`: the name in messages.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// How to read a field that objects of this kind may be selected by.
    pub fn field(&self, name: &str) -> Option<FieldReader> {
        match name {
            "metadata.name" => Some(FieldReader::Text("/metadata/name")),
            "metadata.namespace" => Some(FieldReader::Text("/metadata/namespace")),
            _ => self.fields.iter().find(|(field, _)| *field == name).map(|(_, reader)| *reader),
        }
    }

    /// Whether it has this subresource.
    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.iter().any(|subresource| subresource.name == name)
    }
}
