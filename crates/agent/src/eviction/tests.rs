//! Pods that are ended by their node, with the real worker.

use std::fs;

use runtime::{CgroupUsage, OnSignal};
use serde_json::{Value, json};
use store::{Change, ObjectKey};

use crate::config::AgentConfig;
use crate::ending::Ending;
use crate::eviction::thresholds::parse_thresholds;
use crate::testing::{TestNode, condition, named_pod, uid};

fn pod(name: &str, spec: &Value) -> Value {
    let mut whole = json!({"containers": [{"name": format!("{name}-app"), "image": "app:1"}]});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    named_pod(name, &format!("u-{name}"), &whole)
}

fn under_pressure(config: &mut AgentConfig) {
    config.eviction.thresholds = parse_thresholds("memory.available<1Ei").unwrap();
}

fn using(memory: u64) -> CgroupUsage {
    CgroupUsage { memory, working_set: memory, ..CgroupUsage::default() }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fills_its_volume_is_evicted() {
    let node = TestNode::start().await;
    let volume = json!({"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "64Ki"}}]});
    node.create(&pod("web", &volume)).await;
    node.wait_for_phase("web", "Running").await;
    let directory = node.volume("u-web", "kubernetes.io~empty-dir", "cache");
    fs::write(directory.join("file"), vec![b'x'; 40 << 10]).unwrap();
    node.advance(10).await;
    node.settle().await;
    assert_eq!(node.get("web").unwrap()["status"]["phase"], "Running");
    fs::write(directory.join("more"), vec![b'x'; 40 << 10]).unwrap();
    node.advance(10).await;
    let failed = node.wait_for_phase("web", "Failed").await;
    let why = "Usage of EmptyDir volume \"cache\" exceeds the limit \"64Ki\". ";
    assert_eq!((&failed["status"]["reason"], &failed["status"]["message"]), (&json!("Evicted"), &json!(why)));
    assert_eq!(node.wait_for_event("Evicted").await, why);
    node.wait_until_clean(|| !directory.exists()).await;
    node.delete("web", 0).await;
    node.wait_until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn under_memory_pressure_the_greediest_goes_first_and_new_pods_stay_away() {
    let node = TestNode::start_with(under_pressure).await;
    for (name, spec) in [("modest", json!({})), ("greedy", json!({})), ("critical", json!({"priority": 2_000_001_000}))]
    {
        node.create(&pod(name, &spec)).await;
        node.wait_for_phase(name, "Running").await;
    }
    for (name, memory) in [("u-modest", 10 << 20), ("u-greedy", 90 << 20), ("u-critical", 900 << 20)] {
        node.runtime.set_usage(&uid(name), using(memory));
    }
    node.advance(10).await;
    let evicted = node.wait_for_phase("greedy", "Failed").await;
    let message = evicted["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 1Ei, available: "),
        "{message}"
    );
    let disruption = condition(&evicted, "DisruptionTarget");
    assert_eq!((&disruption["status"], &disruption["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    assert_eq!(node.wait_for_event("EvictionThresholdMet").await, "Attempting to reclaim memory");
    assert_eq!(node.get("modest").unwrap()["status"]["phase"], "Running");
    let wanted = |node: &Value| condition(node, "MemoryPressure")["status"] == "True";
    let object = node.wait_for_node(wanted).await;
    assert_eq!(object["spec"]["taints"][0]["key"], "node.kubernetes.io/memory-pressure");
    node.create(&pod("late", &json!({}))).await;
    let said = node.wait_for_event("FailedScheduling").await;
    assert!(said.contains("untolerated taint {node.kubernetes.io/memory-pressure: }"), "{said}");
    // One a look, and the critical one never.
    node.advance(10).await;
    node.wait_for_phase("modest", "Failed").await;
    node.advance(10).await;
    node.settle().await;
    assert_eq!(node.get("critical").unwrap()["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn an_eviction_goes_on_after_the_daemon_has_died_in_it() {
    let mut node = TestNode::start().await;
    node.runtime.on_signal("web-app", OnSignal::Ignores);
    node.create(&pod("web", &json!({}))).await;
    node.wait_for_phase("web", "Running").await;
    let ending = Ending {
        reason: "Evicted".to_owned(),
        message: "enough".to_owned(),
        grace_seconds: Some(5),
        ..Ending::default()
    };
    node.agent().shared.endings.decide(&uid("u-web"), ending);
    node.agent().shared.wake(&uid("u-web"));
    node.wait_for_stop_request("u-web").await;
    assert_eq!(node.get("web").unwrap()["status"]["phase"], "Running");
    node.kill_agent().await;
    node.start_agent().await;
    node.wait_for_stop_request("u-web").await;
    node.advance(5).await;
    let failed = node.wait_for_phase("web", "Failed").await;
    assert_eq!(failed["status"]["reason"], "Evicted");
    assert_eq!(node.starts("web-app").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_node_gives_signs_of_life_and_writes_nothing() {
    let node = TestNode::start().await;
    let lease = || {
        let lease = node.store.get(&ObjectKey::namespaced("leases", "kube-node-lease", "edge"))?;
        Some(lease.value["spec"].clone())
    };
    node.wait_until_clean(|| lease().is_some()).await;
    assert_eq!(
        (&lease().unwrap()["holderIdentity"], &lease().unwrap()["leaseDurationSeconds"]),
        (&json!("edge"), &json!(40))
    );
    // The first looks tell what the start has left out; how many it takes depends on threads that measure.
    let (mut commits, mut quiet) = (node.store.commits(), 0);
    for _ in 0..20 {
        node.advance(11).await;
        node.settle().await;
        let now = node.store.commits();
        (commits, quiet) = if now == commits { (now, quiet + 1) } else { (now, 0) };
        if quiet == 3 {
            break;
        }
    }
    assert_eq!(quiet, 3, "it comes to rest");
    let beat = |node: &Value| node.pointer("/status/conditions/3/lastHeartbeatTime").cloned();
    let first = beat(&node.wait_for_node(|_| true).await);
    for _ in 0..30 {
        let renewed = lease().unwrap()["renewTime"].clone();
        node.advance(11).await;
        node.wait_until_clean(|| lease().is_some_and(|spec| spec["renewTime"] != renewed)).await;
    }
    assert!(lease().unwrap()["renewTime"].as_str().unwrap() > "2026-01-01T00:06:00");
    node.wait_for_node(|node| beat(node) != first).await;
    assert_eq!(node.store.commits(), commits);
    // Who deletes it only makes it come again.
    let key = ObjectKey::namespaced("leases", "kube-node-lease", "edge");
    node.store.write(key, |_| Ok::<_, std::convert::Infallible>((Change::Delete, ()))).await.unwrap();
    node.advance(11).await;
    node.wait_until_clean(|| lease().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn the_node_tells_of_its_beginning_and_its_turns() {
    let node = TestNode::start().await;
    assert_eq!(node.wait_for_event("Starting").await, "Starting monopod.");
    let message = node.wait_for_event("NodeHasSufficientMemory").await;
    assert_eq!(message, "Node edge status is now: NodeHasSufficientMemory");
    node.edit_node(|node| node["spec"]["unschedulable"] = true.into()).await;
    node.advance(10).await;
    node.wait_for_event("NodeNotSchedulable").await;
    node.edit_node(|node| node["spec"]["unschedulable"] = false.into()).await;
    node.advance(10).await;
    node.wait_for_event("NodeSchedulable").await;
}
