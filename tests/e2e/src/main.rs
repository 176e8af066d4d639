//! The end-to-end tests: each on a machine of its own, each with a leak check. `e2e --help` tells the options,
//! and `--core` takes only those of [`CORE`].
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

/// What any machine must pass, also one that is emulated and so twenty times slower: what depends on the kernel's
/// version and its cgroups, on cold ways once each, and on no short times.
const CORE: &[&str] = &[
    "attacks::the_engine_cannot_be_overwritten",
    "container::devices_are_the_default_list_and_no_other_opens",
    "container::limits_and_signals_of_the_daemon_are_not_inherited",
    "container::paths_of_the_kernel_are_masked_or_read_only",
    "crash::a_daemon_that_stops_orderly_leaves_pods_running",
    "crash::a_dead_infra_is_replaced",
    "crash::after_a_reboot_the_pods_of_the_store_start_again",
    "crash::pods_run_on_while_the_daemon_is_dead",
    "eviction::a_pod_over_its_disk_limit_is_evicted",
    "eviction::a_pod_that_takes_all_memory_is_evicted",
    "eviction::a_pod_that_takes_all_processes_is_evicted",
    "eviction::on_a_full_disk_the_greediest_pod_goes",
    "host::a_daemon_of_another_binary_takes_over",
    "host::daemons_side_by_side_share_no_user_ids",
    "host_ports::a_host_port_leads_to_the_pod_from_everywhere",
    "image::whiteouts_links_and_modes_of_layers_hold",
    "isolation::a_pod_that_forks_without_end_meets_its_limit",
    "isolation::devices_beyond_the_default_list_are_refused_by_cgroup",
    "isolation::runtime_default_refuses_what_leads_out",
    "life::a_container_has_its_grace_period",
    "life::init_containers_run_in_order",
    "logs::logs_have_the_kubelets_format_and_place",
    "network::pods_reach_out_by_masquerade",
    "resources::a_running_pod_is_resized_in_place",
    "resources::an_oom_kill_is_told_as_one",
    "resources::limits_are_in_the_cgroup",
    "sandbox::containers_share_network_ipc_and_host_name_and_nothing_else",
    "storage::an_empty_dir_is_shared_on_disk_and_in_memory",
    "storage::config_maps_and_secrets_become_files",
    "streams::exec_gives_the_exit_code",
    "streams::exec_in_a_terminal_resizes_and_has_job_control",
    "users::containers_share_the_ids_and_programs_work_as_ever",
    "users::every_pod_has_ids_of_its_own_for_as_long_as_it_lives",
    "users::files_have_their_owners_inside_and_outside",
    "users::ids_beyond_the_block_are_refused",
    "users::root_of_a_pod_is_root_of_nothing_else",
    "users::unmasked_proc_serves_a_container_in_a_container",
];

fn main() -> ExitCode {
    if let Some(code) = e2e::serve::play_role() {
        return code;
    }
    let (core, arguments): (Vec<_>, Vec<_>) = std::env::args_os().partition(|argument| argument == "--core");
    let only_core = !core.is_empty();
    let mut arguments = Arguments::from_iter(arguments);
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
    let mut trials: Vec<Trial> = tests::ALL.iter().flat_map(|tests| *tests).map(trial).collect();
    if only_core {
        trials.retain(|trial| CORE.contains(&trial.name()));
        assert_eq!(trials.len(), CORE.len(), "CORE names a test that there is not");
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    println!("e2e: {} passed, {} failed", conclusion.num_passed, conclusion.num_failed);
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn trial(test: &tests::Test) -> Trial {
    let run = test.run;
    let name = format!("{}::{}", test.module.rsplit("::").next().unwrap_or(""), test.name);
    Trial::test(name.clone(), move || run_in_public(&name, run)).with_ignored_flag(test.long)
}

thread_local! {
    /// Where and why the test of this thread failed.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Machines of the continuous integration are shared: there a test that fails runs once more on a new node, and says so.
fn run_in_public(name: &str, test: fn(&mut TestNode)) -> Result<(), Failed> {
    match run_on_node(test) {
        Err(first) if std::env::var_os("CI").is_some() => {
            println!("e2e: {name} failed and runs once more:\n{}", first.message().unwrap_or_default());
            run_on_node(test)
        }
        outcome => outcome,
    }
}

/// Runs a test on a new node, and then the leak check; a failure tells what the daemon logged last.
fn run_on_node(test: fn(&mut TestNode)) -> Result<(), Failed> {
    let mut node = catch_unwind(TestNode::start).map_err(|_panic| PANIC.take())?;
    let before = Snapshot::settled(&node);
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
