//! Measures the whole system on a machine of its own: how fast Pods start, answer and end, and what they cost.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark: what goes wrong ends it"
)]

mod figures;
mod memory;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use e2e::TestNode;
use figures::Figures;
use serde_json::{Value, json};

const USAGE: &str = "usage: cargo xtask bench [-- [--cycles N] [--pods N]]
  --cycles N   how often each is measured (default 100)
  --pods N     how many idle Pods the memory is measured with (default 100)";

fn main() -> ExitCode {
    if let Some(code) = e2e::serve::play_role() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((cycles, pods)) = parse(&arguments) else {
        println!("{USAGE}");
        return ExitCode::FAILURE;
    };
    if !rustix::process::geteuid().is_root() {
        println!("bench: skipped: needs root");
        return ExitCode::SUCCESS;
    }
    let mut node = TestNode::bare();
    node.serve_arguments = vec!["--max-pods".to_owned(), "100000".to_owned()];
    node.start_daemon();
    node.load_image("busybox");
    println!("{} of {}", e2e::node::binary().display(), size_of_binary());
    println!("{:<56}{:>10}{:>10}{:>10}", "", "min", "median", "p95");
    daemon_start(&mut node, cycles.min(20));
    let empty = memory::resident(node.daemon_pid());
    inside(&node, cycles);
    commands(&node, cycles);
    at_once(&node, pods);
    memory_of(&mut node, pods, empty);
    ExitCode::SUCCESS
}

fn parse(arguments: &[String]) -> Option<(usize, usize)> {
    let (mut cycles, mut pods) = (100, 100);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next()?.parse().ok()?;
        match word.as_str() {
            "--cycles" => cycles = value,
            "--pods" => pods = value,
            _ => return None,
        }
    }
    Some((cycles, pods))
}

fn size_of_binary() -> String {
    let size = std::fs::metadata(e2e::node::binary()).unwrap().len();
    format!("{}.{} MB", size / 1_000_000, size / 100_000 % 10)
}

/// Kills the daemon and starts it; until it serves.
fn daemon_start(node: &mut TestNode, cycles: usize) {
    let mut times = Figures::default();
    for _ in 0..cycles {
        node.kill_daemon();
        let begin = Instant::now();
        node.start_daemon();
        times.add(begin.elapsed());
    }
    times.print("daemon start to serving, after kill -9");
}

/// Stamps of a client of the API that watches.
fn inside(node: &TestNode, cycles: usize) {
    let (mut start, mut gone) = (Figures::default(), Figures::default());
    for _ in 0..cycles {
        let mut watch = node.api().watch("/api/v1/pods?watch=true", Duration::from_secs(30)).unwrap();
        let begin = Instant::now();
        create(node, "idle");
        wait(&mut watch, |kind, pod| kind != "DELETED" && runs(pod));
        start.add(begin.elapsed());

        let begin = Instant::now();
        let answer = node.api().request("DELETE", "/api/v1/namespaces/default/pods/idle", None);
        assert!(matches!(answer.code, 200 | 202), "{}", answer.body);
        wait(&mut watch, |kind, _| kind == "DELETED");
        gone.add(begin.elapsed());
    }
    start.print("apply to started (API: POST to watched state.running)");
    gone.print("delete to gone (API: DELETE to watched DELETED)");
}

/// Whole commands, as a person or a script starts them.
fn commands(node: &TestNode, cycles: usize) {
    let manifest = node.path("idle.json");
    std::fs::write(&manifest, pod("idle").to_string()).unwrap();
    let manifest = manifest.to_str().unwrap();
    let (mut run, mut exec, mut delete) = (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..cycles {
        let timed = |arguments: &[&str]| {
            let begin = Instant::now();
            node.monopod(arguments).ok();
            begin.elapsed()
        };
        run.add(timed(&["run", "-f", manifest]));
        exec.add(timed(&["exec", "idle", "--", "true"]));
        delete.add(timed(&["delete", "pod", "idle"]));
    }
    run.print("monopod run -f until Ready, whole command");
    exec.print("monopod exec of true, whole command");
    delete.print("monopod delete until gone, whole command");
}

/// All Pods applied one after the other without waiting, until the last one runs; then all deleted so.
fn at_once(node: &TestNode, pods: usize) {
    let mut watch = node.api().watch("/api/v1/pods?watch=true", Duration::from_mins(1)).unwrap();
    let begin = Instant::now();
    for number in 0..pods {
        create(node, &format!("idle-{number}"));
    }
    let mut running = std::collections::BTreeSet::new();
    while running.len() < pods {
        let pod = wait(&mut watch, |kind, pod| kind != "DELETED" && runs(pod));
        running.insert(pod["metadata"]["name"].as_str().unwrap().to_owned());
    }
    let mut time = Figures::default();
    time.add(begin.elapsed());
    time.print(&format!("{pods} Pods applied at once until all run"));
}

/// Memory with the Pods that run now.
fn memory_of(node: &mut TestNode, pods: usize, empty: u64) {
    let infra = node.infra_processes();
    assert_eq!(infra.len(), pods);
    let mut shares: Vec<u64> = infra.iter().map(|process| memory::proportional(process.pid)).collect();
    shares.sort_unstable();
    println!(
        "{:<56}{:>7} kB{:>7} kB{:>7} kB",
        format!("PSS of infra, {pods} idle Pods"),
        shares[0],
        shares[shares.len() / 2],
        shares[(shares.len() * 95).div_ceil(100) - 1],
    );
    println!("{:<56}{empty:>7} kB", "RSS of the daemon, no Pod, just started");
    println!("{:<56}{:>7} kB", format!("RSS of the daemon, {pods} Pods"), memory::resident(node.daemon_pid()));
    node.kill_daemon();
    let begin = Instant::now();
    node.start_daemon();
    let mut time = Figures::default();
    time.add(begin.elapsed());
    time.print(&format!("daemon start to serving with {pods} Pods to take over"));
}

fn create(node: &TestNode, name: &str) {
    let answer = node.api().request("POST", "/api/v1/namespaces/default/pods", Some(&pod(name)));
    assert_eq!(answer.code, 201, "{}", answer.body);
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{
            "name": "main",
            "image": "busybox:stable",
            // Ends on SIGTERM at once.
            "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
        }]},
    })
}

fn runs(pod: &Value) -> bool {
    !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()
}

fn wait(watch: &mut e2e::api::Watch, wanted: impl Fn(&str, &Value) -> bool) -> Value {
    for (kind, object) in watch {
        if wanted(&kind, &object) {
            return object;
        }
    }
    panic!("the watch ended, or nothing came in time");
}
