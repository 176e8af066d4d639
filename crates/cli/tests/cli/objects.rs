//! `get`, `describe`, `apply`, `delete`, `wait`, `events`, `logs`, and errors.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake::FakeDaemon;
use crate::program::{command, monopod, monopod_with_input};

fn pod(name: &str, phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "app", "image": "x"}, {"name": "helper", "image": "y"}]},
        "status": {"phase": phase, "podIP": "10.85.0.2"}})
}

fn daemon_with_pods() -> FakeDaemon {
    let daemon = FakeDaemon::start();
    daemon.put("pods", pod("web", "Running"));
    daemon.put("pods", pod("db", "Pending"));
    daemon
}

#[test]
fn objects_are_shown_in_each_form() {
    let daemon = daemon_with_pods();
    daemon.put("configmaps", json!({"metadata": {"name": "conf", "namespace": "default"}, "data": {"a": "yes"}}));
    let shown = |line: &str| {
        let finished = monopod(&daemon.socket(), &line.split(' ').collect::<Vec<_>>());
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{line}");
        finished.stdout
    };
    insta::assert_snapshot!(shown("get pods"), @r"
    NAME   STATUS
    db     Pending
    web    Running
    ");
    insta::assert_snapshot!(shown("get pod web db -o wide --no-headers"), @r"
    web   Running   10.85.0.2
    db    Pending   10.85.0.2
    ");
    insta::assert_snapshot!(shown("get po,cm -A --show-labels"), @r"
    NAMESPACE   NAME      STATUS    LABELS
    default     pod/db    Pending   app=db
    default     pod/web   Running   app=web

    NAMESPACE   NAME             STATUS   LABELS
    default     configmap/conf            <none>
    ");
    insta::assert_snapshot!(shown("get po,cm -o name"), @r"
    pod/db
    pod/web
    configmap/conf
    ");
    insta::assert_snapshot!(shown("get cm conf -o yaml"), @r#"
    apiVersion: v1
    data:
      a: "yes"
    kind: ConfigMap
    metadata:
      name: conf
      namespace: default
      resourceVersion: "3"
      uid: uid-3
    "#);
    let list: Value = serde_json::from_str(&shown("get pods -o json")).unwrap();
    assert_eq!(
        (&list["kind"], &list["items"][1]["metadata"]["name"], &list["items"][0]["kind"]),
        (&json!("List"), &json!("web"), &json!("Pod"))
    );
    assert!(shown("describe pod web").starts_with("Name:"));
}

#[test]
fn any_kind_that_the_daemon_serves_is_shown_applied_and_deleted() {
    let daemon = daemon_with_pods();
    daemon.put("services", json!({"metadata": {"name": "web", "namespace": "default"}}));
    let shown = |line: &str| {
        let finished = monopod(&daemon.socket(), &line.split(' ').collect::<Vec<_>>());
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{line}");
        finished.stdout
    };
    let text = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader}\nrules: []\n";
    let apply = || monopod_with_input(&daemon.socket(), &["apply", "-f", "-"], text.as_bytes()).stdout;
    assert_eq!(apply(), "role.rbac.authorization.k8s.io/reader created\n");
    assert_eq!(apply(), "role.rbac.authorization.k8s.io/reader unchanged\n");
    insta::assert_snapshot!(shown("get all"), @r"
    NAME      STATUS
    pod/db    Pending
    pod/web   Running

    NAME          STATUS
    service/web
    ");
    assert_eq!(shown("get roles,svc -o name"), "role.rbac.authorization.k8s.io/reader\nservice/web\n");
    assert_eq!(shown("get role/reader -o jsonpath={.kind}/{.metadata.name}"), "Role/reader");
    assert!(shown("describe role reader").contains("rules"));
    assert_eq!(shown("delete ro reader"), "role.rbac.authorization.k8s.io \"reader\" deleted\n");
    // Kinds that are known by heart cost no question.
    shown("get pods");
    let asked = daemon.requests().iter().rev().take(1).cloned().collect::<Vec<_>>();
    assert_eq!(asked, ["GET /api/v1/namespaces/default/pods"]);
}

#[test]
fn rows_and_items_are_sorted_by_a_field() {
    let daemon = daemon_with_pods();
    let shown = |line: &str| monopod(&daemon.socket(), &line.split(' ').collect::<Vec<_>>()).stdout;
    insta::assert_snapshot!(shown("get pods --sort-by .status.phase"), @r"
    NAME   STATUS
    db     Pending
    web    Running
    ");
    assert_eq!(shown("get pods --sort-by={.metadata.labels.app} -o name"), "pod/db\npod/web\n");
    daemon.put("pods", pod("a", "Zombie"));
    assert_eq!(shown("get pods --sort-by .status.phase -o name"), "pod/db\npod/web\npod/a\n");
    let finished = monopod(&daemon.socket(), &["get", "pods", "-o", "jsonpath={.items[*"]);
    assert_eq!(finished.code, 2, "{finished:?}");
}

#[test]
fn what_is_missing_is_said_on_standard_error() {
    let daemon = daemon_with_pods();
    let finished = monopod(&daemon.socket(), &["get", "pod", "web", "ghost"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (1, "error: pods \"ghost\" not found\n"));
    assert!(finished.stdout.contains("web"), "what is there is shown: {finished:?}");
    let finished = monopod(&daemon.socket(), &["get", "secrets"]);
    assert_eq!((finished.code, finished.stderr.as_str()), (0, "No resources found in default namespace.\n"));
    let finished = monopod(&daemon.socket(), &["get", "deployments"]);
    insta::assert_snapshot!(finished.stderr, @r#"
    error: the server doesn't have a resource type "deployments"
      hint: it has pods (po), services (svc), roles (ro)
    "#);
}

#[test]
fn a_daemon_that_does_not_run_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let error = |socket: &std::path::Path| {
        let finished = monopod(socket, &["get", "pods"]);
        assert_eq!(finished.code, 1);
        finished.stderr.replace(&directory.path().display().to_string(), "/run")
    };
    insta::assert_snapshot!(error(&socket), @r"
    error: the daemon is not running: no socket at /run/s
      hint: start it with `sudo monopod serve`; if it runs elsewhere, name its socket with --socket
    ");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    insta::assert_snapshot!(error(&socket), @r"
    error: the daemon is not running: nobody listens at /run/s
      hint: start it with `sudo monopod serve`; Pods that ran go on, and it takes them over
    ");
}

#[test]
fn apply_creates_updates_and_leaves_alone() {
    let daemon = FakeDaemon::start();
    let manifest = |image: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: conf}}\ndata: {{a: '1'}}\n---\n\
            apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: app, image: {image}}}]}}\n"
        )
    };
    let apply = |image: &str| monopod_with_input(&daemon.socket(), &["apply", "-f", "-"], manifest(image).as_bytes());
    assert_eq!(apply("x").stdout, "configmap/conf created\npod/web created\n");
    assert_eq!(apply("x").stdout, "configmap/conf unchanged\npod/web unchanged\n");
    daemon.refuse_next_put();
    let finished = apply("y");
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, "configmap/conf unchanged\npod/web configured\n"),
        "{finished:?}"
    );
    assert_eq!(daemon.object("pods", "web").unwrap()["spec"]["containers"][0]["image"], "y");
    let created = "/api/v1/namespaces/default/pods?fieldManager=monopod&fieldValidation=Strict";
    assert!(daemon.requests().iter().any(|request| request.starts_with("POST") && request.ends_with(created)));
}

#[test]
fn a_refused_document_does_not_stop_the_others() {
    let daemon = FakeDaemon::start();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: a}]}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: good}\nspec: {containers: [{name: a, image: x}]}\n";
    let finished = monopod_with_input(&daemon.socket(), &["apply", "-f", "-"], text.as_bytes());
    assert_eq!((finished.code, finished.stdout.as_str()), (1, "pod/good created\n"));
    insta::assert_snapshot!(finished.stderr, @r#"
    error: standard input
      caused by: Pod "bad" is invalid
      caused by: spec.containers[0].image: Required value
    "#);
}

#[test]
fn delete_waits_until_the_objects_are_gone() {
    let daemon = daemon_with_pods();
    let finished = monopod(&daemon.socket(), &["delete", "pod", "web", "db", "ghost"]);
    assert_eq!(finished.stdout, "pod \"web\" deleted\npod \"db\" deleted\n");
    assert_eq!((finished.code, finished.stderr.as_str()), (1, "error: pods \"ghost\" not found\n"));
    assert!(daemon.object("pods", "web").is_none());
    let finished = monopod(&daemon.socket(), &["delete", "pods"]);
    insta::assert_snapshot!(finished.stderr, @r"
    error: no pod is named
      hint: name it, choose with -l LABELS, or delete all of them with `--all`: `monopod get pods` lists them
    ");
}

#[test]
fn wait_ends_when_the_condition_holds_or_the_time_is_over() {
    let daemon = daemon_with_pods();
    let wait = |arguments: &[&str]| monopod(&daemon.socket(), &[&["wait", "pod/web"], arguments].concat());
    let finished = wait(&["--for=condition=Ready", "--timeout=50ms"]);
    insta::assert_snapshot!(finished.stderr, @r"
    error: timed out waiting for condition Ready=True of pod/web
      hint: `monopod describe pod web` shows what it is doing; --timeout waits longer
    ");
    let mut ready = pod("web", "Running");
    ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    daemon.put("pods", ready);
    assert_eq!(wait(&["--for=condition=ready"]).stdout, "pod/web condition met\n");
    assert_eq!(wait(&["--for=delete", "--timeout=0"]).code, 1);
    let finished = monopod(&daemon.socket(), &["wait", "pod/ghost", "--for=delete"]);
    assert_eq!(finished.stdout, "pod/ghost deleted\n");
}

#[test]
fn logs_are_copied_or_marked() {
    let daemon = daemon_with_pods();
    let long = "line\n".repeat(100_000);
    daemon.set_log("app", long.as_bytes());
    daemon.set_log("helper", b"\x1b[31mred\xff\nno newline");
    let logs = |arguments: &[&str]| monopod(&daemon.socket(), &[&["logs"], arguments].concat());
    let finished = logs(&["web"]);
    assert_eq!(
        (finished.stdout, finished.stderr.as_str()),
        (long, "Defaulted container \"app\" out of: app, helper\n")
    );
    assert_eq!(logs(&["pod/web", "-c", "helper"]).stdout, "\u{1b}[31mred\u{fffd}\nno newline");
    assert_eq!(
        logs(&["web", "helper", "--prefix"]).stdout,
        "[pod/web/helper] \u{1b}[31mred\u{fffd}\n[pod/web/helper] no newline\n"
    );
    daemon.set_log("app", b"1\n");
    let mut lines: Vec<_> =
        logs(&["web", "--all-containers", "--prefix", "-f"]).stdout.lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["[pod/web/app] 1", "[pod/web/helper] \u{1b}[31mred\u{fffd}", "[pod/web/helper] no newline"]);
    logs(&["web", "-c", "app", "-p", "--since", "1500ms", "--tail=3", "--timestamps"]);
    let last = daemon.requests().pop().unwrap();
    assert!(last.ends_with("/log?container=app&previous=true&timestamps=true&tailLines=3&sinceSeconds=2"), "{last}");
    let finished = logs(&["web", "-c", "ghost"]);
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (1, "error: container \"ghost\" in pod \"web\" is waiting to start: ContainerCreating\n")
    );
}

#[test]
fn a_closed_output_ends_the_program_quietly() {
    let daemon = daemon_with_pods();
    daemon.set_log("app", "line\n".repeat(100_000).as_bytes());
    let mut child = command(&daemon.socket(), &["logs", "web", "-c", "app"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(141), Vec::new()));
}

#[test]
fn a_watch_shows_changes_until_its_reader_leaves() {
    use std::io::{BufRead as _, BufReader};
    let daemon = daemon_with_pods();
    let mut child =
        command(&daemon.socket(), &["get", "pods", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!((next(), next()), ("pod/db".to_owned(), "pod/web".to_owned()));
    daemon.put("pods", pod("new", "Pending"));
    assert_eq!(next(), "pod/new");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn events_are_sorted_by_time() {
    let daemon = FakeDaemon::start();
    for (name, time, message) in
        [("b", "2026-01-01T00:00:09Z", "later"), ("a", "2026-01-01T00:00:01Z", "first\u{1b}[2J")]
    {
        daemon.put(
            "events",
            json!({"metadata": {"name": name, "namespace": "default"}, "type": "Normal", "reason": "R",
            "lastTimestamp": time, "involvedObject": {"kind": "Pod", "name": "web"}, "message": message}),
        );
    }
    let finished = monopod(&daemon.socket(), &["events"]);
    let messages: Vec<_> = finished.stdout.lines().map(|line| line.rsplit("   ").next().unwrap()).collect();
    assert_eq!(messages, ["MESSAGE", "first\\x1b[2J", "later"]);
    assert_eq!(monopod(&daemon.socket(), &["events", "--types=Warning"]).stdout, "");
}

#[test]
fn versions_of_both_sides_are_shown() {
    let daemon = FakeDaemon::start();
    let shown = monopod(&daemon.socket(), &["version"]).stdout;
    assert_eq!(shown, format!("Client Version: v{}\nServer Version: v1.37.0+monopod\n", env!("CARGO_PKG_VERSION")));
}
