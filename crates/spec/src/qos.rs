//! The quality-of-service class of a Pod, and how ready the kernel is to kill its processes.
//!
//! Sources: kubernetes.io "Pod Quality of Service Classes" and "Node out of memory behavior".

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;

use crate::resources::quantity_of;

/// How a Pod is treated when the node runs short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QosClass {
    /// Each container has CPU and memory limits, equal to its requests.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// No container asks for anything.
    BestEffort,
}

impl QosClass {
    /// The word of `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The class of a Pod: from its own CPU and memory if it names any (KEP-2837), else from those of its containers and init
/// containers.
pub fn qos_class(pod: &Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    if let Some(own) = &spec.resources {
        return class_of(Some(own));
    }
    let mut classes = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(container_class);
    let Some(first) = classes.next() else { return QosClass::BestEffort };
    if classes.all(|class| class == first) { first } else { QosClass::Burstable }
}

/// `oom_score_adj` of a container's processes: of 1000, how much sooner than others they are killed.
///
/// `node_memory` is the machine's memory in bytes. A Burstable container is safer the more of it it has requested; it
/// is never as safe as a Guaranteed one, nor as exposed as one that asked for nothing.
pub fn oom_score_adj(class: QosClass, memory_request: i64, node_memory: i64) -> i32 {
    match class {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let thousandths = i128::from(memory_request) * 1000 / i128::from(node_memory.max(1));
            i32::try_from((1000 - thousandths).clamp(3, 999)).unwrap_or(999)
        }
    }
}

fn container_class(container: &Container) -> QosClass {
    class_of(container.resources.as_ref())
}

fn class_of(resources: Option<&ResourceRequirements>) -> QosClass {
    let none = BTreeMap::new();
    let limits = resources.and_then(|r| r.limits.as_ref()).unwrap_or(&none);
    let requests = resources.and_then(|r| r.requests.as_ref()).unwrap_or(&none);
    let is_set = |list: &BTreeMap<String, RawQuantity>, name| quantity_of(list, name).is_some_and(|q| !q.is_zero());
    if !["cpu", "memory"].iter().any(|name| is_set(limits, name) || is_set(requests, name)) {
        return QosClass::BestEffort;
    }
    let is_guaranteed = ["cpu", "memory"].iter().all(|name| {
        is_set(limits, name)
            && match (quantity_of(limits, name), quantity_of(requests, name)) {
                (Some(limit), Some(request)) => limit.compare(request).is_eq(),
                // A limit alone is also the request (SetDefaults of the API server).
                (limit, None) => limit.is_some(),
                (None, Some(_)) => false,
            }
    });
    if is_guaranteed { QosClass::Guaranteed } else { QosClass::Burstable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: &[Value], init_containers: &[Value]) -> Pod {
        let named = |list: &[Value]| -> Vec<Value> {
            list.iter().map(|resources| json!({"name": "c", "resources": resources})).collect()
        };
        serde_json::from_value(
            json!({"spec": {"containers": named(containers), "initContainers": named(init_containers)}}),
        )
        .unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let limits_only = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let lower_request = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        let cpu_only = json!({"limits": {"cpu": "1"}});
        let zero = json!({"limits": {"cpu": "0"}, "requests": {"memory": "0"}});
        let none = json!({});
        let table = [
            (vec![full.clone()], vec![], QosClass::Guaranteed),
            (vec![full.clone(), limits_only.clone()], vec![], QosClass::Guaranteed),
            (vec![full.clone()], vec![none.clone()], QosClass::Burstable),
            (vec![none.clone()], vec![full.clone()], QosClass::Burstable),
            (vec![full.clone(), none.clone()], vec![], QosClass::Burstable),
            (vec![lower_request], vec![], QosClass::Burstable),
            (vec![cpu_only], vec![], QosClass::Burstable),
            (vec![none.clone()], vec![none], QosClass::BestEffort),
            (vec![zero], vec![], QosClass::BestEffort),
        ];
        for (containers, init_containers, class) in table {
            assert_eq!(qos_class(&pod(&containers, &init_containers)), class, "{containers:?} {init_containers:?}");
        }
    }

    #[test]
    fn a_pods_own_resources_come_first() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        let table = [
            (full.clone(), QosClass::Guaranteed),
            (json!({"requests": {"cpu": "1"}}), QosClass::Burstable),
            (json!({}), QosClass::BestEffort),
        ];
        for (own, class) in table {
            let mut pod = pod(std::slice::from_ref(&full), &[json!({})]);
            pod.spec.as_mut().unwrap().resources = serde_json::from_value(own.clone()).unwrap();
            assert_eq!(qos_class(&pod), class, "{own}");
        }
    }

    #[test]
    fn scores_stay_between_the_fixed_ones() {
        const GIB: i64 = 1 << 30;
        let table = [
            (QosClass::Guaranteed, 0, 8 * GIB, -997),
            (QosClass::BestEffort, 0, 8 * GIB, 1000),
            (QosClass::Burstable, 0, 8 * GIB, 999),
            (QosClass::Burstable, 4 * GIB, 8 * GIB, 500),
            (QosClass::Burstable, 8 * GIB, 8 * GIB, 3),
            (QosClass::Burstable, i64::MAX, 8 * GIB, 3),
            (QosClass::Burstable, 1, 0, 3),
        ];
        for (class, request, memory, score) in table {
            assert_eq!(oom_score_adj(class, request, memory), score, "{class} {request}");
        }
    }
}
