//! A Pod of three containers, one of them a sidecar, that ends while the daemon dies at each of its steps.

use std::fs;
use std::time::{Duration, Instant};

use e2e::node::condition;
use e2e::{TestNode, limit};
use serde_json::{Value, json};

tests! {
    a_stop_that_is_cut_at_any_step_comes_to_the_status_of_one_that_is_not,
    the_last_end_is_known_however_soon_the_daemon_dies,
    a_delete_that_is_cut_at_any_step_ends_in_order_and_leaves_nothing,
}

const NAME: &str = "ends-step-by-step";
const POD: &str = "/api/v1/namespaces/default/pods/ends-step-by-step";
/// All that is told, but for the order of what happens at once.
const STEPS: [&str; 9] = [
    "proxy hook",
    "main hook begins",
    "helper is told",
    "main hook ends",
    "main is told",
    "main ends",
    "helper ends",
    "proxy is told",
    "proxy ends",
];
const STARTS: usize = 3;

fn steps(node: &TestNode) -> Vec<String> {
    let told = fs::read_to_string(node.path("steps")).unwrap_or_default();
    told.lines().skip(STARTS).map(str::to_owned).collect()
}

fn run(node: &TestNode) {
    fs::remove_file(node.path("steps")).ok();
    node.run_ready(NAME);
    e2e::eventually(limit(10), "all have started", || {
        let told = fs::read_to_string(node.path("steps")).unwrap_or_default();
        if told.lines().count() == STARTS { Ok(()) } else { Err(told) }
    });
}

/// Kills the daemon once that step has been taken, and a moment later, so that what comes between two of them is cut, too.
fn cut(node: &mut TestNode, step: &str, moment: Duration) {
    e2e::eventually(limit(20), step, || {
        let told = steps(node);
        if told.iter().any(|one| one == step) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    // The fault's own time, not a wait for something.
    std::thread::sleep(moment);
    node.kill_daemon();
    node.start_daemon();
}

/// Each step was taken, in its turn, and each container ended once. What was under way as the daemon died, a hook or a
/// signal, the next one may have sent again.
#[track_caller]
fn assert_in_order(told: &[String], what: &str) {
    // Of what was repeated, the first: nothing comes before all that it waits for has happened once.
    let place = |step: &str| {
        let found = told.iter().position(|one| one == step);
        found.unwrap_or_else(|| panic!("{what}: {step:?} is missing in {told:?}"))
    };
    for step in STEPS {
        let count = told.iter().filter(|one| *one == step).count();
        let once = step.ends_with(" ends") && !step.contains("hook");
        assert!(count == 1 || (!once && count > 0), "{what}: {step:?} in {told:?}");
    }
    let before = [
        ("proxy hook", "proxy is told"),
        ("main hook begins", "main hook ends"),
        ("main hook ends", "main is told"),
        ("main is told", "main ends"),
        ("helper is told", "helper ends"),
        ("main ends", "proxy is told"),
        ("helper ends", "proxy is told"),
        ("proxy is told", "proxy ends"),
    ];
    for (first, second) in before {
        assert!(place(first) < place(second), "{what}: {second:?} came before {first:?}: {told:?}");
    }
}

/// Moments after a step at which the daemon is killed.
fn moments() -> [Duration; 3] {
    [0, 1_500, 8_000].map(Duration::from_micros)
}

/// All of the status but times, addresses and names of runs.
fn without_accidents(mut status: Value) -> Value {
    match &mut status {
        Value::Object(fields) => {
            for field in
                ["containerID", "startedAt", "finishedAt", "lastTransitionTime", "startTime", "podIP", "podIPs"]
            {
                fields.remove(field);
            }
            fields.values_mut().for_each(|value| *value = without_accidents(value.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_accidents(item.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    status
}

/// Ends the Pod by its deadline, so that its object and its status stay.
fn stopped(node: &mut TestNode, kill: Option<(&str, Duration)>) -> Value {
    run(node);
    node.api().patch(POD, &json!({ "spec": { "activeDeadlineSeconds": 1 } }));
    if let Some((step, moment)) = kill {
        cut(node, step, moment);
    }
    let pod = node.wait_phase(NAME, "Failed");
    assert_in_order(&steps(node), &format!("killed at {kill:?}"));
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    e2e::eventually(limit(10), "nothing of it runs", || {
        let left = node.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let status = without_accidents(node.pod(NAME)["status"].take());
    node.delete_pod(NAME);
    status
}

fn a_stop_that_is_cut_at_any_step_comes_to_the_status_of_one_that_is_not(node: &mut TestNode) {
    let undisturbed = stopped(node, None);
    assert_eq!(undisturbed["reason"], "DeadlineExceeded", "{undisturbed}");
    let codes: Vec<_> = ["initContainerStatuses", "containerStatuses"]
        .iter()
        .flat_map(|list| undisturbed[list].as_array().unwrap())
        .map(|status| status["state"]["terminated"]["exitCode"].as_i64())
        .collect();
    assert_eq!(codes, [Some(3), Some(0), Some(5)]);
    for step in STEPS {
        for moment in moments() {
            let disturbed = stopped(node, Some((step, moment)));
            assert_eq!(disturbed, undisturbed, "killed {moment:?} after {step:?}");
        }
    }
}

fn the_last_end_is_known_however_soon_the_daemon_dies(node: &mut TestNode) {
    // Somewhere in here it is stored, and infra ends.
    for moment in (0..10).map(|fifths| Duration::from_micros(200 * fifths)) {
        run(node);
        node.api().patch(POD, &json!({ "spec": { "activeDeadlineSeconds": 1 } }));
        // Looked for without a pause, which would be longer than all of it.
        let limit = Instant::now() + limit(20);
        while !steps(node).iter().any(|step| step == "proxy ends") {
            assert!(Instant::now() < limit, "{:?}", steps(node));
        }
        std::thread::sleep(moment);
        node.kill_daemon();
        node.start_daemon();
        let pod = node.wait_phase(NAME, "Failed");
        let proxy = &pod["status"]["initContainerStatuses"][0]["state"];
        assert_eq!(proxy["terminated"]["exitCode"], 3, "killed {moment:?} after its end: {proxy}");
        node.delete_pod(NAME);
    }
}

fn a_delete_that_is_cut_at_any_step_ends_in_order_and_leaves_nothing(node: &mut TestNode) {
    for step in STEPS {
        run(node);
        let answer = node.api().request("DELETE", POD, None);
        assert!(matches!(answer.code, 200 | 202), "{}", answer.body);
        cut(node, step, Duration::ZERO);
        e2e::eventually(limit(20), "the Pod is gone", || {
            let left = node.api().names("/api/v1/pods");
            if left.is_empty() { Ok(()) } else { Err(format!("killed after {step:?}: {left:?}")) }
        });
        assert_in_order(&steps(node), &format!("killed after {step:?}"));
        assert_eq!(node.processes().len(), 0, "killed after {step:?}: {:?}", node.processes());
    }
}
