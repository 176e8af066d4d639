//! The life of pods with sidecars, on a fake runtime and with time that the test moves.

use runtime::fake::{OnExec, OnSignal, Verb};
use serde_json::{Value, json};

use crate::testing::{TestNode, condition, is_ready, pod, status_of};

/// A sidecar `log`, an init container `init`, another sidecar `proxy`, and the app.
fn spec(policy: &str) -> Value {
    let sidecar = |name: &str| json!({ "name": name, "image": "app:1", "restartPolicy": "Always" });
    json!({
        "restartPolicy": policy,
        "initContainers": [sidecar("log"), { "name": "init", "image": "app:1" }, sidecar("proxy")],
        "containers": [{ "name": "app", "image": "app:1" }],
    })
}

/// Containers with their number, in the order in which `verb` happened to them.
fn order(node: &TestNode, verb: Verb) -> Vec<String> {
    let history = node.runtime.history().into_iter().filter(|happened| happened.verb == verb);
    history.map(|happened| format!("{}/{}", happened.subject, happened.attempt)).collect()
}

async fn start(policy: &str) -> TestNode {
    let node = TestNode::start().await;
    node.create(&pod(&spec(policy))).await;
    node.wait_for("web", |pod| status_of(pod, "init")["state"]["running"].is_object()).await;
    node
}

async fn start_all(policy: &str) -> TestNode {
    let node = start(policy).await;
    assert!(node.runtime.exit("init", 0));
    node.wait_for("web", is_ready).await;
    node
}

#[tokio::test(start_paused = true)]
async fn a_pod_initializes_in_order_and_counts_its_sidecars() {
    let node = start("Always").await;
    let pod = node.get("web").unwrap();
    assert_eq!(pod["status"]["phase"], "Pending");
    let message = "containers with incomplete status: [init proxy]";
    assert_eq!(condition(&pod, "Initialized")["message"], message);
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [proxy app]");
    let log = status_of(&pod, "log");
    assert_eq!((&log["ready"], &log["started"]), (&json!(true), &json!(true)));
    assert_eq!(status_of(&pod, "app")["state"]["waiting"]["reason"], "PodInitializing");
    assert!(node.runtime.exit("init", 0));
    let pod = node.wait_for("web", is_ready).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(order(&node, Verb::StartContainer), ["log/0", "init/0", "proxy/0", "app/0"]);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_restarts_beside_init_containers_and_beside_the_app_whatever_the_policy() {
    let node = start("Never").await;
    assert!(node.runtime.exit("log", 3));
    let pod = node.wait_for_restart("web", "log", 1).await;
    assert!(status_of(&pod, "init")["state"]["running"].is_object(), "init goes on meanwhile");
    assert_eq!(status_of(&pod, "log")["lastState"]["terminated"]["exitCode"], 3);
    assert!(node.runtime.exit("init", 0));
    node.wait_for("web", is_ready).await;
    assert!(node.runtime.exit("proxy", 0));
    node.wait_for_restart("web", "proxy", 1).await;
    assert!(node.runtime.exit("proxy", 0));
    let pod = node.wait_for_reason("web", "proxy", "CrashLoopBackOff").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(condition(&pod, "Initialized")["status"], "True", "it was initialized once");
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [proxy]");
    node.advance(10).await;
    node.wait_for_restart("web", "proxy", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_completes_with_its_app_and_ends_its_sidecars_from_the_last_to_the_first() {
    let node = start_all("Never").await;
    node.runtime.on_signal("proxy", OnSignal::Ignores);
    node.runtime.on_signal("log", OnSignal::Exits(7));
    assert!(node.runtime.exit("app", 0));
    let done = |pod: &Value| status_of(pod, "app")["state"]["terminated"].is_object();
    let pod = node.wait_for("web", done).await;
    assert_eq!(pod["status"]["phase"], "Running", "a sidecar still runs");
    assert!(status_of(&pod, "log")["state"]["running"].is_object());
    node.wait_for_message("Killing", |message| message == "Stopping container log").await;
    node.wait_for_stop_request("u-web").await;
    assert!(order(&node, Verb::StopContainer).is_empty());
    node.advance(20).await;
    node.settle().await;
    assert!(node.runtime.exit("proxy", 9));
    let pod = node.wait_for_phase("web", "Succeeded").await;
    assert_eq!(order(&node, Verb::StopContainer), ["log/0"], "its turn came when the other one had ended by itself");
    assert_eq!(status_of(&pod, "proxy")["state"]["terminated"]["exitCode"], 9);
    assert_eq!(status_of(&pod, "log")["state"]["terminated"]["exitCode"], 7);
    assert_eq!(condition(&pod, "Ready")["reason"], "PodCompleted");
    assert_eq!(order(&node, Verb::StartContainer).len(), 4, "nothing started again");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_ends_its_app_first_and_gives_each_sidecar_two_seconds_at_least() {
    let node = start_all("Always").await;
    for name in ["app", "proxy", "log"] {
        node.runtime.on_signal(name, OnSignal::Ignores);
    }
    node.delete("web", 10).await;
    node.wait_for_stop_request("u-web").await;
    node.advance(10).await;
    // The app is killed at the end of the grace period; the sidecars get the signal then, and two seconds.
    node.wait_for_stop("app").await;
    node.settle().await;
    assert_eq!(order(&node, Verb::StopContainer), ["app/0"]);
    node.advance(2).await;
    node.wait_until_gone("web").await;
    let stops = node.runtime.history().into_iter().filter(|happened| happened.verb == Verb::StopContainer);
    let stops: Vec<_> = stops.map(|stop| (stop.subject, stop.at.as_second() % 86400)).collect();
    let mut later: Vec<_> = stops.iter().skip(1).map(|(name, at)| (name.as_str(), *at)).collect();
    later.sort_unstable();
    assert_eq!(later, [("log", 12), ("proxy", 12)]);
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_it_initializes_ends_in_order_too() {
    let node = start("Always").await;
    node.delete("web", 30).await;
    node.wait_until_gone("web").await;
    assert_eq!(order(&node, Verb::StopContainer).len(), 2, "init and log");
    assert_eq!(order(&node, Verb::StartContainer), ["log/0", "init/0"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_init_container_of_a_pod_that_never_restarts_ends_the_sidecars_and_the_pod() {
    let node = start("Never").await;
    assert!(node.runtime.exit("init", 2));
    let pod = node.wait_for_phase("web", "Failed").await;
    assert!(status_of(&pod, "log")["state"]["terminated"].is_object());
    assert_eq!(status_of(&pod, "app")["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(order(&node, Verb::StopContainer), ["log/0"]);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_dies_while_sidecars_end_goes_on_with_that() {
    let mut node = start_all("Never").await;
    node.runtime.on_signal("proxy", OnSignal::Ignores);
    assert!(node.runtime.exit("app", 1));
    node.wait_for_stop_request("u-web").await;
    node.kill_agent().await;
    node.start_agent().await;
    node.wait_for_stop_request("u-web").await;
    node.advance(30).await;
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(status_of(&pod, "app")["state"]["terminated"]["exitCode"], 1);
    assert_eq!(order(&node, Verb::StartContainer).len(), 4, "nothing started again");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_starts_anew_takes_no_pod_back_whose_app_waits_for_its_next_run() {
    let node = TestNode::start().await;
    let mut spec = spec("Always");
    spec["initContainers"][2]["startupProbe"] = json!({ "exec": { "command": ["is-up"] } });
    node.runtime.exits_at_once("init", Some(0));
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    assert!(node.runtime.exit("app", 1));
    node.wait_for_restart("web", "app", 1).await;
    assert!(node.runtime.exit("app", 1));
    node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
    node.runtime.on_exec("is-up", OnExec::Exits(1));
    assert!(node.runtime.exit("proxy", 1));
    let pod = node.wait_for_restart("web", "proxy", 1).await;
    assert_eq!(
        (status_of(&pod, "proxy")["started"].clone(), &pod["status"]["phase"]),
        (false.into(), &"Running".into())
    );
}
