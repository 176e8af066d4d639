//! Crash-only: the daemon, an infra process, or the whole machine may die at any moment.

use std::fs;
use std::time::Duration;

use e2e::TestNode;
use e2e::node::{container, kill};
use rustix::process::Signal;
use serde_json::Value;

tests! {
    pods_run_on_while_the_daemon_is_dead,
    ends_while_the_daemon_is_dead_are_recorded,
    starts_that_are_cut_short_converge,
    ends_that_are_cut_short_converge,
    restarts_and_init_containers_survive_kills,
    a_daemon_that_stops_orderly_leaves_pods_running,
    a_dead_infra_is_replaced,
    an_infra_that_dies_with_the_daemon_is_replaced,
    an_infra_that_does_not_answer_is_not_taken_for_dead,
    after_a_reboot_the_pods_of_the_store_start_again,
}

fn pods_run_on_while_the_daemon_is_dead(node: &mut TestNode) {
    let before = node.run_ready("counts");
    let pid = node.process("sh -c trap").pid;
    node.kill_daemon();
    let log = node.log_dir().join(format!("default_counts_{}", uid(&before))).join("main/0.log");
    let lines = || fs::read_to_string(&log).unwrap().lines().count();
    let written = lines();
    e2e::eventually(e2e::limit(10), "its log goes on", || {
        if lines() > written + 3 { Ok(()) } else { Err(format!("{} lines", lines())) }
    });
    node.start_daemon();
    let after = node.wait_ready("counts");
    assert_eq!(node.process("sh -c trap").pid, pid, "the same process");
    for field in ["containerID", "restartCount", "state"] {
        assert_eq!(container(&after, "main")[field], container(&before, "main")[field], "{field}");
    }
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"]);
    // The new daemon serves streams of the old container.
    assert_eq!(node.exec("counts", "main", &["echo", "hello"]), "hello\n");
    let text = node.logs("counts", "main");
    for (index, line) in text.lines().enumerate() {
        assert_eq!(line, format!("count {}", index + 1), "no line is lost or doubled");
    }
}

fn ends_while_the_daemon_is_dead_are_recorded(node: &mut TestNode) {
    node.apply("ends-when-told.yaml");
    node.wait_ready("ends-when-told");
    let pid = node.process("until [").pid;
    node.kill_daemon();
    fs::write(node.path("code"), "9").unwrap();
    e2e::eventually(e2e::limit(10), "the container ends", || {
        if fs::exists(format!("/proc/{pid}")).unwrap() { Err("it runs".to_owned()) } else { Ok(()) }
    });
    node.start_daemon();
    let pod = node.wait_phase("ends-when-told", "Failed");
    let status = container(&pod, "main");
    assert_eq!(status["state"]["terminated"]["exitCode"], 9, "{status}");
    assert_eq!(status["state"]["terminated"]["reason"], "Error", "{status}");
    assert_eq!(node.logs("ends-when-told", "main"), "waiting\ntold\n");
}

/// Moments after a request at which the daemon is killed, in units of 0.7 ms: a start takes a few milliseconds.
fn moments() -> impl Iterator<Item = Duration> {
    (0..14_u32).map(|step| Duration::from_micros(700) * step)
}

fn starts_that_are_cut_short_converge(node: &mut TestNode) {
    let pod = pod_again(node, "init-order");
    for moment in moments() {
        let answer = node.api().request("POST", "/api/v1/namespaces/default/pods", Some(&pod));
        assert_eq!(answer.code, 201, "{}", answer.body);
        // The fault's own time, not a wait for something.
        std::thread::sleep(moment);
        node.kill_daemon();
        node.start_daemon();
        node.wait_phase("init-order", "Succeeded");
        assert_eq!(
            node.logs("init-order", "app"),
            "first\nsecond\napp\n",
            "killed after {moment:?}: nothing is repeated"
        );
        node.delete_pod("init-order");
    }
}

fn ends_that_are_cut_short_converge(node: &mut TestNode) {
    for moment in moments() {
        node.run_ready("empty-dir");
        let answer = node.api().request("DELETE", "/api/v1/namespaces/default/pods/empty-dir", None);
        assert!(matches!(answer.code, 200 | 202), "{}", answer.body);
        std::thread::sleep(moment);
        node.kill_daemon();
        node.start_daemon();
        e2e::eventually(e2e::limit(20), "the Pod is gone", || {
            let left = node.api().names("/api/v1/pods");
            if left.is_empty() { Ok(()) } else { Err(format!("killed after {moment:?}: {left:?}")) }
        });
        assert_eq!(node.processes().len(), 0, "killed after {moment:?}: {:?}", node.processes());
    }
}

fn restarts_and_init_containers_survive_kills(node: &mut TestNode) {
    node.apply("restarts-when-told.yaml");
    for round in 1..=2_u32 {
        node.wait_for("restarts-when-told", "running", |pod| !container(pod, "main")["state"]["running"].is_null());
        node.kill_daemon();
        fs::write(node.path("again"), "").unwrap();
        node.start_daemon();
        let pod = node.wait_for("restarts-when-told", "started again", |pod| {
            let status = container(pod, "main");
            status["restartCount"] == round && !status["state"]["running"].is_null()
        });
        assert_eq!(container(&pod, "main")["lastState"]["terminated"]["exitCode"], 5);
    }
    // It runs a moment before it has written.
    let starts = || fs::read_to_string(node.path("starts")).unwrap().lines().count();
    e2e::eventually(e2e::limit(10), "the last start is counted", || match starts() {
        early @ 0..3 => Err(format!("{early} starts")),
        _ => Ok(()),
    });
    assert_eq!(starts(), 3, "each start happened once");
}

fn a_daemon_that_stops_orderly_leaves_pods_running(node: &mut TestNode) {
    node.run_ready("idle");
    let pid = node.process("sh -c trap").pid;
    node.stop_daemon();
    assert_eq!(node.process("sh -c trap").pid, pid);
    node.start_daemon();
    node.wait_ready("idle");
    assert_eq!(node.process("sh -c trap").pid, pid);
}

fn a_dead_infra_is_replaced(node: &mut TestNode) {
    node.run_ready("counts");
    let container_before = node.process("sh -c trap").pid;
    let infra = node.infra_processes();
    assert_eq!(infra.len(), 1, "{infra:?}");
    kill(infra[0].pid, Signal::KILL);
    let after = restarted(node, "counts", 1);
    assert_ne!(node.process("sh -c trap").pid, container_before, "nothing of the dead sandbox runs on");
    assert_eq!(node.infra_processes().len(), 1);
    assert!(after["status"]["podIP"].is_string());
    assert_eq!(node.exec("counts", "main", &["echo", "hello"]), "hello\n");
}

fn an_infra_that_dies_with_the_daemon_is_replaced(node: &mut TestNode) {
    node.run_ready("counts");
    let infra = node.infra_processes();
    node.kill_daemon();
    kill(infra[0].pid, Signal::KILL);
    node.start_daemon();
    restarted(node, "counts", 1);
    assert_eq!(node.infra_processes().len(), 1);
}

fn an_infra_that_does_not_answer_is_not_taken_for_dead(node: &mut TestNode) {
    node.run_ready("counts");
    let container_before = node.process("i=0; while").pid;
    let infra = node.infra_processes();
    node.kill_daemon();
    kill(infra[0].pid, Signal::STOP);
    node.start_daemon();
    // Others do not wait for it, and what it holds is left alone.
    node.run_ready("idle");
    let told = node.monopod(&["events", "--for", "pod/counts"]).ok();
    assert!(told.contains("FailedSync") && told.contains("does not answer"), "{told}");
    kill(infra[0].pid, Signal::CONT);
    e2e::eventually(e2e::limit(10), "its containers are reached again", || {
        let answer = node.try_exec("counts", "main", &["echo", "hello"]);
        if answer.stdout == "hello\n" { Ok(()) } else { Err(answer.to_string()) }
    });
    let pod = node.wait_ready("counts");
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    let same = node.infra_processes().iter().any(|one| one.pid == infra[0].pid);
    assert!(same && node.process("i=0; while").pid == container_before, "nothing was made anew");
    // One that is stopped for good is ended when its Pod must be gone.
    node.kill_daemon();
    kill(infra[0].pid, Signal::STOP);
    node.start_daemon();
    node.monopod(&["delete", "pod", "counts", "--grace-period=1"]).ok();
}

fn after_a_reboot_the_pods_of_the_store_start_again(node: &mut TestNode) {
    node.run_ready("restarts-keep-volume");
    node.run_ready("idle");
    node.apply("succeeds.yaml");
    node.wait_phase("succeeds", "Succeeded");
    let log = node.exec("restarts-keep-volume", "main", &["cat", "/disk/log"]);
    node.reboot();
    node.start_daemon();
    let pod = restarted(node, "idle", 1);
    assert_eq!(container(&pod, "main")["lastState"]["terminated"]["exitCode"], 137, "nobody knows how it ended");
    restarted(node, "restarts-keep-volume", 2);
    let after = node.exec("restarts-keep-volume", "main", &["cat", "/disk/log"]);
    assert_eq!(after, format!("{log}start\n"), "an emptyDir on disk lives as long as its Pod");
    let done = node.pod("succeeds");
    assert_eq!(done["status"]["phase"], "Succeeded");
    assert_eq!(container(&done, "main")["restartCount"], 0, "a Pod that has ended starts nothing");
}

/// Waits until the container `main` runs and has been started `count` times more.
#[track_caller]
fn restarted(node: &TestNode, name: &str, count: u32) -> Value {
    node.wait_for(name, "started again", |pod| {
        let status = container(pod, "main");
        status["restartCount"] == count && !status["state"]["running"].is_null() && status["ready"] == true
    })
}

fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap()
}

/// A Pod as a client would send it again: what the first one became, without what the server set.
fn pod_again(node: &TestNode, name: &str) -> Value {
    let pod = node.run_to_end(name);
    node.delete_pod(name);
    let mut spec = pod["spec"].clone();
    spec.as_object_mut().unwrap().remove("nodeName");
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}
