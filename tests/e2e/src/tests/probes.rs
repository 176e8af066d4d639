//! Probes and lifecycle hooks, with real servers and real programs.

use std::fs;
use std::time::Instant;

use e2e::node::{condition, container};
use e2e::{TestNode, limit};

tests! {
    a_failed_liveness_probe_restarts_the_container,
    readiness_follows_what_the_server_says,
    a_server_is_ready_as_soon_as_it_listens,
    a_container_runs_for_others_after_its_post_start_hook_and_ends_after_its_pre_stop_hook,
    a_failed_post_start_hook_ends_the_container,
    a_hook_that_hangs_spends_the_grace_period,
    a_pod_chooses_the_signal_that_ends_it,
    a_restart_of_the_daemon_takes_no_readiness_away,
}

fn a_failed_liveness_probe_restarts_the_container(node: &mut TestNode) {
    node.apply("probed.yaml");
    node.wait_for("probed", "started", |pod| container(pod, "main")["started"] == true);
    node.exec("probed", "main", &["rm", "/www/alive"]);
    let pod = node.wait_for("probed", "a restart", |pod| container(pod, "main")["restartCount"] == 1);
    let end = &container(&pod, "main")["lastState"]["terminated"];
    assert!(end["exitCode"] == 143 || end["exitCode"] == 137, "{end}");
    wait_for_event(node, "probed", "Unhealthy", "Liveness probe failed: ");
    wait_for_event(node, "probed", "Killing", "Container main failed liveness probe, will be restarted");
    node.delete_pod("probed");
}

fn readiness_follows_what_the_server_says(node: &mut TestNode) {
    node.apply("probed.yaml");
    let pod = node.wait_for("probed", "started", |pod| container(pod, "main")["started"] == true);
    assert_eq!(container(&pod, "main")["ready"], false);
    wait_for_event(node, "probed", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    node.exec("probed", "main", &["touch", "/www/ready"]);
    node.wait_for("probed", "ready", |pod| condition(pod, "Ready") == Some("True"));
    node.exec("probed", "main", &["rm", "/www/ready"]);
    let pod = node.wait_for("probed", "not ready", |pod| condition(pod, "Ready") == Some("False"));
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    assert_eq!(container(&pod, "main")["started"], true);
    node.delete_pod("probed");
}

fn a_server_is_ready_as_soon_as_it_listens(node: &mut TestNode) {
    node.load_image("nginx");
    let begin = Instant::now();
    node.run_ready("ready-web");
    // Ten seconds is the period: a first probe that came too early would have to be waited out.
    assert!(begin.elapsed() < limit(8), "{:?}", begin.elapsed());
    node.delete_pod("ready-web");
}

fn a_container_runs_for_others_after_its_post_start_hook_and_ends_after_its_pre_stop_hook(node: &mut TestNode) {
    node.run_ready("hooks");
    let story = node.path("story");
    // Ready is who runs, and the second one still has to write its word.
    e2e::eventually(limit(10), "both have written", || match fs::read_to_string(&story) {
        Ok(told) if told == "hook\nsecond\n" => Ok(()),
        told => Err(format!("{told:?}")),
    });
    node.delete_pod("hooks");
    assert_eq!(fs::read_to_string(&story).unwrap(), "hook\nsecond\nfarewell\ntold\n");
}

fn a_failed_post_start_hook_ends_the_container(node: &mut TestNode) {
    node.apply("hook-fails.yaml");
    let pod = node.wait_for("hook-fails", "the hook's reason", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "PostStartHookError"
    });
    let status = container(&pod, "main");
    let message = status["state"]["waiting"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("exited with 3") && message.contains("no luck"), "{message}");
    assert!(!status["lastState"]["terminated"].is_null(), "{status}");
    wait_for_event(node, "hook-fails", "FailedPostStartHook", "PostStartHook failed");
    node.wait_for("hook-fails", "back-off", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    node.delete_pod("hook-fails");
}

fn a_hook_that_hangs_spends_the_grace_period(node: &mut TestNode) {
    node.run_ready("hook-hangs");
    let begin = Instant::now();
    node.delete_pod("hook-hangs");
    let took = begin.elapsed();
    // One second for the hook, and two for a program that does not hear the signal.
    assert!(took >= std::time::Duration::from_millis(2900), "{took:?}");
    assert!(took < limit(15), "{took:?}");
    let left: Vec<_> =
        node.processes().into_iter().filter(|process| process.command_line.contains("1234567")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn a_pod_chooses_the_signal_that_ends_it(node: &mut TestNode) {
    let pod = node.run_ready("stop-signal");
    assert_eq!(container(&pod, "main")["stopSignal"], "SIGUSR1");
    node.delete_pod("stop-signal");
    assert_eq!(fs::read_to_string(node.path("signal")).unwrap(), "USR1\n");
}

fn a_restart_of_the_daemon_takes_no_readiness_away(node: &mut TestNode) {
    node.apply("probed.yaml");
    node.wait_for("probed", "started", |pod| container(pod, "main")["started"] == true);
    node.exec("probed", "main", &["touch", "/www/ready"]);
    let pod = node.wait_for("probed", "ready", |pod| condition(pod, "Ready") == Some("True"));
    let before = pod["metadata"]["resourceVersion"].clone();
    node.kill_daemon();
    node.start_daemon();
    node.exec("probed", "main", &["test", "-e", "/www/ready"]);
    assert_eq!(node.pod("probed")["metadata"]["resourceVersion"], before, "nothing else was said meanwhile");
    node.exec("probed", "main", &["rm", "/www/ready"]);
    let pod = node.wait_for("probed", "not ready", |pod| condition(pod, "Ready") == Some("False"));
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    node.delete_pod("probed");
}

fn wait_for_event(node: &TestNode, pod: &str, reason: &str, message: &str) {
    e2e::eventually(limit(10), message, || {
        let events = node.api().get("/api/v1/namespaces/default/events");
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let of_pod = events.iter().filter(|event| event["involvedObject"]["name"] == pod);
        let messages: Vec<String> = of_pod
            .filter(|event| event["reason"] == reason)
            .filter_map(|event| event["message"].as_str().map(str::to_owned))
            .collect();
        if messages.iter().any(|other| other.starts_with(message)) { Ok(()) } else { Err(format!("{messages:?}")) }
    });
}
