//! Tables of what is decided for what is there.

use runtime::{ContainerExit, ContainerState, ContainerStatus, ExitReason, PodSandboxState, PodSandboxStatus};
use serde_json::{Value, json};
use spec::{Digest, PodRef, PodUid, Timestamp};

use super::*;
use crate::observation::{RememberedExit, RememberedRun, RunFindings};
use crate::testing::{desired_pod, pod};

fn now() -> Now {
    Now { wall: time(1000), boot: BootTime::since_boot(Duration::from_secs(1000)) }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn sandbox(attempt: u32, state: PodSandboxState) -> PodSandboxStatus {
    PodSandboxStatus {
        id: SandboxId::new(format!("s{attempt}")),
        pod: PodRef::new("default", "web"),
        uid: PodUid::new("u-web"),
        attempt,
        state,
        addresses: Vec::new(),
        created_at: time(i64::from(attempt)),
        resources: runtime::LinuxResources::default(),
        labels: BTreeMap::new(),
    }
}

/// `app/0@s0 running`, `app/0@s0 exit 1`, `app/1@s1 created`.
fn run(text: &str) -> ContainerStatus {
    let (who, state) = text.split_once(' ').unwrap();
    let (name, rest) = who.split_once('/').unwrap();
    let (attempt, sandbox) = rest.split_once('@').unwrap();
    let state = match state.split_once(' ') {
        None if state == "running" => ContainerState::Running { started_at: time(900) },
        None => ContainerState::Created,
        Some((_, code)) => ContainerState::Exited(ContainerExit {
            started_at: Some(time(900)),
            finished_at: time(995),
            exit_code: code.parse().unwrap(),
            reason: ExitReason::Exited,
        }),
    };
    ContainerStatus {
        id: ContainerId::new(who),
        sandbox_id: SandboxId::new(sandbox),
        pod_uid: PodUid::new("u-web"),
        name: ContainerName::new(name),
        attempt: attempt.parse().unwrap(),
        image_ref: "app:1".to_owned(),
        image_id: Digest::sha256([0; 32]),
        labels: BTreeMap::new(),
        created_at: time(900),
        log_path: "/".into(),
        resources: runtime::LinuxResources::default(),
        user: None,
        stop_signal: "SIGTERM".to_owned(),
        state,
    }
}

fn observe(sandboxes: Vec<PodSandboxStatus>, runs: &[&str]) -> PodObservation {
    let containers = runs.iter().map(|text| run(text)).collect();
    let mut observed = PodObservation::new(&PodUid::new("u-web"), sandboxes, containers);
    let exit = BootTime::since_boot(Duration::from_secs(995));
    observed.exits = observed.containers.iter().map(|run| (run.id.clone(), exit)).collect();
    observed
}

fn show(actions: &PodActions) -> String {
    let mut words = Vec::new();
    words.extend(actions.stop.iter().map(|stop| match stop.after.as_slice() {
        [] => format!("stop {}", stop.id),
        after => {
            let after: Vec<_> = after.iter().map(ContainerId::as_str).collect();
            format!("stop {} after {}", stop.id, after.join(" "))
        }
    }));
    words.extend(actions.discard.iter().map(|discard| format!("discard {}", discard.id)));
    words.extend(actions.discard_sandboxes.iter().map(|id| format!("discard {id}")));
    words.extend(actions.run_sandbox.iter().map(|run| format!("sandbox {} dead {}", run.attempt, run.dead.len())));
    words.extend(actions.start.iter().map(|start| {
        let again = if start.unstarted.is_some() { " again" } else { "" };
        format!("start {}/{}{again}", start.name, start.attempt)
    }));
    words.extend(actions.backing_off.iter().map(|(name, delay)| format!("{name} waits {}s", delay.as_secs())));
    if actions.ended {
        words.push("ended".to_owned());
    }
    words.join(", ")
}

/// A container whose name begins with `s` is a sidecar.
fn spec(policy: &str, init: &[&str], apps: &[&str]) -> Value {
    let container = |name: &&str| {
        let restart_policy = name.starts_with('s').then_some("Always");
        json!({ "name": name, "image": "app:1", "restartPolicy": restart_policy })
    };
    let list = |names: &[&str]| -> Value { names.iter().map(container).collect() };
    json!({ "restartPolicy": policy, "initContainers": list(init), "containers": list(apps) })
}

fn ready(attempt: u32) -> PodSandboxStatus {
    sandbox(attempt, PodSandboxState::Ready)
}

fn dead(attempt: u32) -> PodSandboxStatus {
    sandbox(attempt, PodSandboxState::NotReady)
}

/// Policy, init containers, app containers, sandboxes, runs, and what is decided.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    Vec<PodSandboxStatus>,
    &'static [&'static str],
    &'static str,
);

#[test]
fn a_pod_that_syncs_does_the_next_thing() {
    let cases: &[Case] = &[
        ("Always", &[], &["a", "b"], vec![], &[], "sandbox 0 dead 0, start a/0, start b/0"),
        ("Always", &["i", "j"], &["a"], vec![], &[], "sandbox 0 dead 0, start i/0"),
        ("Always", &["i", "j"], &["a"], vec![ready(0)], &[], "start i/0"),
        ("Always", &["i", "j"], &["a"], vec![ready(0)], &["i/0@s0 running"], ""),
        ("Always", &["i", "j"], &["a"], vec![ready(0)], &["i/0@s0 created"], "start i/0 again"),
        ("Always", &["i", "j"], &["a"], vec![ready(0)], &["i/0@s0 exit 0"], "start j/0"),
        ("Always", &["i", "j"], &["a"], vec![ready(0)], &["i/0@s0 exit 1"], "start i/1"),
        ("Never", &["i", "j"], &["a"], vec![ready(0)], &["i/0@s0 exit 1"], "ended"),
        ("Always", &["i", "j"], &["a"], vec![ready(0)], &["i/0@s0 exit 0", "j/0@s0 exit 0"], "start a/0"),
        // Once an app container was made, init containers are done, whatever is left of them.
        ("Always", &["i"], &["a", "b"], vec![ready(0)], &["a/0@s0 running"], "start b/0"),
        ("Always", &[], &["a"], vec![ready(0)], &["a/0@s0 running"], ""),
        ("Always", &[], &["a"], vec![ready(0)], &["a/0@s0 exit 0"], "start a/1"),
        ("OnFailure", &[], &["a"], vec![ready(0)], &["a/0@s0 exit 1"], "start a/1"),
        ("OnFailure", &[], &["a"], vec![ready(0)], &["a/0@s0 exit 0"], "ended"),
        ("OnFailure", &[], &["a", "b"], vec![ready(0)], &["a/0@s0 exit 0", "b/0@s0 running"], ""),
        ("Never", &[], &["a", "b"], vec![ready(0)], &["a/0@s0 exit 1", "b/0@s0 running"], ""),
        ("Never", &[], &["a", "b"], vec![ready(0)], &["a/0@s0 exit 1", "b/0@s0 exit 0"], "ended"),
        // A crash between create and start does not count as a restart.
        ("Never", &[], &["a"], vec![ready(0)], &["a/0@s0 created"], "start a/0 again"),
        ("Always", &[], &["a"], vec![ready(0)], &["a/1@s0 created", "a/0@s0 exit 1"], "start a/1 again"),
        (
            "Always",
            &[],
            &["a"],
            vec![ready(0)],
            &["a/2@s0 exit 1", "a/1@s0 exit 1", "a/0@s0 exit 1"],
            "discard a/1@s0, discard a/0@s0, start a/3",
        ),
        (
            "Always",
            &[],
            &["a"],
            vec![ready(0)],
            &["a/2@s0 running", "a/1@s0 exit 1", "a/0@s0 exit 1"],
            "discard a/0@s0",
        ),
        // A dead sandbox: all again, in a new one.
        ("Always", &[], &["a"], vec![dead(0)], &["a/0@s0 exit 137"], "sandbox 1 dead 1, start a/1"),
        ("Always", &["i"], &["a"], vec![dead(0)], &["i/0@s0 exit 0", "a/0@s0 exit 137"], "sandbox 1 dead 1, start i/1"),
        (
            "Always",
            &["i"],
            &["a"],
            vec![ready(1), dead(0)],
            &["i/0@s0 exit 0", "a/0@s0 exit 137"],
            "discard s0, start i/1",
        ),
        ("Always", &[], &["a"], vec![dead(0)], &[], "sandbox 1 dead 1, start a/0"),
        (
            "OnFailure",
            &[],
            &["a", "b"],
            vec![dead(0)],
            &["a/0@s0 exit 0", "b/0@s0 exit 137"],
            "sandbox 1 dead 1, start b/1",
        ),
        ("OnFailure", &[], &["a"], vec![dead(0)], &["a/0@s0 exit 0"], "ended"),
        ("Never", &[], &["a"], vec![dead(0)], &["a/0@s0 exit 137"], "ended"),
        ("Never", &["i"], &["a"], vec![dead(0)], &["i/0@s0 exit 0"], "ended"),
        ("Never", &[], &["a"], vec![dead(0)], &[], "sandbox 1 dead 1, start a/0"),
        ("Never", &["i"], &["a"], vec![dead(0)], &[], "sandbox 1 dead 1, start i/0"),
        ("OnFailure", &["i"], &["a"], vec![dead(0)], &["i/0@s0 exit 137"], "sandbox 1 dead 1, start i/1"),
        ("OnFailure", &["i", "j"], &["a"], vec![ready(0)], &["j/0@s0 exit 137"], "start j/1"),
        // Of init containers only the last that ran says how far the pod is.
        ("Always", &["i", "j", "k"], &["a"], vec![ready(0)], &["k/0@s0 running"], ""),
        ("Always", &["i", "j", "k"], &["a"], vec![ready(0)], &["k/0@s0 created"], "start k/0 again"),
        ("OnFailure", &[], &["a", "b"], vec![ready(0)], &["a/0@s0 exit 0", "b/0@s0 created"], "start b/0 again"),
        ("OnFailure", &[], &["a", "b"], vec![ready(0)], &["a/0@s0 exit 0", "b/0@s0 exit 111"], "start b/1"),
        ("Always", &[], &["a", "b"], vec![ready(0)], &["a/0@s0 exit 0", "b/0@s0 exit 111"], "start a/1, start b/1"),
        ("OnFailure", &[], &["a", "b"], vec![dead(1)], &["a/0@s1 exit 0", "b/0@s1 exit 0"], "ended"),
        ("Never", &[], &["a", "b"], vec![dead(1)], &["a/0@s1 exit 0", "b/0@s1 exit 0"], "ended"),
    ];
    for (policy, init, apps, sandboxes, runs, wanted) in cases {
        let desired = desired_pod(&pod(&spec(policy, init, apps)));
        let observed = observe(sandboxes.clone(), runs);
        let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
        assert_eq!(show(&actions), *wanted, "{policy} {init:?} {apps:?} with {runs:?}");
    }
}

/// Policies of containers before that of their pod (kubelet, `TestComputePodActionsWithContainerRestartRules`).
#[test]
fn a_policy_of_the_container_comes_before_that_of_its_pod() {
    let decide = |of_pod: &str, own: [Option<&str>; 2], sandbox: PodSandboxStatus, runs: &[&str]| {
        let mut spec = spec(of_pod, &[], &["a", "b", "c"]);
        for (place, policy) in own.into_iter().enumerate() {
            spec["containers"][place]["restartPolicy"] = json!(policy);
        }
        let observed = observe(vec![sandbox], runs);
        show(&compute_pod_actions(&desired_pod(&pod(&spec)), PodLifecycle::Syncing, &observed, now()))
    };
    let both = |policy| [Some(policy); 2];
    let ended: &[&str] = &["a/0@s0 exit 0", "b/0@s0 exit 111", "c/0@s0 running"];
    assert_eq!(decide("Never", both("Always"), ready(0), ended), "start a/1, start b/1");
    assert_eq!(decide("Never", both("OnFailure"), ready(0), ended), "start b/1");
    assert_eq!(decide("Always", both("Never"), ready(0), ended), "");
    let made: &[&str] = &["a/0@s0 exit 0", "b/0@s0 created", "c/0@s0 running"];
    assert_eq!(decide("Never", both("OnFailure"), ready(0), made), "start b/0 again");
    // A new sandbox runs all but those that were to succeed once and have.
    let dead_runs: &[&str] = &["a/0@s0 exit 137", "b/0@s0 exit 0", "c/0@s0 exit 137"];
    let once = decide("Always", [None, Some("OnFailure")], dead(0), dead_runs);
    assert_eq!(once, "sandbox 1 dead 1, start a/1, start c/1");
    let never = decide("Always", [None, Some("Never")], dead(0), dead_runs);
    assert_eq!(never, "sandbox 1 dead 1, start a/1, start b/1, start c/1");
    // Unless the pod has come to its end, which is asked first.
    let all = ["a/0@s0 exit 0", "b/0@s0 exit 0", "c/0@s0 exit 0"];
    assert_eq!(decide("OnFailure", both("Never"), dead(0), &all), "ended");
}

/// Of a failed init container a policy of its own decides, in the old sandbox and before a new one.
#[test]
fn an_init_container_that_failed_for_good_ends_the_pod() {
    for (of_pod, own, sandbox, wanted) in [
        ("Always", "Never", ready(0), "ended"),
        ("Always", "Never", dead(0), "ended"),
        ("Never", "OnFailure", ready(0), "start i/1"),
        ("Always", "OnFailure", dead(0), "sandbox 1 dead 1, start i/1"),
    ] {
        let mut spec = spec(of_pod, &["i"], &["a"]);
        spec["initContainers"][0]["restartPolicy"] = own.into();
        let desired = desired_pod(&pod(&spec));
        let observed = observe(vec![sandbox], &["i/0@s0 exit 1"]);
        let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
        assert_eq!(show(&actions), wanted, "{of_pod} {own}");
    }
}

/// What probes bring about (kubelet, `computePodActions`, `keepCount`).
#[test]
fn a_pod_none_of_whose_containers_is_kept_ends_as_a_whole() {
    type Row<'a> = (&'a str, Option<&'a str>, StopCause, &'a [&'a str], &'a str);
    let table: &[Row<'_>] = &[
        ("Always", None, StopCause::LivenessFailed, &["a/0@s0 running", "b/0@s0 running"], "stop a/0@s0"),
        ("Always", None, StopCause::StartupFailed, &["a/0@s0 running", "b/0@s0 running"], "stop a/0@s0"),
        ("Never", None, StopCause::LivenessFailed, &["a/0@s0 running", "b/0@s0 running"], "stop a/0@s0"),
        ("Never", None, StopCause::LivenessFailed, &["a/0@s0 running", "b/0@s0 exit 0"], "ended"),
        ("Never", None, StopCause::StartupFailed, &["a/0@s0 running", "b/0@s0 exit 1"], "ended"),
        ("OnFailure", None, StopCause::LivenessFailed, &["a/0@s0 running", "b/0@s0 exit 0"], "stop a/0@s0"),
        ("Never", Some("OnFailure"), StopCause::LivenessFailed, &["a/0@s0 running", "b/0@s0 exit 0"], "stop a/0@s0"),
        ("OnFailure", Some("Never"), StopCause::LivenessFailed, &["a/0@s0 running", "b/0@s0 exit 0"], "ended"),
        // A hook that failed is an end of the container, not of the pod.
        ("Never", None, StopCause::PostStartFailed, &["a/0@s0 running", "b/0@s0 exit 0"], "stop a/0@s0"),
    ];
    for (of_pod, own, cause, runs, wanted) in table {
        let mut spec = spec(of_pod, &[], &["a", "b"]);
        spec["containers"][0]["restartPolicy"] = json!(own);
        let mut observed = observe(vec![ready(0)], runs);
        let findings = RunFindings { started: true, ready: true, condemned: Some(*cause) };
        observed.findings.insert(ContainerId::new("a/0@s0"), findings);
        let desired = desired_pod(&pod(&spec));
        let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
        assert_eq!(show(&actions), *wanted, "{of_pod} {own:?} {cause:?} {runs:?}");
    }
}

#[test]
fn sidecars_gate_what_follows_them_and_are_kept_alive() {
    let ready = || vec![ready(0)];
    let cases: &[Case] = &[
        ("Always", &["s"], &["a"], vec![], &[], "sandbox 0 dead 0, start s/0"),
        ("Always", &["s"], &["a"], ready(), &[], "start s/0"),
        ("Always", &["s"], &["a"], ready(), &["s/0@s0 created"], "start s/0 again"),
        ("Always", &["s"], &["a", "b"], ready(), &["s/0@s0 running"], "start a/0, start b/0"),
        // It ended before it had opened the gate: the gate stays shut until it runs again.
        ("Always", &["s"], &["a"], ready(), &["s/0@s0 exit 0"], "start s/1"),
        ("Never", &["s"], &["a"], ready(), &["s/0@s0 exit 1"], "start s/1"),
        ("Never", &["s", "i"], &["a"], ready(), &["s/0@s0 running"], "start i/0"),
        ("Never", &["s", "i"], &["a"], ready(), &["s/0@s0 running", "i/0@s0 running"], ""),
        // Beside a later init container it is only kept alive.
        ("Never", &["s", "i"], &["a"], ready(), &["s/0@s0 exit 1", "i/0@s0 running"], "start s/1"),
        ("Always", &["s", "i"], &["a"], ready(), &["s/0@s0 exit 1", "i/0@s0 exit 0"], "start s/1, start a/0"),
        ("Always", &["s", "i"], &["a"], ready(), &["s/0@s0 running", "i/0@s0 exit 0"], "start a/0"),
        ("Always", &["s", "i"], &["a"], ready(), &["s/0@s0 exit 1", "i/0@s0 exit 1"], "start s/1, start i/1"),
        ("Always", &["i", "s"], &["a"], ready(), &["i/0@s0 exit 0", "s/0@s0 running"], "start a/0"),
        ("Always", &["s", "s2"], &["a"], ready(), &["s/0@s0 running"], "start s2/0"),
        ("Always", &["s", "s2"], &["a"], ready(), &["s/0@s0 exit 0", "s2/0@s0 running"], "start s/1, start a/0"),
        ("Never", &["s", "s2", "s3"], &["a"], ready(), &["s3/0@s0 exit 137"], "start s/0, start s2/0, start s3/1"),
        (
            "Always",
            &["s", "s2", "s3"],
            &["a", "b"],
            ready(),
            &["s3/0@s0 running"],
            "start s/0, start s2/0, start a/0, start b/0",
        ),
        (
            "Always",
            &["s", "s2", "s3"],
            &["a"],
            ready(),
            &["s/0@s0 exit 0", "s2/0@s0 running", "s3/0@s0 exit 0"],
            "start s/1, start s3/1",
        ),
        // Beside the app, whatever the policy.
        ("Never", &["s"], &["a"], ready(), &["s/0@s0 exit 0", "a/0@s0 running"], "start s/1"),
        ("Never", &["s"], &["a"], ready(), &["s/0@s0 exit 0", "a/0@s0 created"], "start s/1, start a/0 again"),
        // No app container is there any more: what was started last has to be there again before one is.
        ("Always", &["s"], &["a"], ready(), &["s/0@s0 exit 0", "a/0@s0 exit 1"], "start s/1"),
        ("Always", &["s"], &["a"], ready(), &["s/0@s0 running", "a/0@s0 exit 1"], "start a/1"),
        (
            "Always",
            &["s", "s2"],
            &["a"],
            ready(),
            &["s/0@s0 exit 0", "s2/0@s0 running", "a/0@s0 exit 1"],
            "start s/1, start a/1",
        ),
        (
            "Always",
            &["s", "i"],
            &["a"],
            ready(),
            &["s/0@s0 exit 0", "i/0@s0 exit 0", "a/0@s0 exit 1"],
            "start s/1, start a/1",
        ),
        (
            "Always",
            &["s"],
            &["a", "b"],
            ready(),
            &["s/0@s0 exit 0", "a/0@s0 exit 1", "b/0@s0 running"],
            "start s/1, start a/1",
        ),
        ("OnFailure", &["s", "s2"], &["a"], ready(), &["s2/0@s0 running", "a/0@s0 running"], "start s/0"),
        // The app decides about the end, and an init container that failed for good.
        ("Never", &["s"], &["a"], ready(), &["s/0@s0 running", "a/0@s0 exit 0"], "ended"),
        ("Never", &["s"], &["a"], ready(), &["s/0@s0 exit 1", "a/0@s0 exit 0"], "ended"),
        ("Never", &["s", "s2"], &["a"], ready(), &["s2/0@s0 exit 1", "a/0@s0 exit 0"], "ended"),
        ("Never", &["s"], &["a", "b"], ready(), &["s/0@s0 running", "a/0@s0 exit 0", "b/0@s0 running"], ""),
        ("OnFailure", &["s"], &["a"], ready(), &["s/0@s0 running", "a/0@s0 exit 1"], "start a/1"),
        ("Never", &["s", "i"], &["a"], ready(), &["s/0@s0 running", "i/0@s0 exit 1"], "ended"),
        // A dead sandbox: all again.
        (
            "Always",
            &["s"],
            &["a"],
            vec![dead(0)],
            &["s/0@s0 exit 137", "a/0@s0 exit 137"],
            "sandbox 1 dead 1, start s/1",
        ),
        ("Never", &["s"], &["a"], vec![dead(0)], &["s/0@s0 exit 137", "a/0@s0 exit 137"], "ended"),
        ("Never", &["s"], &["a"], vec![dead(0)], &["s/0@s0 exit 137"], "ended"),
        ("Never", &["s"], &["a"], vec![dead(0)], &[], "sandbox 1 dead 1, start s/0"),
        ("OnFailure", &["s"], &["a"], vec![dead(0)], &["s/0@s0 exit 137"], "sandbox 1 dead 1, start s/1"),
    ];
    for (policy, init, apps, sandboxes, runs, wanted) in cases {
        let desired = desired_pod(&pod(&spec(policy, init, apps)));
        let observed = observe(sandboxes.clone(), runs);
        let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
        assert_eq!(show(&actions), *wanted, "{policy} {init:?} {apps:?} with {runs:?}");
    }
}

#[test]
fn a_sidecar_that_has_not_started_holds_up_only_what_never_ran() {
    let decide = |init: &[&str], runs: &[&str], findings: RunFindings| {
        let desired = desired_pod(&pod(&spec("Never", init, &["a"])));
        let mut observed = observe(vec![ready(0)], runs);
        observed.findings.insert(ContainerId::new("s/0@s0"), findings);
        show(&compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now()))
    };
    let starting = RunFindings { started: false, ready: false, condemned: None };
    let unready = RunFindings { started: true, ..starting };
    let condemned = RunFindings { condemned: Some(StopCause::StartupFailed), ..starting };
    let ill = RunFindings { condemned: Some(StopCause::LivenessFailed), ..unready };
    assert_eq!(decide(&["s"], &["s/0@s0 running"], starting), "");
    assert_eq!(decide(&["s"], &["s/0@s0 running"], unready), "start a/0", "started is enough");
    assert_eq!(decide(&["s", "i"], &["s/0@s0 running", "i/0@s0 exit 0"], starting), "start a/0", "it had started");
    assert_eq!(decide(&["s"], &["s/0@s0 running"], condemned), "stop s/0@s0");
    assert_eq!(decide(&["s"], &["s/0@s0 running", "a/0@s0 running"], condemned), "stop s/0@s0");
    assert_eq!(decide(&["s"], &["s/0@s0 running"], ill), "stop s/0@s0, start a/0", "what follows does not wait");
}

#[test]
fn a_changed_sidecar_is_replaced_once_its_startup_probe_has_decided() {
    let decide = |probe: Value, started| {
        let mut spec = spec("Never", &["s"], &["a"]);
        spec["initContainers"][0]["image"] = "app:2".into();
        spec["initContainers"][0]["startupProbe"] = probe;
        let mut observed = observe(vec![ready(0)], &["s/0@s0 running", "a/0@s0 running"]);
        let findings = RunFindings { started, ready: started, condemned: None };
        observed.findings.insert(ContainerId::new("s/0@s0"), findings);
        show(&compute_pod_actions(&desired_pod(&pod(&spec)), PodLifecycle::Syncing, &observed, now()))
    };
    let probe = json!({ "exec": { "command": ["is-up"] } });
    assert_eq!(decide(Value::Null, true), "stop s/0@s0");
    assert_eq!(decide(probe.clone(), true), "stop s/0@s0");
    assert_eq!(decide(probe, false), "");
}

#[test]
fn sidecars_end_after_the_app_from_the_last_to_the_first() {
    let desired = desired_pod(&pod(&spec("Always", &["s", "i", "s2"], &["a", "b"])));
    let cases: &[(&[&str], &str)] = &[
        (
            &["s/0@s0 running", "s2/0@s0 running", "a/0@s0 running", "b/0@s0 running"],
            "stop a/0@s0, stop b/0@s0, stop s/0@s0 after a/0@s0 b/0@s0 s2/0@s0, stop s2/0@s0 after a/0@s0 b/0@s0",
        ),
        (&["s/0@s0 running", "s2/0@s0 running", "a/0@s0 exit 0"], "stop s/0@s0 after s2/0@s0, stop s2/0@s0"),
        (&["s/0@s0 running"], "stop s/0@s0"),
        // An init container under way ends at once, and nothing waits for it.
        (&["s/0@s0 running", "i/0@s0 running"], "stop i/0@s0, stop s/0@s0"),
        (&["s/0@s0 exit 1", "a/0@s0 exit 1"], "ended"),
    ];
    for (runs, wanted) in cases {
        let observed = observe(vec![ready(0)], runs);
        let ending = PodLifecycle::Terminating { deadline: now().boot };
        assert_eq!(show(&compute_pod_actions(&desired, ending, &observed, now())), *wanted, "{runs:?}");
    }
    let nobody_knows = containers_to_end(None, &observe(vec![ready(0)], &["s/0@s0 running", "a/0@s0 running"]));
    assert!(nobody_knows.iter().all(|stop| stop.after.is_empty()));
}

#[test]
fn ephemeral_containers_start_once_whatever_the_pod_is_doing() {
    let mut spec = spec("Always", &["i"], &["a"]);
    spec["ephemeralContainers"] = json!([{ "name": "e", "image": "app:1", "targetContainerName": "a" }]);
    let desired = desired_pod(&pod(&spec));
    let cases: &[(&[&str], &str)] = &[
        (&["i/0@s0 running"], "start e/0"),
        (&["i/0@s0 exit 0", "a/0@s0 running"], "start e/0"),
        (&["i/0@s0 exit 0", "a/0@s0 running", "e/0@s0 created"], "start e/0 again"),
        (&["i/0@s0 exit 0", "a/0@s0 running", "e/0@s0 running"], ""),
        (&["i/0@s0 exit 0", "a/0@s0 running", "e/0@s0 exit 1"], ""),
        (&["i/0@s0 exit 0", "e/0@s0 running"], "start a/0"),
        (&[], "start e/0, start i/0"),
    ];
    for (runs, wanted) in cases {
        let observed = observe(vec![ready(0)], runs);
        assert_eq!(show(&compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now())), *wanted, "{runs:?}");
    }
    let in_dead = |runs: &[&str]| {
        show(&compute_pod_actions(&desired, PodLifecycle::Syncing, &observe(vec![dead(0)], runs), now()))
    };
    let again = "sandbox 1 dead 1, start i/1";
    assert_eq!(in_dead(&["i/0@s0 exit 0", "a/0@s0 exit 137", "e/0@s0 exit 137"]), again, "it is not started anew");
    let mut spec = spec.clone();
    spec["restartPolicy"] = "Never".into();
    let observed = observe(vec![ready(0)], &["i/0@s0 exit 0", "a/0@s0 exit 0", "e/0@s0 running"]);
    let ends = compute_pod_actions(&desired_pod(&pod(&spec)), PodLifecycle::Syncing, &observed, now());
    assert_eq!(show(&ends), "ended", "nobody waits for it");
    assert_eq!(field_path(&desired, &ContainerName::new("e")), "spec.ephemeralContainers{e}");
    let ending = PodLifecycle::Terminating { deadline: now().boot };
    let observed = observe(vec![ready(0)], &["a/0@s0 exit 0", "e/0@s0 running"]);
    assert_eq!(show(&compute_pod_actions(&desired, ending, &observed, now())), "stop e/0@s0");
}

#[test]
fn a_condemned_run_counts_as_failed_and_waits_for_its_back_off() {
    for (policy, wanted) in [("Always", "a waits 20s"), ("OnFailure", "a waits 20s"), ("Never", "ended")] {
        let desired = desired_pod(&pod(&spec(policy, &[], &["a"])));
        let mut observed = observe(vec![ready(0)], &["a/0@s0 exit 0"]);
        observed.condemned.insert(ContainerId::new("a/0@s0"));
        let crashed =
            RestartBackOff { image: "app:1".into(), delay_ms: 20_000, restarted_at: time(900), follows: None };
        observed.back_offs.insert(ContainerName::new("a"), crashed);
        let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
        assert_eq!(show(&actions), wanted, "{policy}");
    }
}

#[test]
fn a_pod_that_ends_starts_nothing() {
    let desired = desired_pod(&pod(&spec("Always", &["i"], &["a", "b"])));
    let cases: &[(&[&str], &str)] = &[
        (&[], "ended"),
        (&["a/0@s0 running", "b/0@s0 running"], "stop a/0@s0, stop b/0@s0"),
        (&["a/0@s0 exit 1", "b/0@s0 running"], "stop b/0@s0"),
        (&["i/0@s0 running"], "stop i/0@s0"),
        (&["a/0@s0 created", "b/0@s0 exit 1"], "ended"),
    ];
    for (runs, wanted) in cases {
        let observed = observe(vec![ready(0)], runs);
        let ending = PodLifecycle::Terminating { deadline: now().boot };
        assert_eq!(show(&compute_pod_actions(&desired, ending, &observed, now())), *wanted, "{runs:?}");
        let ended = compute_pod_actions(&desired, PodLifecycle::Terminated, &observed, now());
        assert_eq!(show(&ended), "ended", "{runs:?}");
    }
}

#[test]
fn a_changed_image_replaces_the_container_even_where_nothing_restarts() {
    let mut spec = spec("Never", &[], &["a", "b"]);
    spec["containers"][0]["image"] = "app:2".into();
    let desired = desired_pod(&pod(&spec));
    let decide = |runs: &[&str], replaced: &[&str]| {
        let mut observed = observe(vec![ready(0)], runs);
        observed.replaced = replaced.iter().map(|id| ContainerId::new(*id)).collect();
        show(&compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now()))
    };
    assert_eq!(decide(&["a/0@s0 running", "b/0@s0 running"], &[]), "stop a/0@s0");
    assert_eq!(decide(&["a/0@s0 exit 143", "b/0@s0 running"], &["a/0@s0"]), "start a/1");
    assert_eq!(decide(&["a/0@s0 exit 143", "b/0@s0 running"], &[]), "", "it ended by itself");
}

#[test]
fn what_waits_is_looked_at_again_when_its_wait_is_over() {
    let desired = desired_pod(&pod(&spec("Always", &[], &["a", "b"])));
    let mut observed = observe(vec![ready(0)], &["a/1@s0 exit 1"]);
    let crashed = RestartBackOff { image: "app:1".into(), delay_ms: 20_000, restarted_at: time(900), follows: None };
    observed.back_offs.insert(ContainerName::new("a"), crashed);
    let at = |second| BootTime::since_boot(Duration::from_secs(second));
    observed.not_before.insert(ContainerName::new("b"), at(1003));
    let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
    assert_eq!(show(&actions), "a waits 20s");
    assert_eq!(actions.look_again, Some(at(1003)));
    let later = Now { boot: at(1015), ..now() };
    let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, later);
    assert_eq!(show(&actions), "start a/2, start b/0");
    let doubled = actions.start.first().and_then(|start| start.back_off.clone()).unwrap();
    assert_eq!(doubled.delay_ms, 40_000);
}

#[test]
fn a_run_that_is_made_again_is_a_restart_of_this_moment_in_the_same_crash_loop() {
    let desired = desired_pod(&pod(&spec("Always", &[], &["a"])));
    let mut observed = observe(vec![ready(0)], &["a/1@s0 created", "a/0@s0 exit 1"]);
    let crashed = RestartBackOff { image: "app:1".into(), delay_ms: 20_000, restarted_at: time(100), follows: None };
    observed.back_offs.insert(ContainerName::new("a"), crashed.clone());
    let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
    assert_eq!(show(&actions), "start a/1 again");
    let kept = RestartBackOff { restarted_at: now().wall, ..crashed };
    assert_eq!(actions.start.first().and_then(|start| start.back_off.clone()), Some(kept));
}

#[test]
fn what_only_the_status_remembers_counts_as_run() {
    let remember = |exit_code: Option<i32>| {
        let exit = exit_code.map(|exit_code| RememberedExit { exit_code, finished_at: Some(time(995)) });
        let run = RememberedRun { id: ContainerId::new("gone"), attempt: 4, exit };
        BTreeMap::from([(ContainerName::new("a"), run)])
    };
    for (policy, exit, wanted) in [
        ("Always", Some(0), "sandbox 0 dead 0, start a/5"),
        ("Always", None, "sandbox 0 dead 0, start a/5"),
        ("OnFailure", Some(0), "ended"),
        ("OnFailure", None, "sandbox 0 dead 0, start a/5"),
        ("Never", Some(0), "ended"),
        ("Never", None, "ended"),
    ] {
        let desired = desired_pod(&pod(&spec(policy, &[], &["a"])));
        let mut observed = observe(vec![], &[]);
        observed.remembered = remember(exit);
        let actions = compute_pod_actions(&desired, PodLifecycle::Syncing, &observed, now());
        assert_eq!(show(&actions), wanted, "{policy} {exit:?}");
    }
}
