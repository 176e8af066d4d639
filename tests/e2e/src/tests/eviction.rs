//! Pods that use more than they may, and a node that runs short.

use std::fs;

use e2e::TestNode;
use e2e::node::condition;
use serde_json::Value;

tests! {
    a_pod_over_its_disk_limit_is_evicted,
    on_a_full_disk_the_greediest_pod_goes;
    // They use what the whole machine has, and others on it would be felt: for virtual machines.
    long: a_pod_that_takes_all_memory_is_evicted, a_pod_that_takes_all_processes_is_evicted
}

fn pod(name: &str, script: &str, container: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {spec} \
         containers: [{{name: main, image: 'busybox:stable', command: [sh, -c, '{script}; sleep 1000'], {container}}}]}}}}"
    )
}

fn restart_with(node: &mut TestNode, arguments: &[&str]) {
    node.serve_arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    node.start_daemon();
}

fn a_pod_over_its_disk_limit_is_evicted(node: &mut TestNode) {
    node.stop_daemon();
    restart_with(node, &["--housekeeping-interval", "200ms"]);
    let limits = "resources: {limits: {ephemeral-storage: 1Mi}}";
    node.run_text(&pod("small", "dd if=/dev/zero of=/some bs=1k count=100", limits, ""), "small");
    let table = [
        ("layer", "dd if=/dev/zero of=/more bs=1k count=2000", limits, "", "total limit of containers 1Mi"),
        // Files that the engine made for the container and that it may write (CVE-2020-8557).
        ("hosts", "dd if=/dev/zero of=/etc/hosts bs=1k count=2000", limits, "", "total limit of containers 1Mi"),
        (
            "message",
            "dd if=/dev/zero of=/dev/termination-log bs=1k count=2000",
            limits,
            "",
            "total limit of containers 1Mi",
        ),
        (
            "volume",
            "dd if=/dev/zero of=/cache/more bs=1k count=2000",
            "volumeMounts: [{name: cache, mountPath: /cache}]",
            "volumes: [{name: cache, emptyDir: {sizeLimit: 1Mi}}],",
            "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\".",
        ),
    ];
    for (name, script, container, spec, why) in table {
        node.apply_text(&pod(name, script, container, spec)).ok();
        let failed = node.wait_phase(name, "Failed");
        assert_eq!(failed["status"]["reason"], "Evicted", "{}", failed["status"]);
        assert!(failed["status"]["message"].as_str().unwrap().contains(why), "{}", failed["status"]);
    }
    assert_eq!(node.pod("small")["status"]["phase"], "Running");
}

fn on_a_full_disk_the_greediest_pod_goes(node: &mut TestNode) {
    // A file system of the test's own: filling the machine's would be felt by all.
    node.stop_daemon();
    fs::remove_dir_all(node.data_dir()).unwrap();
    fs::create_dir(node.data_dir()).unwrap();
    let data = node.data_dir().to_str().unwrap().to_owned();
    let mounted = node.inside("mount", &["-t", "tmpfs", "-o", "size=512m,mode=0700", "e2e", &data]).status().unwrap();
    assert!(mounted.success());
    let arguments = [
        "--housekeeping-interval",
        "200ms",
        "--eviction-hard",
        "nodefs.available<300Mi",
        "--eviction-pressure-transition-period",
        "1s",
    ];
    restart_with(node, &arguments);
    node.load_image("busybox");
    let volume = "volumes: [{name: cache, emptyDir: {}}],";
    let mount = "volumeMounts: [{name: cache, mountPath: /cache}]";
    let fill = |megabytes: u32| format!("dd if=/dev/zero of=/cache/more bs=1M count={megabytes}");
    node.run_text(&pod("modest", &fill(2), mount, volume), "modest");
    node.apply_text(&pod("greedy", &fill(220), mount, volume)).ok();
    let failed = node.wait_phase("greedy", "Failed");
    assert_eq!(failed["status"]["reason"], "Evicted", "{}", failed["status"]);
    let message = failed["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: 300Mi,"),
        "{message}"
    );
    assert_eq!(condition(&failed, "DisruptionTarget"), Some("True"));
    assert_eq!(node.pod("modest")["status"]["phase"], "Running");
    // The pressure passes, and Pods come again.
    node.apply_text(&pod("late", "true", "", "")).ok();
    node.wait_ready("late");
    let conditions: Value = node.api().get("/api/v1/nodes")["items"][0]["status"]["conditions"].clone();
    let disk = conditions.as_array().unwrap().iter().find(|one| one["type"] == "DiskPressure").unwrap();
    assert_eq!(disk["status"], "False");
    let said = node.monopod(&["events"]).ok();
    assert!(said.contains("EvictionThresholdMet") && said.contains("Evicted"), "{said}");
    for name in ["greedy", "modest", "late"] {
        node.delete_pod(name);
    }
    node.stop_daemon();
    let unmounted = node.inside("umount", &[&data]).status().unwrap();
    assert!(unmounted.success());
}

/// Restarts the daemon with a threshold, and has a modest Pod and a greedy one, which crosses it.
fn cross(node: &mut TestNode, threshold: &str, greedy: &str, resource: &str) {
    node.stop_daemon();
    restart_with(node, &["--housekeeping-interval", "500ms", "--eviction-hard", threshold]);
    let volume = "volumes: [{name: cache, emptyDir: {medium: Memory}}],";
    let mount = "volumeMounts: [{name: cache, mountPath: /cache}]";
    node.run_text(&pod("modest", "true", mount, volume), "modest");
    node.apply_text(&pod("greedy", greedy, mount, volume)).ok();
    let failed = node.wait_phase("greedy", "Failed");
    assert_eq!(failed["status"]["reason"], "Evicted", "{}", failed["status"]);
    let message = failed["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("The node was low on resource: {resource}. Threshold quantity: ")),
        "{message}"
    );
    assert_eq!(condition(&failed, "DisruptionTarget"), Some("True"));
    assert_eq!(node.pod("modest")["status"]["phase"], "Running");
    for name in ["greedy", "modest"] {
        node.delete_pod(name);
    }
}

fn a_pod_that_takes_all_memory_is_evicted(node: &mut TestNode) {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kib = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let available = (kib("MemFree:") + kib("Inactive(file):")) >> 10;
    assert!(available > 1000, "only {available} MiB are available");
    let fill = "dd if=/dev/zero of=/cache/more bs=1M count=600";
    cross(node, &format!("memory.available<{}Mi", available - 300), fill, "memory");
}

fn a_pod_that_takes_all_processes_is_evicted(node: &mut TestNode) {
    let most: u64 = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    let present: u64 = load.split(' ').nth(3).unwrap().split_once('/').unwrap().1.parse().unwrap();
    let fork = "for i in $(seq 300); do sleep 1000 & done";
    cross(node, &format!("pid.available<{}", most - present - 150), fork, "pids");
}
