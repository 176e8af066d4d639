//! The row of a Pod in a Table: what `kubectl get pods` shows.

use serde_json::{Value, json};
use spec::Timestamp;

use crate::fields::{at, flag_at, items_at, number_at, text_at};
use crate::table::{Row, age, human_duration, name, text_or};

/// Cells in the order of the Pod's columns. The steps are those of upstream's printer, since people know their words.
pub fn row(pod: &Value, now: Timestamp) -> Row {
    let progress = Progress::of(pod);
    let mut row = Row::new(vec![
        name(pod),
        json!(format!("{}/{}", progress.ready, progress.total)),
        json!(progress.status),
        json!(progress.restarts.show(now)),
        age(pod, now),
        text_or(pod, "/status/podIPs/0/ip", "<none>"),
        text_or(pod, "/spec/nodeName", "<none>"),
        text_or(pod, "/status/nominatedNodeName", "<none>"),
        json!(readiness_gates(pod)),
    ]);
    row.conditions.extend(completed(pod));
    row
}

struct Progress {
    ready: usize,
    total: usize,
    status: String,
    restarts: Restarts,
}

#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Progress {
    fn of(pod: &Value) -> Self {
        let sidecars: Vec<&str> =
            items_at(pod, "/spec/initContainers").filter(|c| is_sidecar(c)).map(container_name).collect();
        let mut progress = Self {
            ready: 0,
            total: items_at(pod, "/spec/containers").count() + sidecars.len(),
            status: first_word(pod).to_owned(),
            restarts: Restarts::default(),
        };
        let initializing = progress.walk_init_containers(pod, &sidecars);
        if !initializing || is_true(pod, "Initialized") {
            progress.walk_containers(pod, &sidecars);
        }
        if !text_at(pod, "/metadata/deletionTimestamp").is_empty() {
            if text_at(pod, "/status/reason") == "NodeLost" {
                "Unknown".clone_into(&mut progress.status);
            } else if !matches!(text_at(pod, "/status/phase"), "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut progress.status);
            }
        }
        progress
    }

    /// Stops at the first init container that is not done; tells whether there is one.
    fn walk_init_containers(&mut self, pod: &Value, sidecars: &[&str]) -> bool {
        let total = items_at(pod, "/spec/initContainers").count();
        for (index, container) in items_at(pod, "/status/initContainerStatuses").enumerate() {
            self.restarts.add(container);
            let terminated = at(container, "/state/terminated");
            if terminated.is_some_and(|end| exit_code(end) == 0) {
                continue;
            }
            if sidecars.contains(&container_name(container)) && flag_at(container, "/started") {
                self.ready += usize::from(flag_at(container, "/ready"));
                continue;
            }
            let waiting = text_at(container, "/state/waiting/reason");
            self.status = match terminated {
                Some(end) => format!("Init:{}", end_word(end)),
                None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
                None => format!("Init:{index}/{total}"),
            };
            return true;
        }
        false
    }

    /// From the last to the first, so that the first container has the last word.
    fn walk_containers(&mut self, pod: &Value, sidecars: &[&str]) {
        self.restarts = Restarts::default();
        for container in items_at(pod, "/status/initContainerStatuses") {
            if sidecars.contains(&container_name(container)) {
                self.restarts.add(container);
            }
        }
        let mut has_running = false;
        for container in items_at(pod, "/status/containerStatuses").rev() {
            self.restarts.add(container);
            let waiting = text_at(container, "/state/waiting/reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.status);
            } else if let Some(end) = at(container, "/state/terminated") {
                self.status = end_word(end);
            } else if flag_at(container, "/ready") && at(container, "/state/running").is_some() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && has_running {
            let word = if is_true(pod, "Ready") { "Running" } else { "NotReady" };
            word.clone_into(&mut self.status);
        }
    }
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += number_at(container, "/restartCount").unwrap_or_default();
        let ended = text_at(container, "/lastState/terminated/finishedAt").parse().ok();
        self.last = self.last.max(ended);
    }

    fn show(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count > 0 => format!("{} ({} ago)", self.count, human_duration(last, now)),
            _ => self.count.to_string(),
        }
    }
}

fn first_word(pod: &Value) -> &str {
    let gated = conditions(pod).any(|condition| {
        text_at(condition, "/type") == "PodScheduled" && text_at(condition, "/reason") == "SchedulingGated"
    });
    match (gated, text_at(pod, "/status/reason")) {
        (true, _) => "SchedulingGated",
        (false, "") => text_at(pod, "/status/phase"),
        (false, reason) => reason,
    }
}

fn end_word(end: &Value) -> String {
    let signal = number_at(end, "/signal").unwrap_or_default();
    match text_at(end, "/reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", exit_code(end)),
        reason => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates: Vec<&str> = items_at(pod, "/spec/readinessGates").map(|gate| text_at(gate, "/conditionType")).collect();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let holding = gates.iter().filter(|gate| is_true(pod, gate)).count();
    format!("{holding}/{}", gates.len())
}

fn completed(pod: &Value) -> Option<Value> {
    let (phase, message) = match text_at(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": phase, "message": message}))
}

fn is_sidecar(container: &Value) -> bool {
    text_at(container, "/restartPolicy") == "Always"
}

fn is_true(pod: &Value, condition: &str) -> bool {
    conditions(pod).any(|found| text_at(found, "/type") == condition && text_at(found, "/status") == "True")
}

fn conditions(pod: &Value) -> impl Iterator<Item = &Value> {
    items_at(pod, "/status/conditions")
}

fn exit_code(end: &Value) -> i64 {
    number_at(end, "/exitCode").unwrap_or_default()
}

fn container_name(container: &Value) -> &str {
    text_at(container, "/name")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A status of a container: its name, its state, whether it is ready, how often it was started again.
    fn container(name: &str, state: &Value, ready: bool, restarts: i64) -> Value {
        json!({"name": name, "state": state, "ready": ready, "started": ready, "restartCount": restarts})
    }

    fn running() -> Value {
        json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    }

    fn waiting(reason: &str) -> Value {
        json!({"waiting": {"reason": reason}})
    }

    fn ended(code: i64, reason: &str) -> Value {
        json!({"terminated": {"exitCode": code, "reason": reason}})
    }

    /// READY, STATUS and RESTARTS.
    fn cells(spec: &Value, status: &Value, deleted: bool) -> [String; 3] {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let cells = row(&pod, "2026-01-01T00:10:00Z".parse().unwrap()).cells;
        [1, 2, 3].map(|index| cells[index].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_pod_of_one_container_is_told_in_kubectls_words() {
        let spec = json!({"containers": [{"name": "a"}]});
        let gated = json!([{"type": "PodScheduled", "reason": "SchedulingGated"}]);
        let killed = json!({"terminated": {"exitCode": 137, "signal": 9}});
        let with = |phase: &str, state: &Value, ready: bool| json!({"phase": phase, "containerStatuses": [container("a", state, ready, 2)]});
        let table = [
            (json!({"phase": "Pending"}), false, ["0/1", "Pending", "0"]),
            (json!({"phase": "Failed", "reason": "Evicted"}), false, ["0/1", "Evicted", "0"]),
            (json!({"phase": "Pending", "conditions": gated}), false, ["0/1", "SchedulingGated", "0"]),
            (with("Pending", &waiting("ContainerCreating"), false), false, ["0/1", "ContainerCreating", "2"]),
            (with("Running", &running(), true), false, ["1/1", "Running", "2"]),
            (with("Running", &running(), false), false, ["0/1", "Running", "2"]),
            (with("Running", &running(), true), true, ["1/1", "Terminating", "2"]),
            (with("Succeeded", &ended(0, "Completed"), false), true, ["0/1", "Completed", "2"]),
            (with("Failed", &ended(3, ""), false), false, ["0/1", "ExitCode:3", "2"]),
            (with("Failed", &killed, false), false, ["0/1", "Signal:9", "2"]),
            (json!({"phase": "Running", "reason": "NodeLost"}), true, ["0/1", "Unknown", "0"]),
        ];
        for (status, deleted, want) in table {
            assert_eq!(cells(&spec, &status, deleted), want, "{status}");
        }
    }

    #[test]
    fn the_first_of_several_containers_has_the_last_word() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let done = json!([container("a", &ended(0, "Completed"), false, 0), container("b", &running(), true, 0)]);
        let loops = json!([
            container("a", &waiting("CrashLoopBackOff"), false, 4),
            container("b", &ended(1, "Error"), false, 1)
        ]);
        let table = [
            (json!({"phase": "Running", "containerStatuses": done}), ["1/2", "NotReady", "0"]),
            (json!({"phase": "Running", "containerStatuses": done, "conditions": ready}), ["1/2", "Running", "0"]),
            (json!({"phase": "Running", "containerStatuses": loops}), ["0/2", "CrashLoopBackOff", "5"]),
        ];
        for (status, want) in table {
            assert_eq!(cells(&spec, &status, false), want, "{status}");
        }
    }

    #[test]
    fn init_containers_are_told_until_they_are_done() {
        let two = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let sidecar =
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]});
        let initializing = waiting("PodInitializing");
        let table = [
            (
                &two,
                json!([container("i", &running(), false, 1), container("j", &initializing, false, 0)]),
                ["0/1", "Init:0/2", "1"],
            ),
            (
                &two,
                json!([container("i", &ended(0, "Completed"), true, 0), container("j", &initializing, false, 0)]),
                ["0/1", "Init:1/2", "0"],
            ),
            (
                &two,
                json!([container("i", &waiting("CrashLoopBackOff"), false, 3)]),
                ["0/1", "Init:CrashLoopBackOff", "3"],
            ),
            (&two, json!([container("i", &ended(2, "Error"), false, 0)]), ["0/1", "Init:Error", "0"]),
            (&two, json!([container("i", &ended(2, ""), false, 0)]), ["0/1", "Init:ExitCode:2", "0"]),
            (&sidecar, json!([container("i", &running(), true, 1)]), ["1/2", "Pending", "1"]),
        ];
        for (spec, statuses, want) in table {
            let status = json!({"phase": "Pending", "initContainerStatuses": statuses});
            assert_eq!(cells(spec, &status, false), want, "{status}");
        }
        let up = json!({
            "phase": "Running", "initContainerStatuses": [container("i", &running(), true, 1)],
            "containerStatuses": [container("a", &running(), true, 1)],
        });
        assert_eq!(cells(&sidecar, &up, false), ["2/2", "Running", "2"]);
    }

    #[test]
    fn the_last_restart_is_told() {
        let pod = json!({
            "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "g"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.85.0.2"}], "containerStatuses": [{
                "name": "a", "restartCount": 3, "ready": true, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:05:00Z"}},
            }]},
        });
        let row = row(&pod, "2026-01-01T00:10:00Z".parse().unwrap());
        assert_eq!(row.cells[3], "3 (5m ago)");
        assert_eq!(row.cells[5], "10.85.0.2");
        assert_eq!(row.cells[8], "0/1");
        assert!(row.conditions.is_empty());
    }

    #[test]
    fn a_finished_pod_has_a_condition() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Succeeded"}});
        assert_eq!(row(&pod, Timestamp::UNIX_EPOCH).conditions[0]["reason"], "Succeeded");
    }
}
