//! At home on a host: static Pods, a configuration file, several daemons, another binary.

use std::fs;
use std::path::Path;

use e2e::node::binary;
use e2e::{Background, Finished, TestNode};
use serde_json::Value;

tests! {
    static_pods_follow_their_files,
    static_pods_are_not_stopped_by_the_api,
    a_configuration_file_is_read_and_judged,
    another_daemon_lives_beside_or_is_refused_by_name,
    daemons_side_by_side_share_no_user_ids,
    a_daemon_of_another_binary_takes_over,
}

const HELLO: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: hello}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
    - {name: main, image: 'busybox:stable', command: [sh, -c, 'echo WORD; exec sleep infinity']}\n";

/// Restarts the daemon with a directory for static Pods; its path, and the node's name.
fn with_static_pods(node: &mut TestNode) -> (std::path::PathBuf, String) {
    let directory = node.path("static");
    fs::create_dir(&directory).unwrap();
    node.stop_daemon();
    node.serve_arguments = vec!["--static-pods".to_owned(), directory.to_str().unwrap().to_owned()];
    node.start_daemon();
    let name = node.api().names("/api/v1/nodes").remove(0);
    (directory, name.trim_start_matches('/').to_owned())
}

/// As editors do it: a whole file takes the place of the old one.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[track_caller]
fn logged(node: &TestNode, name: &str, word: &str) {
    e2e::eventually(e2e::limit(20), "its program speaks", || {
        let log = node.monopod(&["logs", name]);
        if log.code == 0 && log.stdout == format!("{word}\n") { Ok(()) } else { Err(log.to_string()) }
    });
}

#[track_caller]
fn gone(node: &TestNode, name: &str) {
    e2e::eventually(e2e::limit(20), "the static Pod is gone", || {
        let left = node.api().names("/api/v1/pods");
        if left.iter().any(|pod| pod.ends_with(name)) { Err(left.join(", ")) } else { Ok(()) }
    });
}

fn static_pods_follow_their_files(node: &mut TestNode) {
    let (directory, node_name) = with_static_pods(node);
    let (file, name) = (directory.join("hello.yaml"), format!("hello-{node_name}"));
    put(&file, &HELLO.replace("WORD", "one"));
    let first = node.wait_ready(&name);
    let annotations = &first["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(annotations["kubernetes.io/config.hash"], annotations["kubernetes.io/config.mirror"]);
    logged(node, &name, "one");
    // A broken file changes nothing, and another file's Pod is none the worse.
    put(&file, "apiVersion: v1\nkind: Pod\nspec: [\n");
    put(&directory.join("bad.yaml"), &HELLO.replace("name: hello", "name: bad").replace("image:", "imagee:"));
    e2e::eventually(e2e::limit(20), "the log names file, line and field", || {
        let log = node.daemon_log();
        let all = ["hello.yaml", "line 3, column 7", "bad.yaml", "spec.containers[0].imagee"]
            .iter()
            .all(|word| log.contains(word));
        if all { Ok(()) } else { Err(log) }
    });
    fs::remove_file(directory.join("bad.yaml")).unwrap();
    assert_eq!(node.pod(&name)["metadata"]["uid"], first["metadata"]["uid"]);
    // What it says next is another Pod.
    put(&file, &HELLO.replace("WORD", "two"));
    node.wait_for(&name, "replaced", |pod| {
        pod["metadata"]["annotations"]["kubernetes.io/config.hash"]
            != *annotations.get("kubernetes.io/config.hash").unwrap()
            && e2e::node::condition(pod, "Ready") == Some("True")
    });
    logged(node, &name, "two");
    // The same that comes back while it ends begins anew.
    for _ in 0..3 {
        let before = node.pod(&name)["metadata"]["uid"].clone();
        fs::remove_file(&file).unwrap();
        node.wait_for(&name, "ending", |pod| !pod["metadata"]["deletionTimestamp"].is_null());
        put(&file, &HELLO.replace("WORD", "two"));
        node.wait_for(&name, "back", |pod| {
            pod["metadata"]["uid"] != before && e2e::node::condition(pod, "Ready") == Some("True")
        });
    }
    // And what happens while no daemon looks.
    node.kill_daemon();
    put(&file, &HELLO.replace("WORD", "three"));
    node.start_daemon();
    logged(node, &name, "three");
    node.kill_daemon();
    fs::remove_file(&file).unwrap();
    node.start_daemon();
    gone(node, &name);
}

fn static_pods_are_not_stopped_by_the_api(node: &mut TestNode) {
    let (directory, node_name) = with_static_pods(node);
    let (file, name) = (directory.join("hello.yaml"), format!("hello-{node_name}"));
    put(&file, &HELLO.replace("WORD", "one"));
    let before = node.wait_ready(&name);
    let pid = node.process("sleep infinity").pid;
    for force in [&[][..], &["--grace-period=0", "--force"]] {
        let mut arguments = vec!["delete", "pod", &name];
        arguments.extend(force);
        node.monopod(&arguments).ok();
        let after = node.pod(&name);
        assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"], "it was deleted, and came back");
        assert_eq!(after["metadata"]["deletionTimestamp"], Value::Null);
    }
    let change = node.monopod(&["get", "pod", &name, "-o", "yaml"]).ok().replace("busybox:stable", "busybox:other");
    let refused = node.monopod_with(&["apply", "-f", "-"], change.as_bytes()).fails();
    assert!(refused.contains("this Pod is static: change its file on the node"), "{refused}");
    node.kill_daemon();
    node.start_daemon();
    node.wait_ready(&name);
    assert_eq!(node.process("sleep infinity").pid, pid, "the Pod has not noticed");
    assert_eq!(node.exec(&name, "main", &["echo", "hello"]), "hello\n");
    let copy = HELLO.replace("metadata: {", "metadata: {annotations: {kubernetes.io/config.mirror: x}, ");
    let refused = node.apply_text(&copy).fails();
    assert!(refused.contains("only a file on the node makes a static Pod"), "{refused}");
    fs::remove_file(&file).unwrap();
    gone(node, &name);
}

fn a_configuration_file_is_read_and_judged(node: &mut TestNode) {
    let file = node.path("config.yaml");
    fs::write(&file, "max-pods: 7\npod-cidr: 10.77.0.0/16 # the command line says otherwise\n").unwrap();
    node.stop_daemon();
    node.serve_arguments = vec!["--config".to_owned(), file.to_str().unwrap().to_owned()];
    node.start_daemon();
    let name = node.api().names("/api/v1/nodes").remove(0);
    let capacity = &node.api().get(&format!("/api/v1/nodes/{}", name.trim_start_matches('/')))["status"]["capacity"];
    assert_eq!(capacity["pods"], "7", "{capacity}");
    assert!(node.run_ready("idle")["status"]["podIP"].as_str().unwrap().starts_with("10.85."));
    fs::write(&file, "max-pods: 7\nmax-podz: 8\n").unwrap();
    let refused = node.monopod(&["serve", "--config", file.to_str().unwrap()]).fails();
    assert!(refused.contains("config.yaml: line 2, column 1: there is no option \"max-podz\""), "{refused}");
    fs::write(&file, "").unwrap();
}

/// The arguments that place a second daemon on the node.
fn second_place(node: &TestNode) -> Vec<String> {
    let path = |name: &str| node.path(name).to_str().unwrap().to_owned();
    [("--data-dir", "data2"), ("--run-dir", "run2"), ("--log-dir", "logs2")]
        .into_iter()
        .flat_map(|(option, name)| [option.to_owned(), path(name)])
        .collect()
}

fn serve(node: &TestNode, arguments: &[String]) -> std::process::Command {
    let mut words = vec!["serve"];
    words.extend(arguments.iter().map(String::as_str));
    node.inside(binary().to_str().unwrap(), &words)
}

fn another_daemon_lives_beside_or_is_refused_by_name(node: &mut TestNode) {
    node.run_ready("idle");
    let place = second_place(node);
    let overlapping = Finished::run(&mut serve(node, &place), b"").fails();
    assert!(overlapping.contains("the pod network 10.85.0.0/16 overlaps"), "{overlapping}");
    assert!(overlapping.contains("choose another with --pod-cidr"), "{overlapping}");
    let mut same = place.clone();
    node.data_dir().to_str().unwrap().clone_into(&mut same[1]);
    let locked = Finished::run(&mut serve(node, &same), b"").fails();
    assert!(locked.contains(node.data_dir().to_str().unwrap()), "the directory is named: {locked}");

    let directory = node.path("static2");
    fs::create_dir(&directory).unwrap();
    put(&directory.join("hello.yaml"), &HELLO.replace("main,", "main, ports: [{containerPort: 80, hostPort: 8080}],"));
    let more =
        ["--pod-cidr", "10.86.0.0/16", "--listen", "127.0.0.1:6441", "--static-pods", directory.to_str().unwrap()];
    let arguments = [&place[..], &more.map(str::to_owned)];
    let daemon = Background::start(&mut serve(node, &arguments.concat()));
    let socket = node.path("run2").join("monopod.sock");
    let second = |arguments: &[&str]| Finished::run(node.command(arguments).env("MONOPOD_SOCKET", &socket), b"");
    e2e::eventually(e2e::limit(20), "the second daemon serves", || {
        let asked = second(&["image", "load", e2e::images::archive("busybox").to_str().unwrap()]);
        if asked.code == 0 { Ok(()) } else { Err(asked.to_string()) }
    });
    second(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=30s"]).ok();
    let pods = second(&["get", "pods", "-o", "wide"]).ok();
    assert!(pods.contains("hello-") && pods.contains("10.86.0."), "{pods}");
    let mut reset = vec!["reset", "--yes"];
    // Its network is on record.
    reset.extend(place.iter().map(String::as_str));
    Finished::run(&mut node.inside(binary().to_str().unwrap(), &reset), b"").ok();
    drop(daemon);
    for left in ["data2", "run2", "logs2"] {
        assert!(!node.path(left).exists(), "{left}");
    }
    assert_eq!(node.exec("idle", "main", &["echo", "hello"]), "hello\n", "the first is undisturbed");
}

/// A Pod with a user namespace, as two daemons run it.
const APART: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec:\n  hostUsers: false\n  \
    terminationGracePeriodSeconds: 1\n  containers:\n  - {name: main, image: 'busybox:stable', command: [sleep, infinity]}\n";

fn daemons_side_by_side_share_no_user_ids(node: &mut TestNode) {
    // The machine gives to Pods what its one Pod needs, and no more.
    let entry = node.path("subordinate-ids");
    fs::write(&entry, "monopod:1966080000:65536\n").unwrap();
    let files = ["/etc/subuid", "/etc/subgid"];
    for file in files {
        Finished::run(&mut node.inside("mount", &["--bind", entry.to_str().unwrap(), file]), b"").ok();
    }
    node.stop_daemon();
    node.start_daemon();
    node.load_image("busybox");
    node.apply_text(&APART.replace("NAME", "first"));
    node.wait_ready("first");
    let map = node.exec("first", "main", &["cat", "/proc/self/uid_map"]);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1966080000", "65536"]);

    let place = second_place(node);
    let directory = node.path("static2");
    fs::create_dir(&directory).unwrap();
    put(&directory.join("second.yaml"), &APART.replace("NAME", "second"));
    let more =
        ["--pod-cidr", "10.86.0.0/16", "--listen", "127.0.0.1:6441", "--static-pods", directory.to_str().unwrap()];
    let daemon = Background::start(&mut serve(node, &[&place[..], &more.map(str::to_owned)].concat()));
    let socket = node.path("run2").join("monopod.sock");
    let second = |node: &TestNode, arguments: &[&str]| {
        Finished::run(node.command(arguments).env("MONOPOD_SOCKET", &socket), b"")
    };
    e2e::eventually(e2e::limit(20), "the second daemon serves", || {
        let asked = second(node, &["image", "load", e2e::images::archive("busybox").to_str().unwrap()]);
        if asked.code == 0 { Ok(()) } else { Err(asked.to_string()) }
    });
    e2e::eventually(e2e::limit(20), "the second Pod is told why it waits", || {
        let events = second(node, &["events"]);
        let told = "all 1 blocks of user ids are taken";
        if events.stdout.contains(told) { Ok(()) } else { Err(events.to_string()) }
    });
    // The lock is infra's: without its daemon the first Pod still has its ids, and another daemon none.
    node.kill_daemon();
    assert!(!second(node, &["get", "pods"]).ok().contains("Running"));
    node.start_daemon();
    node.delete_pod("first");
    second(node, &["wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"]).ok();
    let mut reset = vec!["reset", "--yes"];
    reset.extend(place.iter().map(String::as_str));
    Finished::run(&mut node.inside(binary().to_str().unwrap(), &reset), b"").ok();
    drop(daemon);
    for file in files {
        Finished::run(&mut node.inside("umount", &[file]), b"").ok();
    }
}

fn a_daemon_of_another_binary_takes_over(node: &mut TestNode) {
    let installed = node.path("monopod");
    fs::copy(binary(), &installed).unwrap();
    node.stop_daemon();
    node.binary = Some(installed.clone());
    node.start_daemon();
    let before = node.run_ready("counts");
    let pid = node.process("sh -c trap").pid;
    // What a package does: another file takes the name. It differs in its last byte, which no loader looks at.
    let mut other = fs::read(&installed).unwrap();
    other.push(b'\n');
    let new = node.path("monopod.new");
    fs::write(&new, other).unwrap();
    fs::set_permissions(&new, fs::metadata(&installed).unwrap().permissions()).unwrap();
    fs::rename(&new, &installed).unwrap();
    node.stop_daemon();
    node.start_daemon();
    let after = node.wait_ready("counts");
    assert_eq!(node.process("sh -c trap").pid, pid, "the same process");
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(node.exec("counts", "main", &["echo", "hello"]), "hello\n");
    assert!(node.logs("counts", "main").starts_with("count 1\n"));
    node.run_ready("idle");
    for name in ["counts", "idle"] {
        node.delete_pod(name);
    }
    assert!(node.processes().is_empty(), "{:?}", node.processes());
    node.binary = None;
}
