//! Probes in the life of a pod, on a fake runtime and with time that the test moves.

use runtime::fake::{OnExec, OnSignal};
use serde_json::{Value, json};

use crate::testing::{TestNode, condition, is_ready, pod, runs, status_of};

fn probe(program: &str) -> Value {
    json!({ "exec": { "command": [program] } })
}

/// One container with these probes.
#[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
fn probed(policy: &str, probes: Value) -> Value {
    let mut container = json!({ "name": "app", "image": "app:1" });
    container.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
    pod(&json!({ "restartPolicy": policy, "containers": [container] }))
}

fn count(node: &TestNode, exec: &str) -> usize {
    node.runtime.execs().iter().filter(|other| *other == exec).count()
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts_the_container() {
    let node = TestNode::start().await;
    node.runtime.on_exec("alive", OnExec::Exits(1));
    node.create(&probed("Always", json!({ "livenessProbe": probe("alive") }))).await;
    let pod = node.wait_for("web", is_ready).await;
    assert_eq!(status_of(&pod, "app")["started"], true);
    node.pass(19).await;
    assert_eq!(node.starts("app"), [0], "twice is not three times");
    node.pass(1).await;
    let pod = node.wait_for_restart("web", "app", 1).await;
    assert_eq!(status_of(&pod, "app")["lastState"]["terminated"]["exitCode"], 143);
    assert_eq!(node.wait_for_event("Unhealthy").await, "Liveness probe failed: alive\n");
    assert_eq!(node.wait_for_event("Killing").await, "Container app failed liveness probe, will be restarted");
    // As the kubelet does it: each kill looks for a back-off at the run before, so waits come when they have outgrown
    // the twenty seconds that a run lasts.
    for _ in 0..12 {
        node.pass(10).await;
    }
    assert_eq!(node.starts("app"), [0, 20, 40, 60, 80, 140]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_container_restarts_by_its_policy_whatever_its_code() {
    for (policy, again) in [("OnFailure", true), ("Never", false)] {
        let node = TestNode::start().await;
        node.runtime.on_exec("alive", OnExec::Exits(1));
        node.runtime.on_signal("app", OnSignal::Exits(0));
        node.create(&probed(policy, json!({ "livenessProbe": probe("alive") }))).await;
        node.wait_for("web", is_ready).await;
        node.pass(20).await;
        if again {
            node.wait_for_restart("web", "app", 1).await;
        } else {
            node.wait_for_phase("web", "Succeeded").await;
            // Nothing is left to run, so the pod is ended as a whole.
            assert_eq!(node.wait_for_event("Killing").await, "Stopping container app");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beside_one_that_is_kept_a_killed_container_is_told_of_by_itself() {
    let node = TestNode::start().await;
    node.runtime.on_exec("alive", OnExec::Exits(1));
    let spec = json!({ "restartPolicy": "Never", "containers": [
        { "name": "app", "image": "app:1", "livenessProbe": probe("alive") },
        { "name": "helper", "image": "app:1" },
    ]});
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    node.pass(20).await;
    let pod = node.wait_for("web", |pod| status_of(pod, "app")["state"]["terminated"].is_object()).await;
    assert!(status_of(&pod, "helper")["state"]["running"].is_object());
    assert_eq!(node.wait_for_event("Killing").await, "Container app failed liveness probe");
    assert!(node.runtime.exit("helper", 0));
    node.wait_for_phase("web", "Failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_probes_own_grace_period_comes_before_the_pods() {
    let node = TestNode::start().await;
    node.runtime.on_exec("alive", OnExec::Exits(1));
    node.runtime.on_signal("app", OnSignal::Ignores);
    let mut alive = probe("alive");
    alive["failureThreshold"] = json!(1);
    alive["terminationGracePeriodSeconds"] = json!(5);
    node.create(&probed("Always", json!({ "livenessProbe": alive }))).await;
    node.pass(4).await;
    assert_eq!(node.starts("app"), [0]);
    node.pass(1).await;
    let pod = node.wait_for_restart("web", "app", 1).await;
    assert_eq!(status_of(&pod, "app")["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(node.starts("app"), [0, 5], "five seconds, not thirty");
}

#[tokio::test(start_paused = true)]
async fn readiness_goes_to_and_fro_and_restarts_nothing() {
    let node = TestNode::start().await;
    node.runtime.on_exec("ready", OnExec::Exits(1));
    let mut ready = probe("ready");
    ready["successThreshold"] = json!(2);
    ready["periodSeconds"] = json!(2);
    node.create(&probed("Always", json!({ "readinessProbe": ready }))).await;
    let pod = node.wait_for("web", runs).await;
    let app = status_of(&pod, "app");
    assert_eq!((&app["started"], &app["ready"]), (&json!(true), &json!(false)));
    assert_eq!(condition(&pod, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [app]");
    assert_eq!(pod["status"]["phase"], "Running");
    node.runtime.on_exec("ready", OnExec::Exits(0));
    node.pass(3).await;
    assert!(!is_ready(&node.get("web").unwrap()), "once is not twice");
    node.pass(1).await;
    assert!(is_ready(&node.get("web").unwrap()));
    node.runtime.on_exec("ready", OnExec::Exits(1));
    node.pass(5).await;
    assert!(is_ready(&node.get("web").unwrap()), "two failures are not three");
    node.pass(1).await;
    assert!(!is_ready(&node.get("web").unwrap()));
    node.pass(60).await;
    assert_eq!(node.starts("app"), [0]);
    assert_eq!(node.wait_for_event("Unhealthy").await, "Readiness probe failed: ready\n");
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_holds_back_the_others_and_then_lets_them_go_at_once() {
    let node = TestNode::start().await;
    node.runtime.on_exec("begun", OnExec::Exits(1));
    let mut begun = probe("begun");
    begun["periodSeconds"] = json!(3);
    begun["failureThreshold"] = json!(5);
    let mut alive = probe("alive");
    alive["initialDelaySeconds"] = json!(11);
    let probes = json!({ "startupProbe": begun, "readinessProbe": probe("ready"), "livenessProbe": alive });
    node.create(&probed("Always", probes)).await;
    node.pass(8).await;
    let pod = node.get("web").unwrap();
    assert_eq!(status_of(&pod, "app")["started"], false);
    assert_eq!(status_of(&pod, "app")["ready"], false);
    assert!(runs(&pod));
    assert_eq!(count(&node, "app begun"), 3);
    node.runtime.on_exec("begun", OnExec::Exits(0));
    node.pass(1).await;
    let pod = node.get("web").unwrap();
    assert_eq!(status_of(&pod, "app")["started"], true);
    assert!(is_ready(&pod), "in the same second");
    node.pass(1).await;
    assert_eq!(node.runtime.execs().len(), 5, "{:?}", node.runtime.execs());
    node.pass(1).await;
    assert_eq!(count(&node, "app alive"), 1, "its delay counts from the start of the container");
    node.pass(30).await;
    assert_eq!(count(&node, "app begun"), 4, "it has done its work");
    // The next run begins anew.
    node.runtime.on_exec("begun", OnExec::Exits(1));
    node.runtime.exit("app", 1);
    let pod = node.wait_for_restart("web", "app", 1).await;
    assert_eq!(status_of(&pod, "app")["started"], false);
    assert!(!is_ready(&pod));
    node.pass(12).await;
    assert_eq!(node.wait_for_event("Killing").await, "Container app failed startup probe, will be restarted");
}

#[tokio::test(start_paused = true)]
async fn a_time_out_is_a_failure_and_an_error_of_ours_is_nothing() {
    let node = TestNode::start().await;
    node.runtime.on_exec("alive", OnExec::Hangs);
    node.create(&probed("Always", json!({ "livenessProbe": probe("alive") }))).await;
    node.pass(22).await;
    node.wait_for_restart("web", "app", 1).await;
    assert_eq!(
        node.wait_for_event("Unhealthy").await,
        "Liveness probe failed: command timed out: \"alive\" timed out after 1s"
    );

    let node = TestNode::start().await;
    node.runtime.on_exec("alive", OnExec::CannotStart);
    node.create(&probed("Always", json!({ "livenessProbe": probe("alive") }))).await;
    node.pass(100).await;
    assert_eq!(node.starts("app"), [0]);
    assert_eq!(count(&node, "app alive"), 33, "three times at once, each ten seconds");
    let message = node.wait_for_event("Unhealthy").await;
    assert!(message.starts_with("Liveness probe errored and resulted in unknown state: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn readiness_goes_on_while_a_pod_ends_and_liveness_does_not() {
    let node = TestNode::start().await;
    node.runtime.on_signal("app", OnSignal::Ignores);
    node.create(&probed("Always", json!({ "readinessProbe": probe("ready"), "livenessProbe": probe("alive") }))).await;
    node.wait_for("web", is_ready).await;
    node.settle().await;
    assert_eq!((count(&node, "app ready"), count(&node, "app alive")), (1, 1));
    node.delete("web", 35).await;
    node.runtime.on_exec("ready", OnExec::Exits(1));
    node.runtime.on_exec("alive", OnExec::Exits(1));
    node.pass(31).await;
    assert_eq!((count(&node, "app ready"), count(&node, "app alive")), (4, 1));
    assert!(!is_ready(&node.get("web").unwrap()));
    node.pass(10).await;
    node.wait_until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn the_next_daemon_believes_the_status_until_a_probe_says_otherwise() {
    let mut node = TestNode::start().await;
    let mut begun = probe("begun");
    begun["failureThreshold"] = json!(1);
    node.create(&probed("Always", json!({ "startupProbe": begun, "readinessProbe": probe("ready") }))).await;
    node.wait_for("web", is_ready).await;
    node.pass(3).await;
    node.kill_agent().await;
    node.runtime.on_exec("ready", OnExec::Exits(1));
    node.runtime.on_exec("begun", OnExec::Exits(1));
    node.start_agent().await;
    node.settle().await;
    let pod = node.get("web").unwrap();
    assert!(is_ready(&pod), "{}", pod["status"]);
    node.pass(30).await;
    let pod = node.get("web").unwrap();
    assert!(!is_ready(&pod), "three failures within a period and two more");
    assert_eq!(count(&node, "app begun"), 1, "it has started long ago");
    assert_eq!(node.starts("app"), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_starts_what_follows_once_its_startup_probe_passes() {
    let node = TestNode::start().await;
    node.runtime.on_exec("begun", OnExec::Exits(1));
    let sidecar =
        json!({ "name": "side", "image": "app:1", "restartPolicy": "Always", "startupProbe": probe("begun") });
    let spec = json!({ "initContainers": [sidecar], "containers": [{ "name": "app", "image": "app:1" }] });
    node.create(&pod(&spec)).await;
    node.pass(5).await;
    assert_eq!(node.starts("app"), [] as [i64; 0]);
    node.runtime.on_exec("begun", OnExec::Exits(0));
    node.pass(5).await;
    let pod = node.wait_for("web", is_ready).await;
    assert_eq!(status_of(&pod, "side")["started"], true);
    assert_eq!(node.starts("app"), [10]);
}
