//! What goes wrong on machines and in images: told where a person looks, nothing left behind, and no other Pod notices.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use e2e::node::container;
use e2e::{Finished, TestNode, eventually, limit};

tests! {
    programs_that_cannot_run_say_why,
    a_full_disk_refuses_what_is_new_and_lets_go_on_what_runs,
    a_full_inode_table_is_told_apart_from_a_full_disk,
    a_full_disk_of_logs_is_told_and_stops_no_container,
    forks_without_end_stay_in_their_pod,
    a_stopped_or_frozen_pod_holds_up_no_other,
    a_second_daemon_on_the_same_directory_is_refused_by_name,
    garbage_at_the_door_harms_nobody,
    garbage_at_an_infra_socket_harms_no_pod,
    without_root_each_command_says_what_to_do,
    a_taken_address_of_the_api_is_named,
    an_old_kernel_is_told_by_what_it_lacks,
}

fn pod(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: main\n    \
         image: busybox:stable\n{rest}"
    )
}

fn message_of(pod: &serde_json::Value) -> String {
    let state = &container(pod, "main")["state"];
    let of = |kind: &str| state[kind]["message"].as_str().unwrap_or_default().to_owned();
    of("terminated") + &of("waiting")
}

/// That the Pod `idle` runs on as if nothing had happened.
fn neighbour_is_well(node: &TestNode) {
    assert_eq!(node.exec("idle", "main", &["echo", "well"]), "well\n");
    assert_eq!(container(&node.pod("idle"), "main")["restartCount"], 0);
}

fn programs_that_cannot_run_say_why(node: &mut TestNode) {
    node.run_ready("idle");
    // The same program for another machine: the header's e_machine is that of AArch64 (elf(5)).
    let mut program = fs::read(e2e::node::binary()).unwrap();
    program[18] = 0xb7;
    program.truncate(4096);
    let foreign = node.path("foreign");
    fs::write(&foreign, program).unwrap();
    fs::set_permissions(&foreign, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mounted = format!(
        "    volumeMounts: [{{name: v, mountPath: /foreign}}]\n  volumes: [{{name: v, hostPath: {{path: '{}'}}}}]\n",
        foreign.display()
    );
    let table = [
        ("missing", "    command: [/no/such/program]\n".to_owned(), ["/no/such/program", "No such file"]),
        ("no-program", "    command: [/etc/passwd]\n".to_owned(), ["/etc/passwd", "Permission denied"]),
        ("foreign", format!("    command: [/foreign]\n{mounted}"), ["/foreign", "Exec format error"]),
        ("a-directory", "    command: [/etc]\n".to_owned(), ["/etc", "Permission denied"]),
    ];
    for (name, rest, wanted) in table {
        node.apply_text(&pod(name, &rest)).ok();
        let message = message_of(&node.wait_phase(name, "Failed"));
        assert!(wanted.iter().all(|word| message.contains(word)), "{name}: {message}");
        let told = node.monopod(&["describe", "pod", name]).ok();
        assert!(wanted.iter().all(|word| told.contains(word)), "{name}: {told}");
        node.delete_pod(name);
    }
    neighbour_is_well(node);
}

/// Gives the node's data directory a file system of its own, so small as `options` say, and starts anew on it.
fn own_disk(node: &mut TestNode, options: &str) {
    node.monopod(&["image", "remove", "busybox:stable"]).ok();
    node.stop_daemon();
    let data = node.data_dir().display().to_string();
    Finished::run(&mut node.inside("mount", &["-t", "tmpfs", "-o", options, "small", &data]), b"").ok();
    node.start_daemon();
    node.load_image("busybox");
}

fn resize(node: &TestNode, option: &str) {
    let data = node.data_dir().display().to_string();
    let options = format!("remount,{option}");
    Finished::run(&mut node.inside("mount", &["-o", &options, &data]), b"").ok();
}

/// Blocks of 1 KiB (`used`), or inodes (`iused`), that the data directory's file system uses.
fn used(node: &TestNode, what: &str) -> u64 {
    let (what, data) = (format!("--output={what}"), node.data_dir().display().to_string());
    let table = Finished::run(&mut node.inside("df", &["-k", &what, &data]), b"").ok();
    table.lines().nth(1).unwrap().trim().parse().unwrap()
}

/// The same once the daemon has made what it makes ahead.
fn used_at_rest(node: &TestNode, what: &str) -> u64 {
    let mut last = None;
    eventually(limit(15), "the daemon has made what it makes ahead", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = used(node, what);
        if last.replace(now) == Some(now) { Ok(now) } else { Err(format!("{now} are used")) }
    })
}

fn give_disk_back(node: &mut TestNode) {
    node.stop_daemon();
    let data = node.data_dir().display().to_string();
    Finished::run(&mut node.inside("umount", &[&data]), b"").ok();
    node.start_daemon();
    node.load_image("busybox");
}

fn a_full_disk_refuses_what_is_new_and_lets_go_on_what_runs(node: &mut TestNode) {
    own_disk(node, "size=600m,mode=0700");
    node.run_ready("idle");
    resize(node, &format!("size={}k", used(node, "used")));
    // The store may have some pages left in its file.
    let large = "x".repeat(200_000);
    let refused = (0..200).find_map(|number| {
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{number}}}\ndata: {{k: {large}}}\n");
        let answer = node.apply_text(&map);
        (answer.code != 0).then_some(answer.stderr)
    });
    let error = refused.expect("the disk is full");
    for wanted in ["no space left on the disk of ", "data/store: only deletes are possible", "hint: free space"] {
        assert!(error.contains(wanted) && !error.contains("Internal"), "{error}");
    }
    let error = node.monopod(&["image", "load", e2e::images::archive("entry").to_str().unwrap()]).fails();
    assert!(error.contains("free on the disk"), "{error}");
    neighbour_is_well(node);
    // What frees space goes on, also through a restart without one free block.
    node.kill_daemon();
    resize(node, &format!("size={}k", used(node, "used")));
    node.start_daemon();
    node.monopod(&["delete", "configmap", "m0"]).ok();
    node.delete_pod("idle");
    resize(node, "size=600m");
    eventually(limit(30), "new objects are taken again", || {
        let map = node.apply_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: again}\ndata: {k: v}\n");
        if map.code == 0 { Ok(()) } else { Err(map.stderr) }
    });
    node.run_ready("idle");
    node.delete_pod("idle");
    give_disk_back(node);
}

fn a_full_inode_table_is_told_apart_from_a_full_disk(node: &mut TestNode) {
    own_disk(node, "size=600m,nr_inodes=20000,mode=0700");
    node.run_ready("idle");
    resize(node, &format!("nr_inodes={}", used_at_rest(node, "iused") + 6));
    let error = node.monopod(&["image", "load", e2e::images::archive("layered").to_str().unwrap()]).fails();
    assert!(error.contains("inodes free") || error.contains("No space left on device"), "{error}");
    // What every Pod needs is made ahead, so it asks for more.
    let volumes = ["a", "b", "c", "d", "e", "f"].map(|name| format!("  - {{name: {name}, emptyDir: {{}}}}\n")).concat();
    node.apply_text(&pod("new", &format!("    command: [sleep, '1']\n  volumes:\n{volumes}"))).ok();
    let told = eventually(limit(30), "an event says what is missing", || {
        let told = node.monopod(&["describe", "pod", "new"]).ok();
        if told.contains("No space left on device") { Ok(told) } else { Err(told) }
    });
    assert!(told.contains("Pending") || told.contains("Waiting"), "{told}");
    neighbour_is_well(node);
    // It heals by itself.
    resize(node, "nr_inodes=20000");
    node.wait_phase("new", "Succeeded");
    node.delete_pod("new");
    node.delete_pod("idle");
    give_disk_back(node);
}

fn a_full_disk_of_logs_is_told_and_stops_no_container(node: &mut TestNode) {
    let logs = node.log_dir().display().to_string();
    Finished::run(&mut node.inside("mount", &["-t", "tmpfs", "-o", "size=128k,mode=0755", "small", &logs]), b"").ok();
    let chatty = "    command: [sh, -c, 'trap \"exit 0\" TERM; n=0; while :; do n=$((n + 1)); echo line $n; done']\n";
    node.apply_text(&pod("chatty", chatty)).ok();
    node.wait_ready("chatty");
    let event = eventually(limit(30), "an event tells it", || {
        let told = node.monopod(&["get", "events"]).ok();
        let line = told.lines().find(|line| line.contains("LogLost")).map(str::to_owned);
        line.ok_or(told)
    });
    for word in ["main", "bytes are lost so far", "No space left on device"] {
        assert!(event.contains(word), "{event}");
    }
    // It runs on, and what is there is whole lines.
    assert_eq!(node.exec("chatty", "main", &["echo", "alive"]), "alive\n");
    let log = node.monopod(&["logs", "chatty", "--tail", "1"]).ok();
    assert!(log.starts_with("line ") && log.ends_with('\n'), "{log:?}");
    node.delete_pod("chatty");
    Finished::run(&mut node.inside("umount", &[&logs]), b"").ok();
}

fn forks_without_end_stay_in_their_pod(node: &mut TestNode) {
    node.stop_daemon();
    node.serve_arguments = vec!["--pod-pids-limit".into(), "60".into()];
    node.start_daemon();
    node.run_ready("idle");
    // PID 1 itself needs no other process; a shell that cannot fork ends, and makes room for the next.
    let bomb = "    command: [sh, -c, 'f() { while :; do f & done; }; (while :; do f; done) & exec sleep 1000']\n";
    node.apply_text(&pod("forks", bomb)).ok();
    node.wait_for("forks", "runs", |pod| container(pod, "main")["state"]["running"].is_object());
    eventually(limit(20), "it is at its limit", || {
        let said = node.logs("forks", "main");
        if said.contains("fork") { Ok(()) } else { Err(said) }
    });
    neighbour_is_well(node);
    assert!(node.processes().len() < 120, "all that it may have, and no more");
    node.monopod(&["delete", "pod", "forks", "--grace-period=1"]).ok();
    neighbour_is_well(node);
}

fn a_stopped_or_frozen_pod_holds_up_no_other(node: &mut TestNode) {
    node.run_ready("idle");
    node.apply_text(&pod("frozen", "    command: [sleep, '98765']\n")).ok();
    node.wait_ready("frozen");
    let pid = node.process("sleep 98765").pid;
    Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap();
    let mut deletion = node.background(&["delete", "pod", "frozen", "--grace-period=2"]);
    // Meanwhile others come and go.
    node.apply_text(&pod("other", "    command: [echo, done]\n")).ok();
    node.wait_phase("other", "Succeeded");
    node.delete_pod("other");
    neighbour_is_well(node);
    deletion.expect("deleted");
    assert_eq!(deletion.finish().0, 0);
}

fn a_second_daemon_on_the_same_directory_is_refused_by_name(node: &mut TestNode) {
    node.run_ready("idle");
    let (data, run, logs) = (node.data_dir(), node.run_dir(), node.log_dir());
    let directories = ["serve", "--data-dir", data.to_str().unwrap(), "--run-dir", run.to_str().unwrap()];
    let arguments = [&directories[..], &["--log-dir", logs.to_str().unwrap()]].concat();
    let error = Finished::run(&mut node.inside(e2e::node::binary().to_str().unwrap(), &arguments), b"").fails();
    assert!(error.contains(data.join("store").to_str().unwrap()) && error.contains("another"), "{error}");
    // The first one does not notice: its socket is still its own.
    neighbour_is_well(node);
    node.delete_pod("idle");
}

/// Sends bytes to the API's door as they are; what it answers first.
fn send_raw(node: &TestNode, bytes: &[u8], patience: Duration) -> String {
    let mut stream = UnixStream::connect(node.socket()).unwrap();
    // The server may close before it has read all.
    drop(stream.write_all(bytes));
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn posted(body: &str, kind: &str) -> Vec<u8> {
    let path = "/api/v1/namespaces/default/configmaps";
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

fn memory_of(node: &TestNode) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.daemon_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn garbage_at_the_door_harms_nobody(node: &mut TestNode) {
    node.run_ready("idle");
    let before = memory_of(node);
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let laughs =
        (1..30).map(|level| format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1)).collect::<Vec<_>>().concat();
    let noise: Vec<u8> = (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    let many_headers = (0..500).map(|n| format!("X-{n}: {}\r\n", "y".repeat(1000))).collect::<Vec<_>>().concat();
    for (what, bytes, wanted) in [
        ("noise", noise, ""),
        ("deep JSON", posted(&deep, "application/json"), "400"),
        ("YAML anchors", posted(&format!("a0: &a0 x\n{laughs}"), "application/yaml"), "4"),
        ("headers without end", format!("GET /api HTTP/1.1\r\n{many_headers}").into_bytes(), ""),
        ("a body that is promised", b"POST /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n{".to_vec(), ""),
        ("chunks of nonsense", b"POST /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(), "400"),
        ("an upgrade to nothing", b"GET /api/v1/namespaces/default/pods/idle/exec?command=true&stdout=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: nonsense\r\n\r\n".to_vec(), "400"),
    ] {
        // What is never answered is not waited for.
        let patience = if wanted.is_empty() { Duration::from_millis(300) } else { limit(10) };
        let answer = send_raw(node, &bytes, patience);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with(wanted) && !status.starts_with('5') && !status.starts_with('2'), "{what}: {answer}");
        neighbour_is_well(node);
    }
    // A thousand watches, and as many sessions that their client forgets.
    let watch = b"GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: x\r\n\r\n";
    let exec = b"GET /api/v1/namespaces/default/pods/idle/exec?command=cat&stdin=true&stdout=true HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n";
    let mut open: Vec<UnixStream> = Vec::new();
    for number in 0..1_050 {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.write_all(if number < 1_000 { &watch[..] } else { &exec[..] }).unwrap();
        open.push(stream);
    }
    neighbour_is_well(node);
    drop(open);
    eventually(limit(20), "forgotten sessions end", || {
        let cats = node.processes().iter().filter(|process| process.command_line == "cat").count();
        if cats == 0 { Ok(()) } else { Err(format!("{cats} are left")) }
    });
    let after = memory_of(node);
    assert!(after < before + 200_000, "memory of the daemon: {before} kB before, {after} kB after");
    neighbour_is_well(node);
    node.delete_pod("idle");
}

fn garbage_at_an_infra_socket_harms_no_pod(node: &mut TestNode) {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
    node.run_ready("idle");
    let spares = node.spares();
    let sockets = fs::read_dir(node.run_dir().join("sandboxes")).unwrap().flatten().map(|entry| entry.path());
    let socket = sockets.into_iter().find(|path| !spares.has(&path.display().to_string())).unwrap();
    let infra = node.infra_processes()[0].pid;
    let connect = || {
        let flags = SocketFlags::CLOEXEC;
        let socket_fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let patience = Some(limit(10));
        rustix::net::sockopt::set_socket_timeout(&socket_fd, rustix::net::sockopt::Timeout::Recv, patience).unwrap();
        rustix::net::connect(&socket_fd, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
        socket_fd
    };
    // CBOR (RFC 8949) of [1, [number, []]]: a request of a version that nobody has yet is answered (`Unknown`, [4, []]).
    let unknown = [0x82, 1, 0x82, 0x19, 0x27, 0x0f, 0x80];
    // Known requests cut short, or of other types: a Boot, a Start, an Exec without their plans, a Signal to nobody.
    let cut: [&[u8]; 5] = [
        &[0x82, 1, 0x82, 1, 0x81, 0x80],
        &[0x82, 1, 0x82, 2, 0x81, 0x80],
        &[0x82, 1, 0x82, 3, 0x81, 0xf6],
        &[0x82, 1, 0x82, 4, 0x82, 0x61, b'x', 0x61, b'y'],
        &[0x82, 1, 0x82, 5, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for message in [&unknown[..]].into_iter().chain(cut) {
        let client = connect();
        rustix::net::send(&client, message, SendFlags::NOSIGNAL).unwrap();
        let mut answer = [0_u8; 64];
        let (length, _) = rustix::net::recv(&client, &mut answer, RecvFlags::empty()).unwrap();
        assert_eq!(&answer[..length], [0x82, 1, 0x82, 4, 0x80], "{message:02x?} is answered as unknown");
    }
    // What is no frame at all closes the connection: noise, an empty text, a message said to be in a file without one.
    let noise: Vec<u8> = (0..60_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    for message in [&noise[..], &[0x60], &[0x00], &[0x82], &[0x82, 0x61, b'x', 0x80]] {
        let client = connect();
        rustix::net::send(&client, message, SendFlags::NOSIGNAL).unwrap();
        let mut answer = [0_u8; 64];
        let closed = rustix::net::recv(&client, &mut answer, RecvFlags::empty());
        assert!(matches!(closed, Ok((0, _)) | Err(rustix::io::Errno::CONNRESET)), "{:02x?}: {closed:?}", &message[..1]);
    }
    // Many that say nothing, and go.
    drop((0..200).map(|_| connect()).collect::<Vec<_>>());
    assert_eq!(node.infra_processes()[0].pid, infra, "infra is the one that it was");
    neighbour_is_well(node);
    node.delete_pod("idle");
}

fn without_root_each_command_says_what_to_do(node: &mut TestNode) {
    node.run_ready("idle");
    let program = node.path("monopod");
    fs::copy(e2e::node::binary(), &program).unwrap();
    let socket = node.socket();
    let as_nobody = |arguments: &[&str]| {
        let mut command = node.inside("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&program).args(arguments).env("MONOPOD_SOCKET", &socket);
        Finished::run(&mut command, b"")
    };
    let own = node.path("own").display().to_string();
    for (arguments, words) in [
        (&["serve", "--data-dir", &own][..], &["the daemon needs root", "sudo monopod serve"][..]),
        (&["check"], &["not running as root", "sudo monopod check"]),
        (&["reset", "--yes", "--data-dir", &own], &["root", "sudo"]),
        (&["get", "pods"], &["only root may talk to the daemon", "sudo"]),
        (&["run", "x", "--image", "busybox:stable"], &["only root may talk to the daemon", "sudo"]),
        (&["image", "list"], &["only root may talk to the daemon", "sudo"]),
    ] {
        let said = as_nobody(arguments);
        assert_ne!(said.code, 0, "{arguments:?}");
        let text = said.stdout + &said.stderr;
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
    assert!(!std::path::Path::new(&own).exists());
    neighbour_is_well(node);
    node.delete_pod("idle");
}

fn an_old_kernel_is_told_by_what_it_lacks(node: &mut TestNode) {
    let own = node.path("own").display().to_string();
    let (program, role) = (e2e::node::binary(), std::env::current_exe().unwrap());
    for (call, feature) in [
        ("open_tree", "detached mounts"),
        ("mount_setattr", "detached mounts"),
        ("fsopen", "overlayfs"),
        ("pidfd_open", "pidfd_open"),
        ("openat2", "openat2"),
    ] {
        for command in [&["check"][..], &["serve", "--data-dir", &own, "--run-dir", &own, "--log-dir", &own]] {
            let mut arguments = vec!["older-kernel", call, program.to_str().unwrap()];
            arguments.extend(command);
            let said = Finished::run(&mut node.role(&arguments), b"");
            assert_eq!(said.code, 1, "{said}");
            let text = said.stdout + &said.stderr;
            for word in ["lacks ", feature, "Function not implemented", "a kernel from 6.1 on"] {
                assert!(text.contains(word), "{call}: {word:?} in {text}");
            }
        }
    }
    assert!(!std::path::Path::new(&own).exists(), "nothing was touched");
    // Without filters of system calls only what asks for one does not start.
    node.stop_daemon();
    let without = node.path("without-seccomp");
    let withheld = "setpriv --bounding-set=-sys_resource";
    let (role, program) = (role.display(), program.display());
    let script = format!("#!/bin/sh\nexec {withheld} {role} older-kernel seccomp {program} \"$@\"\n");
    fs::write(&without, script).unwrap();
    fs::set_permissions(&without, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    node.binary = Some(without);
    node.start_daemon();
    node.run_ready("idle");
    let profile = "    securityContext: {seccompProfile: {type: RuntimeDefault}}\n    command: [sleep, '1']\n";
    node.apply_text(&pod("filtered", profile)).ok();
    let failed = node.wait_phase("filtered", "Failed");
    assert!(node.daemon_log().contains("root here lacks CAP_SYS_RESOURCE: oom_score_adj can't be lowered"));
    let message = message_of(&failed);
    assert!(message.contains("load the seccomp profile: Function not implemented"), "{message}");
    neighbour_is_well(node);
}

fn a_taken_address_of_the_api_is_named(node: &mut TestNode) {
    node.stop_daemon();
    let mut taker = node.role(&["tell-peer", "127.0.0.1:6440"]);
    let mut taker = e2e::Background::start(&mut taker);
    taker.expect("listening");
    let (data, run, logs) = (node.data_dir(), node.run_dir(), node.log_dir());
    let directories = ["serve", "--data-dir", data.to_str().unwrap(), "--run-dir", run.to_str().unwrap()];
    let arguments = [&directories[..], &["--log-dir", logs.to_str().unwrap()]].concat();
    let error = Finished::run(&mut node.inside(e2e::node::binary().to_str().unwrap(), &arguments), b"").fails();
    for word in ["127.0.0.1:6440", "Address already in use", "--listen"] {
        assert!(error.contains(word), "{error}");
    }
    drop(taker);
    let taker = node.process("tell-peer");
    e2e::node::kill(taker.pid, rustix::process::Signal::KILL);
    eventually(limit(10), "the address is free", || {
        let left = node.processes().iter().filter(|process| process.command_line.contains("tell-peer")).count();
        if left == 0 { Ok(()) } else { Err("it lives".to_owned()) }
    });
    node.start_daemon();
}
