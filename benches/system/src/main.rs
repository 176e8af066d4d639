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
mod idle;
mod images;
mod material;
mod memory;
mod monopod;
mod peers;
mod plan;
mod report;
mod streams;
mod svg;
mod websocket;
mod works;

use std::path::Path;
use std::process::ExitCode;

use e2e::TestNode;
use floor::Floor;
use images::Storage;
use material::Lines;
use peers::Peers;
use plan::{Plan, USAGE};
use report::{Engine, Report};

/// Beside so many Pods the daemon is watched with nothing to do, and beside so many a new one takes over: as well as beside the most.
const IDLE: usize = 100;
const TAKEN_OVER: usize = 200;

fn main() -> ExitCode {
    if let Some(code) = e2e::serve::play_role() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = Plan::parse(&arguments) else {
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

fn measure(plan: &Plan) -> Report {
    let directory = tempfile::Builder::new().prefix("monopod-bench-").tempdir().unwrap();
    let directory = directory.path();
    let mut report = Report { machine: material::machine(directory), rows: Vec::new() };
    if plan.api {
        api(plan, &mut report);
        return report;
    }
    let mut floor = match &plan.floor {
        Some(built) => Some(Floor::built(built)),
        None => Floor::build(&directory.join("floor")),
    };
    let peers = plan.peers.as_deref().map(Peers::start);
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
    // In the node's directory, which its containers may see.
    let lines = Lines::write(node.path("material"), plan.lines);
    if let Some(floor) = &mut floor {
        floor.take_lines(&lines);
    }
    through_streams(plan, &node, &lines, floor.as_ref(), peers.as_ref(), &mut report);
    if let Some(megabytes) = plan.image {
        images(plan, megabytes, &node, peers.as_ref(), directory, &mut report);
    }
    drop(peers);
    if plan.clients {
        api(plan, &mut report);
    }
    beside_others(plan, &mut node, &mut report);
    report
}

/// The API under many clients, and etcd where there are peers.
fn api(plan: &Plan, report: &mut Report) {
    let etcd = plan.peers.as_ref().map(|peers| peers.with_file_name("etcd"));
    api::measure(&api::Load { rounds: plan.rounds.max(5), etcd: etcd.as_deref() }, report);
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

/// Much data through logs, exec, cp and port-forward, a few times.
fn through_streams(
    plan: &Plan,
    node: &TestNode,
    lines: &Lines,
    floor: Option<&Floor>,
    peers: Option<&Peers>,
    report: &mut Report,
) {
    streams::stalled(node, lines, report);
    for _ in 0..plan.times {
        monopod::logs(node, lines, report);
        streams::measure(node, lines, report);
        if let Some(floor) = floor {
            floor.measure("logs", 1, report);
            floor.measure("streams", 1, report);
        }
        if let Some(peers) = peers {
            peers.logs(lines, report);
        }
    }
}

/// A large image, a few times.
fn images(
    plan: &Plan,
    megabytes: usize,
    node: &TestNode,
    peers: Option<&Peers>,
    directory: &Path,
    report: &mut Report,
) {
    let image = material::large_image(directory, megabytes);
    let storage = Storage::with(&image, node, directory);
    for _ in 0..plan.times {
        images::load(node, &image, report);
        floor::gunzip(&image, report);
        if let Some(peers) = peers {
            peers.load(&image, report);
        }
        if let Some(storage) = &storage {
            images::pull(node, &image, storage, report);
        }
        if let (Some(peers), Some(storage)) = (peers, &storage) {
            peers.pull(&image, storage, report);
        }
    }
}

/// More and more Pods, and what they cost: to start one more, when nothing happens, and when the daemon starts anew.
fn beside_others(plan: &Plan, node: &mut TestNode, report: &mut Report) {
    let mut present = 0;
    for &pods in &plan.pods {
        monopod::many(node, present, pods, plan.rounds.max(10), report);
        present = pods;
        let is_last = plan.pods.last() == Some(&pods);
        if is_last || pods == IDLE {
            idle::measure(node, pods, plan.idle, report);
        }
        if is_last || pods == TAKEN_OVER {
            for _ in 0..plan.times {
                monopod::restart(node, &works::take_over(pods), report);
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
    let beside = plan.pods.iter().filter_map(|pods| Some((count(*pods), median(&works::beside(*pods))?)));
    let points: Vec<_> = median(works::START).map(|time| (0.0, time)).into_iter().chain(beside).collect();
    put("growth.svg", &svg::line("Start of a Pod beside others (median)", "ms", "running Pods", &points));
}
