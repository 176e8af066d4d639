//! What a hostile container tries. Each test fails without the rule that it is about.

use e2e::node::container;
use e2e::{Background, TestNode};

tests! {
    the_engine_cannot_be_overwritten,
    no_descriptor_of_the_engine_is_a_way_out,
    infra_cannot_be_read_from_a_container,
    no_volume_covers_proc,
    a_volume_over_dev_leads_no_mask_and_no_terminal_astray,
    control_groups_cannot_be_written,
    account_files_of_an_image_are_regular_and_bounded,
    logs_are_not_written_through_links,
    a_neighbour_that_swaps_links_moves_no_mount,
    clients_that_vanish_leave_no_descriptor,
}

fn the_engine_cannot_be_overwritten(node: &mut TestNode) {
    let engine = std::fs::read(e2e::node::binary()).unwrap();
    // The program that execs the container's first process is /proc/self/exe at that moment (CVE-2019-5736).
    node.apply("overwrites-engine.yaml");
    node.wait_for("overwrites-engine", "an end", |pod| {
        matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
    });
    // And an exec of it, beside a program that tries to open it for writing again and again.
    node.run_ready("idle");
    let opener = "for i in 1 2 3 4 5 6 7 8 9; do
        for p in /proc/[0-9]*; do [ $p = /proc/1 ] || (exec 3<> $p/exe) 2>/dev/null && [ $p != /proc/$$ ] && readlink $p/exe; done; done; true";
    let mut attacker = node.background(&["exec", "idle", "--", "sh", "-c", opener]);
    for _ in 0..5 {
        node.try_exec("idle", "main", &["/proc/self/exe", "--help"]);
    }
    attacker.close_stdin();
    attacker.finish();
    assert!(std::fs::read(e2e::node::binary()).unwrap() == engine, "the engine's binary has changed");
}

fn no_descriptor_of_the_engine_is_a_way_out(node: &mut TestNode) {
    node.apply("leaks-descriptor.yaml");
    let pod = node.wait_for("leaks-descriptor", "an end", |pod| {
        matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
    });
    let end = &container(&pod, "main")["state"]["terminated"];
    assert_ne!(end["exitCode"], 0, "it found the machine's /etc/os-release: {end}");
    let log = node.logs("leaks-descriptor", "main");
    assert!(!log.contains("Debian") && !log.contains("ID="), "{log}");
}

fn infra_cannot_be_read_from_a_container(node: &mut TestNode) {
    // Until it executes its program, the process of an exec is a copy of infra that has the container's user and no more
    // rights than its neighbours (CVE-2016-9962). A working directory that never answers makes that moment long.
    std::fs::create_dir(node.path("mount")).unwrap();
    let mut storage = Background::start(&mut node.role(&["dead-mount", node.path("mount").to_str().unwrap()]));
    storage.expect("mounted");
    // Every process but this one and its children, which are of the image: closed to us, or read.
    let watch = "cd /; while :; do for p in /proc/[0-9]*; do exe=$(readlink $p/exe 2>/dev/null); case \"$exe\" in
        /bin/*) ;; ?*) echo \"read $exe\";;
        *) grep -q \"State:.[SD]\" $p/status 2>/dev/null && [ ! -r $p/fd/0 ] && echo \"closed $(cat $p/comm)\";; esac; done; done";
    let text = format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: peeker}}, spec: {{terminationGracePeriodSeconds: 0,
        volumes: [{{name: v, hostPath: {{path: '@NODE@/mount'}}}}],
        containers: [{{name: main, image: 'busybox:stable', workingDir: /v/dir, volumeMounts: [{{name: v, mountPath: /v}}],
        command: [sh, -c, '{watch}']}}]}}}}"
    );
    node.run_text(&text, "peeker");
    let mut log = node.background(&["logs", "-f", "peeker"]);
    storage.send("die\n");
    storage.expect("dead");
    let hanging = node.background(&["exec", "peeker", "--", "true"]);
    log.expect("closed");
    storage.close_stdin();
    // The exec goes on, or fails, as the storage ends.
    hanging.finish();
    storage.finish();
    let log = node.logs("peeker", "main");
    assert!(!log.contains("read "), "{log}");
    node.delete_pod("peeker");
}

fn no_volume_covers_proc(node: &mut TestNode) {
    // A mount there would lead the engine's own writes to procfs elsewhere (CVE-2019-16884, 2025-52881).
    std::fs::create_dir(node.path("links")).unwrap();
    std::os::unix::fs::symlink("/proc", node.path("links/p")).unwrap();
    let paths = ["/proc", "/proc/self/attr", "/proc/../proc/sys", "/etc/../proc", "/links/p", "/links/p/sys/kernel"];
    for (index, path) in paths.into_iter().enumerate() {
        let name = format!("covers-proc-{index}");
        let text = format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never,
            volumes: [{{name: v, emptyDir: {{}}}}, {{name: links, hostPath: {{path: '@NODE@/links'}}}}],
            containers: [{{name: main, image: 'busybox:stable', command: [sleep, '9'],
            volumeMounts: [{{name: v, mountPath: {path}}}, {{name: links, mountPath: /links}}]}}]}}}}"
        );
        node.apply_text(&text).ok();
        let message = |pod: &serde_json::Value| {
            let state = &container(pod, "main")["state"];
            let of = |kind: &str| state[kind]["message"].as_str().map(str::to_owned);
            of("waiting").or_else(|| of("terminated")).unwrap_or_default()
        };
        let pod = node.wait_for(&name, "refused", |pod| message(pod).contains("no volume may cover"));
        assert!(message(&pod).contains("/proc"), "{path}: {}", message(&pod));
    }
}

fn a_volume_over_dev_leads_no_mask_and_no_terminal_astray(node: &mut TestNode) {
    // What hides /proc/keys comes from /dev/null, and a terminal goes to /dev/console: a volume brings others of these
    // names (CVE-2025-31133, 2025-52565).
    std::fs::create_dir(node.path("dev")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", node.path("dev/null")).unwrap();
    let text = |name: &str, more: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, terminationGracePeriodSeconds: 0,
            volumes: [{{name: dev, hostPath: {{path: '@NODE@/dev'}}}}],
            containers: [{{name: main, image: 'busybox:stable', volumeMounts: [{{name: dev, mountPath: /dev}}], {more}
            command: [sh, -c, 'stat -c \"%F %t:%T\" /proc/keys; cat /proc/keys; exec sleep 1000']}}]}}}}"
        )
    };
    node.run_text(&text("masked", ""), "masked");
    node.background(&["logs", "-f", "masked"]).expect("character special file 1:3");
    assert_eq!(node.logs("masked", "main").lines().count(), 1, "nothing of the keys is seen");
    std::os::unix::fs::symlink("/proc/sysrq-trigger", node.path("dev/console")).unwrap();
    node.apply_text(&text("console", "tty: true,")).ok();
    let pod = node.wait_phase("console", "Failed");
    let message = container(&pod, "main")["state"]["terminated"]["message"].as_str().unwrap();
    assert!(message.contains("/dev/console") && message.contains("symbolic links"), "{message}");
}

fn control_groups_cannot_be_written(node: &mut TestNode) {
    node.run_ready("idle");
    // CVE-2022-0492: a release_agent would run on the machine, as root.
    let script = "find /sys/fs/cgroup -name release_agent -o -name cgroup.procs -o -name tasks -o -name devices.allow | while read f; do
        (echo 0 > $f) 2>/dev/null && echo wrote $f; done; mkdir /sys/fs/cgroup/new 2>/dev/null && echo made; true";
    assert_eq!(node.exec("idle", "main", &["sh", "-c", script]), "");
    let found = node.exec("idle", "main", &["sh", "-c", "find /sys/fs/cgroup -name cgroup.procs | wc -l"]);
    assert_ne!(found.trim(), "0", "there are control groups to try");
    for kind in ["cgroup", "cgroup2"] {
        let error = node.try_exec("idle", "main", &["mount", "-t", kind, "none", "/mnt"]);
        assert_ne!(error.code, 0, "{kind} was mounted");
    }
}

fn account_files_of_an_image_are_regular_and_bounded(node: &mut TestNode) {
    let rootfs = e2e::images::directory().join("rootfs.tar.gz");
    let make = |name: &str, change: &str| {
        let (directory, archive) = (node.path(name), node.path(&format!("{name}.tar")));
        std::fs::create_dir(&directory).unwrap();
        let (from, to) = (rootfs.display(), directory.display());
        let script = format!("tar -xzf {from} -C {to} && cd {to} && {change} && tar -cf {} .", archive.display());
        e2e::Finished::run(&mut node.inside("sh", &["-c", &script]), b"").ok();
        node.monopod(&["image", "import", archive.to_str().unwrap(), &format!("{name}:stable")]).ok();
    };
    // CVE-2024-9676, 2025-4437: a FIFO stops who reads it, a huge file eats its memory, a link leads out.
    make("fifo", "rm etc/passwd && mkfifo etc/passwd");
    make("huge", "truncate -s 5M etc/group");
    make("link", "rm etc/passwd && ln -s ../../../../../../../../etc/hostname etc/passwd");
    for (name, word) in [("fifo", Some("not a regular file")), ("huge", Some("larger than 4 MiB")), ("link", None)] {
        let text = format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never,
            containers: [{{name: main, image: '{name}:stable', command: [id, -u]}}]}}}}"
        );
        node.apply_text(&text).ok();
        let Some(word) = word else {
            node.wait_phase(name, "Succeeded");
            continue;
        };
        let pod = node.wait_for(name, "refused", |pod| {
            container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerError"
        });
        let message = container(&pod, "main")["state"]["waiting"]["message"].as_str().unwrap();
        assert!(message.contains(word), "{name}: {message}");
    }
    node.run_ready("idle");
}

fn logs_are_not_written_through_links(node: &mut TestNode) {
    // A Pod with the log directory as a hostPath puts links where the next logs will be.
    let secret = node.path("secret");
    std::fs::write(&secret, "untouched\n").unwrap();
    let pod = node.run_ready("restarts-when-told");
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let logs = node.log_dir().join(format!("default_restarts-when-told_{uid}/main"));
    // Relative: infra's own root is empty, but from a directory of the machine `..` leads about on the machine.
    std::os::unix::fs::symlink("../../../secret", logs.join("1.log")).unwrap();
    std::fs::write(node.path("again"), "").unwrap();
    node.wait_for("restarts-when-told", "the log is refused", |pod| {
        let status = container(pod, "main");
        let message = status["state"]["waiting"]["message"].as_str().unwrap_or_default();
        let ended = status["lastState"]["terminated"]["message"].as_str().unwrap_or_default();
        message.contains("1.log") || ended.contains("1.log") || status["restartCount"].as_i64() > Some(1)
    });
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched\n");
}

/// Victims, and in how many rounds they start.
const PODS: usize = 60;
const STARTS: usize = 5;

fn a_neighbour_that_swaps_links_moves_no_mount(node: &mut TestNode) {
    // CVE-2021-30465: the target of a mount lies in a volume where another Pod swaps a directory and a link.
    for name in ["race/dir", "marked"] {
        std::fs::create_dir_all(node.path(name)).unwrap();
    }
    std::fs::write(node.path("marked/marker"), "marked\n").unwrap();
    let swapper = "---\n{apiVersion: v1, kind: Pod, metadata: {name: swapper}, spec: {
        volumes: [{name: race, hostPath: {path: '@NODE@/race'}}],
        containers: [{name: main, image: 'busybox:stable', volumeMounts: [{name: race, mountPath: /race}],
        command: [sh, -c, 'cd /race; ln -s /../../../../tmp link; while :; do mv dir held; mv link dir; mv dir link; mv held dir; done']}]}}";
    node.run_text(swapper, "swapper");
    // Wherever the link leads, it leads there inside: the volume is found at one of two places of the container.
    let look =
        "cat /v/dir/x/marker 2>/dev/null || cat /tmp/x/marker 2>/dev/null || cat /v/held/x/marker /v/link/x/marker";
    let victim = |index: usize| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: victim-{index}}}, spec: {{restartPolicy: Never,
            volumes: [{{name: race, hostPath: {{path: '@NODE@/race'}}}}, {{name: marked, hostPath: {{path: '@NODE@/marked'}}}}],
            containers: [{{name: main, image: 'busybox:stable', volumeMounts: [{{name: race, mountPath: /v}},
            {{name: marked, mountPath: /v/dir/x, readOnly: true}}], command: [sh, -c, 'mount | grep -c marked; {look}']}}]}}}}\n"
        )
    };
    let mut seen = 0;
    for round in 0..STARTS {
        let names: Vec<usize> = (round * PODS / STARTS..(round + 1) * PODS / STARTS).collect();
        node.apply_text(&names.iter().map(|index| victim(*index)).collect::<String>()).ok();
        for index in names {
            let name = format!("victim-{index}");
            let pod = node.wait_for(&name, "an end", |pod| {
                matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
                    || container(pod, "main")["state"]["waiting"]["message"].is_string()
                    || container(pod, "main")["lastState"]["terminated"].is_object()
            });
            // A target that vanished in between is refused; one that was mounted is inside.
            if pod["status"]["phase"] == "Succeeded" {
                assert!(node.logs(&name, "main").contains("marked"), "{name}: {}", node.logs(&name, "main"));
                seen += 1;
            }
            node.monopod(&["delete", "pod", &name, "--grace-period=0"]).ok();
        }
    }
    assert!(seen > 0, "no victim ever started");
    assert!(!std::path::Path::new("/tmp/x").exists(), "a directory was made on the machine");
}

fn clients_that_vanish_leave_no_descriptor(node: &mut TestNode) {
    // CVE-2025-64329: attaching again and again used up memory, then descriptors.
    node.run_ready("idle");
    let infra = node.infra_processes()[0].pid;
    let links = || {
        let descriptors = std::fs::read_dir(format!("/proc/{infra}/fd")).unwrap();
        descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect::<Vec<_>>()
    };
    let present = links();
    let more = || links().len().saturating_sub(present.len());
    for _ in 0..10 {
        let clients: Vec<_> = (0..3).map(|_| node.background(&["attach", "idle"])).collect();
        e2e::eventually(e2e::limit(20), "they are attached", || {
            if more() >= clients.len() { Ok(()) } else { Err(format!("{} descriptors more", more())) }
        });
        // Killed.
        drop(clients);
        e2e::eventually(e2e::limit(20), "infra lets go of them", || {
            // They are noticed at the latest by the next output, and the Pod is quiet; the daemon tells at once.
            if more() == 0 { Ok(()) } else { Err(format!("{:?}, and were {present:?}", links())) }
        });
    }
}
