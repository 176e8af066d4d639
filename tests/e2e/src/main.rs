//! The end-to-end tests: each on a machine of its own, each with a leak check. `e2e --help` tells the options.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod tests;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use e2e::leaks::{self, Snapshot};
use e2e::{TestNode, images};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    if let Some(code) = e2e::serve::play_role() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    if !rustix::process::geteuid().is_root() {
        println!("e2e: skipped: needs root");
        return ExitCode::SUCCESS;
    }
    if !arguments.list {
        images::directory();
    }
    // Two at a time: most of a test is waiting for processes of the other cores.
    arguments.test_threads.get_or_insert(2);
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    let trials = tests::ALL.iter().flat_map(|tests| *tests).map(|test| {
        let run = test.run;
        let name = format!("{}::{}", test.module.rsplit("::").next().unwrap_or(""), test.name);
        Trial::test(name, move || run_on_node(run)).with_ignored_flag(test.long)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    println!("e2e: {} passed, {} failed", conclusion.num_passed, conclusion.num_failed);
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

thread_local! {
    /// Where and why the test of this thread failed.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a test on a new node, and then the leak check; a failure tells what the daemon logged last.
fn run_on_node(test: fn(&mut TestNode)) -> Result<(), Failed> {
    let mut node = catch_unwind(TestNode::start).map_err(|_panic| PANIC.take())?;
    let before = Snapshot::take(&node);
    let result = catch_unwind(AssertUnwindSafe(|| {
        test(&mut node);
        leaks::check(&mut node, &before);
    }));
    result.map_err(|_panic| {
        let log = node.daemon_log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        Failed::from(format!("{}\n--- the daemon's log ends with\n{tail}", PANIC.take()))
    })
}
