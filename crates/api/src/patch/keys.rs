//! Which lists a strategic merge patch merges, and by which key: `x-kubernetes-patch-merge-key` of Kubernetes' types.

/// A type whose fields matter to a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A whole object of this kind.
    Object(&'static str),
    /// Its metadata.
    ObjectMeta,
    /// Also of a template.
    PodSpec,
    /// App, init and ephemeral containers.
    Container,
    /// Status of a Pod.
    PodStatus,
    /// Status of a Node.
    NodeStatus,
    /// A status with conditions and no other list to merge.
    Status,
    /// Nothing below it is a list to merge.
    Plain,
}

/// How a list is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListRule {
    /// The patch's list takes the place of the present one.
    Replace,
    /// Elements with the same value of this field are the same.
    ByKey(&'static str),
    /// A set of scalars.
    Set,
}

impl Type {
    /// The type of a field, and how it is merged if it is a list.
    pub fn field(self, field: &str) -> (ListRule, Self) {
        use ListRule::{ByKey, Replace, Set};
        match (self, field) {
            (Self::Object(_), "metadata") => (Replace, Self::ObjectMeta),
            (Self::Object("Pod"), "spec") => (Replace, Self::PodSpec),
            (Self::Object("Pod"), "status") => (Replace, Self::PodStatus),
            (Self::Object("Node"), "status") => (Replace, Self::NodeStatus),
            (Self::Object(_), "status") => (Replace, Self::Status),
            (Self::ObjectMeta, "ownerReferences") => (ByKey("uid"), Self::Plain),
            (Self::ObjectMeta, "finalizers") => (Set, Self::Plain),
            (Self::PodSpec, "containers" | "initContainers" | "ephemeralContainers") => {
                (ByKey("name"), Self::Container)
            }
            (Self::PodSpec, "volumes" | "imagePullSecrets" | "schedulingGates" | "resourceClaims")
            | (Self::Container, "env")
            | (Self::PodStatus, "resourceClaimStatuses") => (ByKey("name"), Self::Plain),
            (Self::PodSpec, "hostAliases") | (Self::PodStatus, "podIPs" | "hostIPs") => (ByKey("ip"), Self::Plain),
            (Self::PodSpec, "topologySpreadConstraints") => (ByKey("topologyKey"), Self::Plain),
            (Self::Container, "ports") => (ByKey("containerPort"), Self::Plain),
            (Self::Container, "volumeMounts") => (ByKey("mountPath"), Self::Plain),
            (Self::Container, "volumeDevices") => (ByKey("devicePath"), Self::Plain),
            (Self::NodeStatus, "addresses") | (Self::NodeStatus | Self::PodStatus | Self::Status, "conditions") => {
                (ByKey("type"), Self::Plain)
            }
            _ => (Replace, Self::Plain),
        }
    }
}
