//! Measures the whole system on a machine of its own, the bare kernel, and the peers, in one run and in turns.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark: what goes wrong ends it, and clocks and programs are what it is about"
)]

mod api;
mod client;
mod cri;
mod etcd;
mod figures;
mod floor;
mod grpc;
mod material;
mod memory;
mod monopod;
mod peers;
mod report;
mod svg;
mod works;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use e2e::TestNode;
use floor::Floor;
use peers::Peers;
use report::{Engine, Report};

const USAGE: &str =
    "usage: cargo xtask bench [-- [--quick] [--rounds N] [--pods N,N…] [--peers DIR] [--write DIR] [--api]]
  --quick       two minutes: fewer of all, and no peers
  --rounds N    how often each engine has its turn (default 20)
  --pods N,N    beside how many Pods a start is measured (default 100,500,1000)
  --peers DIR   where the peers are installed (default target/peers; `none`: without them)
  --write DIR   leaves results.json and plots there
  --api         nothing but the API under many clients";

/// What is asked for.
struct Plan {
    rounds: usize,
    /// Pods that Monopod and the floor start in one turn.
    each: usize,
    pods: Vec<usize>,
    peers: Option<PathBuf>,
    write: Option<PathBuf>,
    large: bool,
    /// Nothing but the API under many clients.
    api: bool,
}

fn main() -> ExitCode {
    if let Some(code) = e2e::serve::play_role() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = parse(&arguments) else {
        println!("{USAGE}");
        return ExitCode::FAILURE;
    };
    if !rustix::process::geteuid().is_root() {
        println!("bench: skipped: needs root");
        return ExitCode::SUCCESS;
    }
    // All that is started here has it too, the peers as well: what else the machine does matters less.
    rustix::process::setpriority_process(None, -15).ok();
    let report = measure(&plan);
    println!("{}", report.table());
    if let Some(directory) = &plan.write {
        write(&report, &plan, directory);
    }
    ExitCode::SUCCESS
}

fn parse(arguments: &[String]) -> Option<Plan> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
    let mut plan = Plan {
        rounds: 20,
        each: 10,
        pods: vec![100, 500, 1000],
        peers: Some(target),
        write: None,
        large: true,
        api: false,
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => {
                plan = Plan { rounds: 5, each: 8, pods: vec![50, 200], peers: None, large: false, ..plan };
            }
            "--rounds" => plan.rounds = words.next()?.parse().ok()?,
            "--pods" => plan.pods = words.next()?.split(',').map(|pods| pods.parse().ok()).collect::<Option<_>>()?,
            "--peers" => plan.peers = Some(words.next()?).filter(|word| *word != "none").map(PathBuf::from),
            "--api" => plan.api = true,
            "--write" => plan.write = Some(words.next()?.into()),
            _ => return None,
        }
    }
    Some(plan)
}

fn measure(plan: &Plan) -> Report {
    let directory = tempfile::Builder::new().prefix("monopod-bench-").tempdir().unwrap();
    if plan.api {
        let mut report = Report { machine: material::machine(directory.path()), rows: Vec::new() };
        api(plan, &mut report);
        return report;
    }
    let floor = Floor::build(&directory.path().join("floor"));
    let peers = plan.peers.as_deref().map(Peers::start);
    let mut report = Report { machine: material::machine(directory.path()), rows: Vec::new() };
    report.machine.push(("binary", material::size_of_binary()));
    report.machine.extend(peers.as_ref().map(|peers| ("peers", peers.versions())));
    let mut node = TestNode::bare();
    node.serve_arguments = vec!["--max-pods".to_owned(), "100000".to_owned()];
    node.start_daemon();
    node.load_image("busybox");
    for _ in 0..plan.rounds.min(10) {
        monopod::restart(&mut node, "daemon start to serving, after kill -9", &mut report);
    }
    for _ in 0..plan.rounds {
        turn(plan, &node, floor.as_ref(), peers.as_ref(), &mut report);
    }
    streams(plan, &node, floor.as_ref(), peers.as_ref(), directory.path(), &mut report);
    drop(peers);
    api(plan, &mut report);
    let mut present = 0;
    for pods in &plan.pods {
        monopod::many(&node, present, *pods, plan.rounds.max(10), &mut report);
        present = *pods;
    }
    if let Some(pods) = plan.pods.last() {
        monopod::idle(&node, *pods, Duration::from_secs(if plan.large { 20 } else { 5 }), &mut report);
        monopod::restart(&mut node, &format!("daemon start to serving with {pods} Pods to take over"), &mut report);
    }
    report
}

/// The API under many clients, and etcd where there are peers.
fn api(plan: &Plan, report: &mut Report) {
    let etcd = plan.peers.as_ref().map(|peers| peers.with_file_name("etcd"));
    api::measure(&api::Load { rounds: plan.rounds.div_ceil(4), etcd: etcd.as_deref() }, report);
}

/// Everybody once, one after the other: what the machine does meanwhile meets all alike.
fn turn(plan: &Plan, node: &TestNode, floor: Option<&Floor>, peers: Option<&Peers>, report: &mut Report) {
    for _ in 0..plan.each {
        monopod::life(node, report);
    }
    if let Some(floor) = floor {
        floor.measure("pod", plan.each.div_ceil(2), report);
        floor.measure("exec", plan.each, report);
    }
    for _ in 0..plan.each.div_ceil(4) {
        monopod::commands(node, report);
    }
    if let Some(peers) = peers {
        peers.measure(report);
    }
}

/// What takes long, a few times.
fn streams(
    plan: &Plan,
    node: &TestNode,
    floor: Option<&Floor>,
    peers: Option<&Peers>,
    directory: &Path,
    report: &mut Report,
) {
    let times = if plan.large { 3 } else { 1 };
    // In the node's directory, which its containers may see.
    let below = node.path("material");
    std::fs::create_dir_all(&below).unwrap();
    let lines = below.join("lines");
    material::write_lines(&lines);
    for _ in 0..times {
        monopod::logs(node, &lines, report);
        if let Some(floor) = floor {
            floor.measure("logs", 1, report);
        }
        if let Some(peers) = peers {
            peers.logs(&lines, report);
        }
    }
    if plan.large {
        let archive = material::large_image(directory);
        for _ in 0..times {
            monopod::load(node, &archive, report);
            if let Some(peers) = peers {
                peers.load(&archive, report);
            }
        }
    }
}

fn write(report: &Report, plan: &Plan, directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let put = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    put("results.json", &format!("{:#}\n", report.json()));
    put("results.txt", &report.table());
    for (work, title, name) in [
        (works::START, "Start of a Pod with one container, until its program runs", "start.svg"),
        (works::GONE, "From delete until nothing is left", "delete.svg"),
        (works::MEMORY, "Memory beside the workload, one idle Pod", "memory.svg"),
    ] {
        if let Some(row) = report.row(work) {
            let values: Vec<_> =
                row.engines.iter().map(|(engine, figures)| (engine.name(), figures.median())).collect();
            put(name, &svg::bars(&format!("{title} (median, logarithmic)"), row.unit, &values));
        }
    }
    let median = |work: &str| report.row(work)?.of(Engine::Monopod).map(figures::Figures::median);
    let count = |pods: usize| f64::from(u32::try_from(pods).unwrap());
    let beside = plan.pods.iter().filter_map(|pods| Some((count(*pods), median(&monopod::beside(*pods))?)));
    let points: Vec<_> = median(works::START).map(|time| (0.0, time)).into_iter().chain(beside).collect();
    put("growth.svg", &svg::line("Start of a Pod beside others (median)", "ms", "running Pods", &points));
}
