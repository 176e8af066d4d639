//! Finds what a new status says that the one before did not, with the runtime's exact times. Pure.

use std::collections::BTreeMap;

use spec::Timestamp;
use spec::k8s_openapi::api::core::v1 as core;
use spec::ordered::map_of;

use super::{ContainerTurn, Happening, Moment};
use crate::desired::DesiredPod;

/// What a Pod's timeline says last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    phase: String,
    ready: bool,
    containers: BTreeMap<String, ShownContainer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ShownContainer {
    run: Option<String>,
    turn: ContainerTurn,
    end: Option<End>,
}

/// The last end of a container that is known: of which run, and when.
type End = (Option<String>, Option<Timestamp>);

impl Shown {
    /// What a status says.
    pub(crate) fn of(desired: &DesiredPod, status: &core::PodStatus) -> Self {
        let condition = |condition: &core::PodCondition| condition.type_ == "Ready" && condition.status == "True";
        let containers = statuses(desired, status).map(|(role, status)| {
            let state = ended(status.state.as_ref()).or_else(|| ended(status.last_state.as_ref()));
            let (run, end) = (status.container_id.clone(), state.map(end_of));
            (status.name.clone(), ShownContainer { run, turn: turn(role, status), end })
        });
        Self {
            phase: status.phase.clone().unwrap_or_default(),
            ready: status.conditions.iter().flatten().any(condition),
            containers: map_of(containers),
        }
    }

    /// The moments that lead from what was shown to `status`; remembers it.
    pub(crate) fn advance(&mut self, desired: &DesiredPod, status: &core::PodStatus, now: Timestamp) -> Vec<Moment> {
        let next = Self::of(desired, status);
        let mut moments = Vec::new();
        for (role, status) in statuses(desired, status) {
            let before = self.containers.get(&status.name);
            let Some(after) = next.containers.get(&status.name) else { continue };
            if before == Some(after) {
                continue;
            }
            // Between two looks a run may have ended, and perhaps the next one has begun or waits; it may have begun between them, too.
            if let Some(last) = ended(status.last_state.as_ref())
                && before.and_then(|before| before.end.as_ref()) != Some(&end_of(last))
            {
                let is_present = last.container_id.is_some() && last.container_id == after.run;
                let restart_count = status.restart_count - i32::from(!is_present);
                let turn = ContainerTurn { restart_count: restart_count.max(0), ..terminated_turn(role, last) };
                moments.push(of_container(last_time(last, now), &status.name, turn));
            }
            if before.is_none_or(|before| before.turn != after.turn || before.run != after.run) {
                let changed_state =
                    before.is_none_or(|before| before.turn.state != after.turn.state || before.run != after.run);
                let at = if changed_state { time_of(status, now) } else { now };
                moments.push(of_container(at, &status.name, after.turn.clone()));
            }
        }
        if (&self.phase, self.ready) != (&next.phase, next.ready) {
            let what = Happening::Pod { phase: next.phase.clone(), ready: next.ready };
            moments.push(Moment { at: now, container: None, what });
        }
        *self = next;
        moments
    }
}

fn of_container(at: Timestamp, name: &str, turn: ContainerTurn) -> Moment {
    Moment { at, container: Some(name.to_owned()), what: Happening::Container(turn) }
}

/// All container statuses with the container's role, in starting order.
fn statuses<'a>(
    desired: &'a DesiredPod,
    status: &'a core::PodStatus,
) -> impl Iterator<Item = (&'static str, &'a core::ContainerStatus)> {
    let init = status.init_container_statuses.iter().flatten().map(|status| {
        let spec = desired.init_containers().iter().find(|container| container.name == status.name);
        let is_sidecar = spec.is_some_and(|spec| spec.restart_policy.as_deref() == Some("Always"));
        (if is_sidecar { "sidecar" } else { "init" }, status)
    });
    let apps = status.container_statuses.iter().flatten().map(|status| ("app", status));
    let ephemeral = status.ephemeral_container_statuses.iter().flatten().map(|status| ("ephemeral", status));
    init.chain(apps).chain(ephemeral)
}

fn turn(role: &str, status: &core::ContainerStatus) -> ContainerTurn {
    let state = status.state.clone().unwrap_or_default();
    let base = match (&state.running, &state.terminated, state.waiting) {
        (_, Some(terminated), _) => terminated_turn(role, terminated),
        (Some(_), None, _) => {
            ContainerTurn { role: role.to_owned(), state: "running".to_owned(), ..ContainerTurn::default() }
        }
        (None, None, waiting) => ContainerTurn {
            role: role.to_owned(),
            state: "waiting".to_owned(),
            reason: waiting.and_then(|waiting| waiting.reason),
            ..ContainerTurn::default()
        },
    };
    ContainerTurn {
        started: status.started.unwrap_or_default(),
        ready: status.ready,
        restart_count: status.restart_count,
        ..base
    }
}

fn terminated_turn(role: &str, terminated: &core::ContainerStateTerminated) -> ContainerTurn {
    ContainerTurn {
        role: role.to_owned(),
        state: "terminated".to_owned(),
        reason: terminated.reason.clone(),
        exit_code: Some(terminated.exit_code),
        ..ContainerTurn::default()
    }
}

fn ended(state: Option<&core::ContainerState>) -> Option<&core::ContainerStateTerminated> {
    state?.terminated.as_ref()
}

fn end_of(terminated: &core::ContainerStateTerminated) -> End {
    (terminated.container_id.clone(), terminated.finished_at.as_ref().map(|time| time.0))
}

fn last_time(terminated: &core::ContainerStateTerminated, now: Timestamp) -> Timestamp {
    terminated.finished_at.as_ref().map_or(now, |time| time.0).min(now)
}

/// When the container came to its present state, as far as the status knows.
fn time_of(status: &core::ContainerStatus, now: Timestamp) -> Timestamp {
    let state = status.state.as_ref();
    let running = state.and_then(|state| state.running.as_ref()?.started_at.as_ref());
    match (ended(state), running) {
        (Some(terminated), _) => last_time(terminated, now),
        (None, Some(started)) => started.0.min(now),
        (None, None) => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize as _;
    use serde_json::json;

    fn desired() -> DesiredPod {
        let spec =
            json!({"initContainers": [{"name": "proxy", "restartPolicy": "Always"}], "containers": [{"name": "app"}]});
        crate::testing::desired_pod(&crate::testing::pod(&spec))
    }

    fn status(phase: &str, containers: &serde_json::Value) -> core::PodStatus {
        core::PodStatus::deserialize(json!({"phase": phase, "containerStatuses": containers})).unwrap()
    }

    fn app(state: &serde_json::Value, run: &str, last: &serde_json::Value) -> serde_json::Value {
        json!([{"name": "app", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "containerID": run,
            "state": state, "lastState": last}])
    }

    fn told(shown: &mut Shown, status: &core::PodStatus, now: &str) -> Vec<String> {
        let moments = shown.advance(&desired(), status, now.parse().unwrap());
        let word = |moment: &Moment| match &moment.what {
            Happening::Container(turn) => {
                let code = turn.exit_code.map(|code| code.to_string()).unwrap_or_default();
                format!("{} {}{code}", moment.at.strftime("%M:%S"), turn.state)
            }
            Happening::Pod { phase, .. } => format!("{} {phase}", moment.at.strftime("%M:%S")),
            Happening::Event { .. } => String::new(),
        };
        moments.iter().map(word).collect()
    }

    #[test]
    fn turns_have_the_runtimes_times_and_are_told_once() {
        let mut shown = Shown::default();
        let waiting = status("Pending", &app(&json!({"waiting": {"reason": "ContainerCreating"}}), "", &json!({})));
        assert_eq!(told(&mut shown, &waiting, "2026-01-01T00:00:01Z"), ["00:01 waiting", "00:01 Pending"]);
        let started = json!({"running": {"startedAt": "2026-01-01T00:00:02Z"}});
        let running = status("Running", &app(&started, "m://1", &json!({})));
        assert_eq!(told(&mut shown, &running, "2026-01-01T00:00:03Z"), ["00:02 running", "00:03 Running"]);
        assert!(told(&mut shown, &running, "2026-01-01T00:00:04Z").is_empty());
    }

    #[test]
    fn an_end_between_two_looks_is_told_too() {
        let end = json!({"terminated": {"exitCode": 3, "finishedAt": "2026-01-01T00:00:05Z"}});
        for (state, run, told_last) in [
            (json!({"running": {"startedAt": "2026-01-01T00:00:06Z"}}), "m://2", "00:06 running"),
            (json!({"waiting": {"reason": "CrashLoopBackOff"}}), "m://1", "00:07 waiting"),
        ] {
            let mut shown = Shown::default();
            let running = json!({"running": {"startedAt": "2026-01-01T00:00:02Z"}});
            drop(told(&mut shown, &status("Running", &app(&running, "m://1", &json!({}))), "2026-01-01T00:00:02Z"));
            let next = status("Running", &app(&state, run, &end));
            assert_eq!(told(&mut shown, &next, "2026-01-01T00:00:07Z"), ["00:05 terminated3", told_last]);
            assert!(told(&mut shown, &next, "2026-01-01T00:00:08Z").is_empty(), "once");
        }
    }

    #[test]
    fn an_end_is_told_of_a_run_that_nobody_saw_begin() {
        let mut shown = Shown::default();
        let waiting = status("Pending", &app(&json!({"waiting": {"reason": "ContainerCreating"}}), "", &json!({})));
        drop(told(&mut shown, &waiting, "2026-01-01T00:00:01Z"));
        let end = json!({"terminated": {"exitCode": 3, "finishedAt": "2026-01-01T00:00:05Z", "containerID": "m://1"}});
        let next = app(&json!({"waiting": {"reason": "CrashLoopBackOff"}}), "m://1", &end);
        let moments = told(&mut shown, &status("Running", &next), "2026-01-01T00:00:07Z");
        assert_eq!(moments, ["00:05 terminated3", "00:07 waiting", "00:07 Running"]);
        // One that was seen to end is not told again when the next one begins.
        let ended = status("Running", &app(&end, "m://1", &json!({})));
        let mut shown = Shown::of(&desired(), &ended);
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:06Z"}});
        let next = status("Running", &app(&running, "m://2", &end));
        assert_eq!(told(&mut shown, &next, "2026-01-01T00:00:07Z"), ["00:06 running"]);
    }

    #[test]
    fn sidecars_are_told_from_init_containers() {
        let status = core::PodStatus::deserialize(json!({"initContainerStatuses": [
            {"name": "proxy", "image": "i", "imageID": "", "ready": true, "restartCount": 0}]}));
        let status = status.unwrap();
        let roles: Vec<_> = statuses(&desired(), &status).map(|(role, _)| role).collect();
        assert_eq!(roles, ["sidecar"]);
    }
}
