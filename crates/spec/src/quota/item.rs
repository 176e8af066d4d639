//! What one object takes: its usage by the names that quotas know.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use serde_json::Value;

use crate::Timestamp;
use crate::decode::{DecodeError, read};
use crate::huge_pages::is_huge_pages;
use crate::ordered::{map_of, set_of};
use crate::quantity::Quantity;
use crate::requests::{QuantityList, add_quantities, limiting_quantities, parsed, requested_quantities};

const CLASS: &str = ".storageclass.storage.k8s.io/";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// If a quota tracks one of these, each container must say what it wants (an old rule, kept for those who rely on it).
const MUST_BE_SAID: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

const OF_PODS: [&str; 11] = [
    "count/pods",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const OF_SERVICES: [&str; 4] = ["count/services", "services", "services.loadbalancers", "services.nodeports"];

/// One object, as far as quotas look at it.
#[derive(Debug)]
pub enum Item {
    /// A Pod, with what it asks for.
    Pod(Box<Pod>),
    /// A Service, with its ports.
    Service(Box<Service>),
    /// A claim, with its size.
    Claim(Box<PersistentVolumeClaim>),
    /// Anything else: the qualified name of its resource, such as `leases.coordination.k8s.io`.
    Other(String),
}

impl Item {
    /// Reads an object of a resource by its qualified name.
    pub fn read(resource: &str, object: &Value) -> Result<Self, DecodeError> {
        Ok(match resource {
            "pods" => Self::Pod(Box::new(read(object)?)),
            "services" => Self::Service(Box::new(read(object)?)),
            "persistentvolumeclaims" => Self::Claim(Box::new(read(object)?)),
            other => Self::Other(other.to_owned()),
        })
    }

    /// The qualified name of its resource.
    pub fn resource(&self) -> &str {
        match self {
            Self::Pod(_) => "pods",
            Self::Service(_) => "services",
            Self::Claim(_) => "persistentvolumeclaims",
            Self::Other(resource) => resource,
        }
    }

    /// What it takes.
    pub fn usage(&self, now: Timestamp) -> QuantityList {
        let mut usage = QuantityList::from([(format!("count/{}", self.resource()), Quantity::count(1))]);
        match self {
            Self::Pod(pod) if is_counted(pod, now) => usage.extend(of_pod(pod)),
            Self::Pod(_) => {}
            Self::Service(service) => usage.extend(of_service(service)),
            Self::Claim(claim) => usage.extend(of_claim(claim)),
            Self::Other(resource) => usage.extend(alias(resource).map(|name| (name.to_owned(), Quantity::count(1)))),
        }
        usage
    }

    /// What a quota of these names wants to be said and is not, such as `limits.cpu for: a,b`.
    pub(super) fn missing(&self, names: &BTreeSet<&String>) -> String {
        let Self::Pod(pod) = self else { return String::new() };
        let Some(spec) = &pod.spec else { return String::new() };
        // A Pod that asks as a whole has said enough.
        if spec.resources.as_ref().is_some_and(|own| own.requests.is_some() || own.limits.is_some()) {
            return String::new();
        }
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let said = of_container(container);
            let lacking =
                names.iter().filter(|name| MUST_BE_SAID.contains(&name.as_str()) && !said.contains_key(**name));
            for name in lacking {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
        let said = missing
            .into_iter()
            .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")));
        said.collect::<Vec<_>>().join("; ")
    }
}

/// Of a quota's names those that objects of this resource count under.
pub fn tracked_names<'a>(resource: &str, names: impl Iterator<Item = &'a String>) -> BTreeSet<&'a String> {
    let generic = format!("count/{resource}");
    let is_tracked = |name: &str| match resource {
        "pods" => OF_PODS.contains(&name) || is_page_quota(name) || is_extended(name),
        "services" => OF_SERVICES.contains(&name),
        "persistentvolumeclaims" => {
            let plain = name.rsplit_once(CLASS).map_or(name, |(_, plain)| plain);
            name == generic || ["persistentvolumeclaims", "requests.storage"].contains(&plain)
        }
        _ => name == generic || alias(resource) == Some(name),
    };
    set_of(names.filter(|name| is_tracked(name)))
}

/// The names by which some resources were counted before all could be.
fn alias(resource: &str) -> Option<&'static str> {
    ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"].into_iter().find(|name| *name == resource)
}

fn is_page_quota(name: &str) -> bool {
    is_huge_pages(name.strip_prefix("requests.").unwrap_or(name))
}

/// `requests.example.com/gpu`
fn is_extended(name: &str) -> bool {
    name.strip_prefix("requests.").is_some_and(|rest| rest.contains('/') && !rest.contains("kubernetes.io/"))
}

/// A Pod that has ended counts no longer, nor one that should be gone already.
fn is_counted(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return false;
    }
    match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(deleted), Some(grace)) => now.as_second() <= deleted.0.as_second().saturating_add(grace),
        _ => true,
    }
}

fn of_pod(pod: &Pod) -> QuantityList {
    let pod = &while_resized(pod);
    let (mut requests, mut limits) = (requested_quantities(pod), limiting_quantities(pod));
    let overhead = parsed(pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()));
    add_quantities(&mut requests, &overhead);
    for (name, limit) in limits.iter_mut().filter(|(_, limit)| !limit.is_zero()) {
        *limit = limit.plus(overhead.get(name).copied().unwrap_or(Quantity::ZERO));
    }
    by_names(&requests, &limits)
}

/// A Pod whose containers want the larger of what they are to have and of what they have: until a smaller size is real, the
/// larger one counts, and of a resize that cannot be only what is real (KEP-1287, "Resource Quota").
fn while_resized(pod: &Pod) -> Cow<'_, Pod> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Cow::Borrowed(pod) };
    let is_impossible = status.conditions.iter().flatten().any(|condition| {
        condition.type_ == "PodResizePending"
            && condition.status == "True"
            && condition.reason.as_deref() == Some("Infeasible")
    });
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let real = map_of(statuses.filter(|own| own.resources.is_some()).map(|own| (own.name.as_str(), own)));
    if real.is_empty() {
        return Cow::Borrowed(pod);
    }
    let larger = |container: &mut Container| {
        let Some(own) = real.get(container.name.as_str()) else { return };
        let wanted = container.resources.take().unwrap_or_default();
        let has = own.resources.as_ref();
        let (requests, limits) = (has.and_then(|has| has.requests.as_ref()), has.and_then(|has| has.limits.as_ref()));
        let (wanted_requests, wanted_limits) =
            if is_impossible { (None, None) } else { (wanted.requests.as_ref(), wanted.limits.as_ref()) };
        container.resources = Some(ResourceRequirements {
            requests: Some(largest([wanted_requests, requests, own.allocated_resources.as_ref()])),
            limits: Some(largest([wanted_limits, limits, None])),
            claims: wanted.claims,
        });
    };
    let mut spec: PodSpec = spec.clone();
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(larger);
    Cow::Owned(Pod { spec: Some(spec), metadata: pod.metadata.clone(), status: None })
}

/// The largest quantity of each name.
fn largest(lists: [Option<&BTreeMap<String, RawQuantity>>; 3]) -> BTreeMap<String, RawQuantity> {
    let mut all = QuantityList::new();
    for (name, quantity) in lists.into_iter().flat_map(parsed) {
        let known = all.entry(name).or_insert(quantity);
        if quantity.compare(*known).is_gt() {
            *known = quantity;
        }
    }
    super::raw(&all)
}

fn of_container(container: &Container) -> QuantityList {
    let own = container.resources.as_ref();
    let requests = parsed(own.and_then(|own| own.requests.as_ref()));
    by_names(&requests, &parsed(own.and_then(|own| own.limits.as_ref())))
}

fn by_names(requests: &QuantityList, limits: &QuantityList) -> QuantityList {
    let mut usage = QuantityList::from([("pods".to_owned(), Quantity::count(1))]);
    for (name, quantity) in requests {
        let is_plain = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) || is_huge_pages(name);
        if is_plain {
            usage.insert(name.clone(), *quantity);
        }
        if is_plain || name.contains('/') {
            usage.insert(format!("requests.{name}"), *quantity);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        usage.extend(limits.get(name).map(|quantity| (format!("limits.{name}"), *quantity)));
    }
    usage
}

fn of_service(service: &Service) -> QuantityList {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let fixed = ports.iter().filter(|port| port.node_port.is_some_and(|port| port != 0)).count();
    let (balancers, node_ports) = match spec.type_.as_deref() {
        Some("NodePort") => (0, ports.len()),
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => (1, fixed),
        Some("LoadBalancer") => (1, ports.len()),
        _ => (0, 0),
    };
    let node_ports = i64::try_from(node_ports).unwrap_or(i64::MAX);
    [("services", 1), ("services.loadbalancers", balancers), ("services.nodeports", node_ports)]
        .map(|(name, count)| (name.to_owned(), Quantity::count(count)))
        .into()
}

fn of_claim(claim: &PersistentVolumeClaim) -> QuantityList {
    let mut usage = QuantityList::from([("persistentvolumeclaims".to_owned(), Quantity::count(1))]);
    let spec = claim.spec.as_ref();
    let requests = parsed(spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()));
    let allocated = parsed(claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()));
    if let Some(asked) = requests.get("storage").map(|asked| asked.rounded_up()) {
        let granted = allocated.get("storage").map(|granted| granted.rounded_up());
        let size = granted.filter(|granted| granted.compare(asked).is_gt()).unwrap_or(asked);
        usage.insert("requests.storage".to_owned(), size);
    }
    let annotated = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    if let Some(class) = annotated.or(spec.and_then(|spec| spec.storage_class_name.as_ref())).filter(|c| !c.is_empty())
    {
        let of_class: Vec<_> =
            usage.iter().map(|(name, quantity)| (format!("{class}{CLASS}{name}"), *quantity)).collect();
        usage.extend(of_class);
    }
    usage
}
