//! The API under many clients: durable creates, a long list, many watchers. Pods are gated, so that nothing but the API and the
//! agent's word about the gate is measured.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use e2e::TestNode;
use serde_json::{Value, json};

use crate::client::Client;
use crate::etcd::Etcd;
use crate::memory;
use crate::report::{Engine, Report};

const CLIENTS: usize = 64;
const PODS: usize = 1000;
const WATCHERS: usize = 100;

const CREATES: &str = "1,000 durable creates by 64 clients";
const LIST: &str = "list of 1,000 Pods, whole";
const SEEN: &str = "a change until the last of 100 watchers has it";
const CHANGE: &str = "processor of the daemon for a change, no watcher";
const FAN_OUT: &str = "processor of the daemon for a change, 100 watchers";
const WATCHER: &str = "memory of the daemon for a watcher";
const PODS_COLLECTION: &str = "/api/v1/namespaces/default/pods";

/// What is asked for.
pub struct Load<'a> {
    /// How often each work is done.
    pub rounds: usize,
    /// Where etcd is fetched to; `None`: without it.
    pub etcd: Option<&'a Path>,
}

/// Measures all of it, on a node of its own.
pub fn measure(load: &Load<'_>, report: &mut Report) {
    let mut node = TestNode::bare();
    node.serve_arguments = vec!["--max-pods".to_owned(), "100000".to_owned()];
    node.start_daemon();
    let etcd = load.etcd.map(|directory| Etcd::start(directory, CLIENTS));
    let resident = || number(memory::resident(node.daemon_pid()));
    report.add("memory of the daemon with 0 Pods", "kB", Engine::Monopod, resident());
    if let Some(etcd) = &etcd {
        report.machine.push(("etcd", etcd.version().to_owned()));
    }
    for round in 0..load.rounds {
        let value = creates(&node, round, report);
        if let Some(etcd) = &etcd {
            let time = etcd.put_all(&format!("/registry/pods/{round}/"), PODS, value.as_bytes());
            report.add_time(CREATES, Engine::Etcd, time);
        }
        list(&node, report);
        if let Some(etcd) = &etcd {
            let (bytes, time) = etcd.range(&format!("/registry/pods/{round}/"));
            assert!(bytes > PODS * value.len(), "etcd gave {bytes} bytes");
            report.add_time(LIST, Engine::Etcd, time);
        }
        if round + 1 < load.rounds {
            clear(&node);
        }
    }
    report.add("memory of the daemon with 1,000 gated Pods", "kB", Engine::Monopod, resident());
    watchers(&node, load.rounds, report);
}

/// Every client has one create under way. Gives one Pod as it was answered.
fn creates(node: &TestNode, round: usize, report: &mut Report) -> String {
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(&node.socket())).collect();
    let begin = Instant::now();
    let answers: Vec<String> = std::thread::scope(|scope| {
        let works: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(first, client)| {
                scope.spawn(move || {
                    let mut last = String::new();
                    for number in (first..PODS).step_by(CLIENTS) {
                        let body = gated(&format!("gated-{round}-{number}")).to_string();
                        let (code, answer) = client.request("POST", PODS_COLLECTION, "application/json", &body);
                        assert_eq!(code, 201, "{answer}");
                        last = answer;
                    }
                    last
                })
            })
            .collect();
        works.into_iter().map(|work| work.join().unwrap()).collect()
    });
    report.add_time(CREATES, Engine::Monopod, begin.elapsed());
    answers.into_iter().next().unwrap()
}

fn list(node: &TestNode, report: &mut Report) {
    let mut client = Client::connect(&node.socket());
    let begin = Instant::now();
    let (code, answer) = client.request("GET", PODS_COLLECTION, "application/json", "");
    report.add_time(LIST, Engine::Monopod, begin.elapsed());
    assert_eq!(code, 200, "{answer}");
    let list: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(PODS));
}

fn clear(node: &TestNode) {
    let mut client = Client::connect(&node.socket());
    let path = format!("{PODS_COLLECTION}?gracePeriodSeconds=0");
    let (code, answer) = client.request("DELETE", &path, "application/json", "");
    assert_eq!(code, 200, "{answer}");
    e2e::eventually(Duration::from_mins(2), "all Pods are gone", || {
        let (_, answer) = client.request("GET", &format!("{PODS_COLLECTION}?limit=1"), "application/json", "");
        let list: Value = serde_json::from_str(&answer).unwrap();
        if list["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err("there are some".to_owned()) }
    });
}

/// A change now and then, and how soon all know it; then changes as fast as they go, and what they cost.
fn watchers(node: &TestNode, rounds: usize, report: &mut Report) {
    let mut client = Client::connect(&node.socket());
    let pods = pods(&mut client);
    let changes = rounds * 50;
    let cost = processor(node, changes, || {
        for number in 0..changes {
            change(&mut client, &pods, number);
        }
    });
    report.add(CHANGE, "µs", Engine::Monopod, cost);

    let before = memory::resident(node.daemon_pid());
    let (seen, stamps) = channel();
    for _ in 0..WATCHERS {
        watch(&node.socket(), seen.clone());
    }
    wait_for(&stamps, &mut BTreeMap::new(), usize::MAX);
    let mut known = BTreeMap::new();
    for number in changes..changes + rounds * 10 {
        std::thread::sleep(Duration::from_millis(5));
        let begin = Instant::now();
        change(&mut client, &pods, number);
        let last = wait_for(&stamps, &mut known, number);
        report.add_time(SEEN, Engine::Monopod, last.saturating_duration_since(begin));
    }
    let first = changes + rounds * 10;
    let cost = processor(node, changes, || {
        for number in first..first + changes {
            change(&mut client, &pods, number);
        }
        wait_for(&stamps, &mut known, first + changes - 1);
    });
    report.add(FAN_OUT, "µs", Engine::Monopod, cost);
    let after = memory::resident(node.daemon_pid());
    report.add(WATCHER, "kB", Engine::Monopod, number(after.saturating_sub(before)) / 100.0);
}

/// The daemon's processor time for each of so many changes, in microseconds.
fn processor(node: &TestNode, changes: usize, work: impl FnOnce()) -> f64 {
    let before = memory::processor_ticks(node.daemon_pid());
    work();
    // A hundred ticks are a second (proc_pid_stat(5), sysconf(_SC_CLK_TCK)).
    let ticks = memory::processor_ticks(node.daemon_pid()) - before;
    number(ticks) * 10_000.0 / number(u64::try_from(changes).unwrap())
}

/// One after the other.
fn change(client: &mut Client, pods: &[String], number: usize) {
    let path = format!("{PODS_COLLECTION}/{}", pods[number % pods.len()]);
    let body = json!({"metadata": {"annotations": {"bench": format!("stamp-{number}.")}}}).to_string();
    let (code, answer) = client.request("PATCH", &path, "application/merge-patch+json", &body);
    assert_eq!(code, 200, "{answer}");
}

/// The Pods of the last round.
fn pods(client: &mut Client) -> Vec<String> {
    let (_, answer) = client.request("GET", PODS_COLLECTION, "application/json", "");
    let list: Value = serde_json::from_str(&answer).unwrap();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Tells when each stamp came; `usize::MAX` when the watcher has what there was.
fn watch(socket: &Path, seen: Sender<(usize, Instant)>) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let path = format!(
        "{PODS_COLLECTION}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                        &resourceVersionMatch=NotOlderThan"
    );
    write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").unwrap();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            // The daemon's end ends it.
            if !matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
                return;
            }
            let text = String::from_utf8_lossy(&line);
            let stamp = match text.split_once("\"stamp-").and_then(|(_, rest)| rest.split_once('.')) {
                _ if text.contains("initial-events-end") => Some(usize::MAX),
                Some((stamp, _)) if text.starts_with("{\"type\":\"MODIFIED\"") => stamp.parse().ok(),
                Some(_) | None => None,
            };
            if let Some(stamp) = stamp
                && seen.send((stamp, Instant::now())).is_err()
            {
                return;
            }
        }
    });
}

/// Waits until all watchers have a stamp; the time at which the last one had it.
fn wait_for(stamps: &Receiver<(usize, Instant)>, known: &mut BTreeMap<usize, usize>, wanted: usize) -> Instant {
    loop {
        let (stamp, at) = stamps.recv_timeout(Duration::from_mins(1)).unwrap();
        let count = known.entry(stamp).or_default();
        *count += 1;
        if stamp == wanted && *count == WATCHERS {
            known.clear();
            return at;
        }
    }
}

/// As small as a Pod is that somebody writes by hand.
fn gated(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "gated"}},
        "spec": {
            "schedulingGates": [{"name": "example.org/wait"}],
            "containers": [{"name": "main", "image": "busybox:stable", "command": ["sleep", "infinity"]}],
        },
    })
}

fn number(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap())
}
