//! Which Pods run here, which wait for room, and which are refused.

use std::fs;

use e2e::node::condition;
use e2e::{TestNode, eventually, limit};
use serde_json::json;

tests! {
    a_pod_waits_for_room_and_for_labels,
    a_pod_bound_by_hand_fails_where_it_does_not_fit,
    a_more_important_pod_takes_room_from_another,
    a_critical_static_pod_takes_room_from_another,
}

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
    // The event comes after the status that it tells of.
    eventually(limit(10), "an event tells of it", || {
        let events = node.monopod(&["events", "--for", "pod/huge"]).ok();
        let told = events.contains("FailedScheduling") && events.contains("1 Insufficient cpu");
        if told { Ok(()) } else { Err(events) }
    });
    node.delete_pod("huge");
}

/// One that needs a moment to end, and takes it.
fn slow(name: &str, more: &str) -> String {
    let slow = pod(name, more).replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 20");
    slow.replace(
        "command: [sleep, '1000']",
        "command: [sh, -c, 'trap \"usleep 200000; exit 0\" TERM; sleep 1000 & wait']",
    )
}

fn priority_class(node: &TestNode, name: &str, preemption: &str) {
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
        "value": 1000, "preemptionPolicy": preemption,
    });
    let answer = node.api().request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", Some(&class));
    assert_eq!(answer.code, 201, "{}", answer.body);
}

fn one_pod_at_a_time(node: &mut TestNode, more: &[&str]) {
    node.stop_daemon();
    let arguments = ["--max-pods", "1"].iter().chain(more);
    node.serve_arguments = arguments.map(|argument| (*argument).to_owned()).collect();
    node.start_daemon();
}

fn a_more_important_pod_takes_room_from_another(node: &mut TestNode) {
    one_pod_at_a_time(node, &[]);
    priority_class(node, "urgent", "PreemptLowerPriority");
    priority_class(node, "polite", "Never");
    node.run_text(&slow("first", ""), "first");
    node.apply_text(&pod("polite", "priorityClassName: polite,")).ok();
    node.wait_for("polite", "waits", |pod| condition(pod, "PodScheduled") == Some("False"));
    assert!(node.pod("first")["metadata"]["deletionTimestamp"].is_null(), "it waits for its turn");
    node.delete_pod("polite");
    node.apply_text(&pod("urgent", "priorityClassName: urgent,")).ok();
    let name = node.api().get("/api/v1/nodes")["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    node.wait_for("urgent", "is nominated", |pod| pod["status"]["nominatedNodeName"] == name.as_str());
    let running = node.wait_ready("urgent");
    assert!(running["status"]["nominatedNodeName"].is_null());
    assert_eq!(node.api().names("/api/v1/pods"), ["default/urgent"], "the other one is gone");
    let events = node.monopod(&["events", "--for", "pod/first"]).ok();
    let uid = running["metadata"]["uid"].as_str().unwrap();
    assert!(events.contains(&format!("Preempted by pod {uid} on node {name}")), "{events}");
    node.delete_pod("urgent");
}

fn a_critical_static_pod_takes_room_from_another(node: &mut TestNode) {
    let manifests = node.path("manifests");
    fs::create_dir(&manifests).unwrap();
    one_pod_at_a_time(node, &["--static-pods", manifests.to_str().unwrap()]);
    node.run_text(&slow("first", ""), "first");
    fs::write(node.path("file.yaml"), pod("agent", "")).unwrap();
    fs::rename(node.path("file.yaml"), manifests.join("agent.yaml")).unwrap();
    let ended = node.wait_phase("first", "Failed");
    assert_eq!(ended["status"]["reason"], "Preempting", "{}", ended["status"]);
    assert_eq!(ended["status"]["message"], "Preempted in order to admit critical pod");
    assert_eq!(condition(&ended, "DisruptionTarget"), Some("True"));
    let name = node.api().get("/api/v1/nodes")["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let mirror = format!("agent-{name}");
    node.wait_ready(&mirror);
    // Nobody takes room from the Pod of a file.
    priority_class(node, "urgent", "PreemptLowerPriority");
    node.apply_text(&pod("urgent", "priorityClassName: urgent,")).ok();
    node.wait_for("urgent", "waits", |pod| condition(pod, "PodScheduled") == Some("False"));
    assert!(node.pod(&mirror)["metadata"]["deletionTimestamp"].is_null());
    fs::remove_file(manifests.join("agent.yaml")).unwrap();
    node.wait_ready("urgent");
    for name in ["urgent", "first"] {
        node.delete_pod(name);
    }
}
