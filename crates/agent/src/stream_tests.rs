//! Logs that are followed, exec and attach, through the agent.

use std::fs;
use std::io::Write as _;

use futures::StreamExt as _;
use runtime::fake::OnExec;
use runtime::{ExecRequest, SessionEnd};
use serde_json::{Value, json};
use spec::{ContainerName, PodRef};
use tokio::io::AsyncReadExt as _;

use crate::logs::{LogOptions, LogStream, Since};
use crate::testing::{TestNode, condition, pod};

fn app() -> (PodRef, ContainerName) {
    (PodRef::new("default", "web"), ContainerName::new("app"))
}

async fn running_node() -> TestNode {
    let node = TestNode::start().await;
    let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "app", "image": "app:1", "tty": true, "stdin": true }] });
    node.create(&pod(&spec)).await;
    node.wait_for("web", |pod: &Value| condition(pod, "Ready")["status"] == "True").await;
    fs::create_dir_all(log_directory(&node)).unwrap();
    node
}

fn log_directory(node: &TestNode) -> std::path::PathBuf {
    node.directory.path().join("logs/default_web_u-web/app")
}

fn write(node: &TestNode, second: u32, text: &str) {
    let file = fs::File::options().create(true).append(true).open(log_directory(node).join("0.log"));
    // One write for each line, as infra does it.
    file.unwrap().write_all(format!("2026-01-01T00:00:{second:02}Z stdout F {text}\n").as_bytes()).unwrap();
}

async fn next(stream: &mut LogStream) -> String {
    String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap()
}

async fn all(stream: LogStream) -> String {
    let portions: Vec<_> = stream.collect().await;
    portions.into_iter().map(|portion| String::from_utf8(portion.unwrap().to_vec()).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn logs_are_followed_over_rotation_until_the_container_ends() {
    let node = running_node().await;
    let (pod, container) = app();
    write(&node, 1, "one");
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut stream = node.agent().logs(&pod, &container, options).unwrap();
    assert_eq!(next(&mut stream).await, "one\n");
    write(&node, 2, "two");
    assert_eq!(next(&mut stream).await, "two\n");
    let present = log_directory(&node).join("0.log");
    write(&node, 3, "before rotation");
    fs::rename(&present, log_directory(&node).join("0.log.20260101-000003")).unwrap();
    write(&node, 4, "after rotation");
    let mut shown = String::new();
    while shown != "before rotation\nafter rotation\n" {
        shown += &next(&mut stream).await;
    }
    write(&node, 5, "last");
    node.runtime.exit("app", 0);
    assert_eq!(all(stream).await, "last\n");
    // After its end it still shows everything.
    node.wait_for_phase("web", "Succeeded").await;
    let stream = node.agent().logs(&pod, &container, LogOptions { follow: true, ..LogOptions::default() }).unwrap();
    assert_eq!(all(stream).await, "one\ntwo\nbefore rotation\nafter rotation\nlast\n");
}

#[tokio::test(start_paused = true)]
async fn logs_show_what_was_asked_for() {
    let node = running_node().await;
    let (pod, container) = app();
    for second in 1..=5 {
        write(&node, second, &format!("line {second}"));
    }
    node.advance(6).await;
    let since = "2026-01-01T00:00:04Z".parse().unwrap();
    let cases = [
        (LogOptions { tail_lines: Some(2), ..LogOptions::default() }, "line 4\nline 5\n"),
        (LogOptions { tail_lines: Some(0), ..LogOptions::default() }, ""),
        (LogOptions { since: Some(Since::Time(since)), ..LogOptions::default() }, "line 4\nline 5\n"),
        (LogOptions { since: Some(Since::SecondsAgo(1)), ..LogOptions::default() }, "line 5\n"),
        (LogOptions { limit_bytes: Some(9), ..LogOptions::default() }, "line 1\nli"),
        (
            LogOptions { tail_lines: Some(1), timestamps: true, ..LogOptions::default() },
            "2026-01-01T00:00:05Z line 5\n",
        ),
    ];
    for (options, wanted) in cases {
        let stream = node.agent().logs(&pod, &container, options.clone()).unwrap();
        assert_eq!(all(stream).await, wanted, "{options:?}");
    }
    let missing = |pod: &PodRef, container: &str, previous| {
        let options = LogOptions { previous, ..LogOptions::default() };
        node.agent().logs(pod, &ContainerName::new(container), options).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(missing(&pod, "none", false), "container none is not valid for pod web");
    assert_eq!(missing(&pod, "app", true), "previous terminated container \"app\" in pod \"web\" not found");
    assert_eq!(missing(&PodRef::new("default", "none"), "app", false), "pods \"none\" not found");
}

#[tokio::test(start_paused = true)]
async fn exec_and_attach_reach_the_running_container_only() {
    let node = running_node().await;
    let (pod, container) = app();
    let request = || ExecRequest {
        command: vec!["echo".into(), "hello".into()],
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = node.agent().exec(&pod, &container, request()).await.unwrap();
    let mut output = String::new();
    session.stdout.take().unwrap().read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "echo hello\n");
    assert_eq!(session.end.await, SessionEnd::Exited(0));
    node.runtime.on_exec("echo", OnExec::CannotStart);
    let error = node.agent().exec(&pod, &container, request()).await.unwrap_err();
    assert_eq!(spec::chain(&error), "container \"app\": cannot execute: No such file or directory");
    let (attached, tty) = node.agent().attach(&pod, &container, true, true, true).await.unwrap();
    assert!(tty && attached.stdin.is_some() && attached.stderr.is_none());
    node.runtime.exit("app", 3);
    assert_eq!(attached.end.await, SessionEnd::Exited(3));
    node.wait_for_phase("web", "Failed").await;
    let error = node.agent().exec(&pod, &container, request()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot exec into a container in a completed pod; current phase is Failed");
    let error = node.agent().exec(&pod, &ContainerName::new("none"), request()).await.unwrap_err();
    assert_eq!(error.to_string(), "container none is not valid for pod web");
}
