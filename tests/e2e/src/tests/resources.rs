//! Limits, as the kernel holds them: cgroup v2 where the machine has it, else v1.

use std::fs;

use e2e::TestNode;
use e2e::cgroups::of_process;
use e2e::node::container;

tests! { limits_are_in_the_cgroup, an_oom_kill_is_told_as_one }

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
}

fn an_oom_kill_is_told_as_one(node: &mut TestNode) {
    node.apply("out-of-memory.yaml");
    let pod = node.wait_phase("out-of-memory", "Failed");
    let end = &container(&pod, "main")["state"]["terminated"];
    assert_eq!(end["reason"], "OOMKilled", "{end}");
    assert_eq!(end["exitCode"], 137, "{end}");
}
