//! Storage whose server is gone, and what else keeps a process from ending: told by name, and nobody else waits.

use e2e::node::container;
use e2e::{Background, TestNode, eventually, limit};

tests! {
    a_process_that_cannot_end_is_named_and_only_its_pod_waits,
    a_path_that_never_answers_is_told_and_heals,
    a_frozen_pod_ends,
    processes_end_without_a_unified_hierarchy,
}

fn mounted(node: &TestNode) -> Background {
    std::fs::create_dir(node.path("mount")).unwrap();
    let mut storage = Background::start(&mut node.role(&["dead-mount", node.path("mount").to_str().unwrap()]));
    storage.expect("mounted");
    storage
}

fn pod(name: &str, script: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1,
        volumes: [{{name: v, hostPath: {{path: '@NODE@/mount'}}}}],
        containers: [{{name: main, image: 'busybox:stable', volumeMounts: [{{name: v, mountPath: /v}}],
        command: [sh, -c, '{script}']}}]}}}}"
    )
}

/// That others come and go, and `idle` runs on.
fn others_are_well(node: &TestNode) {
    let other = "---\n{apiVersion: v1, kind: Pod, metadata: {name: other}, spec: {restartPolicy: Never,
        containers: [{name: main, image: 'busybox:stable', command: [echo, done]}]}}";
    node.apply_text(other).ok();
    node.wait_phase("other", "Succeeded");
    node.delete_pod("other");
    assert_eq!(node.exec("idle", "main", &["echo", "well"]), "well\n");
    assert_eq!(container(&node.pod("idle"), "main")["restartCount"], 0);
}

#[track_caller]
fn told(node: &TestNode, name: &str, words: &[&str]) {
    eventually(limit(40), "it is told", || {
        let text = node.monopod(&["describe", "pod", name]).ok();
        if words.iter().all(|word| text.contains(word)) { Ok(()) } else { Err(text) }
    });
}

fn a_process_that_cannot_end_is_named_and_only_its_pod_waits(node: &mut TestNode) {
    let storage = mounted(node);
    node.run_ready("idle");
    node.run_text(&pod("stuck", "cat /v/file & exec sleep 1000"), "stuck");
    let pid = eventually(limit(20), "cat waits for its server", || {
        let found = node.processes().into_iter().find(|process| process.command_line == "cat /v/file");
        let pid = found.ok_or_else(|| "no cat".to_owned())?.pid;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") D ") || stat.contains(") S ") { Ok(pid) } else { Err(stat) }
    });
    let mut deletion = node.background(&["delete", "pod", "stuck"]);
    told(node, "stuck", &["FailedKillPod", "(cat)", "was killed and cannot end"]);
    assert!(node.pod("stuck")["metadata"]["deletionTimestamp"].is_string(), "it is Terminating");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    others_are_well(node);
    // A daemon that starts anew waits for it no more than the one before.
    node.kill_daemon();
    node.start_daemon();
    others_are_well(node);
    storage.finish();
    eventually(limit(40), "the pod goes with its process", || {
        let gone = node.monopod(&["get", "pod", "stuck"]);
        if gone.code == 0 { Err(gone.stdout) } else { Ok(()) }
    });
    // Its watch has ended with the first daemon, one way or the other.
    deletion.close_stdin();
    node.delete_pod("idle");
}

fn a_path_that_never_answers_is_told_and_heals(node: &mut TestNode) {
    let mut storage = mounted(node);
    node.run_ready("idle");
    storage.send("die\n");
    storage.expect("dead");
    for name in ["first", "second"] {
        node.apply_text(&pod(name, "exec sleep 1000")).ok();
    }
    others_are_well(node);
    for name in ["first", "second"] {
        told(node, name, &["FailedMount", "/mount does not answer"]);
    }
    // It can be deleted meanwhile.
    node.delete_pod("first");
    storage.finish();
    node.wait_ready("second");
    node.delete_pod("second");
    node.delete_pod("idle");
}

fn a_frozen_pod_ends(node: &mut TestNode) {
    std::fs::create_dir(node.path("mount")).unwrap();
    node.run_ready("idle");
    node.run_text(&pod("frozen", "exec sleep 98765"), "frozen");
    let pid = node.process("sleep 98765").pid;
    let cgroup = e2e::cgroups::unified(pid);
    std::fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    eventually(limit(10), "it is frozen", || {
        let events = std::fs::read_to_string(cgroup.join("cgroup.events")).unwrap();
        if events.contains("frozen 1") { Ok(()) } else { Err(events) }
    });
    let deletion = node.background(&["delete", "pod", "frozen"]);
    others_are_well(node);
    assert_eq!(deletion.finish().0, 0);
    node.delete_pod("idle");
}

fn processes_end_without_a_unified_hierarchy(node: &mut TestNode) {
    // A machine of v1 alone has no cgroup.kill: frozen, killed, thawed, and again until none is left.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    // proc_pid_mountinfo(5): the mount point is the fifth field, the source follows the type.
    let unified = unified.and_then(|line| {
        let source = line.split(" - ").nth(1)?.split(' ').nth(1)?;
        Some((line.split(' ').nth(4)?.to_owned(), source.to_owned()))
    });
    let freezer = mounts.lines().any(|line| line.contains(" - cgroup ") && line.ends_with("freezer"));
    let Some((unified, source)) = unified.filter(|_| freezer) else {
        println!("e2e: a machine of cgroup v2 alone has nothing to take away");
        return;
    };
    node.stop_daemon();
    e2e::Finished::run(&mut node.inside("umount", &[&unified]), b"").ok();
    node.serve_arguments = vec!["--pod-pids-limit=200".into()];
    node.start_daemon();
    std::fs::create_dir(node.path("mount")).unwrap();
    node.run_ready("idle");
    // Children fork on for as long as one of them lives, in a PID namespace that does not end with the first.
    let bomb = "f() { while :; do (sleep 0; f) & done; }; (while :; do f; done) 2>/dev/null & trap \"exit 0\" TERM; sleep 1000 & wait";
    let shared = pod("bomb", bomb).replace("spec: {", "spec: {shareProcessNamespace: true, ");
    node.run_text(&shared, "bomb");
    // Forks of the shell have its arguments until they execute something.
    let pid = eventually(limit(20), "it sleeps", || {
        let found = node.processes().into_iter().find(|process| process.command_line == "sleep 1000");
        found.map(|process| process.pid).ok_or_else(|| "not yet".to_owned())
    });
    let state = e2e::cgroups::of_process(pid, "freezer").join("freezer.state");
    assert_eq!(std::fs::read_to_string(&state).unwrap().trim(), "THAWED", "it has a freezer of its own");
    node.delete_pod("bomb");
    assert!(!state.exists(), "nothing is left of its cgroup");
    others_are_well(node);
    node.delete_pod("idle");
    // As it was before.
    node.stop_daemon();
    let name = node.cgroup().unwrap().to_owned();
    e2e::Finished::run(&mut node.inside("mount", &["-t", "cgroup2", &source, &unified]), b"").ok();
    for directory in e2e::cgroups::directories(&name).iter().filter(|path| path.to_string_lossy().contains("freezer")) {
        std::fs::remove_dir(directory).unwrap();
    }
    node.serve_arguments.clear();
    node.start_daemon();
}
