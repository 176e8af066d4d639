//! What is known of each Pod from outside: what the runtime did and what the store holds, as it happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime::fake::RunFact;
use serde_json::Value;
use spec::Timestamp;

use super::pods::Plan;

/// A moment by both clocks; the second one never jumps, and goes on while the machine is off.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub wall: Timestamp,
    pub true_time: Duration,
}

impl Moment {
    /// How long after `earlier` this is, by whichever clock says more: after a reboot only wall time is left, and it may
    /// have jumped.
    pub fn since(self, earlier: Self) -> Duration {
        let wall = Duration::try_from(self.wall.duration_since(earlier.wall)).unwrap_or_default();
        wall.max(self.true_time.saturating_sub(earlier.true_time))
    }
}

/// One run of a container.
#[derive(Debug, Clone)]
pub struct Run {
    pub id: String,
    pub attempt: u32,
    pub sandbox: String,
    pub image: String,
    pub exit: Option<(i32, Moment)>,
    pub startup_passed: bool,
    pub post_start_passed: bool,
    pub pre_stop_ended: bool,
    pub stop_asked: bool,
    /// Whether the Pod wanted another image at some time while it ran.
    pub outdated: bool,
    /// Failures in a row, by probe.
    pub failures: BTreeMap<String, u32>,
    /// A probe or hook that would have it ended.
    pub condemned: bool,
    /// The runtime has no record of it any more.
    pub removed: bool,
    /// Its program was started. Else its sandbox died before, and its number may be another's.
    pub started: bool,
}

impl Run {
    pub fn of(fact: &RunFact<'_>) -> Self {
        Self {
            id: fact.id.to_string(),
            attempt: fact.attempt,
            sandbox: fact.sandbox.to_string(),
            image: fact.image.to_owned(),
            exit: None,
            startup_passed: false,
            post_start_passed: false,
            pre_stop_ended: false,
            stop_asked: false,
            outdated: false,
            failures: BTreeMap::new(),
            condemned: false,
            removed: false,
            started: true,
        }
    }

    pub fn is_running(&self) -> bool {
        self.exit.is_none()
    }
}

/// Where a container stands in its crash loop.
#[derive(Debug, Clone)]
pub struct CrashLoop {
    pub image: String,
    pub delay: Duration,
    /// The end of the run before the last restart: nobody can have decided on it earlier, whatever the clock said then.
    pub since: Moment,
}

/// The newest sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub id: String,
    pub alive: bool,
    pub app_was_created: bool,
}

/// One Pod.
#[derive(Debug, Clone)]
pub struct PodModel {
    pub plan: Plan,
    /// By container: what the spec asks for.
    pub images: BTreeMap<String, String>,
    pub sandbox: Option<Sandbox>,
    pub sandboxes: BTreeSet<String>,
    pub runs: BTreeMap<String, Vec<Run>>,
    pub loops: BTreeMap<String, CrashLoop>,
    pub deadline: Option<u64>,
    pub started: Option<Moment>,
    pub deleted: bool,
    /// Its object is gone.
    pub gone: bool,
    /// By force, so that something of it may be left.
    pub forced: bool,
    /// The agent has had its time to see that nothing may start any more.
    pub closed: bool,
    pub terminal: bool,
    pub published: Value,
    /// The runtime has lost its records once.
    pub forgotten: bool,
    /// By container: the CPU that the spec asks for.
    pub cpu: BTreeMap<String, String>,
    /// The node may have ended it.
    pub evicted: bool,
    /// One of its containers has ended in a way that has the whole Pod begin anew.
    pub restarting: bool,
    /// By container: the highest number of runs that are gone with such a restart.
    pub counted: BTreeMap<String, u32>,
}

impl PodModel {
    /// Whether one of its containers has ended so short a time ago.
    pub fn has_ended_within(&self, delay: Duration, now: Moment) -> bool {
        let mut ends = self.runs.values().flatten().filter_map(|run| run.exit);
        ends.any(|(_, end)| now.true_time <= end.true_time + delay)
    }

    pub fn new(plan: Plan) -> Self {
        let images = plan.containers.iter().map(|container| (container.name.clone(), "app:1".to_owned())).collect();
        Self {
            deadline: plan.deadline,
            plan,
            images,
            sandbox: None,
            sandboxes: BTreeSet::new(),
            runs: BTreeMap::new(),
            loops: BTreeMap::new(),
            started: None,
            deleted: false,
            gone: false,
            forced: false,
            closed: false,
            terminal: false,
            published: Value::Null,
            forgotten: false,
            cpu: BTreeMap::new(),
            evicted: false,
            restarting: false,
            counted: BTreeMap::new(),
        }
    }

    /// The runtime loses all it knows. Ends that no status tells of are unknown, and nobody knows when they came.
    pub fn forget(&mut self) {
        self.forgotten = true;
        self.loops.clear();
        let published = self.published.to_string();
        for runs in self.runs.values_mut() {
            runs.retain(|run| published.contains(&run.id));
        }
        for run in self.runs.values_mut().flatten() {
            let told = published.contains(&format!(r#""containerID":"monopod://{}","exitCode":"#, run.id));
            run.exit = run.exit.map(|(code, at)| (if told { code } else { 137 }, at));
        }
    }

    /// All runs are gone: the Pod begins anew, as one that never ran.
    pub fn begin_anew(&mut self) {
        self.restarting = false;
        let members: Vec<_> = self.plan.containers.iter().map(|container| container.name.clone()).collect();
        for name in members {
            for run in self.runs.remove(&name).unwrap_or_default() {
                let highest = self.counted.entry(name.clone()).or_default();
                *highest = run.attempt.max(*highest);
            }
        }
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.app_was_created = false;
        }
    }

    /// Whether no record of a run is left of the containers that belong to the Pod.
    pub fn is_cleaned_up(&self) -> bool {
        let runs = self.plan.containers.iter().filter_map(|container| self.runs.get(&container.name));
        runs.flatten().all(|run| run.removed)
    }

    pub fn latest(&self, name: &str) -> Option<&Run> {
        self.runs.get(name)?.last()
    }

    pub fn run_mut(&mut self, name: &str, id: &str) -> Option<&mut Run> {
        self.runs.get_mut(name)?.iter_mut().rev().find(|run| run.id == id)
    }

    pub fn running(&self) -> impl Iterator<Item = (&String, &Run)> {
        self.runs
            .iter()
            .flat_map(|(name, runs)| runs.iter().map(move |run| (name, run)))
            .filter(|(_, run)| run.is_running())
    }

    /// Whether a run in the present sandbox has come as far as what follows the container waits for.
    pub fn was_done_in(&self, name: &str, sandbox: &str) -> bool {
        let Some(container) = self.plan.container(name) else { return false };
        let runs = self.runs.get(name).into_iter().flatten().filter(|run| run.sandbox == sandbox);
        runs.into_iter().any(|run| match container.kind {
            super::pods::Kind::Init => run.exit.is_some_and(|(code, _)| code == 0),
            super::pods::Kind::Sidecar | super::pods::Kind::App => {
                (container.startup.is_none() || run.startup_passed) && (!container.post_start || run.post_start_passed)
            }
        })
    }

    /// Whether the Pod has reason to end: somebody deleted it, its time is over, or its containers are done.
    pub fn may_end(&self, now: Moment) -> bool {
        let active = self.started.map(|started| now.since(started));
        let past = |seconds| active.is_some_and(|active| active >= Duration::from_secs(seconds));
        self.deleted
            || self.gone
            || self.terminal
            || self.evicted
            || self.restarting
            || self.deadline.is_some_and(past)
            || self.is_done()
    }

    /// Whether all app containers have ended for good, or an init container has failed for good.
    fn is_done(&self) -> bool {
        let ended = |name: &str| self.latest(name).and_then(|run| run.exit.map(|(code, _)| (code, run)));
        let for_good = |container: &super::pods::ContainerPlan| {
            ended(&container.name).is_some_and(|(code, run)| {
                let code = if run.condemned { code.max(1) } else { code };
                !container.starts_again(self.plan.policy, code)
            })
        };
        let inits = self.plan.containers.iter().filter(|container| container.kind == super::pods::Kind::Init);
        let init_failed =
            inits.filter(|init| for_good(init)).any(|init| ended(&init.name).is_some_and(|(code, _)| code != 0));
        let lost_all = self.plan.policy == "Never" && self.sandbox.as_ref().is_some_and(|sandbox| !sandbox.alive);
        init_failed || lost_all || self.plan.apps().all(for_good)
    }
}
