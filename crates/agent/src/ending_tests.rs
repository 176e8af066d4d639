//! Ends of pods that come from outside of their containers, and what keeps a pod from beginning.

use runtime::fake::{OnSignal, Verb};
use serde_json::{Value, json};
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::testing::{TestNode, condition, is_ready, pod, status_of};

fn spec(more: &Value) -> Value {
    let mut spec = json!({ "containers": [{ "name": "app", "image": "app:1" }] });
    let (Some(fields), Some(more)) = (spec.as_object_mut(), more.as_object()) else { unreachable!() };
    fields.extend(more.clone());
    spec
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_active_for_too_long_fails_and_gets_its_grace_period() {
    let node = TestNode::start().await;
    node.runtime.on_signal("app", OnSignal::Ignores);
    node.create(&pod(&spec(&json!({ "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5 })))).await;
    let ready = node.wait_for("web", is_ready).await;
    node.advance(59).await;
    node.settle().await;
    assert!(node.runtime.history().iter().all(|happened| happened.verb != Verb::StopContainer));
    node.advance(1).await;
    node.wait_for_stop_request("u-web").await;
    assert_eq!(node.get("web").unwrap()["status"]["phase"], "Running", "its container still runs");
    node.advance(5).await;
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(pod["status"]["message"], "Pod was active on the node longer than the specified deadline");
    assert_eq!(node.wait_for_event("DeadlineExceeded").await, pod["status"]["message"].as_str().unwrap());
    let terminated = &status_of(&pod, "app")["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["signal"]), (&json!(137), &Value::Null));
    assert_eq!(condition(&pod, "Ready")["reason"], "PodFailed");
    assert!(pod["status"]["podIP"].is_string());
    assert_eq!(pod["status"]["podIPs"], ready["status"]["podIPs"], "it stays told, whoever has it now");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_on_while_the_daemon_is_dead_and_may_be_lowered() {
    let mut node = TestNode::start().await;
    node.create(&pod(&spec(&json!({ "activeDeadlineSeconds": 600 })))).await;
    node.wait_for("web", is_ready).await;
    node.kill_agent().await;
    node.advance(50).await;
    node.start_agent().await;
    node.settle().await;
    assert_eq!(node.get("web").unwrap()["status"]["phase"], "Running");
    node.edit("web", |pod| pod["spec"]["activeDeadlineSeconds"] = 70.into()).await;
    node.settle().await;
    node.advance(20).await;
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_pod_that_waits_for_its_image() {
    let node = TestNode::start().await;
    let waits = json!({ "activeDeadlineSeconds": 30, "containers": [{ "name": "app", "image": "absent:1" }] });
    node.create(&pod(&waits)).await;
    node.wait_for_reason("web", "app", "ErrImagePull").await;
    node.advance(30).await;
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test(start_paused = true)]
async fn finalizers_keep_the_object_while_the_containers_stop() {
    let node = TestNode::start().await;
    let mut held = pod(&spec(&json!({})));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    node.create(&held).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 30).await;
    let pod = node.wait_for("web", |pod| pod["metadata"]["deletionGracePeriodSeconds"] == 0).await;
    assert_eq!(pod["status"]["phase"], "Failed");
    assert_eq!(status_of(&pod, "app")["state"]["terminated"]["exitCode"], 143);
    assert!(node.leftovers().is_empty(), "{:?}", node.leftovers());
    node.edit("web", |pod| pod["metadata"]["finalizers"] = json!([])).await;
    node.wait_until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_gated_pod_waits_without_a_node() {
    let node = TestNode::start().await;
    node.create(&pod(&spec(&json!({ "schedulingGates": [{ "name": "example.com/go" }] })))).await;
    let gated = node.wait_for("web", |pod| condition(pod, "PodScheduled")["reason"] == "SchedulingGated").await;
    assert_eq!(condition(&gated, "PodScheduled")["status"], "False");
    assert!(gated["spec"]["nodeName"].is_null() && gated["status"]["startTime"].is_null());
    assert!(node.verbs().is_empty());
    node.edit("web", |pod| pod["spec"]["schedulingGates"] = json!([])).await;
    let pod = node.wait_for("web", is_ready).await;
    assert_eq!(pod["spec"]["nodeName"], "edge");
    assert_eq!(condition(&pod, "PodScheduled")["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn of_a_pod_that_says_that_it_is_gated_nothing_is_written() {
    let node = TestNode::start().await;
    let mut gated = pod(&spec(&json!({ "schedulingGates": [{ "name": "example.com/go" }] })));
    let since = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
    let said = serde_json::to_value(spec::gates::gated_condition(Some(1), since)).unwrap();
    gated["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort", "conditions": [said] });
    node.create(&gated).await;
    let created = node.get("web");
    node.advance(1).await;
    assert_eq!(node.get("web"), created);
}

#[tokio::test(start_paused = true)]
async fn readiness_gates_hold_back_ready_until_others_say_so() {
    let node = TestNode::start().await;
    node.create(&pod(&spec(&json!({ "readinessGates": [{ "conditionType": "example.com/lb" }] })))).await;
    let pod = node.wait_for("web", |pod| condition(pod, "ContainersReady")["status"] == "True").await;
    let ready = condition(&pod, "Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ReadinessGatesNotReady")));
    assert_eq!(ready["message"], "corresponding condition of pod readiness gate \"example.com/lb\" does not exist.");
    let say = |status: &'static str| {
        move |pod: &mut Value| {
            let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
            conditions.retain(|condition| condition["type"] != "example.com/lb");
            conditions.push(json!({ "type": "example.com/lb", "status": status }));
        }
    };
    node.edit("web", say("False")).await;
    let told = "the status of pod readiness gate \"example.com/lb\" is not \"True\", but False";
    node.wait_for("web", |pod| condition(pod, "Ready")["message"] == told).await;
    node.edit("web", say("True")).await;
    node.wait_for("web", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_containers_own_rules_overrule_the_pods_policy() {
    let node = TestNode::start().await;
    let rules = json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
    let rules = json!({
        "restartPolicy": "Always",
        "containers": [
            { "name": "app", "image": "app:1", "restartPolicy": "Never", "restartPolicyRules": rules },
            { "name": "other", "image": "app:1", "restartPolicy": "OnFailure" },
        ],
    });
    node.create(&pod(&rules)).await;
    node.wait_for("web", is_ready).await;
    assert!(node.runtime.exit("app", 42));
    node.wait_for_restart("web", "app", 1).await;
    assert!(node.runtime.exit("app", 1));
    let pod = node.wait_for("web", |pod| status_of(pod, "app")["state"]["terminated"]["exitCode"] == 1).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(node.runtime.exit("other", 0));
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(status_of(&pod, "app")["restartCount"], 1);
    assert_eq!(status_of(&pod, "other")["restartCount"], 0);
}
