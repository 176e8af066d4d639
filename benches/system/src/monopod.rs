//! The works as Monopod does them.

use std::time::{Duration, Instant, SystemTime};

use e2e::TestNode;
use serde_json::{Value, json};

use crate::client::Client;
use crate::material::Lines;
use crate::report::{Engine, Report};
use crate::{memory, streams, works};

const PODS: &str = "/api/v1/namespaces/default/pods";
/// What a Pod that is measured alone asks for.
const SHARE: Option<&str> = Some("1");
/// Before each thing that is measured alone: what is made ahead for the next one is made then, and many at once are measured elsewhere.
const PAUSE: Duration = Duration::from_millis(100);
/// In the life of one Pod.
const EXECS: usize = 4;

/// One Pod's life, by the API: stamps of a client that watches, and the time of its exec(2) as infra took it.
pub fn life(node: &TestNode, report: &mut Report) {
    let mut watch = node.api().watch("/api/v1/pods?watch=true", Duration::from_secs(30)).unwrap();
    let mut client = Client::connect(&node.socket());
    std::thread::sleep(PAUSE);
    start(node, &mut client, &mut watch, ("idle", works::START), report);
    // The first process of a container gets no signal that it does not handle (pid_namespaces(7)): its shell must have set the trap.
    std::thread::sleep(PAUSE);
    let begin = Instant::now();
    let (code, answer) = client.request("DELETE", &format!("{PODS}/idle"), "application/json", "");
    assert!(matches!(code, 200 | 202), "{answer}");
    wait(&mut watch, |kind, pod| kind == "DELETED" && pod["metadata"]["name"] == "idle");
    report.add_time(works::GONE, Engine::Monopod, begin.elapsed());
}

fn start(
    node: &TestNode,
    client: &mut Client,
    watch: &mut e2e::api::Watch,
    (name, work): (&str, &str),
    report: &mut Report,
) {
    let (begin, wall) = (Instant::now(), SystemTime::now());
    create(client, name, SHARE);
    wait(watch, |kind, pod| kind != "DELETED" && pod["metadata"]["name"] == *name && runs(pod));
    if work == works::START {
        report.add_time(works::SEEN, Engine::Monopod, begin.elapsed());
    }
    report.add_time(work, Engine::Monopod, time_of_exec(node, name).saturating_sub(since_epoch(wall)));
}

/// As stamps of the daemon and of infra are.
pub fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// From the Pod's timeline: since the epoch.
fn time_of_exec(node: &TestNode, name: &str) -> Duration {
    let timeline = node.api().get(&format!("/monopod/v1/namespaces/default/pods/{name}/timeline"));
    let moments = timeline["moments"].as_array().unwrap();
    let running = moments.iter().find(|moment| moment["kind"] == "container" && moment["state"] == "running");
    time_of(running.unwrap_or_else(|| panic!("never ran: {timeline}"))["at"].as_str().unwrap())
}

/// `2026-01-02T03:04:05.678Z` since the epoch.
fn time_of(text: &str) -> Duration {
    let text = text.trim_end_matches('Z');
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    Duration::new(seconds_of(seconds), format!("{fraction:0<9}").parse().unwrap())
}

/// `2026-01-02T03:04:05` since the epoch (days from civil, Howard Hinnant).
fn seconds_of(text: &str) -> u64 {
    let numbers: Vec<u64> = text.split(['-', 'T', ':']).map(|number| number.parse().unwrap()).collect();
    let (year, month, day) = (numbers[0], numbers[1], numbers[2]);
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    days * 86_400 + numbers[3] * 3600 + numbers[4] * 60 + numbers[5]
}

/// Whole commands, as a person or a script starts them, and what an exec takes without the command.
pub fn commands(node: &TestNode, report: &mut Report) {
    let manifest = node.path("idle.json");
    std::fs::write(&manifest, pod("idle", SHARE).to_string()).unwrap();
    let manifest = manifest.to_str().unwrap();
    let timed = |work: &str, arguments: &[&str], report: &mut Report| {
        std::thread::sleep(PAUSE);
        let begin = Instant::now();
        node.monopod(arguments).ok();
        report.add_time(work, Engine::Monopod, begin.elapsed());
    };
    timed(works::RUN, &["run", "-f", manifest], report);
    timed(works::EXEC_COMMAND, &["exec", "idle", "--", "true"], report);
    for _ in 0..EXECS {
        std::thread::sleep(PAUSE);
        streams::exec(node, "idle", report);
    }
    timed(works::DELETE_COMMAND, &["delete", "pod", "idle"], report);
}

/// Pods applied one after the other without waiting, beside those present, until the last one runs; what each infra takes; then
/// how fast one more starts.
pub fn many(node: &TestNode, present: usize, pods: usize, more: usize, report: &mut Report) {
    let mut watch = node.api().watch("/api/v1/pods?watch=true", Duration::from_mins(2)).unwrap();
    let begin = Instant::now();
    // Beside the watch: one that nobody reads is ended.
    let mut client = Client::connect(&node.socket());
    let creator = std::thread::spawn(move || {
        for number in present..pods {
            create(&mut client, &format!("idle-{number}"), None);
        }
        client
    });
    let mut running = std::collections::BTreeSet::new();
    // Who falls behind what the daemon remembers of changes begins anew, as any client does.
    while running.len() < pods - present {
        for (kind, pod) in &mut watch {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let number = name.strip_prefix("idle-").and_then(|number| number.parse::<usize>().ok());
            if kind != "DELETED" && number.is_some_and(|number| number >= present) && runs(&pod) {
                running.insert(number);
            }
            if running.len() == pods - present {
                break;
            }
        }
        watch = node.api().watch("/api/v1/pods?watch=true", Duration::from_mins(2)).unwrap();
    }
    let mut client = creator.join().unwrap();
    let new = pods - present;
    report.add_time(&works::at_once(new, present), Engine::Monopod, begin.elapsed());
    let infra = node.infra_processes();
    // What infra is about to become a container looks like infra itself, but is its child.
    let is_child = |parent: u32| infra.iter().any(|process| process.pid == parent);
    for process in infra.iter().filter(|process| !is_child(process.parent)) {
        let share = f64::from(u32::try_from(memory::proportional(process.pid)).unwrap());
        report.add(works::MEMORY, "kB", Engine::Monopod, share);
    }
    let resident = f64::from(u32::try_from(memory::resident(node.daemon_pid())).unwrap());
    report.add(&format!("memory of the daemon with {pods} Pods"), "kB", Engine::Monopod, resident);
    for _ in 0..more {
        start(node, &mut client, &mut watch, ("one-more", &works::beside(pods)), report);
        node.delete_pod("one-more");
        // Else what the watch says of this one would be taken for the next one's.
        wait(&mut watch, |kind, pod| kind == "DELETED" && pod["metadata"]["name"] == "one-more");
        std::thread::sleep(PAUSE);
    }
}

/// A program that writes a file of lines to its output, from its exec to its end, and how much memory infra took for it.
pub fn logs(node: &TestNode, lines: &Lines, report: &mut Report) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lines"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [
                // While it runs, infra does.
                {"name": "rest", "image": "busybox:stable", "command": ["sleep", "infinity"]},
                {"name": "main", "image": "busybox:stable", "command": ["cat", "/data/lines"],
                    "resources": {"requests": {"cpu": SHARE}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}]}],
            "volumes": [{"name": "data", "hostPath": {"path": lines.directory()}}],
        },
    });
    let answer = node.api().request("POST", "/api/v1/namespaces/default/pods", Some(&pod));
    assert_eq!(answer.code, 201, "{}", answer.body);
    let mut watch = node.api().watch("/api/v1/pods?watch=true", Duration::from_mins(2)).unwrap();
    let ended = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        statuses.into_iter().any(|status| status["name"] == "main" && !status["state"]["terminated"].is_null())
    };
    wait(&mut watch, |_, pod| pod["metadata"]["name"] == "lines" && ended(pod));
    let timeline = node.api().get("/monopod/v1/namespaces/default/pods/lines/timeline");
    let at = |state: &str| {
        let moments = timeline["moments"].as_array().unwrap();
        let moment = moments.iter().find(|moment| moment["container"] == "main" && moment["state"] == state);
        moment.map(|moment| moment["at"].as_str().unwrap().to_owned())
    };
    let (Some(begin), Some(end)) = (at("running"), at("terminated")) else {
        println!("the program ended before anybody saw it run: {timeline}");
        return;
    };
    report.add_time(&works::logs(lines.megabytes), Engine::Monopod, time_of(&end).saturating_sub(time_of(&begin)));
    let at_most = node.infra_processes().iter().map(|process| memory::resident_at_most(process.pid)).max().unwrap_or(0);
    report.add(works::LOGS_MEMORY, "kB", Engine::Monopod, f64::from(u32::try_from(at_most).unwrap()));
    node.delete_pod("lines");
}

/// Kills the daemon and starts it; until it serves, as a client that asks each millisecond finds out.
pub fn restart(node: &mut TestNode, what: &str, report: &mut Report) {
    node.kill_daemon();
    let api = node.api();
    let begin = Instant::now();
    let client = std::thread::spawn(move || {
        let serves =
            || api.try_request("GET", "/api/v1/namespaces/default", None).is_ok_and(|answer| answer.code == 200);
        while !serves() {
            std::thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    });
    node.start_daemon();
    report.add_time(what, Engine::Monopod, client.join().unwrap());
}

fn create(client: &mut Client, name: &str, share: Option<&str>) {
    let (code, answer) = client.request("POST", PODS, "application/json", &pod(name, share).to_string());
    assert_eq!(code, 201, "{answer}");
}

/// `share`: of the processor, as a request. Without one the kernel gives it the least there is, and on a busy machine its start is
/// late by what others do; the peers' containers have a whole processor's share.
fn pod(name: &str, share: Option<&str>) -> Value {
    let requests = share.map(|share| json!({"requests": {"cpu": share}}));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{
            "name": "main",
            "image": "busybox:stable",
            // Ends on SIGTERM at once.
            "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
            "resources": requests.unwrap_or_else(|| json!({})),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(seconds_of("1970-01-01T00:00:00"), 0);
        assert_eq!(seconds_of("2026-11-25T20:33:18"), 1_795_638_798);
        assert_eq!(seconds_of("2024-02-29T12:00:00"), 1_709_208_000);
        assert_eq!(time_of("1970-01-01T00:00:01.5Z"), Duration::from_millis(1500));
    }
}
