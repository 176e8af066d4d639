//! `run`: progress, verdicts, and what is left behind.

use serde_json::{Value, json};

use crate::fake::FakeDaemon;
use crate::program::{monopod, monopod_with_input};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {restartPolicy: Never, containers: [{name: app, image: x}]}\n";

fn waiting(reason: &str, message: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": reason, "message": message}}}]})
}

fn running() -> Value {
    json!({"phase": "Running", "podIP": "10.85.0.2", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "app", "ready": true, "state": {"running": {}}}]})
}

fn ended(phase: &str, code: i64) -> Value {
    json!({"phase": phase, "containerStatuses": [{"name": "app", "state": {"terminated": {"exitCode": code}}}]})
}

/// Times differ from run to run.
fn without_times(text: &str) -> String {
    let line = |line: &str| match line.split_once(" after ") {
        Some((head, tail)) => format!("{head} after TIME{}", tail.find(',').map_or("", |at| &tail[at..])),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_pod_is_followed_until_it_is_ready() {
    let daemon = FakeDaemon::start();
    daemon.set_life(vec![waiting("ContainerCreating", ""), running()]);
    let finished = monopod_with_input(&daemon.socket(), &["run", "-f", "-"], POD.as_bytes());
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "pod/web created\n"), "{finished:?}");
    let shown = without_times(&finished.stderr);
    assert!(shown.ends_with("web/app: running, ready\npod/web: ready after TIME, address 10.85.0.2"), "{shown}");
}

#[test]
fn a_pod_that_cannot_get_ready_is_an_error_with_a_hint() {
    let daemon = FakeDaemon::start();
    daemon.set_life(vec![waiting("ErrImageNeverPull", "image \"x\" is not here")]);
    let finished = monopod_with_input(&daemon.socket(), &["run", "-f", "-"], POD.as_bytes());
    assert_eq!(finished.code, 1);
    let error = finished.stderr.split_once("error: ").unwrap().1;
    insta::assert_snapshot!(error, @r#"
    pod "web": container "app": ErrImageNeverPull: image "x" is not here
      hint: `monopod image list` shows what is here; `monopod image load FILE` brings an image, which runs with `imagePullPolicy: IfNotPresent`
    "#);
    assert!(daemon.object("pods", "web").is_some(), "the Pod stays to be looked at");
}

#[test]
fn an_attached_run_shows_the_log_and_ends_with_the_programs_status() {
    let daemon = FakeDaemon::start();
    daemon.set_log("job", b"working\n");
    let life = |phase: &str, code: i64| {
        let mut end = ended(phase, code);
        end["containerStatuses"][0]["name"] = json!("job");
        daemon.set_life(vec![end]);
    };
    life("Failed", 3);
    let finished = monopod(&daemon.socket(), &["run", "job", "--image", "x", "--restart", "Never", "--attach"]);
    insta::assert_snapshot!(finished.stderr.split_once("error: ").unwrap().1, @r#"
    pod "job" failed: container "job": exit code 3
      hint: its output: `monopod logs job -c job`
    "#);
    monopod(&daemon.socket(), &["delete", "pod", "job"]);
    life("Succeeded", 0);
    let finished = monopod(&daemon.socket(), &["run", "job", "--image", "x", "--rm"]);
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, "pod/job created\nworking\npod \"job\" deleted\n"),
        "{finished:?}"
    );
    assert!(daemon.object("pods", "job").is_none());
}

#[test]
fn waiting_has_a_limit_if_one_is_given() {
    let daemon = FakeDaemon::start();
    let finished = monopod_with_input(&daemon.socket(), &["run", "-f", "-", "--timeout", "50ms"], POD.as_bytes());
    assert_eq!(finished.code, 1);
    assert!(finished.stderr.contains("error: not ready after 50 ms\n  hint: it goes on"), "{finished:?}");
}
