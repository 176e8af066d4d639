//! Limits, as the kernel holds them: cgroup v2 where the machine has it, else v1.

use std::fs;
use std::path::Path;

use e2e::TestNode;
use e2e::cgroups::of_process;
use e2e::node::container;

tests! { limits_are_in_the_cgroup, an_oom_kill_is_told_as_one, a_running_pod_is_resized_in_place }

fn limits_are_in_the_cgroup(node: &mut TestNode) {
    let pod = node.run_ready("limits");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let pid = node.process("sh -c trap").pid;
    let read = |controller: &str, file: &str| {
        let path = of_process(pid, controller).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    };
    if of_process(pid, "memory").join("memory.max").exists() {
        assert_eq!(read("memory", "memory.max"), (64 << 20).to_string());
    } else {
        assert_eq!(read("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    }
    if of_process(pid, "cpu").join("cpu.max").exists() {
        assert_eq!(read("cpu", "cpu.max"), "50000 100000");
    } else {
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("cpu", "cpu.cfs_period_us"), "100000");
        assert_eq!(read("cpu", "cpu.shares"), "256");
    }
    // infra stays outside the Pod's limits: a flood must not kill its own log writer.
    let infra = node.infra_processes();
    assert_eq!(infra.len(), 1, "{infra:?}");
    let (pod, outside) = (of_process(pid, "memory"), of_process(infra[0].pid, "memory"));
    assert!(!outside.starts_with(pod.parent().unwrap()), "{} is below the Pod's", outside.display());
    check_classes(node, of_process(pid, "cpu").as_path());
}

/// What the kubelet and runc write: for containers one curve, for Pods and their classes another, and the class of those
/// that ask for nothing the least.
fn check_classes(node: &TestNode, container: &Path) {
    let (pod, class) = (container.parent().unwrap(), container.parent().unwrap().parent().unwrap());
    assert!(class.ends_with("burstable"), "{}", class.display());
    node.run_ready("idle");
    let read = |path: &Path, file: &str| {
        let text = fs::read_to_string(path.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", path.display()));
        text.trim().to_owned()
    };
    let least = class.parent().unwrap().join("besteffort");
    if !container.join("cpu.weight").exists() {
        let shares = [container, pod, class, &least].map(|path| read(path, "cpu.shares"));
        assert_eq!(shares, ["256", "256", "256", "2"]);
        return;
    }
    let weights = [container, pod, class, &least].map(|path| read(path, "cpu.weight"));
    assert_eq!(weights, ["35", "10", "10", "1"]);
    let memory = ["memory.oom.group", "memory.swap.max"].map(|file| (read(container, file), read(pod, file)));
    assert_eq!(memory, [("1", "0"), ("0", "max")].map(|(container, pod)| (container.to_owned(), pod.to_owned())));
    assert_eq!(read(pod, "memory.max"), (64 << 20).to_string());
}

fn an_oom_kill_is_told_as_one(node: &mut TestNode) {
    node.apply("out-of-memory.yaml");
    let pod = node.wait_phase("out-of-memory", "Failed");
    let end = &container(&pod, "main")["state"]["terminated"];
    assert_eq!(end["reason"], "OOMKilled", "{end}");
    assert_eq!(end["exitCode"], 137, "{end}");
}

fn a_running_pod_is_resized_in_place(node: &mut TestNode) {
    node.run_ready("limits");
    let pid = node.process("sh -c trap").pid;
    let door = "/api/v1/namespaces/default/pods/limits/resize";
    let limits = |cpu: &str, memory: &str| serde_json::json!([{"op": "replace", "path": "/spec/containers/0/resources/limits", "value": {"cpu": cpu, "memory": memory}}]);
    node.api().json_patch(door, &limits("750m", "96Mi"));
    let resized =
        node.wait_for("limits", "resized", |pod| container(pod, "main")["resources"]["limits"]["memory"] == "96Mi");
    assert_eq!(container(&resized, "main")["restartCount"], 0);
    assert_eq!(node.process("sh -c trap").pid, pid);
    let read = |controller: &str, files: [&str; 2]| {
        let directory = of_process(pid, controller);
        let file = files.into_iter().map(|file| directory.join(file)).find(|file| file.exists()).unwrap();
        fs::read_to_string(file).unwrap().trim().to_owned()
    };
    assert_eq!(read("memory", ["memory.max", "memory.limit_in_bytes"]), (96 << 20).to_string());
    assert!(read("cpu", ["cpu.max", "cpu.cfs_quota_us"]).starts_with("75000"));
    // More than the machine has is told, and changes nothing.
    let much = serde_json::json!([
        {"op": "replace", "path": "/spec/containers/0/resources/limits/memory", "value": "100Ti"},
        {"op": "replace", "path": "/spec/containers/0/resources/requests/memory", "value": "100Ti"},
    ]);
    node.api().json_patch(door, &much);
    node.wait_for("limits", "infeasible", |pod| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "PodResizePending" && one["reason"] == "Infeasible")
    });
    assert_eq!(read("memory", ["memory.max", "memory.limit_in_bytes"]), (96 << 20).to_string());
}
