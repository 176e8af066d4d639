//! What a Pod asks of the machine: the sums that its cgroup gets, and the shares of its containers.
//!
//! Sources: kubernetes.io "Resource Management for Pods and Containers" and "Resource sharing within containers"
//! (init containers); the kubelet's conversion to cgroup values.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::quantity::Quantity;

/// CPU in thousandths of a core, memory in bytes; `None` where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Millicores.
    pub cpu_millis: Option<i64>,
    /// Bytes.
    pub memory_bytes: Option<i64>,
}

/// Requests and limits, of one container or of a whole Pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// What is set aside.
    pub requests: Amounts,
    /// What is never exceeded.
    pub limits: Amounts,
}

/// What one container asks for; a request that is not given equals the limit.
pub fn container_resources(container: &Container) -> Resources {
    let limits = amounts(container.resources.as_ref().and_then(|r: &ResourceRequirements| r.limits.as_ref()));
    let requests = amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    Resources {
        requests: Amounts {
            cpu_millis: requests.cpu_millis.or(limits.cpu_millis),
            memory_bytes: requests.memory_bytes.or(limits.memory_bytes),
        },
        limits,
    }
}

/// The same, with the limits of the Pod where the container has none of its own (KEP-2837; kubelet, `GetLimits`).
pub fn container_resources_in_pod(spec: &PodSpec, container: &Container) -> Resources {
    let (mut resources, pod) = (container_resources(container), pod_level(spec).limits);
    let given = |own: Option<i64>| own.filter(|amount| *amount > 0);
    resources.limits.cpu_millis = given(resources.limits.cpu_millis).or(given(pod.cpu_millis));
    resources.limits.memory_bytes = given(resources.limits.memory_bytes).or(given(pod.memory_bytes));
    resources
}

/// What the Pod itself asks for, beside its containers (KEP-2837).
pub fn pod_level(spec: &PodSpec) -> Resources {
    let own = spec.resources.as_ref();
    Resources {
        requests: amounts(own.and_then(|own| own.requests.as_ref())),
        limits: amounts(own.and_then(|own| own.limits.as_ref())),
    }
}

/// What the Pod's cgroup gets: what the Pod itself asks for, else the larger of what its containers need together and of
/// what the init containers need.
///
/// A limit exists only where each container has one: one without a limit leaves the Pod without it. Init containers run
/// one after another, but those with `restartPolicy: Always` stay and count for all that follows (KEP-753).
pub fn pod_resources(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    let sum = |absent, of: fn(&Resources) -> Option<i64>| effective(&spec.containers, init_containers, absent, of);
    let own = pod_level(spec);
    // A limit of zero is no limit.
    let limit = |own: Option<i64>, of| own.filter(|own| *own > 0).or_else(|| sum(Absent::IsUnlimited, of));
    let resources = Resources {
        requests: Amounts {
            cpu_millis: own.requests.cpu_millis.or_else(|| sum(Absent::IsZero, |r| r.requests.cpu_millis)),
            memory_bytes: own.requests.memory_bytes.or_else(|| sum(Absent::IsZero, |r| r.requests.memory_bytes)),
        },
        limits: Amounts {
            cpu_millis: limit(own.limits.cpu_millis, |r| r.limits.cpu_millis),
            memory_bytes: limit(own.limits.memory_bytes, |r| r.limits.memory_bytes),
        },
    };
    with_overhead(resources, amounts(spec.overhead.as_ref()))
}

/// What the sandbox itself needs comes on top; where there is no limit, it makes none ("Pod Overhead").
fn with_overhead(resources: Resources, overhead: Amounts) -> Resources {
    let Resources { requests, limits } = resources;
    let plus = |amount: Option<i64>, more: Option<i64>| Some(amount?.saturating_add(more.unwrap_or(0)));
    let or_zero = |amount: Option<i64>, more: Option<i64>| amount.or(more.map(|_| 0));
    Resources {
        requests: Amounts {
            cpu_millis: plus(or_zero(requests.cpu_millis, overhead.cpu_millis), overhead.cpu_millis),
            memory_bytes: plus(or_zero(requests.memory_bytes, overhead.memory_bytes), overhead.memory_bytes),
        },
        limits: Amounts {
            cpu_millis: plus(limits.cpu_millis, overhead.cpu_millis),
            memory_bytes: plus(limits.memory_bytes, overhead.memory_bytes),
        },
    }
}

/// `cpu.shares` of a CPU request: 1024 for each core, within the kernel's bounds.
pub fn cpu_shares(cpu_millis: Option<i64>) -> u64 {
    let shares = i128::from(cpu_millis.unwrap_or(0)) * 1024 / 1000;
    u64::try_from(shares.clamp(2, 262_144)).unwrap_or(2)
}

/// `cpu.weight` (cgroup v2) of `cpu.shares` (v1), on the line that maps 2..=262144 to 1..=10000.
pub fn cpu_weight(cpu_shares: u64) -> u64 {
    1 + (cpu_shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Length of the period in which the CPU quota is given, in microseconds.
pub const CPU_PERIOD_MICROS: u64 = 100_000;

/// CPU time per period in microseconds; at least one millisecond, the least that the kernel takes.
pub fn cpu_quota_micros(cpu_millis: Option<i64>) -> Option<u64> {
    let millis = u64::try_from(cpu_millis?).ok().filter(|millis| *millis > 0)?;
    Some(millis.saturating_mul(CPU_PERIOD_MICROS / 1000).max(1000))
}

/// One quantity of a list; one that cannot be read counts as absent (validation has refused it at the door).
pub(crate) fn quantity_of(list: &BTreeMap<String, RawQuantity>, name: &str) -> Option<Quantity> {
    Quantity::parse(&list.get(name)?.0).ok()
}

#[derive(Clone, Copy, PartialEq)]
enum Absent {
    IsZero,
    IsUnlimited,
}

fn amounts(list: Option<&BTreeMap<String, RawQuantity>>) -> Amounts {
    let Some(list) = list else { return Amounts::default() };
    Amounts {
        cpu_millis: quantity_of(list, "cpu").map(|q| q.millis().unwrap_or(i64::MAX)),
        memory_bytes: quantity_of(list, "memory").map(|q| q.value().unwrap_or(i64::MAX)),
    }
}

fn effective(
    containers: &[Container],
    init_containers: &[Container],
    absent: Absent,
    amount_of: impl Fn(&Resources) -> Option<i64>,
) -> Option<i64> {
    let amount = |container: &Container| {
        // A limit of zero is no limit, as for the kernel.
        amount_of(&container_resources(container)).filter(|amount| absent == Absent::IsZero || *amount > 0)
    };
    let mut sidecars = Sum::default();
    let mut highest = Sum::default();
    for container in init_containers {
        let mut now = sidecars;
        now.add(amount(container));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = now;
        }
        highest = highest.larger(now);
    }
    let mut together = sidecars;
    for container in containers {
        together.add(amount(container));
    }
    let all = highest.larger(together);
    if absent == Absent::IsUnlimited && all.some_absent { None } else { all.total }
}

#[derive(Clone, Copy, Default)]
struct Sum {
    total: Option<i64>,
    some_absent: bool,
}

impl Sum {
    fn add(&mut self, amount: Option<i64>) {
        match amount {
            Some(amount) => self.total = Some(self.total.unwrap_or(0).saturating_add(amount)),
            None => self.some_absent = true,
        }
    }

    fn larger(self, other: Self) -> Self {
        Self { total: self.total.max(other.total), some_absent: self.some_absent || other.some_absent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn pod(containers: Value, init_containers: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": containers, "initContainers": init_containers}})).unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn sums_are_the_larger_of_containers_and_init_containers() {
        let a = container(json!({"cpu": "100m", "memory": "64Mi"}), json!({"cpu": "200m", "memory": "128Mi"}));
        let b = container(json!({}), json!({"cpu": "1", "memory": "1Mi"}));
        let bare = container(json!({}), json!({}));
        let mut sidecar = b.clone();
        sidecar["restartPolicy"] = json!("Always");
        let mib = 1 << 20;
        let table = [
            (json!([a]), json!([]), Some(100), Some(64 * mib), Some(200), Some(128 * mib)),
            (json!([a, a]), json!([]), Some(200), Some(128 * mib), Some(400), Some(256 * mib)),
            (json!([a]), json!([b]), Some(1000), Some(64 * mib), Some(1000), Some(128 * mib)),
            (json!([a]), json!([b, b]), Some(1000), Some(64 * mib), Some(1000), Some(128 * mib)),
            (json!([a]), json!([sidecar, b]), Some(2000), Some(65 * mib), Some(2000), Some(129 * mib)),
            (json!([a]), json!([b, sidecar]), Some(1100), Some(65 * mib), Some(1200), Some(129 * mib)),
            (json!([a, bare]), json!([]), Some(100), Some(64 * mib), None, None),
            (json!([a]), json!([bare]), Some(100), Some(64 * mib), None, None),
            (json!([bare]), json!([]), None, None, None, None),
        ];
        for (containers, init_containers, cpu_request, memory_request, cpu_limit, memory_limit) in table {
            let found = pod_resources(&pod(containers.clone(), init_containers.clone()));
            let expected = Resources {
                requests: Amounts { cpu_millis: cpu_request, memory_bytes: memory_request },
                limits: Amounts { cpu_millis: cpu_limit, memory_bytes: memory_limit },
            };
            assert_eq!(found, expected, "{containers} {init_containers}");
        }
    }

    #[test]
    fn overhead_comes_on_top_and_limits_nothing_by_itself() {
        let amounts = |cpu_millis, memory_bytes| Amounts { cpu_millis, memory_bytes };
        let overhead = amounts(Some(10), Some(4));
        let limited = Resources { requests: amounts(Some(100), None), limits: amounts(Some(200), None) };
        let expected = Resources { requests: amounts(Some(110), Some(4)), limits: amounts(Some(210), None) };
        assert_eq!(with_overhead(limited, overhead), expected);
        assert_eq!(with_overhead(limited, Amounts::default()), limited);
    }

    #[test]
    fn what_the_pod_asks_for_comes_before_its_containers() {
        let a = container(json!({"cpu": "100m", "memory": "64Mi"}), json!({"cpu": "200m"}));
        let mut pod = pod(json!([a, {"name": "bare"}]), json!([]));
        let own = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        pod.spec.as_mut().unwrap().resources = serde_json::from_value(own).unwrap();
        let amounts = |cpu, memory| Amounts { cpu_millis: Some(cpu), memory_bytes: Some(memory) };
        let expected = Resources { requests: amounts(1000, 64 << 20), limits: amounts(2000, 1 << 30) };
        assert_eq!(pod_resources(&pod), expected);
        let spec = pod.spec.unwrap();
        let limits = |index: usize| container_resources_in_pod(&spec, &spec.containers[index]).limits;
        assert_eq!((limits(0), limits(1)), (amounts(200, 1 << 30), amounts(2000, 1 << 30)));
        assert_eq!(container_resources_in_pod(&spec, &spec.containers[1]).requests, Amounts::default());
    }

    #[test]
    fn cpu_becomes_shares_weight_and_quota() {
        // millicores, shares, weight, quota
        let table = [
            (None, 2, 1, None),
            (Some(0), 2, 1, None),
            (Some(1), 2, 1, Some(1000)),
            (Some(100), 102, 4, Some(10_000)),
            (Some(500), 512, 20, Some(50_000)),
            (Some(1000), 1024, 39, Some(100_000)),
            (Some(2500), 2560, 98, Some(250_000)),
            (Some(i64::MAX), 262_144, 10_000, Some(u64::MAX)),
        ];
        for (millis, shares, weight, quota) in table {
            assert_eq!(cpu_shares(millis), shares, "{millis:?}");
            assert_eq!(cpu_weight(shares), weight, "{millis:?}");
            assert_eq!(cpu_quota_micros(millis), quota, "{millis:?}");
        }
    }
}
