//! The life of a Pod: init containers, ends, restarts, conditions, events.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use e2e::node::{condition, container};
use e2e::{TestNode, eventually, limit};
use serde_json::{Value, json};

tests! {
    init_containers_run_in_order,
    a_failing_init_container_keeps_the_app_waiting,
    a_failed_init_container_fails_a_pod_that_never_restarts,
    the_phase_follows_the_restart_policy,
    a_crashing_container_backs_off,
    a_container_has_its_grace_period,
    a_container_that_ignores_sigterm_is_killed,
    a_program_that_does_not_exist_is_named,
    an_image_that_does_not_exist_is_named,
    conditions_and_events_tell_the_story,
    an_exit_is_told_with_code_times_and_message,
    a_pod_of_the_same_name_may_come_at_once,
    a_new_pod_takes_a_control_group_that_is_there,
}

fn init_containers_run_in_order(node: &mut TestNode) {
    node.apply("init-order.yaml");
    let pod = node.wait_phase("init-order", "Succeeded");
    assert_eq!(node.logs("init-order", "app"), "first\nsecond\napp\n");
    let end = |name: &str| container(&pod, name)["state"]["terminated"]["reason"].as_str().map(str::to_owned);
    for name in ["first", "second", "app"] {
        assert_eq!(end(name).as_deref(), Some("Completed"), "{name}");
    }
}

fn a_failing_init_container_keeps_the_app_waiting(node: &mut TestNode) {
    node.apply("init-fails.yaml");
    let pod = node.wait_for("init-fails", "back-off", |pod| waiting_reason(pod, "setup") == Some("CrashLoopBackOff"));
    assert_eq!(waiting_reason(&pod, "app"), Some("PodInitializing"));
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(condition(&pod, "Initialized"), Some("False"));
    let table = node.monopod(&["get", "pod", "init-fails"]).ok();
    assert!(table.contains("Init:CrashLoopBackOff"), "{table}");
    assert_eq!(node.logs("init-fails", "setup"), "no luck\n");
}

fn a_failed_init_container_fails_a_pod_that_never_restarts(node: &mut TestNode) {
    node.apply("init-fails-for-good.yaml");
    let pod = node.wait_phase("init-fails-for-good", "Failed");
    let end = &container(&pod, "setup")["state"]["terminated"];
    assert_eq!(end["exitCode"], 7, "{end}");
    assert_eq!(waiting_reason(&pod, "app"), Some("PodInitializing"), "it was never started");
}

fn the_phase_follows_the_restart_policy(node: &mut TestNode) {
    node.apply("succeeds.yaml");
    node.apply("fails.yaml");
    node.apply("killed-by-signal.yaml");
    node.wait_phase("succeeds", "Succeeded");
    let pod = node.wait_phase("fails", "Failed");
    assert_eq!(container(&pod, "other")["state"]["terminated"]["exitCode"], 0);
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    let pod = node.wait_phase("killed-by-signal", "Failed");
    assert_eq!(container(&pod, "main")["state"]["terminated"]["exitCode"], 128 + 11);
    // A finished Pod keeps its object and its logs, but neither sandbox nor address.
    e2e::eventually(limit(5), "the sandboxes end", || {
        let left = node.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

fn a_crashing_container_backs_off(node: &mut TestNode) {
    node.apply("crashes.yaml");
    let pod = node.wait_for("crashes", "back-off", |pod| waiting_reason(pod, "main") == Some("CrashLoopBackOff"));
    let status = container(&pod, "main");
    let message = status["state"]["waiting"]["message"].as_str().unwrap_or_default();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let expected = format!("back-off 10s restarting failed container=main pod=crashes_default({uid})");
    assert_eq!(message, expected);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1, "{status}");
    assert_eq!(pod["status"]["phase"], "Running");
    // The first restart is at once; the one after it comes ten seconds later (kubelet's back-off).
    node.wait_for("crashes", "a restart after the back-off", |pod| {
        container(pod, "main")["restartCount"].as_u64().is_some_and(|count| count >= 2)
    });
    let pod = node.wait_for("crashes", "the back-off doubles", |pod| {
        container(pod, "main")["state"]["waiting"]["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("back-off 20s"))
    });
    assert_eq!(container(&pod, "main")["ready"], false);
}

fn a_container_has_its_grace_period(node: &mut TestNode) {
    node.run_ready("graceful");
    // Before it has set its trap a signal would end it at once.
    node.background(&["logs", "-f", "graceful"]).expect("listens");
    node.monopod(&["delete", "pod", "graceful"]).ok();
    assert_eq!(fs::read_to_string(node.path("farewell")).unwrap(), "bye\n", "delete waits until it has ended well");
}

fn a_container_that_ignores_sigterm_is_killed(node: &mut TestNode) {
    node.run_ready("stubborn");
    let begin = Instant::now();
    node.delete_pod("stubborn");
    let took = begin.elapsed();
    assert!(took >= std::time::Duration::from_secs(1), "never before the grace period is over: {took:?}");
    assert!(took < limit(8), "{took:?}");
    // Without any grace it is gone at once.
    node.run_ready("stubborn");
    node.monopod(&["delete", "pod", "stubborn", "--grace-period=0", "--force"]).ok();
}

fn a_program_that_does_not_exist_is_named(node: &mut TestNode) {
    node.apply("no-such-program.yaml");
    let pod = node.wait_phase("no-such-program", "Failed");
    let end = &container(&pod, "main")["state"]["terminated"];
    assert_eq!(end["reason"], "StartError", "{end}");
    assert_eq!(end["exitCode"], 128, "{end}");
    let message = end["message"].as_str().unwrap_or_default();
    assert!(message.contains("/no/such/program") && message.contains("No such file or directory"), "{message}");
}

fn an_image_that_does_not_exist_is_named(node: &mut TestNode) {
    node.apply("no-such-image.yaml");
    let pod =
        node.wait_for("no-such-image", "a reason", |pod| waiting_reason(pod, "main") == Some("ErrImageNeverPull"));
    let message = &container(&pod, "main")["state"]["waiting"]["message"];
    assert!(message.as_str().unwrap_or_default().contains("nowhere.example/absent:1"), "{message}");
    // It heals when the image comes.
    let archive = e2e::images::archive("busybox");
    node.monopod(&["image", "load", archive.to_str().unwrap(), "--reference", "nowhere.example/absent:1"]).ok();
    node.wait_for("no-such-image", "started", |pod| {
        !container(pod, "main")["lastState"]["terminated"].is_null()
            || !container(pod, "main")["state"]["terminated"].is_null()
            || !container(pod, "main")["state"]["running"].is_null()
    });
}

fn conditions_and_events_tell_the_story(node: &mut TestNode) {
    let pod = node.run_ready("idle");
    for kind in ["PodScheduled", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&pod, kind), Some("True"), "{kind}");
    }
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let status = container(&pod, "main");
    assert_eq!(status["started"], true);
    assert!(status["containerID"].as_str().unwrap_or_default().starts_with("monopod://"), "{status}");
    assert!(status["imageID"].as_str().unwrap_or_default().contains("sha256:"), "{status}");
    node.delete_pod("idle");
    let events = node.api().get("/api/v1/namespaces/default/events");
    let mut reasons: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["involvedObject"]["name"] == "idle")
        .filter_map(|event| event["reason"].as_str())
        .collect();
    reasons.sort_unstable();
    for expected in ["Created", "Killing", "Pulled", "Started"] {
        assert!(reasons.contains(&expected), "{expected} among {reasons:?}");
    }
}

fn an_exit_is_told_with_code_times_and_message(node: &mut TestNode) {
    node.apply("fails.yaml");
    let pod = node.wait_phase("fails", "Failed");
    let end = &container(&pod, "main")["state"]["terminated"];
    assert_eq!(end["exitCode"], 42, "{end}");
    assert_eq!(end["reason"], "Error", "{end}");
    assert_eq!(end["message"], "last words\n", "{end}");
    let (started, finished) = (end["startedAt"].as_str().unwrap(), end["finishedAt"].as_str().unwrap());
    assert!(started <= finished, "{end}");
}

fn a_pod_of_the_same_name_may_come_at_once(node: &mut TestNode) {
    let mut uids = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let pod = node.run_ready("idle");
        uids.insert(pod["metadata"]["uid"].as_str().unwrap().to_owned());
        node.monopod(&["delete", "pod", "idle", "--grace-period=0", "--force"]).ok();
    }
    assert_eq!(uids.len(), 5);
}

fn waiting_reason<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    container(pod, name)["state"]["waiting"]["reason"].as_str()
}

fn a_new_pod_takes_a_control_group_that_is_there(node: &mut TestNode) {
    let made = eventually(limit(15), "two control groups are made ahead", || {
        let made = pods_with_control_groups(node);
        if made.len() == 2 { Ok(made) } else { Err(format!("{made:?}")) }
    });
    let command = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"];
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"},
        "spec": {"containers": [{"name": "main", "image": "busybox:stable", "command": command}]},
    });
    // Who only imagines Pods takes none.
    for query in ["?dryRun=All", "?dryRun=All", ""] {
        let answer = node.api().request("POST", &format!("/api/v1/namespaces/default/pods{query}"), Some(&pod));
        assert_eq!(answer.code, 201, "{}", answer.body);
    }
    let pod = node.wait_ready("new");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    assert!(made.contains(&format!("pod{uid}")), "{uid} is none of {made:?}");
    assert_eq!(node.exec("new", "main", &["cat", "/proc/1/comm"]), "sh\n");
    node.delete_pod("new");
    assert!(!pods_with_control_groups(node).contains(&format!("pod{uid}")), "it goes with its Pod");
}

/// Names of the control groups of Pods, and of those that are nobody's yet.
fn pods_with_control_groups(node: &TestNode) -> BTreeSet<String> {
    let directories = e2e::cgroups::directories(node.cgroup().unwrap());
    let names = directories.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter(|name| name.starts_with("pod")).map(str::to_owned).collect()
}
