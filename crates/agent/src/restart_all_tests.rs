//! Pods that restart in place, on a fake runtime and with time that the test moves.

use runtime::fake::{OnSignal, Verb};
use serde_json::{Value, json};

use crate::testing::{TestNode, condition, is_ready, pod, status_of, uid};

/// A sidecar, an init container, and an app whose end with 42 restarts them all; `helper` never restarts by itself.
fn spec() -> Value {
    let rule = json!({ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } });
    json!({
        "restartPolicy": "Never",
        "initContainers": [
            { "name": "proxy", "image": "app:1", "restartPolicy": "Always" },
            { "name": "init", "image": "app:1" },
        ],
        "containers": [
            { "name": "app", "image": "app:1", "restartPolicy": "Never", "restartPolicyRules": [rule] },
            { "name": "helper", "image": "app:1", "lifecycle": { "preStop": { "exec": { "command": ["bye"] } } } },
        ],
    })
}

async fn start() -> TestNode {
    let node = TestNode::start().await;
    node.runtime.exits_at_once("init", Some(0));
    node.create(&pod(&spec())).await;
    let ready = node.wait_for("web", is_ready).await;
    let restarting = condition(&ready, "AllContainersRestarting");
    assert_eq!((&restarting["status"], &restarting["reason"]), (&json!("False"), &Value::Null));
    node
}

fn restarted(pod: &Value) -> bool {
    is_ready(pod) && status_of(pod, "app")["restartCount"] == 1
}

#[tokio::test(start_paused = true)]
async fn all_containers_end_and_the_pod_begins_anew_where_it_is() {
    let node = start().await;
    let before = node.get("web").unwrap();
    assert!(node.runtime.exit("app", 42));
    let pod = node.wait_for("web", |pod| condition(pod, "AllContainersRestarting")["status"] == "True").await;
    let restarting = condition(&pod, "AllContainersRestarting");
    assert_eq!(restarting["reason"], "RestartAllContainersStarted");
    assert_eq!(restarting["message"], "container exited with restart policy rule");
    assert_eq!(status_of(&pod, "app")["state"]["terminated"]["exitCode"], 42);
    assert!(status_of(&pod, "helper")["state"]["running"].is_object(), "the kubelet needs a second to notice");
    node.advance(1).await;
    let removed = node.wait_for_reason("web", "helper", "RestartingAllContainers").await;
    assert_eq!(condition(&removed, "AllContainersRestarting")["status"], "False");
    for name in ["proxy", "init", "app", "helper"] {
        let status = status_of(&removed, name);
        assert_eq!(status["restartCount"], 1, "{name}");
        assert_eq!(status["containerID"], Value::Null, "{name}");
        let message = "The container is removed because RestartAllContainers in place";
        assert_eq!(status["state"]["waiting"]["message"], message, "{name}");
        let last = &status["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("RestartingAllContainers")), "{name}");
    }
    assert_eq!(removed["status"]["phase"], "Running");
    let pod = node.wait_for("web", restarted).await;
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(
        condition(&pod, "Initialized")["lastTransitionTime"],
        condition(&before, "Initialized")["lastTransitionTime"]
    );
    let verbs: Vec<_> = node.verbs().into_iter().filter(|verb| !verb.starts_with("CreateContainer")).collect();
    let wanted = [
        "RunPodSandbox default/web 0",
        "StartContainer proxy 0",
        "StartContainer init 0",
        "StartContainer app 0",
        "StartContainer helper 0",
        "StopContainer helper 0",
        "StopContainer proxy 0",
        "RemoveContainer helper 0",
        "RemoveContainer proxy 0",
        "RemoveContainer init 0",
        "RemoveContainer app 0",
        "StartContainer proxy 1",
        "StartContainer init 1",
        "StartContainer app 1",
        "StartContainer helper 1",
    ];
    assert_eq!(verbs, wanted);
    assert!(node.runtime.execs().is_empty(), "without grace there is no preStop hook");
    node.wait_for_message("Killing", |message| message == "killing").await;
}

#[tokio::test(start_paused = true)]
async fn who_ignores_the_signal_is_killed_after_two_seconds_and_another_exit_code_ends_the_pod() {
    let node = start().await;
    node.runtime.on_signal("helper", OnSignal::Ignores);
    assert!(node.runtime.exit("app", 42));
    node.advance(1).await;
    node.wait_for_stop_request("u-web").await;
    node.advance(2).await;
    node.wait_for("web", restarted).await;
    assert_eq!(node.starts("app"), [0, 3]);
    assert!(node.runtime.exit("app", 41) && node.runtime.exit("helper", 0));
    let pod = node.wait_for_phase("web", "Failed").await;
    let restarting = condition(&pod, "AllContainersRestarting");
    assert_eq!((&restarting["status"], &restarting["reason"]), (&json!("False"), &json!("PodFailed")));
}

#[tokio::test(start_paused = true)]
async fn it_counts_on_and_no_back_off_holds_it_up() {
    let node = start().await;
    for count in 1..=4 {
        assert!(node.runtime.exit("app", 42));
        node.advance(1).await;
        let pod = node.wait_for("web", |pod| is_ready(pod) && status_of(pod, "app")["restartCount"] == count).await;
        for name in ["proxy", "init", "helper"] {
            assert_eq!(status_of(&pod, name)["restartCount"], count, "{name}");
        }
    }
    assert_eq!(node.starts("app"), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_place_that_is_cut_anywhere_ends_as_one_that_is_not() {
    for cut in 1.. {
        let mut node = start().await;
        node.runtime.halt_after(cut);
        assert!(node.runtime.exit("app", 42));
        node.advance(1).await;
        let runtime = node.runtime.clone();
        let halted = tokio::select! {
            () = runtime.halted() => true,
            _pod = node.wait_for("web", restarted) => false,
        };
        if halted {
            node.kill_agent().await;
            node.runtime.resume();
            node.start_agent().await;
        }
        let pod = node.wait_for("web", restarted).await;
        for name in ["proxy", "init", "app", "helper"] {
            assert_eq!(status_of(&pod, name)["restartCount"], 1, "{name}, cut after {cut} steps");
            assert_eq!(node.starts(name).len(), 2, "{name}, cut after {cut} steps: {:?}", node.verbs());
        }
        if !halted {
            assert!(cut > 10, "too few places were cut: {cut}");
            assert_eq!(node.runtime.history().iter().filter(|one| one.verb == Verb::RunPodSandbox).count(), 1);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_sandbox_dies_meanwhile_begins_in_a_new_one() {
    let node = start().await;
    node.runtime.on_signal("helper", OnSignal::Ignores);
    assert!(node.runtime.exit("app", 42));
    node.advance(1).await;
    node.wait_for_stop_request("u-web").await;
    node.runtime.kill_sandboxes(&uid("u-web"));
    let pod = node.wait_for("web", restarted).await;
    assert_eq!(status_of(&pod, "helper")["restartCount"], 1);
    assert_eq!(condition(&pod, "AllContainersRestarting")["status"], "False");
}
