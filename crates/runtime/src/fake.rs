//! A runtime without a kernel, for tests of those that call one: it keeps state, obeys the rules of the trait, and fails
//! on request. Nothing runs: a test says when a container exits, and what its program does on a signal.

mod facts;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spec::{ContainerId, ContainerName, PodUid, SandboxId, Timestamp, VolumeName};
use tokio::sync::{Notify, broadcast};

use crate::config::{ContainerConfig, LinuxResources, PodSandboxConfig};
use crate::status::{
    ContainerExit, ContainerState, ContainerStatus, ExitReason, PodSandboxState, PodSandboxStatus, RuntimeEvent,
};
use crate::usage::CgroupUsage;

pub use facts::{Fact, RunFact};

/// A verb that can be made to fail, and that the history tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// [`Runtime::run_pod_sandbox`]
    RunPodSandbox,
    /// What [`Runtime::begin_pod_sandbox`] leaves.
    FinishPodSandbox,
    /// [`Runtime::stop_pod_sandbox`]
    StopPodSandbox,
    /// [`Runtime::remove_pod_sandbox`]
    RemovePodSandbox,
    /// [`Runtime::create_container`]
    CreateContainer,
    /// [`Runtime::start_container`]
    StartContainer,
    /// [`Runtime::stop_container`]
    StopContainer,
    /// [`Runtime::remove_container`]
    RemoveContainer,
}

/// How a container's program takes the stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// It ends at once with this code.
    Exits(i32),
    /// It does not handle it, and is killed at the end of the grace period.
    Ignores,
}

/// How a command ends that is run in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExec {
    /// At once, with this code.
    Exits(i32),
    /// Not by itself.
    Hangs,
    /// It is never started.
    CannotStart,
}

/// What happened, in order: the verb, whom it was about (`namespace/name` of a sandbox's pod, or a container's name), and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Which verb succeeded.
    pub verb: Verb,
    /// Whom it was about.
    pub subject: String,
    /// Number of the sandbox or of the run.
    pub attempt: u32,
    /// By the fake's clock.
    pub at: Timestamp,
}

type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;
type Listener = Arc<dyn Fn(&Fact<'_>) + Send + Sync>;

/// The fake. A clone is the same runtime, as another daemon would find it.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<RuntimeEvent>,
    changed: Arc<Notify>,
    now: Now,
    /// Memory of pods is a directory here.
    tmpfs_root: Arc<PathBuf>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, FakeSandbox>,
    containers: BTreeMap<ContainerId, FakeContainer>,
    failures: BTreeMap<Verb, u32>,
    failing_starts: BTreeSet<ContainerName>,
    on_signal: BTreeMap<ContainerName, OnSignal>,
    exits_at_once: BTreeMap<ContainerName, i32>,
    on_exec: BTreeMap<String, OnExec>,
    execs: Vec<String>,
    signals: BTreeMap<ContainerName, Option<i32>>,
    history: Vec<Happened>,
    exits: BTreeMap<(String, u32), i32>,
    halt_at: Option<usize>,
    halted: bool,
    /// Steps that the daemon still takes before it dies.
    steps: Option<u32>,
    slow: BTreeMap<Verb, (u32, Duration)>,
    lives: BTreeMap<ContainerName, (Duration, i32)>,
    listener: Option<Listener>,
    ids: u64,
    addresses: u8,
    usage: BTreeMap<PodUid, CgroupUsage>,
}

struct FakeSandbox {
    status: PodSandboxStatus,
    config: PodSandboxConfig,
}

struct FakeContainer {
    status: ContainerStatus,
    config: ContainerConfig,
    deadline: Option<tokio::time::Instant>,
}

impl FakeRuntime {
    /// An empty machine. `tmpfs_root` is a directory where the pods' memory can be looked at; `now` is wall time.
    pub fn new(tmpfs_root: impl Into<PathBuf>, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::default(),
            events: broadcast::Sender::new(1024),
            changed: Arc::default(),
            now: Arc::new(now),
            tmpfs_root: Arc::new(tmpfs_root.into()),
        }
    }

    /// The next `times` calls of the verb fail.
    pub fn fail(&self, verb: Verb, times: u32) {
        self.lock().failures.insert(verb, times);
    }

    /// Containers of that name have a program that cannot be executed.
    pub fn fail_starts_of(&self, name: &str) {
        self.lock().failing_starts.insert(ContainerName::new(name));
    }

    /// What programs of containers with that name do on a signal; without this they end with 143, as a shell's child.
    pub fn on_signal(&self, name: &str, what: OnSignal) {
        self.lock().on_signal.insert(ContainerName::new(name), what);
    }

    /// Programs of containers with that name end as soon as they start; `None` lets them run.
    pub fn exits_at_once(&self, name: &str, exit_code: Option<i32>) {
        let mut state = self.lock();
        match exit_code {
            Some(code) => drop(state.exits_at_once.insert(ContainerName::new(name), code)),
            None => drop(state.exits_at_once.remove(&ContainerName::new(name))),
        }
    }

    /// How commands end whose program is that one; without this they end well at once, and print themselves.
    pub fn on_exec(&self, program: &str, what: OnExec) {
        self.lock().on_exec.insert(program.to_owned(), what);
        self.changed.notify_waiters();
    }

    /// The commands that were run to their end or their time-out so far, each behind its container's name.
    pub fn execs(&self) -> Vec<String> {
        self.lock().execs.clone()
    }

    /// The signal that a container of that name was last asked to stop with, if it was; `None` in it is the image's own.
    pub fn stop_signal(&self, name: &str) -> Option<Option<i32>> {
        self.lock().signals.get(&ContainerName::new(name)).copied()
    }

    /// Limits of the running container of that name.
    pub fn resources(&self, name: &str) -> Option<LinuxResources> {
        let state = self.lock();
        let running = |container: &&FakeContainer| matches!(container.status.state, ContainerState::Running { .. });
        let found = state.containers.values().filter(running).find(|container| container.status.name.as_str() == name);
        found.map(|container| container.status.resources.clone())
    }

    /// Limits of a pod as a whole.
    pub fn pod_resources(&self, uid: &PodUid) -> Option<LinuxResources> {
        let state = self.lock();
        let found = state.sandboxes.values().find(|sandbox| sandbox.status.uid == *uid);
        found.map(|sandbox| sandbox.status.resources.clone())
    }

    /// What the pod's containers, and each of them, use from now on.
    pub fn set_usage(&self, uid: &PodUid, usage: CgroupUsage) {
        self.lock().usage.insert(uid.clone(), usage);
    }

    /// The next `times` calls of the verb take so long before they do anything.
    pub fn slow_down(&self, verb: Verb, times: u32, takes: Duration) {
        self.lock().slow.insert(verb, (times, takes));
    }

    /// From now on programs of containers with that name end by themselves after a while; `None` lets them run.
    pub fn lives(&self, name: &str, life: Option<(Duration, i32)>) {
        let mut state = self.lock();
        match life {
            Some(life) => drop(state.lives.insert(ContainerName::new(name), life)),
            None => drop(state.lives.remove(&ContainerName::new(name))),
        }
    }

    /// Tells of all that happens from now on, in the moment in which it does. The listener may not call the runtime.
    pub fn listen(&self, listener: impl Fn(&Fact<'_>) + Send + Sync + 'static) {
        self.lock().listener = Some(Arc::new(listener));
    }

    /// The running container of that name ends. Returns whether there was one.
    pub fn exit(&self, name: &str, exit_code: i32) -> bool {
        self.end(name, exit_code, &ExitReason::Exited)
    }

    /// The kernel kills the running container of that name for lack of memory.
    pub fn kill_for_memory(&self, name: &str) -> bool {
        self.end(name, 137, &ExitReason::OomKilled)
    }

    /// The infra process of each sandbox of the pod dies, and its containers with it.
    pub fn kill_sandboxes(&self, uid: &PodUid) {
        let now = (self.now)();
        let mut state = self.lock();
        state.kill_sandboxes(uid, now);
        drop(state);
        self.tell(uid);
    }

    /// The infra processes of a Pod stop to answer, or answer again.
    pub fn set_silent(&self, uid: &PodUid, silent: bool) {
        let state = if silent { PodSandboxState::Silent } else { PodSandboxState::Ready };
        for sandbox in self.lock().sandboxes.values_mut().filter(|sandbox| &sandbox.status.uid == uid) {
            sandbox.status.state = state;
        }
        self.tell(uid);
    }

    /// The machine starts anew: every infra process is gone. What was recorded is there.
    pub fn reboot(&self) {
        let now = (self.now)();
        let mut state = self.lock();
        let pods: BTreeSet<PodUid> = state.sandboxes.values().map(|sandbox| sandbox.status.uid.clone()).collect();
        for uid in &pods {
            state.kill_sandboxes(uid, now);
        }
    }

    /// The daemon dies when `verbs` more verbs have succeeded: that one and all later ones do what they should, or nothing
    /// at all, and their callers never hear of it.
    pub fn halt_after(&self, verbs: usize) {
        let mut state = self.lock();
        state.halt_at = Some(state.history.len() + verbs);
    }

    /// The daemon dies after so many more steps: calls and returns of verbs, and whoever else takes a [`Self::step`].
    pub fn halt_after_steps(&self, steps: u32) {
        self.lock().steps = Some(steps);
    }

    /// Returns once the daemon has died of [`Self::halt_after`] or [`Self::halt_after_steps`].
    pub async fn halted(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.lock().halted {
                return;
            }
            changed.await;
        }
    }

    /// The next daemon lives on.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.halt_at = None;
        state.steps = None;
        state.halted = false;
    }

    /// The machine loses all sandboxes and containers, and all records of them.
    pub fn forget_everything(&self) {
        self.reboot();
        let mut state = self.lock();
        state.sandboxes.values().for_each(|sandbox| {
            state.tell(&Fact::SandboxRemoved { uid: &sandbox.status.uid, id: &sandbox.status.id });
        });
        for container in state.containers.values() {
            state.tell(&Fact::Removed(RunFact::of(&container.status)));
        }
        state.sandboxes.clear();
        state.containers.clear();
    }

    /// What happened so far.
    pub fn history(&self) -> Vec<Happened> {
        self.lock().history.clone()
    }

    /// The config of the latest run of a container.
    pub fn container_config(&self, name: &str) -> Option<ContainerConfig> {
        let state = self.lock();
        let runs = state.containers.values().filter(|container| container.status.name.as_str() == name);
        runs.max_by_key(|container| container.status.attempt).map(|container| container.config.clone())
    }

    /// The config of the latest sandbox of a pod.
    pub fn sandbox_config(&self, uid: &PodUid) -> Option<PodSandboxConfig> {
        let state = self.lock();
        let sandboxes = state.sandboxes.values().filter(|sandbox| &sandbox.status.uid == uid);
        sandboxes.max_by_key(|sandbox| sandbox.status.attempt).map(|sandbox| sandbox.config.clone())
    }

    /// Exit codes by container name and number of the run, also of runs that were removed since.
    pub fn exits(&self) -> BTreeMap<(String, u32), i32> {
        let state = self.lock();
        let present = state.containers.values().filter_map(exit_of);
        state.exits.clone().into_iter().chain(present).collect()
    }

    /// How many of the failures that a test asked for are still to come.
    pub fn failures_left(&self, verb: Verb) -> u32 {
        self.lock().failures.get(&verb).copied().unwrap_or_default()
    }

    /// Whether a container of the pod was asked to stop and still runs.
    pub fn is_stopping(&self, uid: &PodUid) -> bool {
        let state = self.lock();
        let running = state.containers.values().filter(|container| {
            &container.status.pod_uid == uid && matches!(container.status.state, ContainerState::Running { .. })
        });
        running.into_iter().any(|container| container.deadline.is_some())
    }

    /// Whether nothing is left of any pod.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    }

    /// Where the memory of a pod's volume can be looked at.
    pub fn tmpfs_path(&self, sandbox: &SandboxId, volume: &VolumeName) -> PathBuf {
        self.tmpfs_root.join(sandbox.as_str()).join(volume.as_str())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step of the daemon: where a caller stays for ever if it has died.
    pub async fn step(&self) {
        let halted = {
            let mut state = self.lock();
            state.halted |= state.halt_at.is_some_and(|halt_at| state.history.len() >= halt_at);
            state.halted |= state.steps == Some(0);
            state.steps = state.steps.map(|steps| steps.saturating_sub(1));
            state.halted
        };
        if halted {
            self.changed.notify_waiters();
            std::future::pending::<()>().await;
        }
    }

    /// Where a verb begins.
    async fn enter(&self, verb: Verb) {
        self.step().await;
        let takes = self.lock().takes(verb);
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
            self.step().await;
        }
    }

    fn tell(&self, uid: &PodUid) {
        self.changed.notify_waiters();
        // Nobody may be listening.
        drop(self.events.send(RuntimeEvent { pod_uid: uid.clone(), lost_output: None }));
    }

    fn end(&self, name: &str, exit_code: i32, reason: &ExitReason) -> bool {
        let now = (self.now)();
        let mut state = self.lock();
        let running = state.containers.values().find(|container| {
            container.status.name.as_str() == name && matches!(container.status.state, ContainerState::Running { .. })
        });
        let Some((id, uid)) = running.map(|one| (one.status.id.clone(), one.status.pod_uid.clone())) else {
            return false;
        };
        state.end(&id, exit_code, reason, now);
        drop(state);
        self.tell(&uid);
        true
    }

    /// That run ends, if it runs.
    fn end_run(&self, id: &ContainerId, exit_code: i32) {
        let now = (self.now)();
        let mut state = self.lock();
        let running = |container: &&FakeContainer| matches!(container.status.state, ContainerState::Running { .. });
        let found = state.containers.get(id).filter(running);
        let Some(uid) = found.map(|container| container.status.pod_uid.clone()) else { return };
        state.end(id, exit_code, &ExitReason::Exited, now);
        drop(state);
        self.tell(&uid);
    }
}

impl State {
    /// Uses up one of the failures that a test asked for.
    fn must_fail(&mut self, verb: Verb) -> bool {
        match self.failures.get_mut(&verb) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// How long the next call of the verb takes before it does anything.
    fn takes(&mut self, verb: Verb) -> Duration {
        match self.slow.get_mut(&verb) {
            Some((left, takes)) if *left > 0 => {
                *left -= 1;
                *takes
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    /// The same identifiers each time, of so many bytes: as far from each other as random ones (splitmix64).
    fn next_id(&mut self, bytes: usize) -> String {
        let mut id = String::with_capacity(bytes * 2);
        while id.len() < bytes * 2 {
            self.ids = self.ids.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.ids ^ (self.ids >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            // Writing to a String cannot fail.
            let _ok = write!(id, "{:016x}", mixed ^ (mixed >> 31));
        }
        id
    }

    fn tell(&self, fact: &Fact<'_>) {
        if let Some(listener) = &self.listener {
            listener(fact);
        }
    }

    /// Ends a run, and tells of it if that is news.
    fn end(&mut self, id: &ContainerId, exit_code: i32, reason: &ExitReason, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if container.end(exit_code, reason.clone(), now) {
            let status = container.status.clone();
            self.tell(&Fact::Exited(RunFact::of(&status), exit_code));
        }
    }

    fn end_all(&mut self, which: impl Fn(&ContainerStatus) -> bool, reason: &ExitReason, now: Timestamp) {
        let runs = self.containers.values().filter(|container| which(&container.status));
        let ids: Vec<_> = runs.map(|container| container.status.id.clone()).collect();
        for id in &ids {
            self.end(id, 137, reason, now);
        }
    }

    fn kill_sandboxes(&mut self, uid: &PodUid, now: Timestamp) {
        for sandbox in self.sandboxes.values_mut().filter(|sandbox| &sandbox.status.uid == uid) {
            sandbox.status.state = PodSandboxState::NotReady;
            sandbox.status.addresses.clear();
        }
        self.tell(&Fact::SandboxesDied { uid });
        self.end_all(|status| &status.pod_uid == uid, &ExitReason::Unknown, now);
    }

    fn happened(&mut self, verb: Verb, subject: impl Into<String>, attempt: u32, at: Timestamp) {
        self.history.push(Happened { verb, subject: subject.into(), attempt, at });
    }

    fn stop_sandbox(&mut self, id: &SandboxId, now: Timestamp) {
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            sandbox.status.state = PodSandboxState::NotReady;
            sandbox.status.addresses.clear();
        }
        self.end_all(|status| &status.sandbox_id == id, &ExitReason::Exited, now);
    }
}

impl FakeContainer {
    /// Whether that is news.
    fn end(&mut self, exit_code: i32, reason: ExitReason, now: Timestamp) -> bool {
        let started_at = match &self.status.state {
            ContainerState::Created => None,
            ContainerState::Running { started_at } => Some(*started_at),
            ContainerState::Exited(_) => return false,
        };
        let exit = ContainerExit { started_at, finished_at: now, exit_code, reason };
        self.status.state = ContainerState::Exited(exit);
        true
    }
}

fn exit_of(container: &FakeContainer) -> Option<((String, u32), i32)> {
    match &container.status.state {
        ContainerState::Created | ContainerState::Running { .. } => None,
        ContainerState::Exited(exit) => {
            Some(((container.status.name.to_string(), container.status.attempt), exit.exit_code))
        }
    }
}

fn injected() -> Box<dyn std::error::Error + Send + Sync> {
    "the test wants it to fail".into()
}
