//! Hooks in the life of a pod, on a fake runtime and with time that the test moves.

use runtime::fake::{OnExec, OnSignal};
use serde_json::{Value, json};

use crate::testing::{TestNode, is_ready, pod, runs, status_of};

fn exec(program: &str) -> Value {
    json!({ "exec": { "command": [program] } })
}

fn sleep(seconds: u32) -> Value {
    json!({ "sleep": { "seconds": seconds } })
}

#[expect(clippy::needless_pass_by_value, reason = "`json!` is easier to read without a borrow")]
fn hooked(lifecycle: Value) -> Value {
    pod(&json!({ "containers": [
        { "name": "app", "image": "app:1", "lifecycle": lifecycle },
        { "name": "next", "image": "app:1" },
    ] }))
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_for_others_once_its_post_start_hook_has_returned() {
    let node = TestNode::start().await;
    node.create(&hooked(json!({ "postStart": sleep(5) }))).await;
    node.pass(4).await;
    let pod = node.get("web").unwrap();
    assert_eq!(node.starts("app"), [0]);
    assert_eq!(status_of(&pod, "app")["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(status_of(&pod, "app")["started"], false);
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(node.starts("next"), [] as [i64; 0], "containers start one after the other");
    node.pass(1).await;
    let pod = node.wait_for("web", is_ready).await;
    assert_eq!(status_of(&pod, "app")["state"]["running"]["startedAt"], "2026-01-01T00:00:00Z");
    assert_eq!(node.starts("next"), [5]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_crashed_waits_as_before_until_its_hook_has_returned() {
    let node = TestNode::start().await;
    node.create(&hooked(json!({ "postStart": sleep(5) }))).await;
    node.pass(5).await;
    node.runtime.exit("app", 1);
    node.pass(5).await;
    node.runtime.exit("app", 1);
    let reason = "CrashLoopBackOff";
    node.wait_for_reason("web", "app", reason).await;
    node.pass(12).await;
    assert_eq!(node.starts("app").len(), 3);
    let app = status_of(&node.get("web").unwrap(), "app");
    assert_eq!((&app["state"]["waiting"]["reason"], &app["restartCount"]), (&json!(reason), &json!(1)));
    assert_eq!(app["lastState"]["terminated"]["exitCode"], 1);
    node.pass(5).await;
    node.wait_for_restart("web", "app", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_ends_its_container() {
    let node = TestNode::start().await;
    node.runtime.on_exec("begin", OnExec::Exits(7));
    node.create(&hooked(json!({ "postStart": exec("begin"), "preStop": exec("end") }))).await;
    let pod = node.wait_for_reason("web", "app", "PostStartHookError").await;
    let app = status_of(&pod, "app");
    assert_eq!(app["lastState"]["terminated"]["exitCode"], 143);
    assert_eq!(
        app["state"]["waiting"]["message"],
        "Exec lifecycle hook ([\"begin\"]) for Container \"app\" in Pod \"web_default(u-web)\" failed - error: command \
         'begin' exited with 7: , message: \"begin\\n\""
    );
    assert_eq!(node.wait_for_event("FailedPostStartHook").await, "PostStartHook failed");
    assert_eq!(node.wait_for_event("Killing").await, "FailedPostStartHook");
    assert_eq!(node.runtime.execs(), ["app begin", "app end"], "what was begun is ended as ever");
    node.pass(2).await;
    node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
    assert_eq!(node.starts("app"), [0, 1]);
    node.runtime.on_exec("begin", OnExec::Exits(0));
    node.pass(10).await;
    node.wait_for("web", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_hook_of_a_pod_that_never_restarts_fails_it() {
    let node = TestNode::start().await;
    let mut pod = hooked(json!({ "postStart": { "tcpSocket": { "port": 1 } } }));
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["containers"].as_array_mut().unwrap().pop();
    node.create(&pod).await;
    let pod = node.wait_for_phase("web", "Failed").await;
    assert_eq!(status_of(&pod, "app")["state"]["terminated"]["exitCode"], 143);
    assert_eq!(node.wait_for_event("FailedPostStartHook").await, "PostStartHook failed");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_the_daemon_did_not_survive_is_run_again() {
    let mut node = TestNode::start().await;
    node.create(&hooked(json!({ "postStart": sleep(5) }))).await;
    node.pass(3).await;
    node.kill_agent().await;
    node.start_agent().await;
    node.pass(4).await;
    assert!(!runs(&node.get("web").unwrap()));
    node.pass(1).await;
    node.wait_for("web", is_ready).await;
    assert_eq!((node.starts("app"), node.starts("next")), (vec![0], vec![8]));
    node.kill_agent().await;
    node.start_agent().await;
    node.settle().await;
    assert!(is_ready(&node.get("web").unwrap()), "one that returned is not run again");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_waits_for_no_post_start_hook() {
    let node = TestNode::start().await;
    node.runtime.on_exec("begin", OnExec::Hangs);
    node.create(&hooked(json!({ "postStart": exec("begin") }))).await;
    node.pass(2).await;
    node.delete("web", 30).await;
    node.wait_until_gone("web").await;
    assert_eq!(node.starts("next"), [] as [i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_comes_before_the_signal() {
    let node = TestNode::start().await;
    node.create(&hooked(json!({ "preStop": sleep(5) }))).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 30).await;
    node.pass(4).await;
    let pod = node.get("web").unwrap();
    assert!(runs(&pod));
    assert_eq!(node.runtime.stop_signal("app"), None);
    assert!(node.runtime.stop_signal("next").is_some(), "who has no hook ends at once");
    assert_eq!(status_of(&pod, "next")["state"]["terminated"]["exitCode"], 143);
    node.pass(1).await;
    node.wait_until_gone("web").await;
    node.wait_for_message("Killing", |message| message == "Stopping container app").await;
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_spends_the_grace_period_and_leaves_two_seconds() {
    let node = TestNode::start().await;
    node.runtime.on_exec("end", OnExec::Hangs);
    node.runtime.on_signal("app", OnSignal::Ignores);
    node.create(&hooked(json!({ "preStop": exec("end") }))).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 10).await;
    node.pass(9).await;
    assert_eq!(node.runtime.stop_signal("app"), None);
    node.pass(1).await;
    assert!(node.runtime.stop_signal("app").is_some());
    assert!(runs(&node.get("web").unwrap()));
    node.pass(2).await;
    node.wait_until_gone("web").await;
    assert_eq!(node.runtime.exits()[&("app".to_owned(), 0)], 137);
    assert_eq!(node.runtime.execs(), ["app end"], "once");
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_of_a_pod_that_is_removed_has_a_second() {
    let node = TestNode::start().await;
    node.runtime.on_exec("end", OnExec::Hangs);
    node.create(&hooked(json!({ "preStop": exec("end") }))).await;
    node.wait_for("web", is_ready).await;
    node.advance(3600).await;
    node.remove("pods", "web").await;
    node.settle().await;
    assert_eq!(node.runtime.execs(), ["app end"]);
    assert_eq!(node.runtime.stop_signal("app"), None);
    assert!(node.runtime.stop_signal("next").is_some());
    for message in ["Stopping container app", "Stopping container next"] {
        node.wait_for_message("Killing", |said| said == message).await;
    }
    node.advance(1).await;
    node.wait_for_stop("app").await;
    node.wait_until_clean(|| node.leftovers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_without_any_grace_has_a_second() {
    let node = TestNode::start().await;
    node.runtime.on_exec("end", OnExec::Hangs);
    let mut held = hooked(json!({ "preStop": exec("end") }));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    node.create(&held).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 0).await;
    node.settle().await;
    assert_eq!((node.runtime.execs(), node.runtime.stop_signal("app")), (vec!["app end".to_owned()], None));
    node.advance(1).await;
    node.wait_for_phase("web", "Failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_pre_stop_hook_keeps_nobody_alive() {
    let node = TestNode::start().await;
    node.runtime.on_exec("end", OnExec::Exits(1));
    node.create(&hooked(json!({ "preStop": exec("end") }))).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 30).await;
    node.wait_until_gone("web").await;
    assert_eq!(node.wait_for_event("FailedPreStopHook").await, "PreStopHook failed");
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_ends_with_its_container_and_is_not_run_for_one_that_ended_itself() {
    let node = TestNode::start().await;
    node.runtime.on_exec("end", OnExec::Exits(0));
    node.create(&hooked(json!({ "preStop": exec("end") }))).await;
    node.wait_for("web", is_ready).await;
    node.runtime.exit("app", 3);
    node.wait_for_restart("web", "app", 1).await;
    assert_eq!(node.runtime.execs(), [] as [&str; 0]);

    let node = TestNode::start().await;
    node.create(&hooked(json!({ "preStop": sleep(25) }))).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 30).await;
    node.pass(3).await;
    node.runtime.exit("app", 0);
    node.wait_until_gone("web").await;
    assert_eq!(node.runtime.exits()[&("app".to_owned(), 0)], 0, "nobody slept on");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_cuts_a_hook_off() {
    let node = TestNode::start().await;
    node.create(&hooked(json!({ "preStop": sleep(25) }))).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 30).await;
    node.pass(3).await;
    node.delete("web", 2).await;
    node.pass(2).await;
    node.wait_until_gone("web").await;
    assert_eq!(node.runtime.exits()[&("app".to_owned(), 0)], 143);
}

#[tokio::test(start_paused = true)]
async fn a_new_image_runs_the_pre_stop_hook_of_the_old_one() {
    let node = TestNode::start().await;
    node.load_image("app:2").await;
    node.create(&hooked(json!({ "preStop": exec("end") }))).await;
    node.wait_for("web", is_ready).await;
    node.edit("web", |pod| pod["spec"]["containers"][0]["image"] = "app:2".into()).await;
    node.wait_for_restart("web", "app", 1).await;
    assert_eq!(node.runtime.execs(), ["app end"]);
    assert_eq!(node.wait_for_event("Killing").await, "Container app definition changed, will be restarted");
}

#[tokio::test(start_paused = true)]
async fn hooks_of_sidecars_run_when_the_pod_begins_to_end() {
    let node = TestNode::start().await;
    node.runtime.on_signal("app", OnSignal::Ignores);
    let sidecar = json!({
        "name": "side", "image": "app:1", "restartPolicy": "Always", "lifecycle": { "preStop": exec("end") },
    });
    let spec = json!({ "initContainers": [sidecar], "containers": [{ "name": "app", "image": "app:1" }] });
    node.create(&pod(&spec)).await;
    node.wait_for("web", is_ready).await;
    node.delete("web", 10).await;
    node.pass(5).await;
    assert_eq!(node.runtime.execs(), ["side end"]);
    assert_eq!(node.runtime.stop_signal("side"), None, "it ends after the app");
    node.pass(5).await;
    node.wait_until_gone("web").await;
    assert_eq!(node.runtime.exits()[&("side".to_owned(), 0)], 143);
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_runs_the_pre_stop_hook_within_its_grace() {
    let node = TestNode::start().await;
    node.runtime.on_exec("alive", OnExec::Exits(1));
    let mut pod = hooked(json!({ "preStop": sleep(20) }));
    pod["spec"]["containers"][0]["livenessProbe"] = json!({
        "exec": { "command": ["alive"] }, "timeoutSeconds": 1, "periodSeconds": 10, "failureThreshold": 1,
        "successThreshold": 1, "terminationGracePeriodSeconds": 4,
    });
    node.create(&pod).await;
    node.pass(3).await;
    assert_eq!(node.starts("app"), [0]);
    node.pass(1).await;
    node.wait_for_restart("web", "app", 1).await;
    assert_eq!(node.starts("app"), [0, 4], "the hook is broken off");
}
