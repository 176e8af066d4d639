//! What a Pod may learn of itself: `fieldRef` and `resourceFieldRef`.
//!
//! Source: kubernetes.io "Downward API".

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::quantity::{Quantity, QuantityError};
use crate::resources::{Amounts, container_resources, container_resources_in_pod};

/// A field that `fieldRef` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldPath<'a> {
    /// `metadata.name`
    Name,
    /// `metadata.namespace`
    Namespace,
    /// `metadata.uid`
    Uid,
    /// `metadata.labels['KEY']`
    Label(&'a str),
    /// `metadata.annotations['KEY']`
    Annotation(&'a str),
    /// `metadata.labels`: only in volumes
    Labels,
    /// `metadata.annotations`: only in volumes
    Annotations,
    /// `spec.nodeName`
    NodeName,
    /// `spec.serviceAccountName`
    ServiceAccountName,
    /// `status.hostIP`
    HostIp,
    /// `status.hostIPs`
    HostIps,
    /// `status.podIP`
    PodIp,
    /// `status.podIPs`
    PodIps,
}

/// `fieldRef` names a field that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsupported fieldPath: {path}")]
pub struct UnknownFieldPath {
    /// The path as it was given.
    pub path: String,
}

impl<'a> FieldPath<'a> {
    /// What an environment variable may take, keys of labels and annotations aside.
    pub const FOR_ENVIRONMENT: [&'static str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];

    /// What a file of a volume may take, single keys aside.
    pub const FOR_VOLUME: [&'static str; 5] =
        ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

    /// Reads a path.
    pub fn parse(path: &'a str) -> Result<Self, UnknownFieldPath> {
        let subscript = |list: &str| path.strip_prefix(list)?.strip_prefix("['")?.strip_suffix("']");
        Ok(match path {
            "metadata.name" => Self::Name,
            "metadata.namespace" => Self::Namespace,
            "metadata.uid" => Self::Uid,
            "metadata.labels" => Self::Labels,
            "metadata.annotations" => Self::Annotations,
            "spec.nodeName" => Self::NodeName,
            "spec.serviceAccountName" => Self::ServiceAccountName,
            "status.hostIP" => Self::HostIp,
            "status.hostIPs" => Self::HostIps,
            "status.podIP" => Self::PodIp,
            "status.podIPs" => Self::PodIps,
            _ => match (subscript("metadata.labels"), subscript("metadata.annotations")) {
                (Some(key), _) => Self::Label(key),
                (_, Some(key)) => Self::Annotation(key),
                (None, None) => return Err(UnknownFieldPath { path: path.to_owned() }),
            },
        })
    }

    /// Whether an environment variable may take it; the whole maps are for volumes.
    pub fn is_for_environment(self) -> bool {
        !matches!(self, Self::Labels | Self::Annotations)
    }

    /// Whether a file of a volume may take it: what is known before the Pod runs.
    pub fn is_for_volume(self) -> bool {
        match self {
            Self::Name
            | Self::Namespace
            | Self::Uid
            | Self::Label(_)
            | Self::Annotation(_)
            | Self::Labels
            | Self::Annotations => true,
            Self::NodeName | Self::ServiceAccountName | Self::HostIp | Self::HostIps | Self::PodIp | Self::PodIps => {
                false
            }
        }
    }

    /// The value in `pod`, of which the status must be the present one; empty where the Pod does not have it.
    ///
    /// Whole maps are lines `key="value"`, sorted, with the value quoted as JSON has it.
    pub fn value(self, pod: &Pod) -> String {
        let (meta, spec, status) = (&pod.metadata, pod.spec.as_ref(), pod.status.as_ref());
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        match self {
            Self::Name => text(meta.name.as_ref()),
            Self::Namespace => text(meta.namespace.as_ref()),
            Self::Uid => text(meta.uid.as_ref()),
            Self::Label(key) => text(meta.labels.as_ref().and_then(|labels| labels.get(key))),
            Self::Annotation(key) => text(meta.annotations.as_ref().and_then(|annotations| annotations.get(key))),
            Self::Labels => lines(meta.labels.iter().flatten()),
            Self::Annotations => lines(meta.annotations.iter().flatten()),
            Self::NodeName => text(spec.and_then(|spec| spec.node_name.as_ref())),
            Self::ServiceAccountName => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
            Self::HostIp => text(status.and_then(|status| status.host_ip.as_ref())),
            Self::PodIp => text(status.and_then(|status| status.pod_ip.as_ref())),
            Self::HostIps => {
                joined(status.iter().flat_map(|s| s.host_ips.iter().flatten()).map(|host| host.ip.as_str()))
            }
            Self::PodIps => joined(status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|pod| pod.ip.as_str())),
        }
    }
}

/// A resource that `resourceFieldRef` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceField {
    /// `limits.cpu`
    CpuLimit,
    /// `limits.memory`
    MemoryLimit,
    /// `requests.cpu`
    CpuRequest,
    /// `requests.memory`
    MemoryRequest,
}

const MEMORY_DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

impl ResourceField {
    /// All that can be named.
    pub const ALL: [&'static str; 4] = ["limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

    /// Reads the name of a resource.
    pub fn parse(resource: &str) -> Option<Self> {
        Some(match resource {
            "limits.cpu" => Self::CpuLimit,
            "limits.memory" => Self::MemoryLimit,
            "requests.cpu" => Self::CpuRequest,
            "requests.memory" => Self::MemoryRequest,
            _ => return None,
        })
    }

    /// Whether a divisor, in canonical form, makes sense for this resource.
    pub(crate) fn check_divisor(self, divisor: &str) -> Result<(), String> {
        match self {
            Self::CpuLimit | Self::CpuRequest if ["1m", "1"].contains(&divisor) => Ok(()),
            Self::CpuLimit | Self::CpuRequest => {
                Err("only divisor's values 1m and 1 are supported with the cpu resource".to_owned())
            }
            Self::MemoryLimit | Self::MemoryRequest if MEMORY_DIVISORS.contains(&divisor) => Ok(()),
            Self::MemoryLimit | Self::MemoryRequest => Err(format!(
                "only divisor's values {} are supported with the memory resource",
                MEMORY_DIVISORS.join(", ")
            )),
        }
    }
}

/// Why `resourceFieldRef` has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceFieldError {
    /// The resource is not one that can be named.
    #[error("unsupported container resource: {resource}")]
    UnknownResource {
        /// As it was given.
        resource: String,
    },
    /// `containerName` names no container of the Pod.
    #[error("container {container} not found")]
    UnknownContainer {
        /// As it was given.
        container: String,
    },
    /// The divisor is not a quantity, or the result is too large.
    #[error("cannot divide {resource}")]
    Divide {
        /// The resource.
        resource: String,
        /// What is wrong with the divisor.
        #[source]
        cause: QuantityError,
    },
}

/// The value of `resourceFieldRef` for `container` (or the one that it names), in units of its divisor, rounded up.
///
/// A limit that is not set is what the node can give: `allocatable`.
pub fn resource_field_value(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    allocatable: Amounts,
) -> Result<String, ResourceFieldError> {
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => container,
        Some(name) => container_named(pod, name)
            .ok_or_else(|| ResourceFieldError::UnknownContainer { container: name.to_owned() })?,
    };
    let unknown = || ResourceFieldError::UnknownResource { resource: selector.resource.clone() };
    let field = ResourceField::parse(&selector.resource).ok_or_else(unknown)?;
    let resources = match &pod.spec {
        Some(spec) => container_resources_in_pod(spec, container),
        None => container_resources(container),
    };
    let text = match field {
        ResourceField::CpuLimit => cpu(resources.limits.cpu_millis.filter(|c| *c > 0).or(allocatable.cpu_millis)),
        ResourceField::CpuRequest => cpu(resources.requests.cpu_millis),
        ResourceField::MemoryLimit => {
            bytes(resources.limits.memory_bytes.filter(|b| *b > 0).or(allocatable.memory_bytes))
        }
        ResourceField::MemoryRequest => bytes(resources.requests.memory_bytes),
    };
    let divide = |cause| ResourceFieldError::Divide { resource: selector.resource.clone(), cause };
    let divisor = selector.divisor.as_ref().map_or("0", |divisor| divisor.0.as_str());
    let divisor = Quantity::parse(if divisor.is_empty() { "0" } else { divisor }).map_err(divide)?;
    let amount = Quantity::parse(&text).map_err(divide)?;
    Ok(amount.divided_by(divisor).map_err(divide)?.to_string())
}

fn container_named<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|container| container.name == name)
}

fn cpu(millis: Option<i64>) -> String {
    format!("{}m", millis.unwrap_or(0))
}

fn bytes(bytes: Option<i64>) -> String {
    bytes.unwrap_or(0).to_string()
}

fn joined<'a>(addresses: impl Iterator<Item = &'a str>) -> String {
    addresses.collect::<Vec<_>>().join(",")
}

fn lines<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    pairs
        .map(|(key, value)| format!("{key}={}", serde_json::Value::from(value.as_str())))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "x.y/b": "2"}, "annotations": {"q": "say \"hi\"\n"}},
            "spec": {"nodeName": "node", "serviceAccountName": "default", "containers": [
                {"name": "a", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}},
                {"name": "b"},
            ]},
            "status": {"hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}], "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "fd00::2"}]},
        }))
        .unwrap()
    }

    #[test]
    fn fields_have_the_values_of_the_pod() {
        let table = [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("metadata.uid", "u"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['x.y/b']", "2"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['q']", "say \"hi\"\n"),
            ("metadata.labels", "a=\"1\"\nx.y/b=\"2\""),
            ("metadata.annotations", "q=\"say \\\"hi\\\"\\n\""),
            ("spec.nodeName", "node"),
            ("spec.serviceAccountName", "default"),
            ("status.hostIP", "192.0.2.1"),
            ("status.hostIPs", "192.0.2.1"),
            ("status.podIP", "10.0.0.2"),
            ("status.podIPs", "10.0.0.2,fd00::2"),
        ];
        for (path, value) in table {
            assert_eq!(FieldPath::parse(path).unwrap().value(&pod()), value, "{path}");
        }
        for path in ["", "metadata", "spec.hostname", "metadata.labels[a]", "metadata.name['a']", "status.phase"] {
            assert!(FieldPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn resources_are_counted_in_their_divisor() {
        let pod = pod();
        let node = Amounts { cpu_millis: Some(2000), memory_bytes: Some(1 << 30) };
        let table = [
            ("a", "limits.cpu", None, "2"),
            ("a", "limits.cpu", Some("1m"), "1500"),
            ("a", "requests.cpu", Some("1"), "1"),
            ("a", "limits.memory", None, "67108864"),
            ("a", "limits.memory", Some("1Mi"), "64"),
            ("a", "requests.memory", Some("1Mi"), "64"),
            ("b", "limits.cpu", None, "2"),
            ("b", "limits.memory", Some("1Gi"), "1"),
            ("b", "requests.cpu", None, "0"),
            ("b", "requests.memory", Some("0"), "0"),
        ];
        for (name, resource, divisor, value) in table {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"containerName": name, "resource": resource, "divisor": divisor}))
                    .unwrap();
            let container = &pod.spec.as_ref().unwrap().containers[1];
            let found = resource_field_value(&pod, container, &selector, node).unwrap();
            assert_eq!(found, value, "{name} {resource} {divisor:?}");
        }
        for selector in [json!({"resource": "limits.gpu"}), json!({"resource": "limits.cpu", "containerName": "none"})]
        {
            let selector: ResourceFieldSelector = serde_json::from_value(selector).unwrap();
            assert!(resource_field_value(&pod, &pod.spec.as_ref().unwrap().containers[0], &selector, node).is_err());
        }
    }
}
