//! Which Pods run here, which wait for room, and which are refused.

use e2e::TestNode;
use e2e::node::condition;
use serde_json::json;

tests! { a_pod_waits_for_room_and_for_labels, a_pod_bound_by_hand_fails_where_it_does_not_fit }

fn pod(name: &str, more: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, {more} \
         containers: [{{name: main, image: 'busybox:stable', command: [sleep, '1000'], resources: {{requests: \
         {{memory: 10Mi}}}}}}]}}}}"
    )
}

fn a_pod_waits_for_room_and_for_labels(node: &mut TestNode) {
    // The daemon takes over what runs, and counts it.
    node.run_text(&pod("first", ""), "first");
    node.stop_daemon();
    node.serve_arguments = vec!["--max-pods".to_owned(), "1".to_owned()];
    node.start_daemon();
    let capacity = node.api().get("/api/v1/nodes")["items"][0]["status"]["capacity"].clone();
    assert_eq!(capacity["pods"], "1");
    assert!(capacity["ephemeral-storage"].is_string(), "{capacity}");
    node.apply_text(&pod("second", "nodeSelector: {disk: fast},")).ok();
    let said = |node: &TestNode, text: &str| {
        node.wait_for("second", text, |pod| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["message"].as_str().is_some_and(|message| message.contains(text)))
        })
    };
    let waiting = said(node, "1 node(s) didn't match Pod's node affinity/selector");
    assert_eq!(condition(&waiting, "PodScheduled"), Some("False"));
    let name = node.api().get("/api/v1/nodes")["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let labels = json!({"metadata": {"labels": {"disk": "fast"}}});
    node.api().patch(&format!("/api/v1/nodes/{name}"), &labels);
    said(node, "1 Too many pods");
    node.delete_pod("first");
    let running = node.wait_ready("second");
    assert_eq!(running["spec"]["nodeName"], name.as_str());
    node.delete_pod("second");
}

fn a_pod_bound_by_hand_fails_where_it_does_not_fit(node: &mut TestNode) {
    let name = node.api().get("/api/v1/nodes")["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mut manifest = pod("huge", &format!("nodeName: {name},"));
    manifest = manifest.replace("memory: 10Mi", "cpu: '5000'");
    node.apply_text(&manifest).ok();
    let failed = node.wait_phase("huge", "Failed");
    assert_eq!(failed["status"]["reason"], "OutOfcpu", "{}", failed["status"]);
    node.delete_pod("huge");
    // Without the name it waits instead, and goes at once when it is deleted.
    node.apply_text(&manifest.replace(&format!("nodeName: {name},"), "")).ok();
    node.wait_for("huge", "waits", |pod| condition(pod, "PodScheduled") == Some("False"));
    let events = node.monopod(&["events", "--for", "pod/huge"]).ok();
    assert!(events.contains("FailedScheduling") && events.contains("1 Insufficient cpu"), "{events}");
    node.delete_pod("huge");
}
