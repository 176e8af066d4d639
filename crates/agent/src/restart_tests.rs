//! The daemon dies between any two steps: the next one finds what is there, repeats nothing, and comes to the same end.

use runtime::fake::Verb;
use serde_json::{Value, json};

use crate::testing::{TestNode, condition, is_ready, pod, status_of, uid};

fn spec() -> Value {
    json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "data", "emptyDir": {} }],
        "initContainers": [{ "name": "init", "image": "app:1" }],
        "containers": [
            { "name": "app", "image": "app:1", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] },
            { "name": "side", "image": "app:1" },
        ],
    })
}

/// What must be equal whatever happened on the way.
fn essence(pod: &Value) -> Value {
    let container = |name: &str| {
        let status = status_of(pod, name);
        json!({
            "restartCount": status["restartCount"],
            "ready": status["ready"],
            "running": status["state"]["running"].is_object(),
            "exitCode": status["state"]["terminated"]["exitCode"],
            "last": status["lastState"],
        })
    };
    let containers = ["init", "app", "side"].map(container);
    json!({
        "phase": pod["status"]["phase"],
        "ready": condition(pod, "Ready")["status"],
        "addresses": pod["status"]["podIPs"].as_array().map(Vec::len),
        "containers": containers,
    })
}

async fn restart_when_halted(node: &mut TestNode) {
    node.kill_agent().await;
    node.runtime.resume();
    node.start_agent().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_cut_anywhere_ends_as_one_that_is_not() {
    let mut wanted = None;
    for cut in 0.. {
        let mut node = TestNode::start().await;
        node.runtime.exits_at_once("init", Some(0));
        // The first time nothing is cut.
        if cut > 0 {
            node.runtime.halt_after(cut);
        }
        node.create(&pod(&spec())).await;
        let runtime = node.runtime.clone();
        let halted = tokio::select! {
            () = runtime.halted() => true,
            _ready = node.wait_for("web", is_ready) => false,
        };
        if halted {
            restart_when_halted(&mut node).await;
        }
        let ready = node.wait_for("web", is_ready).await;
        let wanted = wanted.get_or_insert_with(|| essence(&ready));
        assert_eq!(&essence(&ready), wanted, "cut after {cut} steps");
        for name in ["init", "app", "side"] {
            assert_eq!(node.starts(name), [0], "{name} starts once, cut after {cut} steps: {:?}", node.verbs());
        }
        let sandboxes = node.verbs().iter().filter(|verb| verb.starts_with("RunPodSandbox")).count();
        assert_eq!(sandboxes, 1, "cut after {cut} steps");
        if cut > 0 && !halted {
            // One sandbox, three times create and start: all places were cut.
            assert_eq!(cut, 8);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_cut_anywhere_leaves_nothing() {
    for cut in 1.. {
        let mut node = TestNode::start().await;
        node.runtime.exits_at_once("init", Some(0));
        node.create(&pod(&spec())).await;
        node.wait_for("web", is_ready).await;
        node.runtime.halt_after(cut);
        node.delete("web", 30).await;
        let runtime = node.runtime.clone();
        let halted = tokio::select! {
            () = runtime.halted() => true,
            () = node.wait_until_gone("web") => false,
        };
        if halted {
            restart_when_halted(&mut node).await;
            node.wait_until_gone("web").await;
        }
        node.wait_until_clean(|| node.leftovers().is_empty()).await;
        for name in ["init", "app", "side"] {
            assert_eq!(node.starts(name), [0], "nothing starts in a pod that ends, cut after {cut} steps");
        }
        if !halted {
            // Two containers and their sandbox are stopped, and it is removed.
            assert_eq!(cut, 5);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_finish_that_is_cut_keeps_its_status() {
    for cut in 1..=3 {
        let mut node = TestNode::start().await;
        node.runtime.exits_at_once("init", Some(0));
        node.create(&pod(&spec())).await;
        node.wait_for("web", is_ready).await;
        node.runtime.exit("side", 0);
        node.runtime.halt_after(cut);
        node.runtime.exit("app", 4);
        let runtime = node.runtime.clone();
        tokio::select! {
            () = runtime.halted() => {}
            () = node.wait_until_clean(|| node.runtime.is_empty()) => {}
        }
        restart_when_halted(&mut node).await;
        let done = node.wait_for_phase("web", "Failed").await;
        node.wait_until_clean(|| node.runtime.is_empty()).await;
        assert_eq!(status_of(&done, "app")["state"]["terminated"]["exitCode"], 4);
        assert_eq!(node.starts("app"), [0]);
    }
}

#[tokio::test(start_paused = true)]
async fn exits_while_the_daemon_is_away_are_seen_by_the_next() {
    let mut node = TestNode::start().await;
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "app:1" }] }))).await;
    node.wait_for("web", is_ready).await;
    node.kill_agent().await;
    node.advance(100).await;
    node.runtime.exit("app", 9);
    node.advance(100).await;
    node.start_agent().await;
    let pod = node.wait_for_restart("web", "app", 1).await;
    let last = status_of(&pod, "app")["lastState"]["terminated"].clone();
    assert_eq!((&last["exitCode"], &last["finishedAt"]), (&json!(9), &json!("2026-01-01T00:01:40Z")));
    assert_eq!(node.starts("app"), [0, 200]);
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_pods_start_again() {
    let mut node = TestNode::start().await;
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "app:1" }] }))).await;
    let before = node.wait_for("web", is_ready).await;
    node.kill_agent().await;
    node.runtime.kill_sandboxes(&uid("u-web"));
    node.start_agent().await;
    let after = node.wait_for_restart("web", "app", 1).await;
    assert_eq!(after["status"]["startTime"], before["status"]["startTime"]);
    assert_eq!(after["status"]["podIP"], "10.85.0.2");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_forgot_everything_does_not_take_the_count_back() {
    let mut node = TestNode::start().await;
    node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "app:1" }] }))).await;
    node.wait_for("web", is_ready).await;
    node.runtime.exit("app", 1);
    node.wait_for_restart("web", "app", 1).await;
    node.kill_agent().await;
    node.runtime.forget_everything();
    node.start_agent().await;
    node.wait_for_reason("web", "app", "CrashLoopBackOff").await;
    node.advance(10).await;
    let pod = node.wait_for_restart("web", "app", 2).await;
    assert_eq!(status_of(&pod, "app")["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stopped_or_removed_is_tried_again() {
    for verb in [Verb::StopContainer, Verb::RemovePodSandbox] {
        let node = TestNode::start().await;
        node.create(&pod(&json!({ "containers": [{ "name": "app", "image": "app:1" }] }))).await;
        node.wait_for("web", is_ready).await;
        node.runtime.fail(verb, 1);
        node.delete("web", 30).await;
        node.wait_until_clean(|| node.runtime.failures_left(verb) == 0).await;
        assert!(node.get("web").is_some(), "{verb:?}: the pod stays until it is gone indeed");
        node.advance(1).await;
        node.advance(1).await;
        node.wait_until_gone("web").await;
        assert!(node.leftovers().is_empty());
    }
}
