//! Pods with a user namespace of their own (`hostUsers: false`): root inside, nobody outside.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};

use e2e::TestNode;
use e2e::node::container;

use super::namespaces::SLEEPS;

tests! {
    root_of_a_pod_is_root_of_nothing_else,
    files_have_their_owners_inside_and_outside,
    containers_share_the_ids_and_programs_work_as_ever,
    every_pod_has_ids_of_its_own_for_as_long_as_it_lives,
    unmasked_proc_serves_a_container_in_a_container,
    ids_beyond_the_block_are_refused,
}

/// A Pod in a user namespace, with one container for each of `containers`: its name and more fields.
fn manifest(name: &str, spec: &str, containers: &[(&str, &str)]) -> String {
    let spec = format!("hostUsers: false, {spec}");
    super::namespaces::manifest(name, spec.trim_end_matches([',', ' ']), containers)
}

/// The machine's id of a Pod's root, as its map says.
fn first_id(node: &TestNode, pod: &str, container: &str) -> u32 {
    let map = node.exec(pod, container, &["cat", "/proc/self/uid_map"]);
    let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!((numbers.len(), numbers[0], numbers[2]), (3, 0, 65_536), "{map}");
    assert_eq!(node.exec(pod, container, &["cat", "/proc/self/gid_map"]), map);
    numbers[1]
}

fn root_of_a_pod_is_root_of_nothing_else(node: &mut TestNode) {
    // Files of the machine's that nobody in the Pod can stand for: of an id beyond the Pod's, and of the kernel.
    std::fs::create_dir(node.path("shared")).unwrap();
    std::fs::write(node.path("shared/secret"), "secret\n").unwrap();
    std::fs::set_permissions(node.path("shared/secret"), PermissionsExt::from_mode(0o600)).unwrap();
    chown(node.path("shared/secret"), Some(100_000), Some(100_000)).unwrap();
    let volume = "volumes: [{name: shared, hostPath: {path: '@NODE@/shared'}}],";
    let fields = format!(
        "securityContext: {{privileged: true}}, volumeMounts: [{{name: shared, mountPath: /shared}}], {SLEEPS}"
    );
    node.run_text(&manifest("mapped", volume, &[("main", &fields)]), "mapped");
    let text = manifest("plain", volume, &[("main", &fields)]).replace("hostUsers: false", "hostUsers: true");
    node.run_text(&text, "plain");
    let tries = "id -u; cat /shared/secret; for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper /sys/kernel/profiling; do
        (: >> $f) 2>/dev/null && echo writable; done; mknod /tmp/disk b 8 0 && echo made; true";
    let plain = node.exec("plain", "main", &["sh", "-c", tries]);
    assert!(plain.starts_with("0\nsecret\nwritable\n") && plain.contains("made"), "root of the machine may: {plain}");
    assert_eq!(node.try_exec("mapped", "main", &["sh", "-c", tries]).stdout, "0\n", "root of a Pod may not");
    // From outside it is somebody whom nobody knows.
    let first = first_id(node, "mapped", "main");
    assert!(first >= 0x7000_0000, "{first}");
    let process = node.processes().into_iter().find(|one| {
        one.command_line.contains("sleep infinity")
            && std::fs::metadata(format!("/proc/{}", one.pid)).is_ok_and(|it| it.uid() == first)
    });
    assert!(process.is_some(), "{:#?}", node.processes());
    // Its namespaces belong to its user namespace: it is root of them.
    let owned = "mount -t tmpfs none /tmp && ip link set lo mtu 1400 && hostname changed && hostname";
    assert_eq!(node.exec("mapped", "main", &["sh", "-c", owned]), "changed\n");
}

fn files_have_their_owners_inside_and_outside(node: &mut TestNode) {
    std::fs::create_dir(node.path("shared")).unwrap();
    std::fs::write(node.path("shared/of-root"), "").unwrap();
    std::fs::write(node.path("shared/of-1000"), "").unwrap();
    chown(node.path("shared/of-1000"), Some(1000), Some(1000)).unwrap();
    node.apply_text("---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: config}, data: {file: config}}").ok();
    node.apply_text("---\n{apiVersion: v1, kind: Secret, metadata: {name: secret}, stringData: {file: secret}}").ok();
    let spec = "securityContext: {fsGroup: 2000}, volumes: [{name: host, hostPath: {path: '@NODE@/shared'}}, {name: disk, emptyDir: {}},
        {name: memory, emptyDir: {medium: Memory}}, {name: config, configMap: {name: config}}, {name: secret, secret: {secretName: secret}},
        {name: image, image: {reference: 'busybox:stable'}}],";
    let mounts = "volumeMounts: [{name: host, mountPath: /host}, {name: disk, mountPath: /disk}, {name: memory, mountPath: /memory},
        {name: config, mountPath: /config}, {name: secret, mountPath: /secret}, {name: image, mountPath: /image}]";
    let (root, user) = (
        format!("{mounts}, {SLEEPS}"),
        format!("{mounts}, securityContext: {{runAsUser: 1000, runAsGroup: 1000}}, {SLEEPS}"),
    );
    let pod = node.run_text(&manifest("mapped", spec, &[("root", &root), ("user", &user)]), "mapped");
    let write =
        "for d in /disk /memory /dev/shm; do echo mine > $d/$(id -u) || exit 1; done; cat /config/file /secret/file";
    for container in ["root", "user"] {
        assert_eq!(node.exec("mapped", container, &["sh", "-c", write]), "configsecret", "{container}");
    }
    let owners = node.exec(
        "mapped",
        "user",
        &["sh", "-c", "stat -c '%n %u:%g' /host/* /disk/* /memory/* /dev/shm/* /bin/busybox /etc/passwd /config/file /image/etc/passwd"],
    );
    for line in [
        "/host/of-root 0:0",
        "/host/of-1000 1000:1000",
        "/disk/0 0:2000",
        "/disk/1000 1000:2000",
        "/memory/0 0:2000",
        "/memory/1000 1000:2000",
        "/dev/shm/1000 1000:1000",
        "/etc/passwd 0:0",
        "/image/etc/passwd 0:0",
    ] {
        assert!(owners.lines().any(|shown| shown == line), "{line}:\n{owners}");
    }
    // On the disk of the machine the volume's files belong to whom they belong to inside; the Pod's ids may change.
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let disk = node.data_dir().join(format!("pods/{uid}/volumes/kubernetes.io~empty-dir/disk"));
    for (name, owner) in [("0", 0), ("1000", 1000)] {
        assert_eq!(std::fs::metadata(disk.join(name)).unwrap().uid(), owner, "{name}");
    }
    // A file that the Pod makes in the machine's directory is one of the machine's root's, and of no wider rights.
    node.exec(
        "mapped",
        "root",
        &["sh", "-c", "echo made > /host/made; echo changed > /etc/passwd; echo '192.0.2.1 x' >> /etc/hosts"],
    );
    assert_eq!(std::fs::metadata(node.path("shared/made")).unwrap().uid(), 0);
    // Its own layer takes writes, and shows them.
    assert_eq!(node.exec("mapped", "root", &["cat", "/etc/passwd"]), "changed\n");
}

fn containers_share_the_ids_and_programs_work_as_ever(node: &mut TestNode) {
    let serves = "command: [sh, -c, 'echo up; echo reopened > /dev/stdout; nc -l -p 80 > /tmp/got; echo done > /dev/termination-log; sleep infinity']";
    let fields = [("server", serves), ("client", SLEEPS)];
    node.run_text(&manifest("mapped", "shareProcessNamespace: true,", &fields), "mapped");
    assert_eq!(first_id(node, "mapped", "server"), first_id(node, "mapped", "client"));
    let user = |container| node.exec("mapped", container, &["readlink", "/proc/self/ns/user"]);
    assert_eq!(user("server"), user("client"));
    // A port below 1024, the Pod's loopback, the log, shared processes.
    node.exec("mapped", "client", &["sh", "-c", "until echo hello | nc 127.0.0.1 80; do sleep 0.1; done"]);
    assert_eq!(node.exec("mapped", "client", &["cat", "/proc/1/comm"]), "pause\n");
    assert_eq!(node.logs("mapped", "server"), "up\nreopened\n");
    // Devices, terminals, mqueue, and the control groups' read-only face.
    let look = "head -c 4 /dev/zero | wc -c; echo x > /dev/null && ls /dev/mqueue /sys/class/net; touch /sys/fs/cgroup/x 2>/dev/null || echo read-only";
    assert_eq!(
        node.exec("mapped", "client", &["sh", "-c", look]),
        "4\neth0\nlo\nread-only\n".replace("4\n", "4\n/dev/mqueue:\n\n/sys/class/net:\n")
    );
    let mut terminal = node.terminal(&[
        "exec",
        "-it",
        "mapped",
        "-c",
        "client",
        "--",
        "sh",
        "-c",
        "tty; echo on >/dev/tty; stat -c %u $(tty)",
    ]);
    terminal.expect("on");
    terminal.finish();
    // The message of its end is read by the daemon.
    node.apply_text(&manifest(
        "ends",
        "restartPolicy: Never,",
        &[("main", "command: [sh, -c, 'echo farewell > /dev/termination-log']")],
    ))
    .ok();
    let pod = node.wait_phase("ends", "Succeeded");
    assert_eq!(container(&pod, "main")["state"]["terminated"]["message"], "farewell\n");
}

fn every_pod_has_ids_of_its_own_for_as_long_as_it_lives(node: &mut TestNode) {
    let text = |name: &str| manifest(name, "", &[("main", SLEEPS)]);
    node.run_text(&text("first"), "first");
    node.run_text(&text("second"), "second");
    let (first, second) = (first_id(node, "first", "main"), first_id(node, "second", "main"));
    assert!(first.abs_diff(second) >= 65_536, "{first} {second}");
    // A daemon that starts anew knows them, execs there, and gives them to nobody else.
    node.kill_daemon();
    node.start_daemon();
    assert_eq!(first_id(node, "first", "main"), first);
    let before = container(&node.pod("first"), "main")["containerID"].clone();
    node.run_text(&text("third"), "third");
    let third = first_id(node, "third", "main");
    assert!(third.abs_diff(second) >= 65_536 && third.abs_diff(first) >= 65_536, "{first} {second} {third}");
    // A Pod whose sandbox is made anew keeps them; so does a container that starts again.
    for infra in node.infra_processes() {
        let pid = rustix::process::Pid::from_raw(i32::try_from(infra.pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    node.wait_for("first", "it runs anew", |pod| {
        let status = container(pod, "main");
        status["state"]["running"].is_object() && status["containerID"] != before
    });
    assert_eq!(first_id(node, "first", "main"), first);
    // With the Pod they are free again.
    node.delete_pod("first");
    node.run_text(&text("fourth"), "fourth");
    assert_eq!(first_id(node, "fourth", "main"), first);
}

fn unmasked_proc_serves_a_container_in_a_container(node: &mut TestNode) {
    let unmasked = format!("securityContext: {{procMount: Unmasked}}, {SLEEPS}");
    node.run_text(&manifest("nests", "", &[("unmasked", &unmasked), ("masked", SLEEPS)]), "nests");
    // A procfs may be mounted in a namespace inside only where a whole one is in sight.
    let nested = ["unshare", "-r", "-m", "-p", "-f", "sh", "-c", "mount -t proc proc /proc && echo nested"];
    assert_eq!(node.exec("nests", "unmasked", &nested), "nested\n");
    assert_ne!(node.try_exec("nests", "masked", &nested).code, 0);
    assert_eq!(node.exec("nests", "unmasked", &["sh", "-c", "grep -c ' /proc/' /proc/mounts; true"]), "0\n");
}

fn ids_beyond_the_block_are_refused(node: &mut TestNode) {
    let fields = format!("securityContext: {{runAsUser: 65536}}, {SLEEPS}");
    node.apply_text(&manifest("beyond", "", &[("main", &fields)])).ok();
    let pod = node.wait_for("beyond", "refused", |pod| {
        container(pod, "main")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    let message = container(&pod, "main")["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("id 65536 is not one of the ids 0 to 65535"), "{message}");
}
