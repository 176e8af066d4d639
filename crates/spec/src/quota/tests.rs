//! Tables of what counts and what is refused.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn quota(spec: &Value, used: &Value) -> ResourceQuota {
    let status = json!({"hard": spec["hard"], "used": used});
    serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec, "status": status})).unwrap()
}

fn pod(spec: &Value) -> Item {
    let mut object = json!({"spec": {"containers": [{"name": "a", "image": "i"}]}});
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    Item::read("pods", &object).unwrap()
}

fn asking(resources: &Value) -> Item {
    pod(&json!({"containers": [{"name": "a", "image": "i", "resources": resources}]}))
}

#[test]
fn usage_has_kubernetes_names() {
    let shown = |item: &Item| {
        let usage = item.usage(now()).into_iter().map(|(name, quantity)| format!("{name}={quantity}"));
        usage.collect::<Vec<_>>().join(" ")
    };
    let ended =
        |phase: &str| Item::read("pods", &json!({"spec": {"containers": []}, "status": {"phase": phase}})).unwrap();
    let service = |spec: Value| Item::read("services", &json!({ "spec": spec })).unwrap();
    let claim = |spec: Value| Item::read("persistentvolumeclaims", &json!({ "spec": spec })).unwrap();
    let storage = json!({"requests": {"storage": "1.5"}});
    let table = [
        (pod(&json!({})), "count/pods=1 pods=1"),
        (
            asking(&json!({"requests": {"cpu": "500m", "memory": "100M"}, "limits": {"cpu": "1"}})),
            "count/pods=1 cpu=500m limits.cpu=1 memory=100M pods=1 requests.cpu=500m requests.memory=100M",
        ),
        (
            asking(&json!({"requests": {"hugepages-2Mi": "4Mi", "example.com/gpu": "1"}})),
            "count/pods=1 hugepages-2Mi=4Mi pods=1 requests.example.com/gpu=1 requests.hugepages-2Mi=4Mi",
        ),
        (ended("Succeeded"), "count/pods=1"),
        (ended("Failed"), "count/pods=1"),
        (
            service(json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]})),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2",
        ),
        (
            service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                "ports": [{"port": 1, "nodePort": 30000}, {"port": 2}]})),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=1",
        ),
        (
            claim(json!({"resources": storage, "storageClassName": "gold"})),
            "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             gold.storageclass.storage.k8s.io/requests.storage=2 persistentvolumeclaims=1 requests.storage=2",
        ),
        (Item::read("secrets", &json!({})).unwrap(), "count/secrets=1 secrets=1"),
        (Item::read("leases.coordination.k8s.io", &json!({})).unwrap(), "count/leases.coordination.k8s.io=1"),
    ];
    for (item, usage) in table {
        assert_eq!(shown(&item), usage, "{item:?}");
    }
}

#[test]
fn a_pod_that_should_be_gone_counts_no_longer() {
    let deleted = |at: &str| {
        let metadata = json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 30});
        Item::read("pods", &json!({"metadata": metadata, "spec": {"containers": []}})).unwrap()
    };
    assert!(deleted("2025-12-31T23:59:40Z").usage(now()).contains_key("pods"));
    assert!(!deleted("2025-12-31T23:59:20Z").usage(now()).contains_key("pods"));
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let full = quota(&json!({"hard": {"pods": "1", "services": "9"}}), &json!({"pods": "1", "services": "0"}));
    assert_eq!(
        charge(&full, &pod(&json!({})), None, now()).unwrap_err(),
        "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    let small = quota(
        &json!({"hard": {"limits.memory": "1Gi", "pods": "9"}}),
        &json!({"limits.memory": "1000Mi", "pods": "1"}),
    );
    assert_eq!(
        charge(&small, &asking(&json!({"limits": {"memory": "30Mi"}})), None, now()).unwrap_err(),
        "exceeded quota: q, requested: limits.memory=30Mi, used: limits.memory=1000Mi, limited: limits.memory=1Gi"
    );
    assert_eq!(
        charge(&small, &pod(&json!({})), None, now()).unwrap_err(),
        "failed quota: q: must specify limits.memory for: a"
    );
    let fits = charge(&small, &asking(&json!({"limits": {"memory": "24Mi"}})), None, now()).unwrap().unwrap();
    assert_eq!(serde_json::to_value(raw(&fits)).unwrap(), json!({"limits.memory": "1Gi", "pods": "2"}));
    let unknown = quota(&json!({"hard": {"pods": "1"}}), &json!({}));
    assert_eq!(
        charge(&unknown, &pod(&json!({})), None, now()).unwrap_err(),
        "status unknown for quota: q, resources: pods"
    );
    let secret = Item::read("secrets", &json!({})).unwrap();
    assert_eq!(charge(&full, &secret, None, now()), Ok(None), "not its concern");
}

#[test]
fn a_change_is_charged_for_what_it_adds() {
    let quota = quota(&json!({"hard": {"requests.cpu": "1"}}), &json!({"requests.cpu": "900m"}));
    let of = |cpu: &str| asking(&json!({"requests": {"cpu": cpu}}));
    assert_eq!(charge(&quota, &of("200m"), Some(&of("200m")), now()), Ok(None));
    assert_eq!(charge(&quota, &of("100m"), Some(&of("200m")), now()), Ok(None), "less is counted by the task");
    let grown = charge(&quota, &of("300m"), Some(&of("200m")), now()).unwrap().unwrap();
    assert_eq!(grown["requests.cpu"].to_string(), "1");
    assert!(charge(&quota, &of("301m"), Some(&of("200m")), now()).is_err());
}

#[test]
fn scopes_choose_what_counts() {
    let best_effort = || pod(&json!({}));
    let other = || asking(&json!({"requests": {"cpu": "1"}}));
    let ending = || pod(&json!({"activeDeadlineSeconds": 5}));
    let important = || pod(&json!({"priorityClassName": "high"}));
    let crossing = || {
        let term = json!({"topologyKey": "k", "namespaces": ["other"]});
        pod(&json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))
    };
    let class = |operator: &str, values: Value| {
        let one = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
        json!({"hard": {"pods": "9"}, "scopeSelector": {"matchExpressions": [one]}})
    };
    let scope = |name: &str| json!({"hard": {"pods": "9"}, "scopes": [name]});
    let table = [
        (scope("BestEffort"), [true, false, true, true, true]),
        (scope("NotBestEffort"), [false, true, false, false, false]),
        (scope("Terminating"), [false, false, true, false, false]),
        (scope("NotTerminating"), [true, true, false, true, true]),
        (scope("CrossNamespacePodAffinity"), [false, false, false, false, true]),
        (class("In", json!(["high"])), [false, false, false, true, false]),
        (class("NotIn", json!(["high"])), [true, true, true, false, true]),
        (class("Exists", json!([])), [false, false, false, true, false]),
        (class("DoesNotExist", json!([])), [true, true, true, false, true]),
    ];
    for (spec, wanted) in table {
        let quota = quota(&spec, &json!({}));
        let items = [best_effort(), other(), ending(), important(), crossing()];
        assert_eq!(items.each_ref().map(|item| scope::matches(&quota, item)), wanted, "{spec}");
        let counted = count(&quota, ["pods"].into_iter(), items.iter(), now()).used.unwrap();
        assert_eq!(counted["pods"].0, wanted.iter().filter(|is| **is).count().to_string(), "{spec}");
    }
}

#[test]
fn a_pod_that_is_being_resized_counts_with_the_larger_size() {
    let usage = |wanted: &str, has: &str, allocated: &str, reason: &str| {
        let pod = json!({
            "spec": {"containers": [{"name": "a", "image": "i", "resources": {
                "requests": {"cpu": wanted, "memory": "1Mi"}, "limits": {"cpu": wanted},
            }}]},
            "status": {
                "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                "containerStatuses": [{
                    "name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "allocatedResources": {"cpu": allocated, "memory": "1Mi"},
                    "resources": {"requests": {"cpu": has, "memory": "1Mi"}, "limits": {"cpu": has}},
                }],
            },
        });
        let usage = Item::read("pods", &pod).unwrap().usage(now());
        let of = |name: &str| usage[name].to_string();
        assert_eq!(of("requests.memory"), "1Mi");
        (of("requests.cpu"), of("limits.cpu"))
    };
    let table = [
        // What it grows to counts at once, what it shrinks from until it has shrunk.
        (("2", "1", "1", "Deferred"), ("2", "2")),
        (("500m", "1", "500m", ""), ("1", "1")),
        (("500m", "500m", "1", ""), ("1", "500m")),
        (("500m", "500m", "500m", ""), ("500m", "500m")),
        // What can never be does not count.
        (("64", "1", "1", "Infeasible"), ("1", "1")),
    ];
    for ((wanted, has, allocated, reason), (requests, limits)) in table {
        let expected = (requests.to_owned(), limits.to_owned());
        assert_eq!(usage(wanted, has, allocated, reason), expected, "{wanted} {has} {allocated} {reason}");
    }
}
