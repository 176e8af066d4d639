//! Native sidecars: their order at the start and at the end, their restarts, and what they count for (KEP-753).

use std::fs;

use e2e::TestNode;
use e2e::node::{condition, container};
use serde_json::Value;

tests! {
    a_job_ends_with_its_app_and_its_sidecars_after_it,
    a_deleted_pod_ends_its_app_before_its_sidecars,
    a_daemon_killed_while_sidecars_end_goes_on_in_order,
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
    assert_eq!(order(node), STARTS);
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
