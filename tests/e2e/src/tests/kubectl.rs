//! Unmodified kubectl: what a person types works as on a cluster.

use std::fs;

use e2e::TestNode;

tests! {
    kubectl_applies_changes_and_deletes,
    kubectl_shows_objects,
    kubectl_makes_objects_of_its_own,
    kubectl_enters_containers,
    kubectl_copies_trees_and_programs,
    kubectl_forwards_ports,
    kubectl_speaks_spdy,
    kubectl_needs_the_right_certificate,
}

const WEB: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}},
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: 'busybox:stable',
    command: [sh, -c, 'echo begun; while read line; do echo got $line; done; sleep infinity'], stdin: true}]}}";

#[track_caller]
fn run_web(node: &TestNode) {
    assert_eq!(node.kubectl_with(&["apply", "-f", "-"], WEB.as_bytes()).ok(), "pod/web created\n");
    node.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=30s"]).ok();
}

#[track_caller]
fn assert_contains(text: &str, wanted: &[&str]) {
    for one in wanted {
        assert!(text.contains(one), "{one:?} is not in:\n{text}");
    }
}

fn kubectl_applies_changes_and_deletes(node: &mut TestNode) {
    run_web(node);
    let apply = |text: &str| node.kubectl_with(&["apply", "-f", "-"], text.as_bytes());
    assert_eq!(apply(WEB).ok(), "pod/web unchanged\n");
    let changed = WEB.replace("labels: {app: web}", "labels: {app: other, tier: front}");
    let diff = node.kubectl_with(&["diff", "-f", "-"], changed.as_bytes());
    assert_eq!(diff.code, 1, "{diff}");
    assert_contains(&diff.stdout, &["-    app: web\n", "+    app: other\n", "+    tier: front\n"]);
    assert_eq!(apply(&changed).ok(), "pod/web configured\n");
    assert_eq!(apply(WEB).ok(), "pod/web configured\n");
    assert_eq!(node.pod("web")["metadata"]["labels"], serde_json::json!({"app": "web"}), "what is gone is removed");
    // The server judges.
    let error = apply(&WEB.replace("stdin:", "stdinn:")).fails();
    assert_contains(&error, &["strict decoding error: unknown field \"spec.containers[0].stdinn\""]);
    let error = apply(&WEB.replace("name: main", "name: renamed")).fails();
    assert_contains(&error, &["pod updates may not change fields"]);
    let error = node.kubectl_with(&["create", "-f", "-"], WEB.as_bytes()).fails();
    assert_contains(&error, &["AlreadyExists", "pods \"web\" already exists"]);

    node.kubectl(&["label", "pod", "web", "a=1"]).ok();
    node.kubectl(&["annotate", "pod", "web", "note=kept"]).ok();
    node.kubectl(&["label", "pod", "web", "app-"]).ok();
    let mut edit = node.kubectl_command(&["edit", "pod", "web"]);
    edit.env("EDITOR", "sed -i s/note:.kept/note:\\ edited/");
    assert_eq!(e2e::Finished::run(&mut edit, b"").ok(), "pod/web edited\n");
    let pod = node.pod("web");
    assert_eq!(pod["metadata"]["labels"], serde_json::json!({"a": "1"}));
    assert_eq!(pod["metadata"]["annotations"]["note"], "edited");
    let present = node.kubectl(&["get", "pod", "web", "-o", "yaml"]).ok();
    assert_eq!(node.kubectl_with(&["replace", "-f", "-"], present.as_bytes()).ok(), "pod/web replaced\n");
    // As on a cluster: the volume with the token, which the server added, may not go.
    let error = node.kubectl_with(&["replace", "-f", "-"], WEB.as_bytes()).fails();
    assert_contains(&error, &["pod updates may not change fields", "spec.volumes"]);
    assert_contains(&node.kubectl_with(&["delete", "-f", "-"], WEB.as_bytes()).ok(), &["pod \"web\" deleted"]);
    assert_contains(&node.kubectl(&["get", "pod", "web"]).fails(), &["NotFound", "pods \"web\" not found"]);
}

fn kubectl_shows_objects(node: &mut TestNode) {
    let mut watch = node.kubectl_background(&["get", "pods", "-w"]);
    run_web(node);
    watch.expect("Running");
    drop(watch);
    let table = node.kubectl(&["get", "pods", "-o", "wide"]).ok();
    assert_contains(&table, &["NAME   READY   STATUS    RESTARTS   AGE", "web    1/1     Running   0", "10.85.0."]);
    assert_contains(&node.kubectl(&["get", "pod", "web", "-o", "yaml"]).ok(), &["kind: Pod\n", "  phase: Running\n"]);
    assert_contains(&node.kubectl(&["get", "pods", "-A", "--show-labels"]).ok(), &["default     web", "app=web"]);
    assert_contains(
        &node.kubectl(&["describe", "pod", "web"]).ok(),
        &["Status:           Running", "Scheduled", "Started"],
    );
    assert_contains(&node.kubectl(&["describe", "node"]).ok(), &["Capacity:", "default                     web"]);
    assert_contains(&node.kubectl(&["events", "--for", "pod/web"]).ok(), &["Scheduled", "Started"]);
    assert_contains(
        &node.kubectl(&["explain", "pod.spec.containers.ports.hostPort"]).ok(),
        &["FIELD: hostPort <integer>", "Number of port to expose on the host"],
    );
    assert_contains(&node.kubectl(&["api-resources"]).ok(), &["pods", "po ", "configmaps"]);
    assert_contains(&node.kubectl(&["version"]).ok(), &["Server Version: v1.37.0+monopod"]);
}

fn kubectl_makes_objects_of_its_own(node: &mut TestNode) {
    // These are sent as protobuf.
    node.kubectl(&["create", "namespace", "other"]).ok();
    node.kubectl(&["create", "configmap", "settings", "-n", "other", "--from-literal=colour=blue"]).ok();
    node.kubectl(&["create", "secret", "generic", "word", "-n", "other", "--from-literal=pass=friend"]).ok();
    let jsonpath =
        |kind: &str, name: &str| node.kubectl(&["get", kind, name, "-n", "other", "-o", "jsonpath={.data}"]).ok();
    assert_eq!(jsonpath("configmap", "settings"), r#"{"colour":"blue"}"#);
    assert_eq!(jsonpath("secret", "word"), r#"{"pass":"ZnJpZW5k"}"#);
    let error = node.kubectl(&["create", "configmap", "Bad_Name", "--from-literal=a=b"]).fails();
    assert_contains(&error, &["Bad_Name", "a lowercase RFC 1123 subdomain must consist of"]);
    let said = node.kubectl(&["run", "once", "--image=busybox:stable", "--restart=Never", "--", "echo", "ran"]).ok();
    assert_eq!(said, "pod/once created\n");
    node.kubectl(&["wait", "pod/once", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"]).ok();
    assert_eq!(node.kubectl(&["logs", "once"]).ok(), "ran\n");
    node.kubectl(&["delete", "pod", "--all"]).ok();
    node.kubectl(&["delete", "namespace", "other"]).ok();
    assert_contains(&node.kubectl(&["get", "configmaps", "-n", "other"]).ok(), &[]);
}

fn kubectl_enters_containers(node: &mut TestNode) {
    run_web(node);
    let exec = |command: &[&str]| node.kubectl(&[&["exec", "web", "--"], command].concat());
    assert_eq!(exec(&["echo", "hello"]).ok(), "hello\n");
    assert_contains(&exec(&["sh", "-c", "exit 7"]).fails_with(7), &["exit code 7"]);
    assert_contains(&exec(&["/no/such/program"]).fails(), &["No such file or directory"]);
    let counted = node.kubectl_with(&["exec", "-i", "web", "--", "wc", "-c"], b"twelve bytes").ok();
    assert_eq!(counted.trim(), "12");
    let mut terminal = node.kubectl_terminal(&["exec", "-it", "web", "--", "sh"]);
    terminal.send("stty size; echo al''ive\n");
    terminal.expect("30 100");
    terminal.expect("alive");
    terminal.resize(91, 21);
    terminal.send("while [ \"$(stty size)\" != '21 91' ]; do sleep 0.05; done; echo re''sized; exit 5\n");
    terminal.expect("resized");
    assert_eq!(terminal.finish(), 5);
    let mut follow = node.kubectl_background(&["logs", "-f", "web"]);
    follow.expect("begun");
    let mut attached = node.kubectl_background(&["attach", "-i", "web"]);
    // kubectl says this once the streams stand.
    attached.expect("command prompt");
    attached.send("word\n");
    attached.expect("got word");
    follow.expect("got word");
}

fn kubectl_copies_trees_and_programs(node: &mut TestNode) {
    run_web(node);
    let tree = node.path("tree");
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    for number in 0..200 {
        fs::write(tree.join(format!("deep/{number}")), format!("file {number}\n")).unwrap();
    }
    let noise: Vec<u8> = (0..3_000_017_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    fs::write(tree.join("deep/er/noise"), &noise).unwrap();
    let back = node.path("back");
    node.kubectl(&["cp", tree.to_str().unwrap(), "web:/tmp/tree"]).ok();
    node.kubectl(&["cp", "web:/tmp/tree", back.to_str().unwrap()]).ok();
    assert!(fs::read(back.join("deep/er/noise")).unwrap() == noise, "the bytes are others");
    assert_eq!(fs::read_dir(back.join("deep")).unwrap().count(), 201);
    assert_eq!(fs::read_to_string(back.join("deep/199")).unwrap(), "file 199\n");
}

fn kubectl_needs_the_right_certificate(node: &mut TestNode) {
    let error = node.kubectl(&["get", "pods", "--client-certificate=", "--client-key=", "--user=nobody"]).fails();
    assert!(!error.is_empty());
    let mut monopod = node.command(&["kubeconfig", "--user", "jane", "--group", "dev", "--data-dir"]);
    monopod.arg(node.data_dir());
    let jane = node.path("jane.kubeconfig");
    fs::write(&jane, e2e::Finished::run(&mut monopod, b"").ok()).unwrap();
    let kubectl = |arguments: &[&str]| {
        let mut command = node.kubectl_command(arguments);
        e2e::Finished::run(command.env("KUBECONFIG", &jane), b"")
    };
    kubectl(&["version"]).ok();
    kubectl(&["api-resources"]).ok();
    assert_contains(&kubectl(&["get", "pods"]).fails(), &["Forbidden", "User \"jane\" cannot list resource \"pods\""]);
    assert_contains(&kubectl(&["auth", "whoami"]).ok(), &["jane", "dev"]);
    assert_eq!(kubectl(&["auth", "can-i", "get", "pods"]).stdout, "no\n");
    node.kubectl(&["create", "rolebinding", "jane", "--clusterrole=view", "--user=jane"]).ok();
    assert_eq!(kubectl(&["auth", "can-i", "get", "pods"]).ok(), "yes\n");
    assert_contains(&kubectl(&["auth", "can-i", "--list"]).ok(), &["configmaps", "selfsubjectaccessreviews"]);
    kubectl(&["get", "pods"]).ok();
    assert_contains(&kubectl(&["get", "secrets"]).fails(), &["Forbidden"]);
    assert_contains(&kubectl(&["get", "pods", "-A"]).fails(), &["Forbidden", "at the cluster scope"]);
    assert_eq!(node.kubectl(&["auth", "can-i", "delete", "nodes"]).ok().lines().last(), Some("yes"));
    // Another daemon's authority is not trusted, from the one side or the other.
    let stranger = fs::read_to_string(&jane)
        .unwrap()
        .replace("certificate-authority-data", "insecure-skip-tls-verify: false\n    x");
    fs::write(&jane, stranger).unwrap();
    assert_contains(&kubectl(&["get", "pods"]).fails(), &["certificate"]);
    // The file is the administrator's alone, and it goes on over a restart.
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(node.data_dir().join("admin.kubeconfig")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let kept = node.path("kept.kubeconfig");
    fs::copy(node.data_dir().join("admin.kubeconfig"), &kept).unwrap();
    node.kill_daemon();
    node.start_daemon();
    let mut command = node.kubectl_command(&["get", "nodes"]);
    assert_contains(&e2e::Finished::run(command.env("KUBECONFIG", &kept), b"").ok(), &["Ready"]);
}

fn kubectl_forwards_ports(node: &mut TestNode) {
    node.run_text(
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: server}, spec: {terminationGracePeriodSeconds: 0,
        containers: [{name: main, image: 'busybox:stable', command: [sh, -c, 'mkdir /srv; cd /srv;
        head -c 5000000 /dev/zero | tr \"\\0\" x > big; echo ready > small; httpd -f -p 127.0.0.1:8080 -h /srv']}]}}",
        "server",
    );
    let fetch = |port: &str, path: &str| {
        let address = format!("127.0.0.1:{port}");
        e2e::Finished::run(&mut node.role(&["fetch", &address, &format!("GET {path} HTTP/1.0")]), b"")
    };
    for (port, over_websocket) in [("9001", "true"), ("9002", "false")] {
        let mut command = node.kubectl_command(&["port-forward", "server", &format!("{port}:8080")]);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", over_websocket);
        let mut forward = e2e::Background::start(&mut command);
        forward.expect(&format!("Forwarding from 127.0.0.1:{port} -> 8080"));
        e2e::eventually(e2e::limit(10), "the program listens", || {
            let answer = fetch(port, "/small");
            if answer.stdout.ends_with("ready\n") { Ok(()) } else { Err(answer.to_string()) }
        });
        // Several at once, over one connection.
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(port, "/big").ok())).collect();
            for one in all {
                let answer = one.join().unwrap();
                let body = answer.split_once("\r\n\r\n").unwrap().1;
                assert!(body.len() == 5_000_000 && body.bytes().all(|byte| byte == b'x'), "{} bytes", body.len());
            }
        });
    }
    // Nobody listens there.
    let mut forward = node.kubectl_background(&["port-forward", "server", "9003:8081"]);
    forward.expect("Forwarding from 127.0.0.1:9003");
    assert_eq!(fetch("9003", "/").stdout, "");
    forward.expect("Connection refused");
}

fn kubectl_speaks_spdy(node: &mut TestNode) {
    run_web(node);
    let spdy = |arguments: &[&str]| {
        let mut command = node.kubectl_command(arguments);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
        command
    };
    let exec = |command: &[&str], stdin: &[u8]| {
        e2e::Finished::run(&mut spdy(&[&["exec", "-i", "web", "--"], command].concat()), stdin)
    };
    let both = exec(&["sh", "-c", "echo out; echo err >&2; exit 3"], b"");
    assert_eq!((both.code, both.stdout.as_str()), (3, "out\n"));
    assert!(both.stderr.starts_with("err\n"), "{}", both.stderr);
    let data: Vec<u8> = (0..8_u32 << 20).map(|number| b"0123456789abcdef\n"[number as usize % 17]).collect();
    assert!(exec(&["cat"], &data).ok().as_bytes() == data, "the bytes are others");
    assert_contains(&exec(&["/no/such/program"], b"").fails(), &["No such file or directory"]);
    let mut terminal = e2e::Terminal::start(&spdy(&["exec", "-it", "web", "--", "sh"]), 100, 30);
    terminal.send("stty size\n");
    terminal.expect("30 100");
    terminal.resize(91, 21);
    terminal.send("while [ \"$(stty size)\" != '21 91' ]; do sleep 0.05; done; echo re''sized; exit 5\n");
    terminal.expect("resized");
    assert_eq!(terminal.finish(), 5);
    let mut attached = e2e::Background::start(&mut spdy(&["attach", "-i", "web"]));
    attached.expect("command prompt");
    attached.send("word\n");
    attached.expect("got word");
}
