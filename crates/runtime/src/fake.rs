//! A runtime without a kernel, for tests of those that call one: it keeps state, obeys the rules of the trait, and fails
//! on request. Nothing runs: a test says when a container exits, and what its program does on a signal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use spec::{ContainerId, ContainerName, PodUid, SandboxId, Timestamp, VolumeName};
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast};

use crate::config::{ContainerConfig, LinuxResources, PodSandboxConfig};
use crate::error::RuntimeError;
use crate::status::{
    ContainerExit, ContainerState, ContainerStatus, ExitReason, PodSandboxState, PodSandboxStatus, ResolvedUser,
    RuntimeEvent,
};
use crate::usage::{CgroupUsage, ContainerUsage, PodUsage};
use crate::verbs::{ExecOutput, ExecRequest, Runtime, Session, SessionEnd};

/// A verb that can be made to fail, and that the history tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// [`Runtime::run_pod_sandbox`]
    RunPodSandbox,
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
        for sandbox in state.sandboxes.values_mut().filter(|sandbox| &sandbox.status.uid == uid) {
            sandbox.status.state = PodSandboxState::NotReady;
            sandbox.status.addresses.clear();
        }
        for container in state.containers.values_mut().filter(|container| &container.status.pod_uid == uid) {
            container.end(137, ExitReason::Unknown, now);
        }
        drop(state);
        self.tell(uid);
    }

    /// The daemon dies when `verbs` more verbs have succeeded: that one and all later ones do what they should, or nothing
    /// at all, and their callers never hear of it.
    pub fn halt_after(&self, verbs: usize) {
        let mut state = self.lock();
        state.halt_at = Some(state.history.len() + verbs);
    }

    /// Returns once the daemon has died of [`Self::halt_after`].
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
        state.halted = false;
    }

    /// The machine loses all sandboxes and containers, and all records of them.
    pub fn forget_everything(&self) {
        let mut state = self.lock();
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

    /// Where a caller stays for ever if its daemon has died.
    async fn gate(&self) {
        let halted = {
            let mut state = self.lock();
            state.halted |= state.halt_at.is_some_and(|halt_at| state.history.len() >= halt_at);
            state.halted
        };
        if halted {
            self.changed.notify_waiters();
            std::future::pending::<()>().await;
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
        let running = state.containers.values_mut().find(|container| {
            container.status.name.as_str() == name && matches!(container.status.state, ContainerState::Running { .. })
        });
        let Some(container) = running else { return false };
        container.end(exit_code, reason.clone(), now);
        let uid = container.status.pod_uid.clone();
        drop(state);
        self.tell(&uid);
        true
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

    fn happened(&mut self, verb: Verb, subject: impl Into<String>, attempt: u32, at: Timestamp) {
        self.history.push(Happened { verb, subject: subject.into(), attempt, at });
    }

    fn stop_sandbox(&mut self, id: &SandboxId, now: Timestamp) {
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            sandbox.status.state = PodSandboxState::NotReady;
            sandbox.status.addresses.clear();
        }
        for container in self.containers.values_mut().filter(|container| &container.status.sandbox_id == id) {
            container.end(137, ExitReason::Exited, now);
        }
    }
}

impl FakeContainer {
    fn end(&mut self, exit_code: i32, reason: ExitReason, now: Timestamp) {
        let started_at = match &self.status.state {
            ContainerState::Created => None,
            ContainerState::Running { started_at } => Some(*started_at),
            ContainerState::Exited(_) => return,
        };
        let signal = (exit_code > 128).then_some(exit_code - 128);
        let exit = ContainerExit { started_at, finished_at: now, exit_code, signal, reason };
        self.status.state = ContainerState::Exited(exit);
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

#[async_trait]
impl Runtime for FakeRuntime {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<PodSandboxStatus, RuntimeError> {
        self.gate().await;
        let result = self.run_pod_sandbox_now(config);
        self.gate().await;
        result
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.gate().await;
        let result = self.stop_pod_sandbox_now(id);
        self.gate().await;
        result
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.gate().await;
        let result = self.remove_pod_sandbox_now(id);
        self.gate().await;
        result
    }

    async fn list_pod_sandboxes(&self) -> Vec<PodSandboxStatus> {
        self.lock().sandboxes.values().map(|sandbox| sandbox.status.clone()).collect()
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.gate().await;
        let result = self.create_container_now(sandbox, config);
        self.gate().await;
        result
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.gate().await;
        let result = self.start_container_now(id);
        self.gate().await;
        result
    }

    async fn stop_container(&self, id: &ContainerId, signal: Option<i32>, grace: Duration) -> Result<(), RuntimeError> {
        self.gate().await;
        self.note_signal(id, signal);
        let asked = tokio::time::Instant::now() + grace;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(deadline) = self.try_stop(id, asked)? else {
                self.gate().await;
                return Ok(());
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.gate().await;
        let result = self.remove_container_now(id);
        self.gate().await;
        result
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        match self.lock().containers.get(id) {
            Some(_) => Ok(()),
            None => Err(RuntimeError::NoSuchContainer(id.clone())),
        }
    }

    async fn list_containers(&self) -> Vec<ContainerStatus> {
        self.lock().containers.values().map(|container| container.status.clone()).collect()
    }

    async fn pod_usage(&self, uid: &PodUid) -> PodUsage {
        let state = self.lock();
        let cgroup = state.usage.get(uid).copied().unwrap_or_default();
        let own = state.containers.values().filter(|container| container.status.pod_uid == *uid);
        let containers = own.map(|container| ContainerUsage {
            id: container.status.id.clone(),
            name: container.status.name.clone(),
            cgroup,
            writable_layer: self.tmpfs_root.join("layers").join(container.status.id.as_str()),
        });
        PodUsage { containers: containers.collect(), cgroup }
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        let container = state.containers.get_mut(id).ok_or_else(|| RuntimeError::NoSuchContainer(id.clone()))?;
        container.config.resources = resources.clone();
        container.status.resources = resources.clone();
        Ok(())
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        let sandbox = state.sandboxes.get_mut(id).ok_or_else(|| RuntimeError::NoSuchSandbox(id.clone()))?;
        sandbox.status.resources = resources.clone();
        Ok(())
    }

    /// A process that writes its command line and ends well.
    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session, RuntimeError> {
        self.check_running(id)?;
        let output = std::io::Cursor::new(format!("{}\n", request.command.join(" ")).into_bytes());
        Ok(Session {
            stdin: request.stdin.then(|| Box::pin(tokio::io::sink()) as _),
            stdout: request.stdout.then(|| Box::pin(output) as _),
            stderr: request.stderr.then(|| Box::pin(tokio::io::empty()) as _),
            resize: request.tty.then(|| Box::new(|_| Ok(())) as _),
            end: Box::pin(std::future::ready(SessionEnd::Exited(0))),
        })
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        output_limit: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        self.check_running(id)?;
        let what = self.begin_exec(id, &command)?;
        let mut stdout = format!("{}\n", command.join(" ")).into_bytes();
        stdout.truncate(output_limit);
        let exit_code = match what {
            OnExec::Exits(code) => Some(code),
            OnExec::Hangs | OnExec::CannotStart => {
                tokio::select! {
                    () = self.ended(id) => Some(137),
                    () = tokio::time::sleep(timeout) => None,
                }
            }
        };
        Ok(ExecOutput { exit_code, stdout, stderr: Vec::new() })
    }

    /// A connection without output that lasts as long as the container runs.
    async fn attach(&self, id: &ContainerId, stdin: bool, stdout: bool, stderr: bool) -> Result<Session, RuntimeError> {
        self.check_running(id)?;
        let (runtime, id) = (self.clone(), id.clone());
        let end = async move {
            loop {
                let changed = runtime.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let state = runtime.lock().containers.get(&id).map(|container| container.status.state.clone());
                match state {
                    None => return SessionEnd::Lost,
                    Some(ContainerState::Exited(exit)) => return SessionEnd::Exited(exit.exit_code),
                    Some(ContainerState::Created | ContainerState::Running { .. }) => changed.await,
                }
            }
        };
        Ok(Session {
            stdin: stdin.then(|| Box::pin(tokio::io::sink()) as _),
            stdout: stdout.then(|| Box::pin(tokio::io::empty()) as _),
            stderr: stderr.then(|| Box::pin(tokio::io::empty()) as _),
            resize: None,
            end: Box::pin(end),
        })
    }

    /// The Pods of this runtime have the machine's own `localhost`.
    async fn connect(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError> {
        let pod = self.lock().sandboxes.get(sandbox).map(|sandbox| sandbox.config.pod.clone());
        let pod = pod.ok_or_else(|| RuntimeError::NoSuchSandbox(sandbox.clone()))?;
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        connected.map_err(|source| RuntimeError::Connect { pod, port, source })
    }

    async fn open_pod_tmpfs(&self, sandbox: &SandboxId, volume: &VolumeName) -> Result<OwnedFd, RuntimeError> {
        let known = self.lock().sandboxes.get(sandbox).is_some_and(|sandbox| {
            sandbox.status.state == PodSandboxState::Ready
                && sandbox.config.tmpfs.iter().any(|tmpfs| &tmpfs.volume == volume)
        });
        if !known {
            return Err(RuntimeError::NoSuchSandbox(sandbox.clone()));
        }
        let path = self.tmpfs_path(sandbox, volume);
        open_made(&path).map_err(|source| RuntimeError::Remove {
            step: format!("open {}", path.display()),
            source: Box::new(source),
        })
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }
}

impl FakeRuntime {
    fn run_pod_sandbox_now(&self, config: PodSandboxConfig) -> Result<PodSandboxStatus, RuntimeError> {
        let now = (self.now)();
        let mut state = self.lock();
        if state.must_fail(Verb::RunPodSandbox) {
            return Err(RuntimeError::RunSandbox {
                pod: config.pod,
                step: "make its network".to_owned(),
                source: injected(),
            });
        }
        state.addresses = state.addresses.wrapping_add(1);
        let address = IpAddr::V4(Ipv4Addr::new(10, 85, 0, state.addresses));
        let status = PodSandboxStatus {
            id: SandboxId::random(),
            pod: config.pod.clone(),
            uid: config.uid.clone(),
            attempt: config.attempt,
            state: PodSandboxState::Ready,
            addresses: vec![address],
            created_at: now,
            resources: config.resources.clone(),
            labels: config.labels.clone(),
        };
        state.happened(Verb::RunPodSandbox, config.pod.to_string(), config.attempt, now);
        let sandbox = FakeSandbox { status: status.clone(), config };
        state.sandboxes.insert(status.id.clone(), sandbox);
        drop(state);
        self.tell(&status.uid);
        Ok(status)
    }

    fn stop_pod_sandbox_now(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let now = (self.now)();
        let mut state = self.lock();
        if state.must_fail(Verb::StopPodSandbox) {
            return Err(RuntimeError::Remove { step: format!("stop sandbox {id}"), source: injected() });
        }
        let Some(sandbox) = state.sandboxes.get(id) else { return Ok(()) };
        let (uid, pod, attempt) = (sandbox.status.uid.clone(), sandbox.status.pod.to_string(), sandbox.status.attempt);
        state.stop_sandbox(id, now);
        state.happened(Verb::StopPodSandbox, pod, attempt, now);
        drop(state);
        self.tell(&uid);
        Ok(())
    }

    fn remove_pod_sandbox_now(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let now = (self.now)();
        let mut state = self.lock();
        if state.must_fail(Verb::RemovePodSandbox) {
            return Err(RuntimeError::Remove { step: format!("remove sandbox {id}"), source: injected() });
        }
        state.stop_sandbox(id, now);
        let Some(sandbox) = state.sandboxes.remove(id) else { return Ok(()) };
        let exits: Vec<_> = state.containers.values().filter_map(exit_of).collect();
        state.exits.extend(exits);
        state.containers.retain(|_, container| &container.status.sandbox_id != id);
        state.happened(Verb::RemovePodSandbox, sandbox.status.pod.to_string(), sandbox.status.attempt, now);
        drop(state);
        self.tell(&sandbox.status.uid);
        Ok(())
    }

    fn create_container_now(&self, sandbox: &SandboxId, config: ContainerConfig) -> Result<ContainerId, RuntimeError> {
        let now = (self.now)();
        let mut state = self.lock();
        if state.must_fail(Verb::CreateContainer) {
            let step = "assemble its root".to_owned();
            return Err(RuntimeError::CreateContainer { name: config.name, step, source: injected() });
        }
        let Some(owner) = state.sandboxes.get(sandbox) else {
            return Err(RuntimeError::NoSuchSandbox(sandbox.clone()));
        };
        if owner.status.state != PodSandboxState::Ready {
            return Err(RuntimeError::SandboxNotReady { pod: owner.status.pod.clone() });
        }
        let id = ContainerId::random();
        let log_path = owner.config.log_directory.join(config.name.as_str()).join(format!("{}.log", config.attempt));
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox.clone(),
            pod_uid: owner.status.uid.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image_ref: config.image_ref.clone(),
            image_id: config.image_id.clone(),
            labels: config.labels.clone(),
            created_at: now,
            log_path,
            resources: config.resources.clone(),
            user: None,
            stop_signal: config.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned()),
            state: ContainerState::Created,
        };
        let uid = status.pod_uid.clone();
        state.happened(Verb::CreateContainer, config.name.as_str(), config.attempt, now);
        state.containers.insert(id.clone(), FakeContainer { status, config, deadline: None });
        drop(state);
        self.tell(&uid);
        Ok(id)
    }

    fn start_container_now(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let now = (self.now)();
        let mut state = self.lock();
        let cannot = state.must_fail(Verb::StartContainer);
        let Some(container) = state.containers.get(id) else {
            return Err(RuntimeError::NoSuchContainer(id.clone()));
        };
        let (name, attempt, uid) =
            (container.status.name.clone(), container.status.attempt, container.status.pod_uid.clone());
        let cannot = cannot || state.failing_starts.contains(&name);
        let at_once = state.exits_at_once.get(&name).copied();
        let Some(container) = state.containers.get_mut(id) else {
            return Err(RuntimeError::NoSuchContainer(id.clone()));
        };
        if cannot {
            let error = RuntimeError::StartContainer {
                name,
                step: "execute".to_owned(),
                path: Some(PathBuf::from("/no/such/program")),
                source: std::io::Error::from_raw_os_error(2),
            };
            let message = format!("{error}: No such file or directory (os error 2)");
            container.end(128, ExitReason::StartFailed { message }, now);
            if let ContainerState::Exited(exit) = &mut container.status.state {
                exit.signal = None;
            }
            drop(state);
            self.tell(&uid);
            return Err(error);
        }
        container.status.state = ContainerState::Running { started_at: now };
        container.status.user = Some(ResolvedUser { uid: 0, gid: 0, groups: vec![0] });
        if let Some(code) = at_once {
            container.end(code, ExitReason::Exited, now);
        }
        state.happened(Verb::StartContainer, name.as_str(), attempt, now);
        drop(state);
        self.tell(&uid);
        Ok(())
    }

    fn remove_container_now(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let now = (self.now)();
        let mut state = self.lock();
        if state.must_fail(Verb::RemoveContainer) {
            return Err(RuntimeError::Remove { step: format!("remove container {id}"), source: injected() });
        }
        let Some(container) = state.containers.remove(id) else { return Ok(()) };
        state.exits.extend(exit_of(&container));
        state.happened(Verb::RemoveContainer, container.status.name.as_str(), container.status.attempt, now);
        drop(state);
        self.tell(&container.status.pod_uid);
        Ok(())
    }

    /// Sends the signal; `None` once the container has ended, else until when it may go on.
    fn try_stop(
        &self,
        id: &ContainerId,
        asked: tokio::time::Instant,
    ) -> Result<Option<tokio::time::Instant>, RuntimeError> {
        let now = (self.now)();
        let mut state = self.lock();
        if state.must_fail(Verb::StopContainer) {
            return Err(RuntimeError::Remove { step: format!("stop container {id}"), source: injected() });
        }
        let Some(container) = state.containers.get_mut(id) else { return Ok(None) };
        if !matches!(container.status.state, ContainerState::Running { .. }) {
            return Ok(None);
        }
        let shortened = container.deadline.is_none_or(|deadline| asked < deadline);
        let deadline = container.deadline.map_or(asked, |deadline| deadline.min(asked));
        container.deadline = Some(deadline);
        let (name, attempt) = (container.status.name.clone(), container.status.attempt);
        let uid = container.status.pod_uid.clone();
        let code = match state.on_signal.get(&name).copied().unwrap_or(OnSignal::Exits(143)) {
            OnSignal::Exits(code) => Some(code),
            OnSignal::Ignores => (tokio::time::Instant::now() >= deadline).then_some(137),
        };
        if let (Some(code), Some(container)) = (code, state.containers.get_mut(id)) {
            container.end(code, ExitReason::Exited, now);
            state.happened(Verb::StopContainer, name.as_str(), attempt, now);
            drop(state);
            self.tell(&uid);
            return Ok(None);
        }
        drop(state);
        if shortened {
            // Others that wait for this container look at its new deadline.
            self.changed.notify_waiters();
        }
        Ok(Some(deadline))
    }

    fn note_signal(&self, id: &ContainerId, signal: Option<i32>) {
        let mut state = self.lock();
        if let Some(name) = state.containers.get(id).map(|container| container.status.name.clone()) {
            state.signals.insert(name, signal);
        }
    }

    fn begin_exec(&self, id: &ContainerId, command: &[String]) -> Result<OnExec, RuntimeError> {
        let mut state = self.lock();
        let name = state.containers.get(id).map(|container| container.status.name.clone());
        let name = name.ok_or_else(|| RuntimeError::NoSuchContainer(id.clone()))?;
        state.execs.push(format!("{name} {}", command.join(" ")));
        let what = command.first().and_then(|program| state.on_exec.get(program).copied());
        match what.unwrap_or(OnExec::Exits(0)) {
            OnExec::CannotStart => {
                let source = std::io::Error::from_raw_os_error(2);
                Err(RuntimeError::Exec { name, step: "execute".to_owned(), source })
            }
            what @ (OnExec::Exits(_) | OnExec::Hangs) => Ok(what),
        }
    }

    /// Returns once the container does not run any more.
    async fn ended(&self, id: &ContainerId) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.check_running(id).is_err() {
                return;
            }
            changed.await;
        }
    }

    fn check_running(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let state = self.lock();
        let container = state.containers.get(id).ok_or_else(|| RuntimeError::NoSuchContainer(id.clone()))?;
        match container.status.state {
            ContainerState::Running { .. } => Ok(()),
            ContainerState::Created | ContainerState::Exited(_) => {
                Err(RuntimeError::NotRunning { name: container.status.name.clone() })
            }
        }
    }
}

fn open_made(path: &Path) -> std::io::Result<OwnedFd> {
    std::fs::create_dir_all(path)?;
    Ok(std::fs::File::open(path)?.into())
}
