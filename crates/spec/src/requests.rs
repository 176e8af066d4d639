//! What a Pod sets aside on its node, of every resource, and what it may use at most: what scheduling, admission and
//! eviction count with.
//!
//! Sources: kubernetes.io "Resource Management for Pods and Containers", "Pod Overhead", KEP-753 (sidecars) and KEP-2837
//! (Pod-level resources).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::ordered::map_of;
use crate::quantity::Quantity;

/// Amounts by resource name: `cpu` in thousandths of a core, everything else in whole units (bytes, pieces).
pub type ResourceList = BTreeMap<String, i64>;

/// Quantities by resource name, each in the notation it was written in: what is shown to people as they wrote it.
pub type QuantityList = BTreeMap<String, Quantity>;

/// What can be summed: an amount in whole units, or a quantity.
trait Summand: Copy {
    const ZERO: Self;
    fn plus(self, more: Self) -> Self;
    fn larger(self, other: Self) -> Self;
}

impl Summand for i64 {
    const ZERO: Self = 0;
    fn plus(self, more: Self) -> Self {
        self.saturating_add(more)
    }
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Summand for Quantity {
    const ZERO: Self = Quantity::ZERO;
    fn plus(self, more: Self) -> Self {
        Quantity::plus(self, more)
    }
    fn larger(self, other: Self) -> Self {
        if other.compare(self).is_gt() { other } else { self }
    }
}

/// The larger of what a Pod's containers need together and of what its init containers need one after another, with
/// what the Pod itself asks for in place of the sum, and its overhead on top.
pub fn pod_requests(pod: &Pod) -> ResourceList {
    let mut total = worst_moment(pod, requests);
    if let Some(overhead) = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()) {
        add(&mut total, &amounts(overhead));
    }
    total
}

/// What a Pod may use of one resource: the sum of the limits that there are; `None` if there is none.
pub fn pod_limit(pod: &Pod, resource: &str) -> Option<i64> {
    pod_limits(pod).get(resource).copied()
}

/// What a Pod may use: the sums of the limits that there are, where it has none of its own.
pub fn pod_limits(pod: &Pod) -> ResourceList {
    worst_moment(pod, limits)
}

/// The same as [`pod_requests`] in quantities, without the overhead, and of requests alone: what a `LimitRange` measures.
pub fn requested_quantities(pod: &Pod) -> QuantityList {
    worst_moment(pod, |resources| parsed(resources.requests.as_ref()))
}

/// The same as [`pod_limits`] in quantities.
pub fn limiting_quantities(pod: &Pod) -> QuantityList {
    worst_moment(pod, |resources| parsed(resources.limits.as_ref()))
}

/// A map of quantities, read. What cannot be read is left out: validation refuses it.
pub fn parsed(list: Option<&BTreeMap<String, RawQuantity>>) -> QuantityList {
    let read = |(name, raw): (&String, &RawQuantity)| Some((name.clone(), Quantity::parse(&raw.0).ok()?));
    map_of(list.into_iter().flatten().filter_map(read))
}

/// Adds each quantity to the one of that name.
pub fn add_quantities(total: &mut QuantityList, more: &QuantityList) {
    add(total, more);
}

/// What the containers of a Pod set aside together, whatever the Pod itself asks for.
pub fn containers_requests(spec: &PodSpec) -> ResourceList {
    worst_moment_of_containers(spec, &requests)
}

/// Of what a Pod sets aside in memory, each container's share of what none of them asks for (kubelet,
/// `remainingPodMemReqPerContainer`).
pub fn unclaimed_memory(spec: &PodSpec) -> i64 {
    let own = spec.resources.as_ref().and_then(|own| own.requests.as_ref()).map(amounts).unwrap_or_default();
    let Some(own) = own.get("memory").copied().filter(|own| *own > 0) else { return 0 };
    let claimed = containers_requests(spec).get("memory").copied().unwrap_or_default();
    let count = spec.containers.len() + spec.init_containers.iter().flatten().count();
    own.saturating_sub(claimed).max(0) / i64::try_from(count.max(1)).unwrap_or(i64::MAX)
}

/// Amounts as quantities in their canonical form: those that are whole Kibibytes in powers of 1024.
pub fn quantities(list: &ResourceList) -> BTreeMap<String, RawQuantity> {
    let quantity = |(name, amount): (&String, &i64)| {
        let text = match name.as_str() {
            "cpu" => format!("{amount}m"),
            _ if amount % 1024 == 0 => format!("{}Ki", amount / 1024),
            _ => amount.to_string(),
        };
        let canonical = Quantity::parse(&text).map_or(text, |quantity| quantity.to_string());
        (name.clone(), RawQuantity(canonical))
    };
    map_of(list.iter().map(quantity))
}

/// What one container sets aside; a limit alone is also the request.
pub fn container_requests(container: &Container) -> ResourceList {
    container.resources.as_ref().map(requests).unwrap_or_default()
}

/// Whether a Pod as a whole may ask for this resource (KEP-2837).
pub fn is_pod_level(resource: &str) -> bool {
    ["cpu", "memory"].contains(&resource) || crate::huge_pages::is_huge_pages(resource)
}

/// One amount, in the unit of a [`ResourceList`]. What cannot be read counts as nothing: validation has refused it.
pub fn amount(resource: &str, quantity: &RawQuantity) -> i64 {
    let Ok(quantity) = Quantity::parse(&quantity.0) else { return 0 };
    let amount = if resource == "cpu" { quantity.millis() } else { quantity.value() };
    amount.unwrap_or(i64::MAX)
}

/// A map of quantities, in the units of a [`ResourceList`].
pub fn amounts(list: &BTreeMap<String, RawQuantity>) -> ResourceList {
    map_of(list.iter().map(|(name, quantity)| (name.clone(), amount(name, quantity))))
}

fn requests(resources: &ResourceRequirements) -> ResourceList {
    let mut list = limits(resources);
    list.extend(resources.requests.as_ref().map(amounts).unwrap_or_default());
    list
}

fn limits(resources: &ResourceRequirements) -> ResourceList {
    resources.limits.as_ref().map(amounts).unwrap_or_default()
}

/// Sidecars stay for all that follows them; other init containers run one after another.
fn worst_moment<T: Summand>(
    pod: &Pod,
    of: impl Fn(&ResourceRequirements) -> BTreeMap<String, T>,
) -> BTreeMap<String, T> {
    let Some(spec) = &pod.spec else { return BTreeMap::new() };
    let mut total = worst_moment_of_containers(spec, &of);
    if let Some(resources) = &spec.resources {
        total.extend(of(resources).into_iter().filter(|(name, _)| is_pod_level(name)));
    }
    total
}

fn worst_moment_of_containers<T: Summand>(
    spec: &PodSpec,
    of: &dyn Fn(&ResourceRequirements) -> BTreeMap<String, T>,
) -> BTreeMap<String, T> {
    let of_container = |container: &Container| container.resources.as_ref().map(of).unwrap_or_default();
    let (mut sidecars, mut highest) = (BTreeMap::new(), BTreeMap::new());
    for container in spec.init_containers.iter().flatten() {
        let mut now = sidecars.clone();
        add(&mut now, &of_container(container));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.clone_from(&now);
        }
        raise(&mut highest, &now);
    }
    let mut total = sidecars;
    for container in &spec.containers {
        add(&mut total, &of_container(container));
    }
    raise(&mut total, &highest);
    total
}

fn add<T: Summand>(total: &mut BTreeMap<String, T>, more: &BTreeMap<String, T>) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_insert(T::ZERO);
        *sum = sum.plus(*amount);
    }
}

fn raise<T: Summand>(total: &mut BTreeMap<String, T>, least: &BTreeMap<String, T>) {
    for (name, amount) in least {
        let present = total.entry(name.clone()).or_insert(T::ZERO);
        *present = present.larger(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn requested(spec: &Value) -> Value {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        serde_json::to_value(pod_requests(&pod)).unwrap()
    }

    #[test]
    fn a_pod_sets_aside_what_its_containers_need_at_the_worst_moment() {
        let of =
            |cpu: &str, memory: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let mut sidecar = of("1", "1Mi");
        sidecar["restartPolicy"] = json!("Always");
        let mib = 1 << 20;
        let table = [
            (json!({"containers": [of("100m", "1Mi"), of("1", "2Mi")]}), json!({"cpu": 1100, "memory": 3 * mib})),
            (
                json!({"containers": [of("1", "1Mi")], "initContainers": [of("2", "0"), of("1", "8Mi")]}),
                json!({"cpu": 2000, "memory": 8 * mib}),
            ),
            (
                json!({"containers": [of("1", "1Mi")], "initContainers": [sidecar, of("2", "1Mi")]}),
                json!({"cpu": 3000, "memory": 2 * mib}),
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"limits": {"example.com/gpu": "2"}}}]}),
                json!({"example.com/gpu": 2}),
            ),
            (
                json!({
                    "containers": [of("100m", "1Mi")], "overhead": {"cpu": "50m"},
                    "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "4Mi"}},
                }),
                json!({"cpu": 2050, "memory": 4 * mib}),
            ),
            (json!({"containers": [{"name": "c"}]}), json!({})),
        ];
        for (spec, expected) in table {
            assert_eq!(requested(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn amounts_are_shown_in_their_canonical_form() {
        let list = [("cpu", 1500), ("memory", 64 << 20), ("ephemeral-storage", 1000), ("example.com/gpu", 2)];
        let list: ResourceList = list.map(|(name, amount)| (name.to_owned(), amount)).into();
        let shown = serde_json::to_value(quantities(&list)).unwrap();
        assert_eq!(shown, json!({"cpu": "1500m", "memory": "64Mi", "ephemeral-storage": "1k", "example.com/gpu": "2"}));
        let cores: ResourceList = [("cpu".to_owned(), 2000), ("memory".to_owned(), 0)].into();
        assert_eq!(serde_json::to_value(quantities(&cores)).unwrap(), json!({"cpu": "2", "memory": "0"}));
    }

    #[test]
    fn memory_that_no_container_claims_is_shared_evenly() {
        let spec = |own: Value| -> PodSpec {
            let claims = json!({"name": "a", "resources": {"requests": {"memory": "10"}}});
            serde_json::from_value(json!({"containers": [claims, {"name": "b"}], "resources": own})).unwrap()
        };
        assert_eq!(unclaimed_memory(&spec(json!({"requests": {"memory": "100"}}))), 45);
        assert_eq!(unclaimed_memory(&spec(json!({"requests": {"memory": "10"}}))), 0);
        assert_eq!(unclaimed_memory(&spec(json!({"requests": {"cpu": "1"}}))), 0);
        assert_eq!(unclaimed_memory(&spec(Value::Null)), 0);
    }

    #[test]
    fn a_limit_of_some_containers_is_one_of_the_pod() {
        let limited = json!({"name": "c", "resources": {"limits": {"ephemeral-storage": "1Mi"}}});
        let pod =
            |containers: Value| -> Pod { serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap() };
        assert_eq!(pod_limit(&pod(json!([limited, limited, {"name": "d"}])), "ephemeral-storage"), Some(2 << 20));
        assert_eq!(pod_limit(&pod(json!([{"name": "d"}])), "ephemeral-storage"), None);
    }
}
