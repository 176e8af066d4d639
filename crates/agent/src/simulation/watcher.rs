//! Watches over a simulation: takes in all that happens, keeps the model of each Pod, and holds it against the invariants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::fake::{Fact, RunFact};
use serde_json::Value;
use store::{WatchEvent, WatchKind};

use super::clock::SimulatedClock;
use super::invariants;
use super::model::{Moment, PodModel, Run, Sandbox};
use super::pods::{LIVENESS, POST_START, PRE_STOP, STARTUP};
use super::trace::Trace;
use crate::clock::Clock as _;

/// Shared by all who tell it something.
#[derive(Debug, Clone)]
pub struct Watcher(Arc<Mutex<State>>);

#[derive(Debug)]
pub struct State {
    pub pods: BTreeMap<String, PodModel>,
    broken: Option<String>,
    pub trace: Trace,
    /// When something happened last.
    last: Duration,
    clock: Arc<SimulatedClock>,
}

impl Watcher {
    pub fn new(clock: Arc<SimulatedClock>, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State { pods: BTreeMap::new(), broken: None, trace, last: Duration::ZERO, clock })))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the runtime tells.
    pub fn fact(&self, fact: &Fact<'_>) {
        let mut state = self.lock();
        let now = state.now();
        state.last = now.true_time;
        state.trace.fact(now, fact);
        let result = state.take_in(fact, now);
        state.note(result);
    }

    /// What the store tells.
    pub fn written(&self, changes: &[WatchEvent]) {
        let mut state = self.lock();
        let now = state.now();
        state.last = now.true_time;
        for change in changes.iter().filter(|change| change.object.key.resource == "pods") {
            state.trace.object(now, change);
            let result = state.take_in_object(change, now);
            state.note(result);
        }
    }
}

impl State {
    pub fn now(&self) -> Moment {
        Moment { wall: self.clock.wall(), true_time: self.clock.true_time() }
    }

    /// Whether nothing has happened in this moment.
    pub fn is_still(&self) -> bool {
        self.now().true_time > self.last
    }

    /// The first promise that was broken.
    pub fn broken(&self) -> Option<String> {
        let worn_out = self.clock.is_worn_out().then(|| "the agent is busy without end".to_owned());
        self.broken.clone().or(worn_out)
    }

    fn note(&mut self, result: Result<(), String>) {
        if let Err(broken) = result {
            let now = self.now();
            self.trace.line(now, || format!("!! {broken}"));
            self.broken.get_or_insert(broken);
        }
    }

    fn take_in(&mut self, fact: &Fact<'_>, now: Moment) -> Result<(), String> {
        match fact {
            Fact::SandboxMade { uid, id, .. } => {
                let Some(pod) = self.pods.get_mut(uid.as_str()) else { return Ok(()) };
                let allowed = invariants::may_have_sandbox(pod);
                let id = id.as_str().to_owned();
                pod.sandboxes.insert(id.clone());
                pod.sandbox = Some(Sandbox { id, alive: true, app_was_created: false });
                allowed
            }
            Fact::SandboxesDied { uid } => {
                if let Some(sandbox) = self.pods.get_mut(uid.as_str()).and_then(|pod| pod.sandbox.as_mut()) {
                    sandbox.alive = false;
                }
                Ok(())
            }
            Fact::SandboxRemoved { uid, id } => {
                let Some(pod) = self.pods.get_mut(uid.as_str()) else { return Ok(()) };
                pod.sandboxes.remove(id.as_str());
                let running = pod.running().find(|(_, run)| run.sandbox == id.as_str());
                running.map_or(Ok(()), |(name, _)| Err(format!("{name} runs in a sandbox that is removed")))
            }
            Fact::Created(run) => self.of(run, |pod| {
                let is_app =
                    pod.plan.container(run.name.as_str()).is_some_and(|own| own.kind == super::pods::Kind::App);
                if let Some(sandbox) = pod.sandbox.as_mut().filter(|sandbox| sandbox.id == run.sandbox.as_str()) {
                    sandbox.app_was_created |= is_app;
                }
                Ok(())
            }),
            Fact::Started(run) => self.of(run, |pod| {
                if pod.restarting && pod.forgotten {
                    // Nobody tells that the last record is gone.
                    pod.begin_anew();
                }
                let allowed = invariants::may_start(pod, run, now);
                let outdated = pod.images.get(run.name.as_str()).is_some_and(|image| image != run.image);
                pod.runs.entry(run.name.to_string()).or_default().push(Run { outdated, ..Run::of(run) });
                allowed
            }),
            Fact::StopAsked(run, grace) => self.of(run, |pod| {
                let allowed = invariants::may_stop(pod, run, *grace, now);
                if let Some(run) = pod.run_mut(run.name.as_str(), run.id.as_str()) {
                    run.stop_asked = true;
                }
                allowed
            }),
            Fact::Exited(run, code) => self.of(run, |pod| {
                if pod.run_mut(run.name.as_str(), run.id.as_str()).is_none() {
                    // Its sandbox died before it was started: for all that the agent knows it may have run.
                    pod.runs.entry(run.name.to_string()).or_default().push(Run { started: false, ..Run::of(run) });
                }
                if let Some(run) = pod.run_mut(run.name.as_str(), run.id.as_str()) {
                    run.exit = Some((*code, now));
                }
                let container = pod.plan.container(run.name.as_str());
                pod.restarting |= container.is_some_and(|container| container.restarts_pod(*code));
                Ok(())
            }),
            Fact::Removed(run) => self.of(run, |pod| {
                let found = pod.run_mut(run.name.as_str(), run.id.as_str());
                if let Some(found) = found {
                    if found.is_running() {
                        return Err(format!("{} is removed while it runs", run.name));
                    }
                    found.removed = true;
                }
                if pod.restarting && pod.is_cleaned_up() {
                    pod.begin_anew();
                }
                Ok(())
            }),
            Fact::Ran(run, command, code) => self.of(run, |pod| {
                ran(pod, run, command.first().map_or("", String::as_str), *code);
                Ok(())
            }),
        }
    }

    fn of(&mut self, run: &RunFact<'_>, then: impl FnOnce(&mut PodModel) -> Result<(), String>) -> Result<(), String> {
        self.pods.get_mut(run.uid.as_str()).map_or(Ok(()), then)
    }

    fn take_in_object(&mut self, change: &WatchEvent, now: Moment) -> Result<(), String> {
        let object = &*change.object.value;
        let Some(pod) = object["metadata"]["uid"].as_str().and_then(|uid| self.pods.get_mut(uid)) else {
            return Ok(());
        };
        if change.kind == WatchKind::Deleted {
            pod.gone = true;
            return if pod.forced { Ok(()) } else { invariants::nothing_is_left(pod) };
        }
        pod.deleted |= object["metadata"]["deletionTimestamp"].is_string();
        pod.deadline = object["spec"]["activeDeadlineSeconds"].as_u64();
        note_images(pod, &object["spec"]);
        let status = &object["status"];
        if *status == pod.published {
            return Ok(());
        }
        if let (None, Some(start)) = (pod.started, status["startTime"].as_str()) {
            // It may be written a while after it was said.
            let wall = start.parse().unwrap();
            let ago = Duration::try_from(now.wall.duration_since(wall)).unwrap_or_default();
            pod.started = Some(Moment { wall, true_time: now.true_time.saturating_sub(ago) });
        }
        let sound = invariants::status_is_sound(pod, object);
        pod.published = status.clone();
        pod.terminal |= matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
        sound
    }
}

/// A probe or hook has come to an end.
fn ran(pod: &mut PodModel, fact: &RunFact<'_>, program: &str, code: Option<i32>) {
    let what = program.split('-').next().unwrap_or_default();
    let Some(container) = pod.plan.container(fact.name.as_str()) else { return };
    let probe = if what == STARTUP { container.startup } else { container.liveness };
    let Some(run) = pod.run_mut(fact.name.as_str(), fact.id.as_str()) else { return };
    let well = code == Some(0);
    match what {
        STARTUP | LIVENESS => {
            run.startup_passed |= well && what == STARTUP;
            let failures = run.failures.entry(what.to_owned()).or_default();
            *failures = if well { 0 } else { *failures + 1 };
            run.condemned |= probe.is_some_and(|probe| *failures >= probe.failures);
        }
        POST_START => {
            run.post_start_passed |= well;
            run.condemned |= !well;
        }
        PRE_STOP => run.pre_stop_ended = true,
        _ => {}
    }
}

fn note_images(pod: &mut PodModel, spec: &Value) {
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            let (Some(name), Some(image)) = (container["name"].as_str(), container["image"].as_str()) else { continue };
            pod.images.insert(name.to_owned(), image.to_owned());
            let cpu = container["resources"]["requests"]["cpu"].as_str().unwrap_or_default();
            pod.cpu.insert(name.to_owned(), cpu.to_owned());
            for run in pod.runs.get_mut(name).into_iter().flatten().filter(|run| run.is_running()) {
                run.outdated |= run.image != image;
            }
        }
    }
}
