//! Native sidecars: their order at the start and at the end, their restarts, and what they count for (KEP-753).

use std::fs;
use std::time::Duration;

use e2e::TestNode;
use e2e::node::{condition, container};
use serde_json::Value;

tests! {
    a_job_ends_with_its_app_and_its_sidecars_after_it,
    a_deleted_pod_ends_its_app_before_its_sidecars,
    a_daemon_killed_while_sidecars_end_goes_on_in_order,
    kills_between_any_two_steps_converge_to_an_undisturbed_life,
}

const STARTS: [&str; 4] = ["first starts", "setup runs", "second starts", "main starts"];

fn order(node: &TestNode) -> Vec<String> {
    let text = fs::read_to_string(node.path("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Lets the app end with that code.
fn tell(node: &TestNode, code: &str) {
    fs::write(node.path("code.new"), code).unwrap();
    fs::rename(node.path("code.new"), node.path("code")).unwrap();
}

fn exit_code(pod: &Value, name: &str) -> Option<i64> {
    container(pod, name)["state"]["terminated"]["exitCode"].as_i64()
}

fn a_job_ends_with_its_app_and_its_sidecars_after_it(node: &mut TestNode) {
    let pod = node.run_ready("sidecars");
    e2e::eventually(e2e::limit(10), "all have started", || {
        let told = order(node);
        if told == STARTS { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(condition(&pod, "Initialized"), Some("True"));
    let table = node.monopod(&["get", "pod", "sidecars"]).ok();
    assert!(table.contains("3/3"), "sidecars count: {table}");
    // A sidecar starts again whatever the policy of the Pod is.
    fs::write(node.path("again"), "").unwrap();
    let pod = node.wait_for("sidecars", "the sidecar starts again", |pod| {
        let first = container(pod, "first");
        first["restartCount"] == 1 && first["state"]["running"].is_object()
    });
    assert_eq!(container(&pod, "first")["lastState"]["terminated"]["exitCode"], 4);
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    tell(node, "0");
    let pod = node.wait_phase("sidecars", "Succeeded");
    assert_eq!((exit_code(&pod, "main"), exit_code(&pod, "first")), (Some(0), Some(3)), "only the app counts");
    let told = order(node);
    assert_eq!(told.get(4..).unwrap_or_default(), ["first starts", "second ends", "first ends"]);
    let table = node.monopod(&["get", "pod", "sidecars"]).ok();
    assert!(table.contains("Completed"), "{table}");
}

fn a_deleted_pod_ends_its_app_before_its_sidecars(node: &mut TestNode) {
    node.run_ready("sidecars");
    node.monopod(&["delete", "pod", "sidecars"]).ok();
    let told = order(node);
    assert_eq!(told.get(4..).unwrap_or_default(), ["main ends", "second ends", "first ends"]);
}

fn a_daemon_killed_while_sidecars_end_goes_on_in_order(node: &mut TestNode) {
    node.run_ready("sidecars");
    tell(node, "7");
    node.wait_for("sidecars", "the app has ended", |pod| exit_code(pod, "main").is_some());
    node.kill_daemon();
    node.start_daemon();
    let pod = node.wait_phase("sidecars", "Failed");
    assert_eq!((exit_code(&pod, "main"), exit_code(&pod, "second")), (Some(7), Some(0)));
    let told = order(node);
    assert_eq!(told.get(4..).unwrap_or_default(), ["second ends", "first ends"]);
}

/// What must not depend on a crash: all of the status but times, addresses and names of runs.
fn without_accidents(mut status: Value) -> Value {
    match &mut status {
        Value::Object(fields) => {
            for field in
                ["containerID", "startedAt", "finishedAt", "lastTransitionTime", "startTime", "podIP", "podIPs"]
            {
                fields.remove(field);
            }
            fields.values_mut().for_each(|value| *value = without_accidents(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_accidents(item.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    status
}

/// One life of the Pod: its status when it was ready, and its last one.
fn life(node: &mut TestNode, pod: &Value, kill_after: Option<(Duration, Duration)>) -> (Value, Value) {
    let answer = node.api().request("POST", "/api/v1/namespaces/default/pods", Some(pod));
    assert_eq!(answer.code, 201, "{}", answer.body);
    if let Some((moment, _)) = kill_after {
        // The fault's own time, not a wait for something.
        std::thread::sleep(moment);
        node.kill_daemon();
        node.start_daemon();
    }
    let ready = without_accidents(node.wait_ready("sidecars")["status"].take());
    // It runs before its shell has said so.
    e2e::eventually(e2e::limit(10), "the app starts", || {
        let told = order(node);
        if told.len() >= STARTS.len() { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(order(node), STARTS, "killed after {kill_after:?}: each started once");
    tell(node, "0");
    if let Some((_, moment)) = kill_after {
        std::thread::sleep(moment);
        node.kill_daemon();
        node.start_daemon();
    }
    let ended = without_accidents(node.wait_phase("sidecars", "Succeeded")["status"].take());
    let told = order(node);
    assert_eq!(told.get(4..).unwrap_or_default(), ["second ends", "first ends"], "killed after {kill_after:?}");
    node.delete_pod("sidecars");
    for name in ["order", "code"] {
        fs::remove_file(node.path(name)).unwrap();
    }
    (ready, ended)
}

fn kills_between_any_two_steps_converge_to_an_undisturbed_life(node: &mut TestNode) {
    node.run_ready("sidecars");
    let pod = node.pod("sidecars");
    node.delete_pod("sidecars");
    fs::remove_file(node.path("order")).unwrap();
    let mut again = serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "sidecars" } });
    again["spec"] = pod["spec"].clone();
    again["spec"].as_object_mut().unwrap().remove("nodeName");
    let undisturbed = life(node, &again, None);
    // A start takes some milliseconds, the end some hundred: the sidecars take their time.
    for step in 0..10_u32 {
        let moments = (Duration::from_micros(1_900) * step, Duration::from_millis(17) * step);
        let disturbed = life(node, &again, Some(moments));
        assert_eq!(disturbed.0, undisturbed.0, "ready, killed after {:?}", moments.0);
        assert_eq!(disturbed.1, undisturbed.1, "ended, killed after {:?}", moments.1);
    }
}
