//! Storage that outlives Pods: claims, the volumes that they get, and the Pods that wait for them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::TestNode;
use e2e::node::condition;
use serde_json::{Value, json};

tests! {
    a_claim_keeps_what_pods_write_until_it_is_deleted,
    a_pod_waits_for_its_claim_and_says_why,
    a_volume_of_a_person_is_bound_and_keeps_its_files,
    a_claim_for_one_pod_alone_goes_from_one_to_the_next,
    a_daemon_killed_between_any_two_steps_makes_one_volume,
}

const CLAIM: &str = "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
";

fn user(name: &str, claim: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsUser: 1000, fsGroup: 2000}}
  containers:
  - {{name: main, image: 'busybox:stable', command: [sleep, infinity], volumeMounts: [{{name: data, mountPath: /data}}]}}
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}
"
    )
}

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

fn phases(node: &TestNode, path: &str) -> Vec<String> {
    let list = node.api().get(path);
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["status"]["phase"].as_str().unwrap_or_default().to_owned()).collect()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    e2e::eventually(e2e::limit(10), what, || if holds() { Ok(()) } else { Err("not yet".to_owned()) });
}

fn directories(node: &TestNode) -> Vec<PathBuf> {
    fs::read_dir(node.data_dir().join("volumes")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What keeps a Pod from its place.
fn waits(node: &TestNode, name: &str, message: &str) {
    node.wait_for(name, message, |pod| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut told = conditions.filter_map(|condition| condition["message"].as_str());
        told.any(|told| told == format!("0/1 nodes are available: {message}. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."))
    });
}

fn a_claim_keeps_what_pods_write_until_it_is_deleted(node: &mut TestNode) {
    node.apply_text(CLAIM).ok();
    eventually("it waits for a Pod", || phases(node, CLAIMS) == ["Pending"]);
    node.run_text(&user("first", "data"), "first");
    assert_eq!((phases(node, CLAIMS), phases(node, VOLUMES)), (vec!["Bound".to_owned()], vec!["Bound".to_owned()]));
    node.exec("first", "main", &["sh", "-c", "echo kept > /data/file"]);
    assert_eq!(node.exec("first", "main", &["stat", "-c", "%u %g", "/data/file"]).trim(), "1000 2000");
    node.delete_pod("first");

    node.run_text(&user("second", "data"), "second");
    node.kill_daemon();
    node.start_daemon();
    assert_eq!(node.exec("second", "main", &["cat", "/data/file"]), "kept\n");
    node.monopod(&["delete", "pvc", "data", "--wait=false"]).ok();
    assert!(node.monopod(&["get", "pvc"]).ok().contains("Terminating"));
    node.apply_text(&user("late", "data")).ok();
    waits(node, "late", "persistentvolumeclaim \"data\" is being deleted");
    assert_eq!(node.exec("second", "main", &["cat", "/data/file"]), "kept\n", "a Pod has it");
    assert_eq!(directories(node).len(), 1);
    node.delete_pod("second");
    eventually("claim and volume go", || phases(node, CLAIMS).is_empty() && phases(node, VOLUMES).is_empty());
    assert_eq!(directories(node), Vec::<PathBuf>::new());
    waits(node, "late", "persistentvolumeclaim \"data\" not found");
    node.delete_pod("late");
}

fn a_pod_waits_for_its_claim_and_says_why(node: &mut TestNode) {
    node.apply_text(&user("eager", "data")).ok();
    waits(node, "eager", "persistentvolumeclaim \"data\" not found");
    node.apply_text(&CLAIM.replace("spec:\n", "spec:\n  storageClassName: ''\n")).ok();
    waits(node, "eager", "pod has unbound immediate PersistentVolumeClaims");
    let events = node.monopod(&["describe", "pvc", "data"]).ok();
    assert!(events.contains("no persistent volumes available for this claim and no storage class is set"), "{events}");
    node.monopod(&["delete", "pvc", "data"]).ok();
    node.apply_text(CLAIM).ok();
    node.wait_ready("eager");
    node.delete_pod("eager");
    node.monopod(&["delete", "pvc", "data"]).ok();

    // Who is bound already is not asked for room; it starts once it has what it mounts.
    node.apply_text(&user("bound", "data").replace("spec:\n", &format!("spec:\n  nodeName: {}\n", name(node)))).ok();
    e2e::eventually(e2e::limit(10), "it says so", || {
        let events = node.monopod(&["describe", "pod", "bound"]).ok();
        let told = "error processing PVC default/data: failed to fetch PVC from API server: persistentvolumeclaims \"data\" not found";
        if events.contains(told) { Ok(()) } else { Err(events) }
    });
    node.delete_pod("bound");
}

fn name(node: &TestNode) -> String {
    node.api().get("/api/v1/nodes")["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
}

fn a_volume_of_a_person_is_bound_and_keeps_its_files(node: &mut TestNode) {
    let disk = node.path("disk");
    fs::create_dir(&disk).unwrap();
    fs::write(disk.join("file"), "mine\n").unwrap();
    node.apply_text(
        "apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 2Gi}
  hostPath: {path: '@NODE@/disk', type: Directory}
",
    )
    .ok();
    node.apply_text(&CLAIM.replace("spec:\n", "spec:\n  storageClassName: ''\n")).ok();
    eventually("both are bound", || phases(node, CLAIMS) == ["Bound"] && phases(node, VOLUMES) == ["Bound"]);
    let read_only = user("reader", "data").replace("claimName: data", "claimName: data, readOnly: true");
    node.run_text(&read_only, "reader");
    assert_eq!(node.exec("reader", "main", &["cat", "/data/file"]), "mine\n");
    let refused = node.try_exec("reader", "main", &["touch", "/data/new"]);
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    node.delete_pod("reader");
    node.monopod(&["delete", "pvc", "data"]).ok();
    eventually("it is released", || phases(node, VOLUMES) == ["Released"]);
    assert_eq!(fs::read_to_string(disk.join("file")).unwrap(), "mine\n");
    node.monopod(&["delete", "pv", "disk"]).ok();
    assert_eq!(fs::read_to_string(disk.join("file")).unwrap(), "mine\n");
}

fn a_claim_for_one_pod_alone_goes_from_one_to_the_next(node: &mut TestNode) {
    node.apply_text(&CLAIM.replace("ReadWriteOnce", "ReadWriteOncePod")).ok();
    node.run_text(&user("first", "data"), "first");
    node.apply_text(&user("second", "data")).ok();
    waits(
        node,
        "second",
        "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
    );
    node.delete_pod("first");
    node.wait_ready("second");
    node.delete_pod("second");
    node.monopod(&["delete", "pvc", "data"]).ok();
}

fn a_daemon_killed_between_any_two_steps_makes_one_volume(node: &mut TestNode) {
    let mut claim: Value = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}});
    claim["spec"] = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    for step in 0..8 {
        node.apply_text(&user("main", "data")).ok();
        waits(node, "main", "persistentvolumeclaim \"data\" not found");
        assert_eq!(node.api().request("POST", CLAIMS, Some(&claim)).code, 201);
        // The fault's own time, not a wait for something.
        std::thread::sleep(Duration::from_micros(1_500) * step);
        node.kill_daemon();
        node.start_daemon();
        let pod = node.wait_ready("main");
        assert_eq!(condition(&pod, "PodScheduled"), Some("True"));
        assert_eq!((phases(node, VOLUMES).len(), directories(node).len()), (1, 1), "killed after step {step}");
        node.exec("main", "main", &["touch", "/data/file"]);
        node.monopod(&["delete", "pvc", "data", "--wait=false"]).ok();
        node.api().request("DELETE", "/api/v1/namespaces/default/pods/main", None);
        std::thread::sleep(Duration::from_micros(1_500) * step);
        node.kill_daemon();
        node.start_daemon();
        eventually("all goes", || phases(node, CLAIMS).is_empty() && phases(node, VOLUMES).is_empty());
        assert_eq!(directories(node), Vec::<PathBuf>::new(), "killed after step {step}");
    }
}
