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
        kubelet_misfits(pod.spec.as_ref().unwrap(), &Demand::of(&pod), &node, &Used::default()).into_iter().next()
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

/// `name priority cpu`, and `leaving`, `pinned` or `critical`.
fn holder(text: &str) -> Holder {
    let words: Vec<_> = text.split(' ').collect();
    let mut pod = pod(&with_cpu(words[2]));
    pod.spec.as_mut().unwrap().priority = Some(words[1].parse().unwrap());
    let is = |word| words.get(3) == Some(&word);
    Holder {
        uid: crate::PodUid::new(words[0]),
        demand: Demand::of(&pod),
        started: None,
        qos: match words[0].split_once('-').map_or("", |(class, _)| class) {
            "best" => QosClass::BestEffort,
            "guaranteed" => QosClass::Guaranteed,
            _ => QosClass::Burstable,
        },
        critical: is("critical"),
        leaving: is("leaving"),
        removable: !is("pinned"),
    }
}

fn names(victims: &[crate::PodUid]) -> String {
    victims.iter().map(crate::PodUid::as_str).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_scheduler_takes_room_from_the_less_important() {
    let decide = |priority: i32, cpu: &str, holders: &[&str]| {
        let mut pod = pod(&with_cpu(cpu));
        pod.spec.as_mut().unwrap().priority = Some(priority);
        let holders: Vec<_> = holders.iter().map(|text| holder(text)).collect();
        let mut used = Used::default();
        for holder in &holders {
            used.add(&holder.demand);
        }
        let mut node = node(&json!({}));
        node.allocatable.insert("pods".to_owned(), 9);
        let victims = scheduler_victims(pod.spec.as_ref().unwrap(), &Demand::of(&pod), &node, &used, &holders);
        victims
            .map(|victims| names(&victims))
            .map_err(|misfits| misfits.iter().map(Misfit::reason).collect::<Vec<_>>().join(", "))
    };
    let said = |text: &str| Ok::<_, String>(text.to_owned());
    let none = |text: &str| Err::<String, _>(text.to_owned());
    assert_eq!(decide(10, "1", &["a 0 2"]), said("a"));
    assert_eq!(decide(10, "1", &["a 0 500m", "b 0 1500m"]), said("b"), "as many as can stay do");
    assert_eq!(decide(10, "2", &["a 5 1", "b 0 1"]), said("a b"));
    assert_eq!(decide(10, "1", &["a 5 1", "b 0 1"]), said("b"), "the more important one stays");
    assert_eq!(decide(10, "1", &["a 5 1 leaving", "b 0 1"]), said(""), "enough goes already");
    assert_eq!(decide(10, "1", &["a 10 2"]), none(""), "nobody is less important");
    assert_eq!(decide(10, "1", &["a 0 2 pinned"]), none(""));
    assert_eq!(decide(10, "1500m", &["a 10 1", "b 0 1"]), none("Insufficient cpu"));
}

#[test]
fn of_equals_who_came_last_goes() {
    let at = |second| crate::Timestamp::from_second(second).ok();
    let mut holders = [holder("old 0 1"), holder("new 0 1"), holder("unstarted 0 1")];
    holders[0].started = at(1);
    holders[1].started = at(2);
    let mut used = Used::default();
    for holder in &holders {
        used.add(&holder.demand);
    }
    let mut node = node(&json!({}));
    node.allocatable.extend([("pods".to_owned(), 9), ("cpu".to_owned(), 3000)]);
    for (cpu, wanted) in [("1", "unstarted"), ("2", "new unstarted"), ("3", "old new unstarted")] {
        let mut pod = pod(&with_cpu(cpu));
        pod.spec.as_mut().unwrap().priority = Some(1);
        let victims = scheduler_victims(pod.spec.as_ref().unwrap(), &Demand::of(&pod), &node, &used, &holders);
        assert_eq!(victims.map(|victims| names(&victims)), Ok(wanted.to_owned()), "{cpu}");
    }
}

/// Cases of the kubelet's `TestGetPodsToPreempt`, by processor time.
#[test]
fn the_kubelet_takes_room_from_few_small_pods_of_the_lower_classes() {
    let decide = |critical: bool, cpu: i64, holders: &[&str]| {
        let holders: Vec<_> = holders.iter().map(|text| holder(text)).collect();
        let missing = Misfit::Resource { resource: "cpu".to_owned(), requested: cpu, used: 2000, allocatable: 2000 };
        let demand = Demand { priority: 10, ..Demand::default() };
        kubelet_victims(&demand, critical, &[missing], &holders).map(|victims| names(&victims))
    };
    let said = |text: &str| Ok::<_, String>(text.to_owned());
    let short = |cpu: i64| Err::<String, _>(format!("[(res: cpu, q: {cpu}), ]"));
    assert_eq!(decide(true, 100, &["burst-small 0 100m", "burst-large 0 1"]), said("burst-small"));
    assert_eq!(decide(true, 1000, &["burst-small 0 100m", "burst-large 0 1"]), said("burst-large"), "one, not two");
    assert_eq!(decide(true, 1100, &["burst-small 0 100m", "burst-large 0 1"]), said("burst-large burst-small"));
    assert_eq!(decide(true, 300, &["guaranteed-a 0 300m", "burst-b 0 300m"]), said("burst-b"));
    assert_eq!(decide(true, 500, &["guaranteed-a 0 300m", "burst-b 0 300m"]), said("burst-b guaranteed-a"));
    assert_eq!(decide(true, 500, &["burst-a 0 300m leaving", "burst-b 0 300m"]), said("burst-b"));
    assert_eq!(decide(true, 300, &["burst-a 0 300m leaving", "burst-b 0 300m"]), said(""));
    assert_eq!(decide(true, 300, &["burst-a 99 300m critical"]), short(300));
    assert_eq!(
        decide(true, 300, &["burst-a 99 300m"]),
        said("burst-a"),
        "a critical Pod takes it from all that are not"
    );
    assert_eq!(decide(true, 300, &["burst-a 0 300m critical"]), said("burst-a"), "and from the less important");
    assert_eq!(decide(false, 300, &["burst-a 10 300m"]), short(300));
    assert_eq!(decide(true, 900, &["burst-a 0 300m", "burst-b 0 300m pinned"]), short(600));
}
