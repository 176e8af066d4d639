//! The leak check: what a node looks like before a test must be what it looks like after it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::cgroups;
use crate::node::TestNode;
use crate::patience::{eventually, limit};
use crate::spares::{self, Spares};

/// All that Pods leave traces in, as sorted lines, each with its kind in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
    descriptors: usize,
}

/// Descriptors of the daemon that may come and go: connections that close late, a thread's event descriptor.
const SPARE_DESCRIPTORS: usize = 8;

impl Snapshot {
    /// The node once its daemon has made what it makes ahead: a spare sandbox that is half made is told by nothing.
    #[track_caller]
    pub fn settled(node: &TestNode) -> Self {
        let mut last = None;
        eventually(limit(15), "the daemon has its spare sandboxes", || {
            let now = Self::take(node);
            let spares = node.spares().count();
            let before = last.replace(now.clone());
            if spares >= spares::LEAST && before.as_ref().is_some_and(|before| before.lines == now.lines) {
                return Ok(now);
            }
            Err(format!("{spares} of {}, and the node changes", spares::LEAST))
        })
    }

    /// The node now. Its daemon must run.
    pub fn take(node: &TestNode) -> Self {
        let mut lines = BTreeSet::new();
        processes(node, &mut lines);
        mounts(node, &mut lines);
        network(node, &mut lines);
        let ahead = control_groups(node, &mut lines);
        files(node, &mut lines);
        objects(node, &mut lines);
        let spares = node.spares();
        let descriptors = daemon_descriptors(node, &spares, &mut lines).saturating_sub(ahead);
        lines.retain(|line| !spares.has(line));
        if spares.count() > spares::MOST {
            lines.insert(format!("{} spare sandboxes", spares.count()));
        }
        Self { lines, descriptors }
    }

    /// What is in `self` and was not in `before`, or was and is missing.
    fn difference(&self, before: &Self) -> Vec<String> {
        let mut found: Vec<String> = self.lines.difference(&before.lines).map(|line| format!("+ {line}")).collect();
        found.extend(before.lines.difference(&self.lines).map(|line| format!("- {line}")));
        if self.descriptors > before.descriptors + SPARE_DESCRIPTORS {
            found.push(format!("+ descriptors of the daemon: {} after {}", self.descriptors, before.descriptors));
        }
        found
    }
}

/// Deletes every object that the test made, and fails unless the node looks as it did in `before`.
#[track_caller]
pub fn check(node: &mut TestNode, before: &Snapshot) {
    if !node.has_daemon() {
        node.start_daemon();
    }
    delete_all(node);
    // Network namespaces and memory cgroups die late, and nothing tells when.
    eventually(limit(15), "nothing is left", || {
        let left = Snapshot::take(node).difference(before);
        if left.is_empty() { Ok(()) } else { Err(format!("\n  {}", left.join("\n  "))) }
    });
    records(node);
}

fn delete_all(node: &TestNode) {
    for service in node.api().names("/api/v1/services") {
        let (namespace, name) = service.split_once('/').unwrap();
        if !["default/kubernetes", "kube-system/kube-dns"].contains(&service.as_str()) {
            node.api().request("DELETE", &format!("/api/v1/namespaces/{namespace}/services/{name}"), None);
        }
    }
    for resource in ["pods", "configmaps", "secrets"] {
        let api = node.api();
        for name in api.names(&format!("/api/v1/{resource}")) {
            let (namespace, name) = name.split_once('/').unwrap();
            let answer = api.request("DELETE", &format!("/api/v1/namespaces/{namespace}/{resource}/{name}"), None);
            assert!(matches!(answer.code, 200 | 202 | 404), "delete {resource} {namespace}/{name}: {}", answer.body);
        }
    }
    eventually(limit(45), "every Pod is gone", || {
        let left = node.api().names("/api/v1/pods");
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });
}

fn processes(node: &TestNode, lines: &mut BTreeSet<String>) {
    lines.extend(node.processes().iter().map(|process| format!("process: {}", process.command_line)));
}

/// The mount table of the node, and of the daemon if it has one of its own.
fn mounts(node: &TestNode, lines: &mut BTreeSet<String>) {
    for (whose, pid) in [("node", node.init()), ("daemon", node.daemon_pid())] {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        lines.extend(table.lines().map(|line| {
            // Without the numbers of the mounts, which change when a table is copied (proc_pid_mountinfo(5)).
            let fields: Vec<&str> = line.split(' ').skip(3).collect();
            format!("mount of the {whose}: {}", fields.join(" "))
        }));
    }
}

/// Links, addresses, routes, neighbours and the firewall's rules.
fn network(node: &TestNode, lines: &mut BTreeSet<String>) {
    let questions: [(&str, &[&str]); 5] = [
        ("ip", &["-o", "address"]),
        ("ip", &["-o", "link"]),
        ("ip", &["-o", "route"]),
        ("ip", &["-o", "neighbour", "show", "nud", "permanent"]),
        ("nft", &["-s", "list", "ruleset"]),
    ];
    for (program, arguments) in questions {
        let output = node.inside(program, arguments).output().unwrap();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            // The bridge has a carrier only while it has a port that has one.
            let line = line.replace("NO-CARRIER,", "").replace(",LOWER_UP", "").replace(" linkdown", "");
            let line = line.replace(" state UP ", " state DOWN ").replace(" state UNKNOWN ", " state DOWN ");
            // Lifetimes of addresses count down.
            let line = line.split("valid_lft").next().unwrap_or("").trim().to_owned();
            lines.insert(format!("{program} {}: {line}", arguments.join(" ")));
        }
    }
}

/// Levels that hold no Pod by themselves, made once and kept.
const LASTING_CGROUPS: [&str; 5] = ["besteffort", "burstable", "guaranteed", "infra", "daemon"];

/// So many Pods' cgroups are made ahead.
const CGROUPS_AHEAD: usize = 2;

/// Gives how many descriptors the daemon has of those that were made ahead.
fn control_groups(node: &TestNode, lines: &mut BTreeSet<String>) -> usize {
    let Some(name) = node.cgroup() else { return 0 };
    let all = cgroups::directories(name);
    let ahead: BTreeSet<&OsStr> =
        all.iter().filter(|path| is_nobodys(path)).filter_map(|path| path.file_name()).collect();
    if ahead.len() > CGROUPS_AHEAD {
        lines.insert(format!("{} control groups made ahead", ahead.len()));
    }
    for path in &all {
        if path.iter().any(|name| ahead.contains(name)) {
            continue;
        }
        let below = path.parent().and_then(Path::file_name).is_some_and(|parent| parent == name);
        let lasting = below && path.file_name().is_some_and(|own| LASTING_CGROUPS.iter().any(|kept| own == *kept));
        if !lasting && path.file_name().is_some_and(|own| own != name) {
            lines.insert(format!("cgroup: {}", path.display()));
        }
    }
    // Each to be born in, and what of each hierarchy a container is shown.
    let places = all.iter().filter(|path| path.file_name().is_some_and(|name| ahead.contains(name))).count();
    places + ahead.len() * cgroups::hierarchies().len()
}

/// Whether it was made ahead for some Pod: each has a weight of its own from its start on.
fn is_nobodys(pod: &Path) -> bool {
    let is = |file: &str, value: &str| fs::read_to_string(pod.join(file)).is_ok_and(|text| text.trim_end() == value);
    let is_pods = pod.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("pod"));
    is_pods && (is("cpu.shares", "1024") || is("cpu.weight", "100"))
}

/// Files that belong to Pods, sandboxes and containers, and the run directory.
fn files(node: &TestNode, lines: &mut BTreeSet<String>) {
    let data = node.data_dir();
    for directory in
        [data.join("pods"), data.join("sandboxes"), data.join("containers"), node.run_dir(), node.log_dir()]
    {
        walk(&directory, lines);
    }
}

fn walk(directory: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        lines.insert(format!("file: {}", entry.path().display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), lines);
        }
    }
}

/// Events are left out: they tell what happened, and end by themselves.
fn objects(node: &TestNode, lines: &mut BTreeSet<String>) {
    for resource in ["pods", "configmaps", "secrets", "namespaces", "nodes"] {
        let names = node.api().names(&format!("/api/v1/{resource}"));
        lines.extend(names.iter().map(|name| format!("{resource}: {name}")));
    }
}

/// Descriptors of the daemon that hold something alive: namespaces, processes, and paths of Pods. Gives their number.
fn daemon_descriptors(node: &TestNode, spares: &Spares, lines: &mut BTreeSet<String>) -> usize {
    let data = node.data_dir().display().to_string();
    let (mut count, mut pidfds) = (0_usize, 0);
    for entry in fs::read_dir(format!("/proc/{}/fd", node.daemon_pid())).into_iter().flatten().flatten() {
        count += 1;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        pidfds += usize::from(target == "anon_inode:[pidfd]");
        let holds = ["net:[", "mnt:[", "ipc:[", "uts:[", "pid:["];
        if holds.iter().any(|prefix| target.starts_with(prefix)) || target.starts_with(&data) {
            lines.insert(format!("descriptor of the daemon: {target}"));
        }
    }
    if pidfds > (spares::DESCRIPTORS_EACH - 1) * spares.count() {
        lines.insert("descriptor of the daemon: pidfds beside those of spare sandboxes".to_owned());
    }
    count.saturating_sub(spares::DESCRIPTORS_EACH * spares.count())
}

/// Tables of the store that hold what exists because of Pods. They are read when no daemon holds the store.
const RECORD_TABLES: [&str; 5] = ["sandboxes", "containers", "network-addresses", "image-hold", "agent-pods"];

fn records(node: &mut TestNode) {
    let mut left = records_left(node);
    // A daemon that is told to end finishes nothing: what it had not given back yet, the next one does.
    for _ in 0..4 {
        if left.is_empty() {
            return;
        }
        node.start_daemon();
        left = records_left(node);
    }
    assert!(left.is_empty(), "records left in the store:\n  {}", left.join("\n  "));
}

/// Stops the daemon and reads its store.
fn records_left(node: &mut TestNode) -> Vec<String> {
    node.stop_daemon();
    let mut left = Vec::new();
    let store = store::Store::open(&node.data_dir().join("store")).unwrap();
    for table in RECORD_TABLES {
        let records = store.records::<serde_json::Value>(table).unwrap();
        left.extend(records.into_iter().map(|(key, value)| format!("{table} {key}: {value}")));
    }
    left
}
