//! Pods that are resized while they run, with the real worker.

use runtime::CgroupUsage;
use serde_json::{Value, json};

use crate::testing::{TestNode, condition, named_pod, status_of, uid};

fn pod(name: &str, resources: &Value, policy: &Value) -> Value {
    let container = json!({"name": "app", "image": "app:1", "resources": resources, "resizePolicy": policy});
    named_pod(name, &format!("u-{name}"), &json!({"containers": [container]}))
}

fn cpu(amount: &str) -> Value {
    json!({"requests": {"cpu": amount}, "limits": {"cpu": amount, "memory": "64Mi"}})
}

async fn small_node() -> TestNode {
    let node = TestNode::start().await;
    node.edit_node(|object| object["status"]["allocatable"] = json!({"cpu": "2", "memory": "1Gi", "pods": "9"})).await;
    node
}

async fn run(node: &TestNode, name: &str, resources: &Value, policy: &Value) {
    node.create(&pod(name, resources, policy)).await;
    node.wait_for_phase(name, "Running").await;
}

async fn wish(node: &TestNode, name: &str, resources: Value) {
    node.edit(name, move |pod| {
        pod["spec"]["containers"][0]["resources"] = resources;
        pod["metadata"]["generation"] = (pod["metadata"]["generation"].as_i64().unwrap() + 1).into();
    })
    .await;
}

async fn wait_for_limit(node: &TestNode, name: &str, resource: &str, amount: &str) -> Value {
    node.wait_for(name, |pod| status_of(pod, "app")["resources"]["limits"][resource] == amount).await
}

#[tokio::test(start_paused = true)]
async fn a_running_container_gets_more_without_a_restart() {
    let node = small_node().await;
    run(&node, "web", &cpu("500m"), &json!([])).await;
    wish(&node, "web", cpu("1500m")).await;
    let pod = wait_for_limit(&node, "web", "cpu", "1500m").await;
    assert_eq!(status_of(&pod, "app")["allocatedResources"]["cpu"], "1500m");
    assert_eq!(status_of(&pod, "app")["restartCount"], 0);
    assert_eq!(node.runtime.resources("app").unwrap().cpu_limit_millis, Some(1500));
    assert_eq!(node.runtime.pod_resources(&uid("u-web")).unwrap().cpu_limit_millis, Some(1500));
    let started = node.wait_for_event("ResizeStarted").await;
    assert!(started.starts_with("Pod resize started: {\"containers\":[{\"name\":\"app\""), "{started}");
    node.wait_for_event("ResizeCompleted").await;
    // The room is taken now, also after a restart of the daemon.
    node.create(&self::pod("next", &cpu("1"), &json!([]))).await;
    assert!(node.wait_for_event("FailedScheduling").await.contains("Insufficient cpu"));
    wish(&node, "web", cpu("100m")).await;
    node.wait_for_phase("next", "Running").await;
    assert_eq!(node.starts("app").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_the_node_does_not_have_waits_or_never_comes() {
    let mut node = small_node().await;
    run(&node, "other", &cpu("1"), &json!([])).await;
    run(&node, "web", &cpu("500m"), &json!([])).await;
    wish(&node, "web", cpu("3")).await;
    let pending = |reason: &'static str| move |pod: &Value| condition(pod, "PodResizePending")["reason"] == reason;
    let pod = node.wait_for("web", pending("Infeasible")).await;
    let said = condition(&pod, "PodResizePending")["message"].as_str().unwrap().to_owned();
    assert_eq!(said, "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000");
    assert_eq!(status_of(&pod, "app")["resources"]["limits"]["cpu"], "500m");
    wish(&node, "web", cpu("1500m")).await;
    node.wait_for("web", pending("Deferred")).await;
    // What was granted is remembered.
    node.kill_agent().await;
    node.start_agent().await;
    node.wait_for("web", pending("Deferred")).await;
    assert_eq!(node.runtime.pod_resources(&uid("u-web")).unwrap().cpu_limit_millis, Some(500));
    node.delete("other", 0).await;
    let pod = wait_for_limit(&node, "web", "cpu", "1500m").await;
    node.wait_for("web", |pod| condition(pod, "PodResizePending").is_null()).await;
    assert_eq!(status_of(&pod, "app")["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_wants_it_is_started_anew() {
    let node = small_node().await;
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let memory = |amount: &str| json!({"limits": {"memory": amount}, "requests": {"memory": amount}});
    run(&node, "web", &memory("64Mi"), &policy).await;
    wish(&node, "web", memory("128Mi")).await;
    node.wait_for_restart("web", "app", 1).await;
    wait_for_limit(&node, "web", "memory", "128Mi").await;
    assert_eq!(node.runtime.resources("app").unwrap().memory_limit_bytes, Some(128 << 20));
    assert_eq!(node.wait_for_event("Killing").await, "Container app resize requires restart");
}

#[tokio::test(start_paused = true)]
async fn memory_that_is_in_use_is_not_taken_away() {
    let node = small_node().await;
    let memory = |amount: &str| json!({"limits": {"memory": amount}, "requests": {"memory": amount}});
    run(&node, "web", &memory("128Mi"), &json!([])).await;
    let uses = |megabytes: u64| CgroupUsage { working_set: megabytes << 20, ..CgroupUsage::default() };
    node.runtime.set_usage(&uid("u-web"), uses(100));
    wish(&node, "web", memory("64Mi")).await;
    let pod = node.wait_for("web", |pod| condition(pod, "PodResizeInProgress")["reason"] == "Error").await;
    let said = condition(&pod, "PodResizeInProgress")["message"].as_str().unwrap().to_owned();
    let why = "attempting to set pod memory limit (67108864) below current usage (104857600)";
    assert_eq!(said, format!("cannot decrease memory limits: {why}"));
    assert!(node.wait_for_event("ResizeError").await.ends_with(&format!("\"error\":\"{said}\"}}")));
    assert_eq!(node.runtime.resources("app").unwrap().memory_limit_bytes, Some(128 << 20));
    node.runtime.set_usage(&uid("u-web"), uses(10));
    node.advance(10).await;
    wait_for_limit(&node, "web", "memory", "64Mi").await;
    node.wait_for("web", |pod| condition(pod, "PodResizeInProgress").is_null()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_resources_of_its_own_is_resized_as_a_whole() {
    let mut node = small_node().await;
    let own =
        |cpu: &str| json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"cpu": cpu, "memory": "128Mi"}});
    let containers = json!([
        {"name": "app", "image": "app:1", "resources": {"limits": {"memory": "32Mi"}}},
        {"name": "bare", "image": "app:1"},
    ]);
    node.create(&named_pod("web", "u-web", &json!({"containers": containers, "resources": own("1500m")}))).await;
    let pod = node.wait_for_phase("web", "Running").await;
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(pod["status"]["allocatedResources"], json!({"cpu": "1", "memory": "64Mi"}));
    assert_eq!(pod["status"]["resources"], own("1500m"));
    let whole = node.runtime.pod_resources(&uid("u-web")).unwrap();
    assert_eq!(
        (whole.cpu_request_millis, whole.cpu_limit_millis, whole.memory_limit_bytes),
        (Some(1000), Some(1500), Some(128 << 20))
    );
    let bare = node.runtime.resources("bare").unwrap();
    assert_eq!((bare.cpu_limit_millis, bare.memory_limit_bytes), (Some(1500), Some(128 << 20)));
    assert_eq!(node.runtime.resources("app").unwrap().memory_limit_bytes, Some(32 << 20));
    assert_eq!(status_of(&pod, "bare")["resources"], json!({}), "its pod's limits are not its own");
    // The share of the Pod that no container claims protects both in equal parts.
    assert!(bare.oom_score_adj.unwrap() < 1000);

    node.edit("web", move |pod| {
        pod["spec"]["resources"]["limits"]["cpu"] = "2".into();
        pod["metadata"]["generation"] = 2.into();
    })
    .await;
    let pod = node.wait_for("web", |pod| pod["status"]["resources"]["limits"]["cpu"] == "2").await;
    assert_eq!(node.runtime.pod_resources(&uid("u-web")).unwrap().cpu_limit_millis, Some(2000));
    assert_eq!(node.runtime.resources("bare").unwrap().cpu_limit_millis, Some(2000));
    assert_eq!(status_of(&pod, "bare")["restartCount"], 0);
    node.wait_for_event("ResizeCompleted").await;
    // What was granted outlives the daemon, and too much is never granted.
    node.kill_agent().await;
    node.start_agent().await;
    node.edit("web", move |pod| {
        pod["spec"]["resources"]["requests"]["cpu"] = "3".into();
        pod["spec"]["resources"]["limits"]["cpu"] = "3".into();
        pod["metadata"]["generation"] = 3.into();
    })
    .await;
    let pod = node.wait_for("web", |pod| condition(pod, "PodResizePending")["reason"] == "Infeasible").await;
    assert_eq!(pod["status"]["allocatedResources"]["cpu"], "1");
    assert_eq!(pod["status"]["resources"], own("2"));
}
