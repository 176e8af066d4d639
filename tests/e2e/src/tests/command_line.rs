//! The command line as a person uses it.

use std::fs;

use e2e::TestNode;
use serde_json::Value;

tests! {
    get_prints_tables_and_documents,
    get_watches,
    describe_tells_all,
    timeline_draws_a_life_with_all_its_runs,
    several_documents_directories_json_and_stdin,
    run_waits_until_ready_and_says_so,
    apply_again_changes_nothing,
    delete_names_what_is_missing,
    any_kind_can_be_named,
    files_are_copied_in_and_out,
    ports_are_forwarded,
    a_workload_stands_for_one_of_its_pods,
    debug_brings_tools,
    debug_changes_a_copy,
    help_check_and_completion_work,
    a_missing_daemon_is_explained,
}

fn get_prints_tables_and_documents(node: &mut TestNode) {
    let pod = node.run_ready("two");
    let address = pod["status"]["podIP"].as_str().unwrap();
    let table = node.monopod(&["get", "pods"]).ok();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(lines[1][..4], ["two", "2/2", "Running", "0"]);
    let wide = node.monopod(&["get", "pods", "-o", "wide"]).ok();
    assert!(wide.lines().next().unwrap().contains("IP") && wide.lines().nth(1).unwrap().contains(address), "{wide}");
    assert_eq!(node.monopod(&["get", "pods", "-o", "name"]).ok(), "pod/two\n");
    let json: Value = serde_json::from_str(&node.monopod(&["get", "pod", "two", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["metadata"]["uid"], pod["metadata"]["uid"]);
    let yaml = node.monopod(&["get", "pod", "two", "-o", "yaml"]).ok();
    assert!(yaml.contains("kind: Pod\n") && yaml.replace('"', "").contains(&format!("podIP: {address}\n")), "{yaml}");
    // What comes out can go in again.
    node.delete_pod("two");
    assert!(node.monopod(&["get", "pods"]).ok().is_empty() || node.api().names("/api/v1/pods").is_empty());
    for kind in ["nodes", "namespaces", "events", "configmaps", "secrets"] {
        node.monopod(&["get", kind]).ok();
    }
    let error = node.monopod(&["get", "pod", "two"]).fails();
    assert!(error.contains("pods \"two\" not found"), "{error}");
}

fn get_watches(node: &mut TestNode) {
    let mut watch = node.background(&["get", "pods", "-w"]);
    node.apply("idle.yaml");
    watch.expect("Running");
    node.delete_pod("idle");
    watch.expect("Terminating");
}

fn describe_tells_all(node: &mut TestNode) {
    node.run_ready("empty-dir");
    let text = node.monopod(&["describe", "pod", "empty-dir"]).ok();
    for wanted in [
        "Name:",
        "empty-dir",
        "Containers:",
        "writer",
        "reader",
        "busybox:stable",
        "Volumes:",
        "Conditions:",
        "Events:",
        "Started",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing:\n{text}");
    }
}

fn timeline_draws_a_life_with_all_its_runs(node: &mut TestNode) {
    node.apply("crashes.yaml");
    node.wait_for("crashes", "a back-off", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let steps = node.monopod(&["timeline", "crashes", "--trace"]).ok();
    for wanted in ["store the object", "  make the sandbox", "    wait for its records", "execute the program", "▒"] {
        assert!(steps.contains(wanted), "no {wanted} in {steps}");
    }
    let trace = node.monopod(&["timeline", "crashes", "--trace", "-o", "json"]).ok();
    let trace: Value = serde_json::from_str(&trace).unwrap();
    let executed = trace["traceEvents"].as_array().unwrap().iter().filter(|step| step["name"] == "execute the program");
    assert_eq!(executed.count(), 2, "both runs: {trace}");
    node.kill_daemon();
    node.start_daemon();
    let text = node.monopod(&["timeline", "crashes", "--moments"]).ok();
    for wanted in ["pod", "1 restart", "back-off", "✘", "░", "Scheduled", "terminated"] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    assert_eq!(text.matches(": Container started").count(), 2, "{text}");
    let described = node.monopod(&["describe", "pod", "crashes"]).ok();
    assert!(described.contains("Timeline:\n") && described.contains("░ back-off"), "{described}");
    let picture = node.monopod(&["timeline", "pod/crashes", "-o", "svg", "--file", "-"]).ok();
    assert!(picture.starts_with("<svg ") && picture.contains("back-off: "), "{picture}");
    node.delete_pod("crashes");
    let error = node.monopod(&["timeline", "crashes"]).fails();
    assert!(error.contains("pods \"crashes\" not found"), "{error}");
}

fn several_documents_directories_json_and_stdin(node: &mut TestNode) {
    let said = node.monopod(&["apply", "-f", e2e::images::manifest("several.yaml").to_str().unwrap()]).ok();
    assert_eq!(said, "configmap/several-config created\npod/several-a created\npod/several-b created\n");
    node.wait_ready("several-a");
    node.wait_ready("several-b");
    assert_eq!(node.monopod(&["get", "pods", "-l", "app=several", "-o", "name"]).ok().lines().count(), 2);

    let directory = node.path("manifests");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("b.json"), serde_json::to_vec(&json_pod("from-json")).unwrap()).unwrap();
    fs::copy(e2e::images::manifest("idle.yaml"), directory.join("a.yaml")).unwrap();
    fs::write(directory.join("notes.txt"), "not a manifest").unwrap();
    let said = node.monopod(&["apply", "-f", directory.to_str().unwrap()]).ok();
    assert_eq!(said, "pod/idle created\npod/from-json created\n");

    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [json_pod("in-list")]});
    let said = node.monopod_with(&["apply", "-f", "-"], list.to_string().as_bytes()).ok();
    assert_eq!(said, "pod/in-list created\n");
    let said = node.monopod(&["delete", "-f", e2e::images::manifest("several.yaml").to_str().unwrap()]).ok();
    assert_eq!(said.lines().count(), 3, "{said}");
}

fn json_pod(name: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
        {"name": "main", "image": "busybox:stable", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]}
    ]}})
}

fn run_waits_until_ready_and_says_so(node: &mut TestNode) {
    node.monopod(&["run", "-f", e2e::images::manifest("idle.yaml").to_str().unwrap()]).ok();
    let pod = node.pod("idle");
    assert_eq!(e2e::node::condition(&pod, "Ready"), Some("True"), "run returns when the Pod is ready");
    // A Pod that cannot become ready is an error that says why.
    let failed = node.monopod(&["run", "-f", e2e::images::manifest("no-such-program.yaml").to_str().unwrap()]);
    let text = format!("{}{}", failed.stdout, failed.stderr);
    assert!(failed.code != 0 && text.contains("/no/such/program"), "{text}");
    node.monopod(&["wait", "--for=condition=Ready", "pod/idle", "--timeout=5s"]).ok();
    // --attach follows the logs; Ctrl-C deletes.
    let mut attached =
        node.terminal(&["run", "-f", e2e::images::manifest("counts.yaml").to_str().unwrap(), "--attach"]);
    attached.expect("count 3");
    attached.send("\x03");
    attached.finish();
    assert_eq!(node.api().request("GET", "/api/v1/namespaces/default/pods/counts", None).code, 404);
}

fn apply_again_changes_nothing(node: &mut TestNode) {
    node.apply("idle.yaml");
    let before = node.wait_ready("idle");
    let said = node.monopod(&["apply", "-f", e2e::images::manifest("idle.yaml").to_str().unwrap()]).ok();
    assert_eq!(said, "pod/idle unchanged\n");
    assert_eq!(node.pod("idle")["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
}

fn delete_names_what_is_missing(node: &mut TestNode) {
    let error = node.monopod(&["delete", "pod", "nothing"]).fails();
    assert!(error.contains("pods \"nothing\" not found"), "{error}");
    node.monopod(&["delete", "pod", "nothing", "--ignore-not-found"]).ok();
}

fn help_check_and_completion_work(node: &mut TestNode) {
    let help = node.monopod(&["--help"]).ok();
    for verb in ["serve", "run", "apply", "get", "describe", "logs", "exec", "attach", "delete", "image", "check"] {
        assert!(help.contains(verb), "{verb} is not in:\n{help}");
        assert!(node.monopod(&[verb, "--help"]).ok().len() > 100, "{verb} --help teaches");
    }
    assert!(node.monopod(&["completion", "bash"]).ok().contains("_monopod"));
    let flags = [
        "check",
        "--data-dir",
        node.data_dir().to_str().unwrap(),
        "--run-dir",
        node.run_dir().to_str().unwrap(),
        "--log-dir",
        node.log_dir().to_str().unwrap(),
    ]
    .map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    e2e::Finished::run(&mut node.inside(e2e::node::binary().to_str().unwrap(), &flags), b"").ok();
    // What stands in the way is told with the remedy, as a document too.
    let rules =
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    e2e::Finished::run(&mut node.inside("nft", &[rules]), b"").ok();
    let asked = [&flags[..], &["-o", "json"]].concat();
    let told = e2e::Finished::run(&mut node.inside(e2e::node::binary().to_str().unwrap(), &asked), b"").ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let findings = told["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["what"].as_str().unwrap().contains("table ip filter drops"));
    let found = found.unwrap_or_else(|| panic!("{findings:#?}"));
    assert_eq!((&found["level"], &told["able"]), (&"warning".into(), &true.into()));
    assert!(found["remedy"].as_str().unwrap().starts_with("iptables -I FORWARD -s 10.85.0.0/16 -j ACCEPT"), "{found}");
    e2e::Finished::run(&mut node.inside("nft", &["delete table ip filter"]), b"").ok();
    // Beside the daemon that runs, another would have to take other addresses; the remedy is told.
    let other = e2e::Finished::run(&mut node.inside(e2e::node::binary().to_str().unwrap(), &["check"]), b"");
    assert!(other.code != 0 && other.stdout.contains("monopod serve --pod-cidr"), "{other}");
}

fn a_missing_daemon_is_explained(node: &mut TestNode) {
    node.stop_daemon();
    let error = node.monopod(&["get", "pods"]).fails();
    assert!(error.contains("monopod serve") && error.contains("monopod.sock"), "{error}");
}

fn any_kind_can_be_named(node: &mut TestNode) {
    let role = "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: reader}, rules: []}";
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}";
    let text = format!("{role}\n---\n{service}\n");
    let apply = || node.monopod_with(&["apply", "-f", "-"], text.as_bytes()).ok();
    assert_eq!(apply(), "role.rbac.authorization.k8s.io/reader created\nservice/web created\n");
    assert_eq!(apply(), "role.rbac.authorization.k8s.io/reader unchanged\nservice/web unchanged\n");
    node.run_ready("idle");
    let all = node.monopod(&["get", "all"]).ok();
    assert!(all.contains("pod/idle") && all.contains("service/web"), "{all}");
    for kind in node.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).ok().lines() {
        node.monopod(&["get", kind, "-A"]).ok();
        node.monopod(&["describe", kind, "-A"]).ok();
    }
    let named = ["get", "pods,svc", "--sort-by", ".metadata.name", "-o", "jsonpath={.items[*].metadata.name}"];
    assert_eq!(node.monopod(&named).ok(), "idle kubernetes web");
    let said = node.monopod(&["delete", "role/reader", "svc/web"]).ok();
    assert_eq!(said, "role.rbac.authorization.k8s.io \"reader\" deleted\nservice \"web\" deleted\n");
}

fn files_are_copied_in_and_out(node: &mut TestNode) {
    node.run_ready("idle");
    let (tree, back) = (node.path("tree"), node.path("back"));
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    for number in 0..200 {
        fs::write(tree.join(format!("deep/{number}")), format!("file {number}\n")).unwrap();
    }
    let noise: Vec<u8> = (0..3_000_017_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    fs::write(tree.join("deep/er/noise"), &noise).unwrap();
    let tree = tree.to_str().unwrap();
    node.monopod(&["cp", tree, "idle:/tmp"]).ok();
    assert_eq!(node.exec("idle", "main", &["cat", "/tmp/tree/deep/7"]), "file 7\n", "below a directory that is there");
    node.monopod(&["cp", tree, "default/idle:/tmp/other"]).ok();
    node.monopod(&["cp", "idle:/tmp/other", back.to_str().unwrap()]).ok();
    assert!(fs::read(back.join("deep/er/noise")).unwrap() == noise, "the bytes are others");
    assert_eq!(fs::read_dir(back.join("deep")).unwrap().count(), 201);
    let error = node.monopod(&["cp", "idle:/no/such/file", back.to_str().unwrap()]).fails();
    assert!(error.contains("No such file"), "{error}");
    let error = node.monopod(&["cp", "/no/such/file", "idle:/tmp"]).fails();
    assert!(error.contains("cannot read /no/such/file"), "{error}");
    let error = node.monopod(&["cp", tree, "idle:/proc/nowhere/x"]).fails();
    assert!(error.contains("tar in container"), "{error}");
}

fn ports_are_forwarded(node: &mut TestNode) {
    node.run_text(
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: server, labels: {app: s}}, spec: {terminationGracePeriodSeconds: 0,
        containers: [{name: main, image: 'busybox:stable', ports: [{name: count, containerPort: 7000}],
        command: [sh, -c, 'while true; do nc -l -p 7000 -e wc -c; done']}]}}",
        "server",
    );
    let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: s}, ports: [{port: 80, targetPort: count}]}}";
    node.monopod_with(&["apply", "-f", "-"], service.as_bytes()).ok();
    // It listens where those who send are.
    let forwards = |what: &[&str]| {
        let command = node.command(what);
        let mut inside = node.on_network(command.get_program());
        inside.args(command.get_args()).env("MONOPOD_SOCKET", node.socket());
        e2e::background::Background::start(&mut inside)
    };
    let mut forward = forwards(&["port-forward", "svc/s", "9020:80"]);
    forward.expect("Forwarding from 127.0.0.1:9020 -> 7000");
    // The program answers once it has seen the end of what comes: our half is closed, and the other is not.
    e2e::eventually(e2e::limit(20), "the program listens", || {
        let counted = e2e::Finished::run(&mut node.role(&["send", "127.0.0.1:9020", "100000"]), b"");
        if counted.stdout.trim() == "100000" { Ok(()) } else { Err(counted.to_string()) }
    });
    let mut nobody = forwards(&["port-forward", "server", "9021:81"]);
    nobody.expect("Forwarding from 127.0.0.1:9021 -> 81");
    e2e::Finished::run(&mut node.role(&["send", "127.0.0.1:9021", "1"]), b"");
    nobody.expect("Connection refused");
}

fn debug_brings_tools(node: &mut TestNode) {
    node.run_ready("idle");
    let debug = ["debug", "idle", "--image", "busybox:stable", "--target", "main", "-c", "tools", "-i", "--"];
    let seen = node
        .monopod_with(&[&debug[..], &["sh", "-c", "read word; cat /proc/1/comm; echo $word"]].concat(), b"friend\n");
    assert!(seen.ok().ends_with("friend\n"));
    let on_node = format!("node{}", node.api().names("/api/v1/nodes").first().unwrap());
    // What is written before somebody attaches is not shown.
    let look = ["sh", "-c", "sleep 1; ls /host"];
    let seen =
        node.monopod(&[&["debug", &on_node, "--image", "busybox:stable", "--attach", "--"], &look[..]].concat()).ok();
    assert!(seen.lines().any(|line| line == "etc"), "{seen}");
    node.monopod(&["delete", "pods", "--all"]).ok();
}

fn debug_changes_a_copy(node: &mut TestNode) {
    node.run_ready("idle");
    let copy = ["debug", "idle", "--copy-to", "copied", "--image", "busybox:stable", "-c", "tools", "-i", "--"];
    let look = ["sh", "-c", "read word; cat /proc/*/comm | grep -c sleep; echo $word"];
    let seen = node.monopod_with(&[&copy[..], &look].concat(), b"friend\n").ok();
    // The copy's own container runs in sight of the tools.
    assert!(seen.ends_with("1\nfriend\n"), "{seen}");
    assert_eq!(node.pod("copied")["spec"]["shareProcessNamespace"], true);
    let again = ["debug", "copied", "--copy-to", "replaced", "--replace", "-c", "main", "--", "sleep", "1000"];
    node.monopod(&again).ok();
    let replaced = node.wait_ready("replaced");
    assert_eq!(replaced["spec"]["containers"][0]["command"], serde_json::json!(["sleep", "1000"]));
    node.monopod(&["wait", "pod/copied", "--for=delete", "--timeout=30s"]).ok();
    let nothing = node.monopod(&["debug", "idle", "--copy-to", "same"]);
    assert!(nothing.stderr.contains("nothing is to be changed in the copy"), "{nothing}");
    node.monopod(&["delete", "pods", "--all"]).ok();
}

fn a_workload_stands_for_one_of_its_pods(node: &mut TestNode) {
    let labels = "{app: web}";
    // The first container is never ready in the Pod that comes first.
    let pod = |name: &str, ready: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {labels}}}, spec: {{terminationGracePeriodSeconds: 0,
             containers: [{{name: main, image: 'busybox:stable', command: [sh, -c, 'echo from {name}; sleep 1000'],
             readinessProbe: {{exec: {{command: [{ready}]}}, periodSeconds: 1}}}}]}}}}\n"
        )
    };
    let service = format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{selector: {labels}, ports: [{{port: 80}}]}}}}\n"
    );
    node.apply_text(&[pod("a-unready", "'false'"), pod("b-ready", "'true'"), service].concat()).ok();
    node.wait_ready("b-ready");
    node.wait_phase("a-unready", "Running");
    assert_eq!(node.monopod(&["exec", "svc/web", "--", "hostname"]).ok(), "b-ready\n");
    let logs = node.monopod(&["logs", "service/web"]);
    assert!(logs.stderr.contains("Found 2 pods, using pod/b-ready"), "{logs}");
    assert_eq!(logs.ok(), "from b-ready\n");
    let wrong = node.monopod(&["exec", "configmap/kube-root-ca.crt", "--", "true"]);
    assert!(wrong.stderr.contains("a Pod, a Service or a workload is needed here"), "{wrong}");
    node.monopod(&["delete", "service", "web"]).ok();
    node.monopod(&["delete", "pods", "--all"]).ok();
}
