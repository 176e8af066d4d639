//! Pods that fit, wait, and are refused, with the real worker.

use serde_json::{Value, json};

use super::*;
use crate::testing::{TestNode, condition, named_pod};

fn requesting(name: &str, cpu: &str) -> Value {
    named_pod(
        name,
        &format!("u-{name}"),
        &json!({"containers": [{"name": "app", "image": "app:1", "resources": {"requests": {"cpu": cpu}}}]}),
    )
}

async fn small_node() -> TestNode {
    let node = TestNode::start().await;
    node.edit_node(|object| object["status"]["allocatable"] = json!({"cpu": "2", "memory": "1Gi", "pods": "3"})).await;
    node
}

#[test]
fn messages_are_the_schedulers() {
    let cpu = |allocatable| Misfit::Resource { resource: "cpu".to_owned(), requested: 3, used: 2, allocatable };
    let memory = Misfit::Resource { resource: "memory".to_owned(), requested: 1, used: 2, allocatable: 2 };
    let table = [
        (
            vec![memory, cpu(4)],
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. preemption: 0/1 nodes are available: 1 \
             No preemption victims found for incoming pod.",
        ),
        (
            vec![cpu(2)],
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not \
             helpful for scheduling.",
        ),
    ];
    for (misfits, expected) in table {
        assert_eq!(unschedulable_message(&misfits), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_room_and_starts_when_there_is_some() {
    let node = small_node().await;
    node.create(&requesting("first", "1500m")).await;
    node.wait_for_phase("first", "Running").await;
    node.create(&requesting("second", "1")).await;
    let waiting = node.wait_for("second", |pod| condition(pod, "PodScheduled")["status"] == "False").await;
    assert_eq!(waiting["status"]["phase"], "Pending");
    assert_eq!(condition(&waiting, "PodScheduled")["reason"], "Unschedulable");
    assert_eq!(waiting["spec"]["nodeName"], Value::Null);
    assert_eq!(waiting["status"]["containerStatuses"], Value::Null);
    let said = node.wait_for_event("FailedScheduling").await;
    assert!(said.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{said}");
    node.delete("first", 0).await;
    let running = node.wait_for_phase("second", "Running").await;
    assert_eq!(running["spec"]["nodeName"], "edge");
    assert_eq!(condition(&running, "PodScheduled")["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn the_more_important_pod_gets_room_first_and_a_smaller_one_passes() {
    let node = small_node().await;
    node.create(&requesting("first", "2")).await;
    node.wait_for_phase("first", "Running").await;
    for (name, cpu, priority) in [("low", "2", 0), ("high", "2", 10), ("small", "0", 0)] {
        let mut pod = requesting(name, cpu);
        pod["spec"]["priority"] = priority.into();
        node.create(&pod).await;
        node.wait_for(name, |pod| condition(pod, "PodScheduled")["status"] != Value::Null).await;
    }
    node.wait_for_phase("small", "Running").await;
    node.delete("first", 0).await;
    node.wait_for_phase("high", "Running").await;
    assert_eq!(condition(&node.get("low").unwrap(), "PodScheduled")["status"], "False");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_somebody_bound_here_fails_where_it_does_not_fit() {
    let node = small_node().await;
    let mut pod = requesting("web", "5");
    pod["spec"]["nodeName"] = "edge".into();
    node.create(&pod).await;
    let failed = node.wait_for_phase("web", "Failed").await;
    let why = "Node didn't have enough resource: cpu, requested: 5000, used: 0, capacity: 2000";
    assert_eq!(failed["status"]["reason"], "OutOfcpu");
    assert_eq!(failed["status"]["message"], format!("Pod was rejected: {why}"));
    assert_eq!(node.wait_for_event("OutOfcpu").await, why);
    let mut windows = requesting("windows", "0");
    windows["spec"]["os"] = json!({"name": "windows"});
    node.create(&windows).await;
    assert_eq!(node.wait_for_phase("windows", "Failed").await["status"]["reason"], "PodOSNotSupported");
    // It takes no room: as many as may be here still fit.
    for name in ["a", "b", "c"] {
        node.create(&requesting(name, "0")).await;
        node.wait_for_phase(name, "Running").await;
    }
    node.create(&requesting("d", "0")).await;
    assert!(node.wait_for_event("FailedScheduling").await.contains("1 Too many pods."));
}

#[tokio::test(start_paused = true)]
async fn who_runs_stays_when_the_agent_comes_again_to_a_smaller_node() {
    let mut node = small_node().await;
    node.create(&requesting("web", "1")).await;
    node.wait_for_phase("web", "Running").await;
    node.kill_agent().await;
    node.start_agent().await;
    node.edit_node(|object| object["status"]["allocatable"] = json!({"cpu": "1500m", "pods": "3"})).await;
    node.create(&requesting("next", "1")).await;
    assert!(node.wait_for_event("FailedScheduling").await.contains("Insufficient cpu"));
    assert_eq!(node.get("web").unwrap()["status"]["phase"], "Running");
    // Labels and taints count at once.
    node.edit_node(|object| object["status"]["allocatable"]["cpu"] = "4".into()).await;
    node.wait_for_phase("next", "Running").await;
    node.edit_node(|object| object["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}])).await;
    node.create(&requesting("third", "0")).await;
    let wanted = |message: &str| message.contains("1 node(s) had untolerated taint {k: }");
    node.wait_for_message("FailedScheduling", wanted).await;
    assert!(node.verbs().iter().filter(|verb| verb.starts_with("StartContainer")).count() == 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_stays_in_the_timeline_and_goes_with_the_pod() {
    let mut node = small_node().await;
    let mut bound = requesting("big", "3");
    bound["spec"]["nodeName"] = "edge".into();
    node.create(&bound).await;
    node.wait_for_phase("big", "Failed").await;
    node.kill_agent().await;
    node.start_agent().await;
    let told = node.agent().timeline(&spec::PodRef::new("default", "big")).await.unwrap();
    let told: Vec<_> = told.iter().map(|moment| serde_json::to_value(moment).unwrap()).collect();
    assert!(told.iter().any(|moment| moment["reason"] == "OutOfcpu"), "{told:?}");
    assert!(told.iter().any(|moment| moment["kind"] == "pod" && moment["phase"] == "Failed"), "{told:?}");
    node.delete("big", 0).await;
    node.wait_until_gone("big").await;
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_apparmor_fails_on_a_machine_without() {
    let asking = |name: &str, profile: &str| {
        let context = json!({"appArmorProfile": {"type": profile}});
        let containers = json!([{"name": "app", "image": "app:1", "securityContext": context}]);
        named_pod(name, &format!("u-{name}"), &json!({"containers": containers}))
    };
    let node = TestNode::start_with(|config| config.has_apparmor = false).await;
    node.create(&asking("web", "RuntimeDefault")).await;
    let failed = node.wait_for_phase("web", "Failed").await;
    let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    assert_eq!(failed["status"]["reason"], "AppArmor");
    assert_eq!(failed["status"]["message"], format!("Pod was rejected: {why}"));
    assert_eq!(node.wait_for_event("AppArmor").await, why);
    node.create(&asking("open", "Unconfined")).await;
    node.wait_for_phase("open", "Running").await;
    let node = TestNode::start_with(|config| config.has_apparmor = true).await;
    node.create(&asking("web", "RuntimeDefault")).await;
    node.wait_for_phase("web", "Running").await;
}
