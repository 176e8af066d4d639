//! Ends that come from outside of the containers, and what keeps a Pod from beginning or from being ready.

use std::fs;

use e2e::TestNode;
use e2e::node::{condition, container};
use serde_json::{Value, json};

tests! {
    a_pod_past_its_deadline_fails,
    finalizers_hold_the_object_and_not_the_containers,
    gates_hold_back_a_pod_and_its_readiness,
    a_container_has_rules_of_its_own,
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn idle(metadata: &Value, more: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main", "image": "busybox:stable",
                "command": ["sh", "-c", "trap 'exit 6' TERM; sleep infinity & wait"],
            }],
        },
    });
    pod["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod
}

fn create(node: &TestNode, pod: &Value) {
    let answer = node.api().request("POST", PODS, Some(pod));
    assert_eq!(answer.code, 201, "{}", answer.body);
}

/// Replaces the object after `change`.
fn put(node: &TestNode, name: &str, door: &str, change: impl Fn(&mut Value)) {
    let mut pod = node.pod(name);
    change(&mut pod);
    pod["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let answer = node.api().request("PUT", &format!("{PODS}/{name}{door}"), Some(&pod));
    assert_eq!(answer.code, 200, "{}", answer.body);
}

fn a_pod_past_its_deadline_fails(node: &mut TestNode) {
    create(node, &idle(&json!({ "name": "late" }), &json!({ "activeDeadlineSeconds": 2 })));
    node.wait_ready("late");
    let pod = node.wait_phase("late", "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(container(&pod, "main")["state"]["terminated"]["exitCode"], 6, "it had time to end");
    let table = node.monopod(&["get", "pod", "late"]).ok();
    assert!(table.contains("DeadlineExceeded") || table.contains("Error"), "{table}");
}

fn finalizers_hold_the_object_and_not_the_containers(node: &mut TestNode) {
    create(node, &idle(&json!({ "name": "held", "finalizers": ["example.com/hold"] }), &json!({})));
    node.wait_ready("held");
    let answer = node.api().request("DELETE", &format!("{PODS}/held"), None);
    assert_eq!(answer.code, 200, "{}", answer.body);
    let pod = node.wait_for("held", "all ended", |pod| pod["metadata"]["deletionGracePeriodSeconds"] == 0);
    assert_eq!(pod["status"]["phase"], "Failed");
    assert!(node.processes().is_empty(), "nothing of it runs");
    put(node, "held", "", |pod| pod["metadata"]["finalizers"] = json!([]));
    let gone = node.api().request("GET", &format!("{PODS}/held"), None);
    assert_eq!(gone.code, 404, "{}", gone.body);
}

fn gates_hold_back_a_pod_and_its_readiness(node: &mut TestNode) {
    let gates = json!({
        "schedulingGates": [{ "name": "example.com/go" }],
        "readinessGates": [{ "conditionType": "example.com/lb" }],
    });
    create(node, &idle(&json!({ "name": "gated" }), &gates));
    node.wait_for("gated", "the gate is told", |pod| condition(pod, "PodScheduled") == Some("False"));
    let table = node.monopod(&["get", "pod", "gated"]).ok();
    assert!(table.contains("SchedulingGated"), "{table}");
    put(node, "gated", "", |pod| pod["spec"]["schedulingGates"] = json!([]));
    let pod = node.wait_for("gated", "it runs", |pod| condition(pod, "ContainersReady") == Some("True"));
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    assert!(pod["spec"]["nodeName"].is_string());
    put(node, "gated", "/status", |pod| {
        let lb = json!({ "type": "example.com/lb", "status": "True" });
        pod["status"]["conditions"].as_array_mut().unwrap().push(lb);
    });
    node.wait_ready("gated");
}

fn a_container_has_rules_of_its_own(node: &mut TestNode) {
    let rules = json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "told", "hostPath": { "path": node.path("") } }],
        "containers": [{
            "name": "main", "image": "busybox:stable", "restartPolicy": "Never",
            "restartPolicyRules": [{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }],
            "command": ["sh", "-c", "until code=$(cat /told/code); do usleep 10000; done; rm /told/code; exit $code"],
            "volumeMounts": [{ "name": "told", "mountPath": "/told" }],
        }],
    });
    create(node, &idle(&json!({ "name": "rules" }), &rules));
    node.wait_ready("rules");
    fs::write(node.path("code.new"), "42").unwrap();
    fs::rename(node.path("code.new"), node.path("code")).unwrap();
    node.wait_for("rules", "it runs again", |pod| {
        let main = container(pod, "main");
        main["restartCount"] == 1 && main["state"]["running"].is_object()
    });
    fs::write(node.path("code.new"), "1").unwrap();
    fs::rename(node.path("code.new"), node.path("code")).unwrap();
    let pod = node.wait_phase("rules", "Failed");
    assert_eq!(container(&pod, "main")["restartCount"], 1);
}
