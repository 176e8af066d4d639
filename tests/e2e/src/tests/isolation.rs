//! What a container may ask of the kernel: system calls, devices, processes, identity.

use std::os::unix::fs::PermissionsExt;

use e2e::TestNode;
use e2e::node::container;

tests! {
    runtime_default_refuses_what_leads_out,
    foreign_architectures_end_at_once,
    localhost_profiles_are_read_from_the_data_directory,
    a_strict_profile_needs_no_calls_of_ours,
    localhost_profiles_stay_in_their_directory,
    devices_beyond_the_default_list_are_refused_by_cgroup,
    a_pod_that_forks_without_end_meets_its_limit,
    tricky_users_of_an_image_are_refused,
}

/// A Pod whose one container runs `script` with the test binary at `/probe`.
fn manifest(name: &str, pod_security: &str, security: &str, script: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, {pod_security}
        volumes: [{{name: probe, hostPath: {{path: '@NODE@/probe'}}}}],
        containers: [{{name: main, image: 'busybox:stable', securityContext: {{{security}}},
        volumeMounts: [{{name: probe, mountPath: /probe, readOnly: true}}], command: [sh, -c, '{script}']}}]}}}}"
    )
}

fn provide_probe(node: &TestNode) {
    std::fs::copy(std::env::current_exe().unwrap(), node.path("probe")).unwrap();
    std::fs::set_permissions(node.path("probe"), PermissionsExt::from_mode(0o755)).unwrap();
}

/// Runs a Pod to its end; gives its exit code and log.
#[track_caller]
fn run(node: &TestNode, name: &str, text: &str) -> (i64, String) {
    node.apply_text(text).ok();
    let pod =
        node.wait_for(name, "an end", |pod| matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")));
    let code = container(&pod, "main")["state"]["terminated"]["exitCode"].as_i64().unwrap();
    (code, node.logs(name, "main"))
}

fn runtime_default_refuses_what_leads_out(node: &mut TestNode) {
    provide_probe(node);
    let script = "/probe attempt user-namespace; /probe attempt vsock-socket alg-socket inet-socket mount";
    // Without the profile the kernel itself decides; a user namespace is there for everybody (CVE-2022-0492).
    let (_, open) = run(node, "open", &manifest("open", "", "", script));
    assert!(open.contains("user-namespace=done"), "{open}");
    assert!(!open.contains("vsock-socket=EPERM") && !open.contains("alg-socket=EPERM"), "{open}");
    let refused = "user-namespace=EPERM\nvsock-socket=EPERM\nalg-socket=EPERM\ninet-socket=done\nmount=EPERM\n";
    let default = "seccompProfile: {type: RuntimeDefault}";
    let of_pod = format!("securityContext: {{{default}}},");
    for (name, pod, own) in [
        ("by-pod", of_pod.as_str(), ""),
        ("by-container", "", default),
        ("unprivileged", of_pod.as_str(), "runAsUser: 1000, allowPrivilegeEscalation: false"),
        ("other-user", of_pod.as_str(), "runAsUser: 1000"),
    ] {
        let (_, log) = run(node, name, &manifest(name, pod, own, script));
        assert_eq!(log, refused, "{name}");
    }
    // The container's own word counts, and a privileged one is not confined.
    for (name, own) in [("own-word", "seccompProfile: {type: Unconfined}"), ("privileged", "privileged: true")] {
        let (_, log) = run(node, name, &manifest(name, &of_pod, own, script));
        assert!(log.contains("user-namespace=done"), "{name}: {log}");
    }
    // A process beside the first one is confined alike.
    node.run_text(&manifest("beside", &of_pod, "", "sleep infinity"), "beside");
    let beside = node.exec("beside", "main", &["/probe", "attempt", "user-namespace", "vsock-socket"]);
    assert_eq!(beside, "user-namespace=EPERM\nvsock-socket=EPERM\n");
    let status = node.exec(
        "beside",
        "main",
        &["sh", "-c", "grep -h -E 'Seccomp:|CapEff|CapBnd' /proc/1/status /proc/self/status"],
    );
    let expected = "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n";
    assert_eq!(status, expected.repeat(2));
}

fn foreign_architectures_end_at_once(node: &mut TestNode) {
    // An i386 program of four instructions: mov eax, 1 (exit); mov ebx, 7; int 0x80.
    std::fs::write(node.path("probe"), i386_program()).unwrap();
    std::fs::set_permissions(node.path("probe"), PermissionsExt::from_mode(0o755)).unwrap();
    let (code, log) = run(node, "open", &manifest("open", "", "", "exec /probe"));
    assert_eq!(code, 7, "without the profile it runs: {log}");
    let default = "seccompProfile: {type: RuntimeDefault}";
    let (code, log) = run(node, "confined", &manifest("confined", "", default, "exec /probe"));
    assert_eq!(code, 128 + 31, "SIGSYS ends it: {log}");
}

/// elf(5): a header, one program header, code.
fn i386_program() -> Vec<u8> {
    let code = [0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80];
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    let base = 0x0804_8000_u32;
    let size = 84 + u32::try_from(code.len()).unwrap();
    // ET_EXEC, EM_386; version, entry, program headers at 52, no sections, no flags; sizes and counts.
    for half in [2_u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, base + 84, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD of the whole file, readable and executable.
    for word in [1, 0, base, base, size, size, 5, 0x1000_u32] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

const NO_HOST_NAME: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
    "syscalls": [{"names": ["sethostname", "umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}]}"#;

fn localhost_profiles_are_read_from_the_data_directory(node: &mut TestNode) {
    provide_probe(node);
    let directory = node.data_dir().join("seccomp/team");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("strict.json"), NO_HOST_NAME).unwrap();
    let own = "seccompProfile: {type: Localhost, localhostProfile: team/strict.json}";
    let text = manifest("profiled", "", own, "/probe attempt mount user-namespace; exec sleep infinity");
    node.run_text(&text, "profiled");
    let mut log = node.background(&["logs", "-f", "profiled"]);
    log.expect("mount=EINVAL");
    log.expect("user-namespace=done");
    // An exec gets what the container got, whatever has become of the file and of the daemon.
    std::fs::remove_file(directory.join("strict.json")).unwrap();
    node.kill_daemon();
    node.start_daemon();
    assert_eq!(node.exec("profiled", "main", &["/probe", "attempt", "mount"]), "mount=EINVAL\n");
    // A profile that is not there, or is none, is told and heals.
    let text = text.replace("profiled", "waiting");
    node.apply_text(&text).ok();
    let waits = |word: &'static str| {
        move |pod: &serde_json::Value| {
            let state = &container(pod, "main")["state"]["waiting"];
            state["reason"] == "CreateContainerError"
                && state["message"].as_str().is_some_and(|text| text.contains(word))
        }
    };
    node.wait_for("waiting", "it says what is missing", waits("team/strict.json"));
    std::fs::write(directory.join("strict.json"), "{}").unwrap();
    node.wait_for("waiting", "it says what is wrong", waits("it is not a seccomp profile"));
    std::fs::write(directory.join("strict.json"), NO_HOST_NAME).unwrap();
    node.wait_ready("waiting");
}

fn a_strict_profile_needs_no_calls_of_ours(node: &mut TestNode) {
    provide_probe(node);
    // What `true` needs, and nothing of what makes a process a container's.
    let strict = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"action": "SCMP_ACT_ALLOW", "names":
        ["execve", "exit_group", "exit", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "mmap", "munmap",
         "mprotect", "prlimit64", "readlink", "readlinkat", "getrandom", "newfstatat", "fstat", "read", "write", "close",
         "getuid", "geteuid", "getgid", "getegid", "setuid", "setgid", "ioctl", "rt_sigaction", "futex", "prctl"]}]}"#;
    std::fs::create_dir_all(node.data_dir().join("seccomp")).unwrap();
    std::fs::write(node.data_dir().join("seccomp/strict.json"), strict).unwrap();
    let profile = "seccompProfile: {type: Localhost, localhostProfile: strict.json}";
    for (name, more) in
        [("root", ""), ("user", ", runAsUser: 1000"), ("no-new", ", runAsUser: 7, allowPrivilegeEscalation: false")]
    {
        let text = manifest(name, "", &format!("{profile}{more}"), "").replace("[sh, -c, '']", "[/bin/echo, hello]");
        let (code, log) = run(node, name, &text);
        assert_eq!((code, log.as_str()), (0, "hello\n"), "{name}");
    }
    let (code, log) = run(node, "forks", &manifest("forks", "", profile, "true | true"));
    assert_eq!(code, 128 + 31, "{log}");
}

fn localhost_profiles_stay_in_their_directory(node: &mut TestNode) {
    let seccomp = node.data_dir().join("seccomp");
    std::fs::create_dir_all(&seccomp).unwrap();
    std::fs::write(node.data_dir().join("outside.json"), NO_HOST_NAME).unwrap();
    std::fs::write(node.path("probe"), "").unwrap();
    std::os::unix::fs::symlink("../outside.json", seccomp.join("link.json")).unwrap();
    let text = |path: &str| {
        manifest("strays", "", &format!("seccompProfile: {{type: Localhost, localhostProfile: {path}}}"), "exit 0")
    };
    for path in ["../outside.json", "/etc/passwd"] {
        let error = node.apply_text(&text(path)).fails();
        assert!(error.contains("localhostProfile"), "{error}");
    }
    node.apply_text(&text("link.json")).ok();
    node.wait_for("strays", "refused", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerError"
    });
}

fn devices_beyond_the_default_list_are_refused_by_cgroup(node: &mut TestNode) {
    std::fs::write(node.path("probe"), "").unwrap();
    // The same capabilities and the same call: only the rule differs. The kernel's log (1:11) is there on every machine.
    let script = "mknod /tmp/log c 1 11 && dd if=/tmp/log bs=8192 count=1 of=/dev/null; exec sleep infinity";
    for (name, own) in [("free", "privileged: true"), ("bound", "capabilities: {add: [ALL]}")] {
        node.run_text(&manifest(name, "", own, script), name);
    }
    let open = ["dd", "if=/tmp/log", "bs=8192", "count=1", "of=/dev/null"];
    node.exec("free", "main", &["test", "-c", "/tmp/log"]);
    node.exec("free", "main", &open);
    node.exec("bound", "main", &["test", "-c", "/tmp/log"]);
    let refused = node.try_exec("bound", "main", &open);
    assert!(refused.code != 0 && refused.stderr.contains("Operation not permitted"), "{refused}");
    // And what is on the list opens, terminals too.
    let listed = "for f in null zero full random urandom; do head -c 1 /dev/$f >/dev/null || exit 1; done";
    node.exec("bound", "main", &["sh", "-c", listed]);
    let mut terminal = node.terminal(&["exec", "-it", "bound", "--", "sh", "-c", "echo on >/dev/tty"]);
    terminal.expect("on");
    terminal.finish();
}

fn a_pod_that_forks_without_end_meets_its_limit(node: &mut TestNode) {
    // Forty children at once: without a limit all of them live.
    let script = "for i in $(seq 40); do sleep 1000 & done; echo all of them; exec sleep infinity";
    let text = |name: &str| manifest(name, "", "", script);
    std::fs::write(node.path("probe"), "").unwrap();
    node.run_text(&text("unlimited"), "unlimited");
    let mut log = node.background(&["logs", "-f", "unlimited"]);
    log.expect("all of them");
    node.stop_daemon();
    node.serve_arguments = vec!["--pod-pids-limit=20".into()];
    node.start_daemon();
    let (code, log) = run(node, "limited", &text("limited"));
    assert!(code != 0 && log.contains("Resource temporarily unavailable"), "{code}: {log}");
    // Nobody else's Pod notices.
    assert_eq!(node.exec("unlimited", "main", &["sh", "-c", "sleep 0 & wait; echo forked"]), "forked\n");
}

fn tricky_users_of_an_image_are_refused(node: &mut TestNode) {
    let rootfs = e2e::images::directory().join("rootfs.tar.gz");
    std::fs::write(node.path("probe"), "").unwrap();
    // CVE-2024-40635: each of these has meant root somewhere.
    for (index, user) in ["4294967296", "-1", "007", "0x0", "+5", "1000:4294967296"].into_iter().enumerate() {
        let (image, name) = (format!("tricky{index}:stable"), format!("tricky{index}"));
        let user_flag = format!("--user={user}");
        node.monopod(&["image", "import", &user_flag, rootfs.to_str().unwrap(), &image]).ok();
        node.apply_text(&manifest(&name, "", "", "id").replace("busybox:stable", &image)).ok();
        let pod = node.wait_for(&name, "refused", |pod| {
            container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerError"
        });
        let message = container(&pod, "main")["state"]["waiting"]["message"].as_str().unwrap();
        assert!(message.contains("a number must be between 0 and 4294967295"), "{user}: {message}");
    }
}
