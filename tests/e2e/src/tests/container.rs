//! What a container is: its user, its view of the kernel, its command and environment.

use e2e::TestNode;
use e2e::node::container;

tests! {
    the_user_comes_from_the_images_passwd,
    a_numeric_user_gets_its_groups,
    root_has_the_default_capabilities,
    paths_of_the_kernel_are_masked_or_read_only,
    devices_are_the_default_list_and_no_other_opens,
    entrypoint_and_cmd_follow_kubernetes,
    the_environment_is_expanded_in_order,
    the_working_directory_is_made,
    limits_and_signals_of_the_daemon_are_not_inherited,
    nginx_of_debian_runs,
}

/// The OCI default list, which runc, containerd and CRI-O give (capabilities(7) numbers the bits).
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

fn the_user_comes_from_the_images_passwd(node: &mut TestNode) {
    node.load_image("entry");
    node.run_to_end("user-of-image");
    let log = node.logs("user-of-image", "main");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "uid=1000(app) gid=1000(app) groups=50(staff),1000(app),2000(logs)");
    assert_eq!(lines[1], "/home/app");
    assert_eq!(lines[2], "/srv");
    let capability = |name: &str| {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(capability(set), "0000000000000000", "{set}");
    }
    assert_eq!(capability("CapBnd:"), DEFAULT_CAPABILITIES);
}

fn a_numeric_user_gets_its_groups(node: &mut TestNode) {
    let manifest = "---\n{apiVersion: v1, kind: Pod, metadata: {name: numeric}, spec: {restartPolicy: Never,
        securityContext: {runAsUser: 1000, runAsGroup: 50, supplementalGroups: [4000]},
        containers: [{name: main, image: 'busybox:stable', command: [id]}]}}";
    node.apply_text(manifest).ok();
    node.wait_phase("numeric", "Succeeded");
    let log = node.logs("numeric", "main");
    assert_eq!(log, "uid=1000(app) gid=50(staff) groups=50(staff),2000(logs),4000\n");
}

fn root_has_the_default_capabilities(node: &mut TestNode) {
    node.run_ready("kernel-view");
    for process in ["1", "self"] {
        let status = node.exec("kernel-view", "main", &["cat", &format!("/proc/{process}/status")]);
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(value(set), DEFAULT_CAPABILITIES, "{set} of {process}");
        }
        for set in ["CapInh:", "CapAmb:"] {
            assert_eq!(value(set), "0000000000000000", "{set} of {process}");
        }
    }
}

fn paths_of_the_kernel_are_masked_or_read_only(node: &mut TestNode) {
    node.run_ready("kernel-view");
    for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"] {
        // Not every kernel has each of them.
        let shown = node.exec("kernel-view", "main", &["sh", "-c", &format!("[ ! -e {masked} ] || wc -c < {masked}")]);
        assert!(shown.is_empty() || shown == "0\n", "{masked} has {shown} bytes");
    }
    for masked in ["/proc/acpi", "/proc/scsi", "/sys/firmware"] {
        let shown = node.exec("kernel-view", "main", &["sh", "-c", &format!("[ ! -e {masked} ] || ls -A {masked}")]);
        assert_eq!(shown, "", "{masked}");
    }
    for path in [
        "/proc/sys/kernel/domainname",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/mm/ksm/run",
    ] {
        let attempt = format!("[ ! -e {path} ] || echo x > {path}");
        let error = node.try_exec("kernel-view", "main", &["sh", "-c", &format!("{attempt} || exit 9")]);
        if error.code != 0 {
            assert!(error.stderr.contains("Read-only file system"), "{path}: {error}");
        } else {
            let exists = node.try_exec("kernel-view", "main", &["test", "-e", path]);
            assert_ne!(exists.code, 0, "{path} can be written");
        }
    }
}

fn devices_are_the_default_list_and_no_other_opens(node: &mut TestNode) {
    node.run_ready("kernel-view");
    let found = node.exec("kernel-view", "main", &["ls", "/dev"]);
    let found: Vec<&str> = found.split_whitespace().filter(|name| *name != "core").collect();
    let expected = [
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "termination-log",
        "tty",
        "urandom",
        "zero",
    ];
    assert_eq!(found, expected);
    // MKNOD is a default capability: making a node is allowed, opening it is not. 7:0 is a loop device; its driver
    // may be missing (ENXIO), but the cgroup is asked first (EPERM).
    let error = node.try_exec("kernel-view", "main", &["sh", "-c", "mknod /tmp/loop b 7 0 && dd if=/tmp/loop count=1"]);
    assert!(error.code != 0 && error.stderr.contains("Operation not permitted"), "{error}");
    node.exec("kernel-view", "main", &["sh", "-c", "mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero"]);
}

fn entrypoint_and_cmd_follow_kubernetes(node: &mut TestNode) {
    node.load_image("entry");
    // "Define a Command and Arguments for a Container", the table at its end.
    let table = [
        ("entrypoint-none", "entrypoint cmd\n"),
        ("entrypoint-args", "entrypoint new\n"),
        ("entrypoint-command", "program\n"),
        ("entrypoint-both", "program new\n"),
    ];
    for (name, _) in table {
        node.apply(&format!("{name}.yaml"));
    }
    for (name, expected) in table {
        node.wait_phase(name, "Succeeded");
        assert_eq!(node.logs(name, "main"), expected, "{name}");
    }
}

fn the_environment_is_expanded_in_order(node: &mut TestNode) {
    node.load_image("entry");
    node.run_to_end("environment");
    let log = node.logs("environment", "main");
    let has = |line: &str| assert!(log.lines().any(|one| one == line), "{line:?} is missing:\n{log}");
    has("arg=one");
    has("FIRST=one");
    has("SECOND=one and two");
    has("EARLY=$(LATE)");
    has("ESCAPED=$(FIRST)");
    has("COLOUR=green");
    has("WORD=open sesame");
    has("ALL_colour=green");
    has("ALL_LEVEL=high");
    has("FROM_IMAGE=image");
    has("HOSTNAME=environment");
    has("HOME=/home/app");
    assert!(log.lines().any(|line| line.starts_with("PATH=/usr/local/sbin:")), "{log}");
    assert!(!log.contains("ABSENT"), "an optional key that does not exist makes no variable:\n{log}");
    assert!(!log.contains("MONOPOD") && !log.contains("RUST_"), "nothing of the daemon's environment:\n{log}");
}

fn the_working_directory_is_made(node: &mut TestNode) {
    node.run_to_end("working-dir");
    assert_eq!(node.logs("working-dir", "main"), "/made/for/this\n");
}

fn limits_and_signals_of_the_daemon_are_not_inherited(node: &mut TestNode) {
    // A daemon that somebody started with limits, groups and a priority of their own.
    let script = node.path("started-oddly");
    let text = format!(
        "#!/bin/sh\nulimit -Sc 7\nulimit -Ss 1024\nulimit -Sq 4096\nexec setpriv --groups 4,27 nice -n 7 {} \"$@\"\n",
        e2e::node::binary().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    node.stop_daemon();
    node.binary = Some(script);
    node.start_daemon();
    node.run_ready("kernel-view");
    let lines = |limits: &str| -> Vec<String> {
        limits.lines().filter(|line| !line.starts_with("Max open files")).map(str::to_owned).collect()
    };
    let machine = std::fs::read_to_string(format!("/proc/{}/limits", node.init())).unwrap();
    let daemon = std::fs::read_to_string(format!("/proc/{}/limits", node.daemon_pid())).unwrap();
    assert_ne!(lines(&daemon), lines(&machine), "the daemon was started with others");
    let limits = node.exec("kernel-view", "main", &["cat", "/proc/1/limits"]);
    assert_eq!(lines(&limits), lines(&machine), "the limits are the machine's");
    let stat = node.exec("kernel-view", "main", &["cat", "/proc/1/stat"]);
    // proc_pid_stat(5): the nineteenth field, and the second may hold spaces.
    assert_eq!(stat.rsplit(") ").next().unwrap().split(' ').nth(16), Some("0"), "nice: {stat}");
    let groups = node.exec("kernel-view", "main", &["grep", "Groups", "/proc/1/status"]);
    assert!(!groups.split_whitespace().any(|group| ["4", "27"].contains(&group)), "{groups}");
    let status = node.exec("kernel-view", "main", &["grep", "-E", "Sig(Ign|Blk)|NoNewPrivs", "/proc/1/status"]);
    // Rust ignores SIGPIPE, and exec keeps that: then `yes | head` never ends.
    for line in status.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("NoNewPrivs")) {
        assert_eq!(line.split_whitespace().nth(1).map(|value| value.trim_start_matches('0')), Some(""), "{status}");
    }
    assert_eq!(node.exec("kernel-view", "main", &["sh", "-c", "yes | head -n 1"]), "y\n");
    assert_eq!(node.exec("kernel-view", "main", &["sh", "-c", "umask"]), "0022\n");
    // Programs loop up to the soft limit.
    assert_eq!(node.exec("kernel-view", "main", &["sh", "-c", "ulimit -Sn"]), "1024\n");
    let descriptors = node.exec("kernel-view", "main", &["ls", "/proc/1/fd"]);
    assert_eq!(descriptors.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"], "{descriptors}");
}

fn nginx_of_debian_runs(node: &mut TestNode) {
    node.load_image("nginx");
    let pod = node.run_ready("web");
    let address = pod["status"]["podIP"].as_str().unwrap();
    // Ready without a probe means that it runs; it listens a moment later.
    let page = e2e::eventually(e2e::limit(20), "nginx answers", || {
        let mut fetch = node.role(&["fetch", &format!("{address}:80"), "GET / HTTP/1.0"]);
        match e2e::Finished::run(&mut fetch, b"") {
            answered if answered.code == 0 => Ok(answered.stdout),
            refused => Err(refused.stderr),
        }
    });
    assert!(page.contains("Welcome to nginx"), "{page}");
    // Its workers are not root and write to /dev/stdout.
    let mut log = node.background(&["logs", "-f", "web"]);
    log.expect("\"GET / HTTP/1.0\" 200");
    assert_eq!(container(&node.pod("web"), "nginx")["restartCount"], 0);
}
