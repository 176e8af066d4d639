//! Containers that are added to a running Pod to look into it.

use e2e::TestNode;
use e2e::node::container;
use serde_json::{Value, json};

tests! {
    an_ephemeral_container_sees_the_processes_of_its_target,
}

const DOOR: &str = "/api/v1/namespaces/default/pods/idle/ephemeralcontainers";

fn add(node: &TestNode, added: &Value) -> e2e::api::Answer {
    let mut pod = node.api().get(DOOR);
    match pod["spec"]["ephemeralContainers"].as_array_mut() {
        Some(list) => list.push(added.clone()),
        None => pod["spec"]["ephemeralContainers"] = json!([added]),
    }
    node.api().request("PUT", DOOR, Some(&pod))
}

fn an_ephemeral_container_sees_the_processes_of_its_target(node: &mut TestNode) {
    let before = node.run_ready("idle");
    let command = "tr '\\0' ' ' < /proc/1/cmdline; echo; trap 'exit 0' TERM; sleep infinity & wait";
    let debug = json!({
        "name": "debug", "image": "busybox:stable", "targetContainerName": "main", "command": ["sh", "-c", command],
    });
    let answer = add(node, &debug);
    assert_eq!(answer.code, 200, "{}", answer.body);
    let running = |pod: &Value, name: &str| container(pod, name)["state"]["running"].is_object();
    let pod = node.wait_for("idle", "the added container runs", |pod| running(pod, "debug"));
    assert_eq!(container(&pod, "main"), container(&before, "main"), "its target goes on as it was");
    assert_eq!(pod["metadata"]["generation"], 2);
    e2e::eventually(e2e::limit(10), "it has looked", || {
        let seen = node.logs("idle", "debug");
        if seen.contains("trap") { Ok(()) } else { Err(seen) }
    });
    assert_eq!(node.exec("idle", "debug", &["cat", "/proc/1/comm"]), "sh\n", "exec goes to the same processes");
    // A daemon that starts anew does not start it again; it is neither taken back nor changed.
    node.kill_daemon();
    node.start_daemon();
    let refused = node.api().request(
        "PUT",
        DOOR,
        Some(&{
            let mut pod = node.api().get(DOOR);
            pod["spec"]["ephemeralContainers"] = json!([]);
            pod
        }),
    );
    assert_eq!(refused.code, 422, "{}", refused.body);
    let bad = add(node, &json!({ "name": "bad", "image": "busybox:stable", "ports": [{ "containerPort": 80 }] }));
    assert_eq!(bad.code, 422, "{}", bad.body);
    let short = json!({ "name": "short", "image": "busybox:stable", "command": ["sh", "-c", "exit 5"] });
    assert_eq!(add(node, &short).code, 200);
    let pod = node
        .wait_for("idle", "the second one ends", |pod| container(pod, "short")["state"]["terminated"]["exitCode"] == 5);
    assert!(running(&pod, "debug") && pod["status"]["phase"] == "Running", "{}", pod["status"]);
    assert_eq!(container(&pod, "debug")["restartCount"], 0);
}
