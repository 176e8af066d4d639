//! What happens to Pods as a whole: a restart in place, resources of their own, the end of the machine, a look inside.

use std::fs;

use e2e::TestNode;
use e2e::cgroups::of_process;
use e2e::node::{condition, container};
use serde_json::Value;

tests! {
    a_pod_restarts_in_place_with_its_address_and_its_volumes,
    a_pods_own_resources_are_in_its_cgroup,
    pods_end_in_their_time_when_the_machine_shuts_down,
    kubectl_debugs_with_a_container_that_listens,
}

const IN_PLACE: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: kept, emptyDir: {}}, {name: told, hostPath: {path: TOLD}}]
  initContainers:
  - name: proxy
    image: busybox:stable
    restartPolicy: Always
    command: [sh, -c, 'trap \"exit 0\" TERM; sleep infinity & wait']
  - name: init
    image: busybox:stable
    command: [sh, -c, 'echo once >> /kept/times']
    volumeMounts: [{name: kept, mountPath: /kept}]
  containers:
  - name: app
    image: busybox:stable
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
    command: [sh, -c, 'until [ -e /told/go ]; do usleep 10000; done; rm /told/go; exit 42']
    volumeMounts: [{name: kept, mountPath: /kept}, {name: told, mountPath: /told}]
  - name: helper
    image: busybox:stable
    command: [sh, -c, 'trap \"exit 0\" TERM; sleep infinity & wait']
";

fn a_pod_restarts_in_place_with_its_address_and_its_volumes(node: &mut TestNode) {
    let manifest = IN_PLACE.replace("TOLD", node.path("").to_str().unwrap());
    let before = node.run_text(&manifest, "web");
    let infra = node.infra_processes()[0].pid;
    fs::write(node.path("go"), "").unwrap();
    let all_again = |pod: &Value| {
        let again = |name| container(pod, name)["restartCount"] == 1;
        ["proxy", "init", "app", "helper"].into_iter().all(again) && condition(pod, "Ready") == Some("True")
    };
    let pod = node.wait_for("web", "all of it runs again", all_again);
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(node.infra_processes()[0].pid, infra, "it is the same sandbox");
    assert_eq!(condition(&pod, "AllContainersRestarting"), Some("False"));
    assert_eq!(container(&pod, "helper")["lastState"]["terminated"]["reason"], "RestartingAllContainers");
    assert_eq!(node.exec("web", "app", &["cat", "/kept/times"]), "once\nonce\n");
}

fn a_pods_own_resources_are_in_its_cgroup(node: &mut TestNode) {
    let manifest = "---\n{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {terminationGracePeriodSeconds: 0,
        resources: {limits: {cpu: 500m, memory: 64Mi}}, containers: [
        {name: main, image: 'busybox:stable', command: [sleep, '1234']},
        {name: small, image: 'busybox:stable', command: [sleep, '1235'], resources: {limits: {memory: 16Mi}}}]}}";
    let pod = node.run_text(manifest, "web");
    // What a container asks for is what the Pod asks for; of what none asks for, its limit.
    assert_eq!(pod["spec"]["resources"]["requests"], serde_json::json!({"cpu": "500m", "memory": "16Mi"}));
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let memory = |directory: &std::path::Path| -> u64 {
        let file = ["memory.max", "memory.limit_in_bytes"].map(|name| directory.join(name));
        let file = file.iter().find(|file| file.exists()).unwrap();
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    };
    let (main, small) = (node.process("sleep 1234").pid, node.process("sleep 1235").pid);
    let (main, small) = (of_process(main, "memory"), of_process(small, "memory"));
    assert_eq!(memory(main.parent().unwrap()), 64 << 20, "of the Pod");
    assert_eq!((memory(&main), memory(&small)), (64 << 20, 16 << 20));
    let operations = serde_json::json!([{"op": "replace", "path": "/spec/resources/limits/memory", "value": "96Mi"}]);
    node.api().json_patch("/api/v1/namespaces/default/pods/web/resize", &operations);
    node.wait_for("web", "resized", |pod| pod["status"]["resources"]["limits"]["memory"] == "96Mi");
    assert_eq!((memory(main.parent().unwrap()), memory(&main), memory(&small)), (96 << 20, 96 << 20, 16 << 20));
}

fn pods_end_in_their_time_when_the_machine_shuts_down(node: &mut TestNode) {
    node.monopod(&["shutdown"]).ok();
    node.run_ready("idle");
    node.stop_daemon();
    node.serve_arguments =
        ["--shutdown-grace-period", "3s", "--shutdown-grace-period-critical-pods", "1s"].map(str::to_owned).into();
    node.start_daemon();
    node.monopod(&["shutdown"]).ok();
    let ended = node.wait_phase("idle", "Failed");
    assert_eq!(ended["status"]["reason"], "Terminated", "{}", ended["status"]);
    assert_eq!(condition(&ended, "DisruptionTarget"), Some("True"));
    let nodes = node.monopod(&["get", "nodes"]).ok();
    assert!(nodes.contains("NotReady"), "{nodes}");
    node.monopod(&["shutdown", "--cancel"]).ok();
    e2e::eventually(e2e::limit(10), "the node is ready again", || {
        let nodes = node.monopod(&["get", "nodes"]).ok();
        if nodes.contains("NotReady") { Err(nodes) } else { Ok(()) }
    });
}

fn kubectl_debugs_with_a_container_that_listens(node: &mut TestNode) {
    node.run_ready("idle");
    let script = "cat /proc/1/comm; read word; echo got $word";
    let debug = ["debug", "-i", "idle", "-c", "look", "--image=busybox:stable", "--image-pull-policy=IfNotPresent"];
    let more = ["--target=main", "--profile=general", "--", "sh", "-c", script];
    let mut session = node.kubectl_background(&[&debug[..], &more[..]].concat());
    session.expect("command prompt");
    session.send("word\n");
    session.expect("got word");
    node.wait_for("idle", "the debugger has ended", |pod| {
        container(pod, "look")["state"]["terminated"]["exitCode"] == 0
    });
    assert!(node.logs("idle", "look").starts_with("sh\n"), "it sees its target's processes");
}
