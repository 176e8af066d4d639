//! Tables of what fits where.

use serde_json::{Value, json};

use super::*;

fn node(more: &Value) -> NodeView {
    NodeView {
        name: "edge".to_owned(),
        labels: [("disk", "fast"), ("cores", "8"), ("kubernetes.io/hostname", "edge")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        taints: serde_json::from_value(more["taints"].clone()).unwrap_or_default(),
        unschedulable: more["unschedulable"] == true,
        allocatable: [("cpu", 2000), ("memory", 1 << 30), ("pods", 2)]
            .map(|(name, amount)| (name.to_owned(), amount))
            .into(),
    }
}

fn pod(spec: &Value) -> Pod {
    let mut spec = spec.clone();
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    serde_json::from_value(json!({ "spec": spec })).unwrap()
}

fn used(pods: &[Value]) -> Used {
    let mut used = Used::default();
    for spec in pods {
        used.add(&Demand::of(&pod(spec)));
    }
    used
}

fn scheduler_says(spec: &Value, node: &NodeView, others: &[Value]) -> Vec<String> {
    let pod = pod(spec);
    let misfits = scheduler_misfits(pod.spec.as_ref().unwrap(), &Demand::of(&pod), node, &used(others));
    misfits.iter().map(Misfit::reason).collect()
}

fn with_cpu(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

#[test]
fn a_pod_goes_where_there_is_room() {
    let plain = node(&json!({}));
    let both = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "3", "memory": "2Gi"}}}]});
    let gpu = json!({"containers": [{"name": "c", "resources": {"limits": {"example.com/gpu": "1"}}}]});
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    let cases: [(Value, Vec<Value>, &[&str]); 10] = [
        (with_cpu("2"), vec![], &[]),
        (with_cpu("2001m"), vec![], &["Insufficient cpu"]),
        (with_cpu("1"), vec![with_cpu("1500m")], &["Insufficient cpu"]),
        (with_cpu("500m"), vec![with_cpu("1500m")], &[]),
        (both, vec![], &["Insufficient cpu", "Insufficient memory"]),
        (json!({}), vec![json!({}), json!({})], &["Too many pods"]),
        (gpu, vec![], &["Insufficient example.com/gpu"]),
        (port(""), vec![port("")], &["node(s) didn't have free ports for the requested pod ports"]),
        (port("127.0.0.1"), vec![port("")], &["node(s) didn't have free ports for the requested pod ports"]),
        (port("127.0.0.1"), vec![port("127.0.0.2")], &[]),
    ];
    for (spec, others, expected) in cases {
        assert_eq!(scheduler_says(&spec, &plain, &others), expected, "{spec} beside {others:?}");
    }
}

#[test]
fn a_pod_goes_where_labels_are_as_it_asks() {
    let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let label = |operator: &str, key: &str, values: Value| {
        affinity(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    };
    let spread = |key: &str, unsatisfiable: &str| json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": unsatisfiable}]});
    let table = [
        (json!({"nodeSelector": {"disk": "fast"}}), true),
        (json!({"nodeSelector": {"disk": "slow"}}), false),
        (label("In", "disk", json!(["slow", "fast"])), true),
        (label("NotIn", "disk", json!(["fast"])), false),
        (label("NotIn", "gpu", json!(["fast"])), true),
        (label("Exists", "gpu", json!([])), false),
        (label("DoesNotExist", "gpu", json!([])), true),
        (label("Gt", "cores", json!(["4"])), true),
        (label("Lt", "cores", json!(["8"])), false),
        (label("Gt", "disk", json!(["4"])), false),
        (affinity(json!([{}])), false),
        (
            affinity(
                json!([{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["edge"]}]}]),
            ),
            true,
        ),
        (spread("zone", "ScheduleAnyway"), true),
        (spread("zone", "DoNotSchedule"), false),
        (spread("kubernetes.io/hostname", "DoNotSchedule"), true),
    ];
    for (spec, fits) in table {
        assert_eq!(scheduler_says(&spec, &node(&json!({})), &[]).is_empty(), fits, "{spec}");
    }
}

#[test]
fn taints_keep_away_who_does_not_tolerate_them() {
    let taint = |effect: &str| node(&json!({"taints": [{"key": "k", "value": "v", "effect": effect}]}));
    let tolerating = |toleration: Value| json!({"tolerations": [toleration]});
    let table = [
        (json!({}), "NoSchedule", false),
        (json!({}), "NoExecute", false),
        (json!({}), "PreferNoSchedule", true),
        (tolerating(json!({"operator": "Exists"})), "NoSchedule", true),
        (tolerating(json!({"key": "k", "operator": "Exists"})), "NoSchedule", true),
        (tolerating(json!({"key": "k", "value": "v", "effect": "NoSchedule"})), "NoSchedule", true),
        (tolerating(json!({"key": "k", "value": "v", "effect": "NoSchedule"})), "NoExecute", false),
        (tolerating(json!({"key": "k", "value": "w"})), "NoSchedule", false),
        (tolerating(json!({"key": "j", "operator": "Exists"})), "NoSchedule", false),
    ];
    for (spec, effect, fits) in table {
        let said = scheduler_says(&spec, &taint(effect), &[]);
        let expected: &[&str] = if fits { &[] } else { &["node(s) had untolerated taint {k: v}"] };
        assert_eq!(said, expected, "{spec} {effect}");
    }
    let cordoned = node(&json!({"unschedulable": true}));
    assert_eq!(scheduler_says(&json!({}), &cordoned, &[]), ["node(s) were unschedulable"]);
    let daemon = tolerating(json!({"key": UNSCHEDULABLE, "operator": "Exists"}));
    assert!(scheduler_says(&daemon, &cordoned, &[]).is_empty());
}

#[test]
fn the_kubelet_looks_again_at_what_others_have_bound() {
    let says = |spec: &Value, more: Value| {
        let (pod, node) = (pod(spec), node(&more));
        kubelet_misfit(pod.spec.as_ref().unwrap(), &Demand::of(&pod), &node, &Used::default())
    };
    let too_much = Misfit::Resource { resource: "cpu".to_owned(), requested: 5000, used: 0, allocatable: 2000 };
    assert_eq!(says(&with_cpu("5"), json!({})), Some(too_much));
    assert_eq!(says(&json!({"nodeSelector": {"disk": "slow"}}), json!({})), Some(Misfit::NodeAffinity));
    let gpu = json!({"containers": [{"name": "c", "resources": {"limits": {"example.com/gpu": "1"}}}]});
    assert_eq!(says(&gpu, json!({})), None);
    assert_eq!(says(&json!({}), json!({"unschedulable": true})), None);
    assert_eq!(says(&json!({}), json!({"taints": [{"key": "k", "effect": "NoSchedule"}]})), None);
    let out = says(&json!({}), json!({"taints": [{"key": "k", "effect": "NoExecute"}]}));
    assert_eq!(out, Some(Misfit::Taint { key: "k".to_owned(), value: String::new() }));
}
