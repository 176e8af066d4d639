//! The life of a Pod as stretches of time, one lane a container, from the moments that the daemon tells. Pure.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::fields::Fields as _;

/// What a container does for a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its turn has not come.
    Waiting,
    /// Its image is pulled.
    Pulling,
    /// It is created and started.
    Starting,
    /// It runs and is not ready; an init container just runs.
    Running,
    /// It runs and is ready.
    Ready,
    /// Something is wrong and will be tried again.
    Trouble,
    /// It ended and waits to be started again.
    BackOff,
    /// It was asked to end.
    Terminating,
    /// It has ended, with this exit code.
    Ended(i64),
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its begin.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// What happens in it.
    pub stage: Stage,
}

/// One container, or the Pod as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// The container's name; `pod` for the Pod.
    pub name: String,
    /// `init`, `sidecar`, `app`, `ephemeral`; empty for the Pod.
    pub role: String,
    /// Without gaps, from the Pod's begin to the end of what is shown.
    pub stretches: Vec<Stretch>,
    /// How often it was started again.
    pub restarts: i64,
}

/// A whole life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The first moment.
    pub from: Timestamp,
    /// The last moment, or now while the Pod lives.
    pub to: Timestamp,
    /// The Pod, then its containers in the order in which they start.
    pub lanes: Vec<Lane>,
}

impl Life {
    /// Reads moments as the daemon tells them; `None` if there are none.
    pub fn read(moments: &[Value], now: Timestamp) -> Option<Self> {
        let timed =
            || moments.iter().filter_map(|moment| Some((moment.text("/at").parse::<Timestamp>().ok()?, moment)));
        let from = timed().map(|(at, _)| at).min()?;
        let mut lanes: Vec<Growing> = vec![Growing::new("pod", "", from)];
        // In the order in which the first status lists them, which is that of their starts.
        for (_, moment) in timed().filter(|(_, moment)| moment.text("/kind") == "container") {
            if !lanes.iter().any(|lane| lane.name == moment.text("/container")) {
                lanes.push(Growing::new(moment.text("/container"), moment.text("/role"), from));
            }
        }
        for (at, moment) in timed() {
            let name = if moment.text("/container").is_empty() { "pod" } else { moment.text("/container") };
            if let Some(lane) = lanes.iter_mut().find(|lane| lane.name == name) {
                lane.hear(at, moment);
            }
        }
        let is_over = lanes.iter().all(|lane| matches!(lane.stage, Stage::Ended(_)));
        let last = timed().map(|(at, _)| at).max()?;
        let to = if is_over { last } else { now.max(last) };
        Some(Self { from, to, lanes: lanes.into_iter().map(|lane| lane.whole(to)).collect() })
    }
}

impl Lane {
    /// How long after the begin of the Pod it was ready first, or ended well for what is to end.
    pub fn reached(&self) -> Option<Timestamp> {
        let good = |stretch: &&Stretch| match stretch.stage {
            Stage::Ready => true,
            Stage::Ended(code) => code == 0 && (self.role == "init" || self.role.is_empty()),
            Stage::Waiting
            | Stage::Pulling
            | Stage::Starting
            | Stage::Running
            | Stage::Trouble
            | Stage::BackOff
            | Stage::Terminating => false,
        };
        self.stretches.iter().find(good).map(|stretch| stretch.from)
    }

    /// What it does at the end of what is shown.
    pub fn last(&self) -> Option<Stretch> {
        self.stretches.last().copied()
    }
}

/// A lane while it is read.
struct Growing {
    name: String,
    role: String,
    stretches: Vec<Stretch>,
    since: Timestamp,
    stage: Stage,
    restarts: i64,
}

impl Growing {
    fn new(name: &str, role: &str, from: Timestamp) -> Self {
        Self {
            name: name.to_owned(),
            role: role.to_owned(),
            stretches: Vec::new(),
            since: from,
            stage: Stage::Waiting,
            restarts: 0,
        }
    }

    fn hear(&mut self, at: Timestamp, moment: &Value) {
        let next = match moment.text("/kind") {
            "event" => self.after_event(moment.text("/reason")),
            "container" => self.after_turn(moment),
            "pod" => after_phase(moment),
            _ => self.stage,
        };
        self.restarts = self.restarts.max(moment.integer("/restartCount").unwrap_or_default());
        self.turn_to(next, at);
    }

    fn after_event(&self, reason: &str) -> Stage {
        let is_over = matches!(self.stage, Stage::Ended(_)) && self.name == "pod";
        match reason {
            "Pulling" => Stage::Pulling,
            "Pulled" | "Created" => Stage::Starting,
            "Killing" if !is_over => Stage::Terminating,
            _ => self.stage,
        }
    }

    fn after_turn(&self, turn: &Value) -> Stage {
        match turn.text("/state") {
            "terminated" => Stage::Ended(turn.integer("/exitCode").unwrap_or_default()),
            "running" if self.stage == Stage::Terminating => Stage::Terminating,
            "running" if turn.flag("/ready") => Stage::Ready,
            "running" => Stage::Running,
            _ => match turn.text("/reason") {
                "CrashLoopBackOff" => Stage::BackOff,
                "" | "ContainerCreating" | "PodInitializing" => match self.stage {
                    Stage::Pulling | Stage::Starting => self.stage,
                    _ => Stage::Waiting,
                },
                _ => Stage::Trouble,
            },
        }
    }

    fn turn_to(&mut self, next: Stage, at: Timestamp) {
        if next == self.stage {
            return;
        }
        if at > self.since {
            self.stretches.push(Stretch { from: self.since, to: at, stage: self.stage });
        }
        (self.stage, self.since) = (next, at.max(self.since));
    }

    fn whole(mut self, to: Timestamp) -> Lane {
        self.stretches.push(Stretch { from: self.since, to: to.max(self.since), stage: self.stage });
        Lane { name: self.name, role: self.role, stretches: self.stretches, restarts: self.restarts }
    }
}

fn after_phase(moment: &Value) -> Stage {
    match moment.text("/phase") {
        "Succeeded" => Stage::Ended(0),
        "Failed" => Stage::Ended(1),
        _ if moment.flag("/ready") => Stage::Ready,
        "Running" => Stage::Running,
        _ => Stage::Starting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub fn at(millis: i64) -> String {
        Timestamp::from_millisecond(millis).unwrap().to_string()
    }

    fn turn(millis: i64, name: &str, role: &str, state: &str, ready: bool, more: &Value) -> Value {
        let mut moment = json!({"at": at(millis), "kind": "container", "container": name, "role": role, "state": state,
            "started": ready, "ready": ready, "restartCount": 0});
        for (key, value) in more.as_object().unwrap() {
            moment[key] = value.clone();
        }
        moment
    }

    fn event(millis: i64, name: &str, reason: &str) -> Value {
        json!({"at": at(millis), "kind": "event", "container": name, "reason": reason, "message": ""})
    }

    fn lane(life: &Life, name: &str) -> Vec<(i64, Stage)> {
        let lane = life.lanes.iter().find(|lane| lane.name == name).unwrap();
        lane.stretches.iter().map(|stretch| (stretch.from.as_millisecond(), stretch.stage)).collect()
    }

    #[test]
    fn a_start_is_told_stage_by_stage() {
        let none = json!({});
        let moments = [
            json!({"at": at(1000), "kind": "event", "reason": "Scheduled", "message": ""}),
            event(1002, "setup", "Pulling"),
            turn(1003, "setup", "init", "waiting", false, &json!({"reason": "PodInitializing"})),
            turn(1003, "app", "app", "waiting", false, &json!({"reason": "PodInitializing"})),
            event(1010, "setup", "Pulled"),
            turn(1012, "setup", "init", "running", false, &none),
            turn(1020, "setup", "init", "terminated", true, &json!({"exitCode": 0, "reason": "Completed"})),
            event(1021, "app", "Pulled"),
            turn(1025, "app", "app", "running", false, &none),
            turn(1040, "app", "app", "running", true, &none),
            json!({"at": at(1040), "kind": "pod", "phase": "Running", "ready": true}),
        ];
        let life = Life::read(&moments, Timestamp::from_millisecond(2000).unwrap()).unwrap();
        assert_eq!(
            lane(&life, "setup"),
            [
                (1000, Stage::Waiting),
                (1002, Stage::Pulling),
                (1010, Stage::Starting),
                (1012, Stage::Running),
                (1020, Stage::Ended(0))
            ]
        );
        assert_eq!(
            lane(&life, "app"),
            [(1000, Stage::Waiting), (1021, Stage::Starting), (1025, Stage::Running), (1040, Stage::Ready)]
        );
        assert_eq!(lane(&life, "pod"), [(1000, Stage::Waiting), (1040, Stage::Ready)]);
        assert_eq!(life.to.as_millisecond(), 2000, "it lives");
        let reached: Vec<_> = life.lanes.iter().map(|lane| lane.reached().unwrap().as_millisecond()).collect();
        assert_eq!(reached, [1040, 1020, 1040]);
    }

    #[test]
    fn a_crash_loop_and_an_end_are_told() {
        let moments = [
            turn(0, "app", "app", "running", true, &json!({})),
            turn(10, "app", "app", "terminated", false, &json!({"exitCode": 3})),
            turn(11, "app", "app", "waiting", false, &json!({"reason": "CrashLoopBackOff"})),
            turn(20, "app", "app", "running", true, &json!({"restartCount": 1})),
            event(30, "app", "Killing"),
            turn(35, "app", "app", "running", false, &json!({"restartCount": 1})),
            turn(40, "app", "app", "terminated", false, &json!({"exitCode": 0, "restartCount": 1})),
            json!({"at": at(41), "kind": "pod", "phase": "Succeeded", "ready": false}),
        ];
        let life = Life::read(&moments, Timestamp::from_millisecond(900_000).unwrap()).unwrap();
        assert_eq!(
            lane(&life, "app"),
            [
                (0, Stage::Ready),
                (10, Stage::Ended(3)),
                (11, Stage::BackOff),
                (20, Stage::Ready),
                (30, Stage::Terminating),
                (40, Stage::Ended(0))
            ]
        );
        assert_eq!(life.lanes[1].restarts, 1);
        assert_eq!(life.to.as_millisecond(), 41, "what is over is not drawn on");
    }

    #[test]
    fn garbage_is_passed_over() {
        assert_eq!(Life::read(&[json!(3), json!({"at": "noon"})], Timestamp::UNIX_EPOCH), None);
    }
}
