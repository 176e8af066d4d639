//! What it costs when nothing happens: processor, wake-ups and writes beside Pods that only sleep.

use std::time::Duration;

use e2e::TestNode;

use crate::memory::{self, Activity};
use crate::report::{Engine, Report};

/// Looks for so long at what the daemon, and all infra processes together, do beside these Pods.
pub fn measure(node: &TestNode, pods: usize, time: Duration, report: &mut Report) {
    // What the starts have left to do is done: the store's file is written, threads that waited for the disk have ended.
    std::thread::sleep(time);
    let infra: Vec<u32> = node.infra_processes().iter().map(|process| process.pid).collect();
    let look = || -> (Activity, Vec<Activity>) {
        (Activity::of(node.daemon_pid()), infra.iter().map(|pid| Activity::of(*pid)).collect())
    };
    let written = || memory::written(node.daemon_pid());
    let ((daemon_before, infra_before), written_before) = (look(), written());
    std::thread::sleep(time);
    let ((daemon, infra), written) = (look(), written() - written_before);
    let mut add = |what: &str, unit: &'static str, value: f64| {
        report.add(&format!("{what} with {pods} idle Pods"), unit, Engine::Monopod, value);
    };
    let per_second = |count: u64| f64::from(u32::try_from(count).unwrap()) / time.as_secs_f64();
    let (on_processor, wakeups) = daemon.since(&daemon_before);
    add("processor of the daemon", "‰", on_processor.as_secs_f64() * 1000.0 / time.as_secs_f64());
    add("wake-ups of the daemon", "/s", per_second(wakeups));
    add("written by the daemon", "kB", f64::from(u32::try_from(written / 1024).unwrap()));
    let infra = infra.iter().zip(&infra_before).map(|(now, before)| now.since(before).1).sum();
    add("wake-ups of all infra processes", "/s", per_second(infra));
}
