//! The verbs of the fake: what each does to its state.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use spec::{ContainerId, PodUid, SandboxId, VolumeName};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use super::facts::{Fact, RunFact};
use super::{FakeContainer, FakeRuntime, FakeSandbox, OnExec, OnSignal, Verb, exit_of, injected};
use crate::config::{ContainerConfig, LinuxResources, PodSandboxConfig};
use crate::error::RuntimeError;
use crate::status::{
    ContainerState, ContainerStatus, ExitReason, PodSandboxState, PodSandboxStatus, ResolvedUser, RuntimeEvent,
};
use crate::usage::{ContainerUsage, PodUsage};
use crate::verbs::{ExecOutput, ExecRequest, Runtime, SandboxRest, Session, SessionEnd};

#[async_trait]
impl Runtime for FakeRuntime {
    async fn begin_pod_sandbox(
        &self,
        config: PodSandboxConfig,
    ) -> Result<(PodSandboxStatus, SandboxRest), RuntimeError> {
        self.enter(Verb::RunPodSandbox).await;
        let result = self.run_pod_sandbox_now(config);
        self.step().await;
        result.map(|status| {
            let (fake, made) = (self.clone(), status.clone());
            (status, async move { fake.finish_pod_sandbox(made).await }.boxed())
        })
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.enter(Verb::StopPodSandbox).await;
        let result = self.stop_pod_sandbox_now(id);
        self.step().await;
        result
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.enter(Verb::RemovePodSandbox).await;
        let result = self.remove_pod_sandbox_now(id);
        self.step().await;
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
        self.enter(Verb::CreateContainer).await;
        let result = self.create_container_now(sandbox, config);
        self.step().await;
        result
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.enter(Verb::StartContainer).await;
        let result = self.start_container_now(id);
        self.step().await;
        result
    }

    async fn stop_container(&self, id: &ContainerId, signal: Option<i32>, grace: Duration) -> Result<(), RuntimeError> {
        self.enter(Verb::StopContainer).await;
        self.note_signal(id, signal, grace);
        let asked = tokio::time::Instant::now() + grace;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(deadline) = self.try_stop(id, asked)? else {
                self.step().await;
                return Ok(());
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.enter(Verb::RemoveContainer).await;
        let result = self.remove_container_now(id);
        self.step().await;
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
        self.begin_exec(id, &request.command)?;
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
                    biased;
                    code = self.let_go(id, &command) => Some(code),
                    () = tokio::time::sleep(timeout) => None,
                }
            }
        };
        self.tell_ran(id, &command, exit_code);
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
            id: SandboxId::new(state.next_id(16)),
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
        state.tell(&Fact::SandboxMade { uid: &status.uid, id: &status.id, attempt: status.attempt });
        let sandbox = FakeSandbox { status: status.clone(), config };
        state.sandboxes.insert(status.id.clone(), sandbox);
        drop(state);
        self.tell(&status.uid);
        Ok(status)
    }

    async fn finish_pod_sandbox(&self, made: PodSandboxStatus) -> Result<(), RuntimeError> {
        self.enter(Verb::FinishPodSandbox).await;
        let result = self.finish_pod_sandbox_now(made);
        self.step().await;
        result
    }

    fn finish_pod_sandbox_now(&self, made: PodSandboxStatus) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        if !state.must_fail(Verb::FinishPodSandbox) {
            return Ok(());
        }
        if let Some(sandbox) = state.sandboxes.get_mut(&made.id) {
            sandbox.status.state = PodSandboxState::NotReady;
        }
        let step = "make its control group".to_owned();
        Err(RuntimeError::RunSandbox { pod: made.pod, step, source: injected() })
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
        let own = |container: &FakeContainer| &container.status.sandbox_id == id;
        let gone: Vec<_> = state.containers.values().filter(|one| own(one)).map(|one| one.status.clone()).collect();
        for status in &gone {
            state.tell(&Fact::Removed(RunFact::of(status)));
        }
        state.containers.retain(|_, container| !own(container));
        state.tell(&Fact::SandboxRemoved { uid: &sandbox.status.uid, id });
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
        let id = ContainerId::new(state.next_id(32));
        let Some(owner) = state.sandboxes.get(sandbox) else {
            return Err(RuntimeError::NoSuchSandbox(sandbox.clone()));
        };
        if owner.status.state != PodSandboxState::Ready {
            return Err(RuntimeError::SandboxNotReady { pod: owner.status.pod.clone() });
        }
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
        state.tell(&Fact::Created(RunFact::of(&status)));
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
        let owner = state.sandboxes.get(&container.status.sandbox_id).map(|sandbox| &sandbox.status);
        if let Some(owner) = owner.filter(|owner| owner.state != PodSandboxState::Ready) {
            return Err(RuntimeError::SandboxNotReady { pod: owner.pod.clone() });
        }
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
            container.end(128, ExitReason::StartFailed { message: error.in_words() }, now);
            let status = container.status.clone();
            state.tell(&Fact::Started(RunFact::of(&status)));
            state.tell(&Fact::Exited(RunFact::of(&status), 128));
            drop(state);
            self.tell(&uid);
            return Err(error);
        }
        container.status.state = ContainerState::Running { started_at: now };
        container.status.user = Some(ResolvedUser { uid: 0, gid: 0, groups: vec![0] });
        let status = container.status.clone();
        state.tell(&Fact::Started(RunFact::of(&status)));
        if let Some(code) = at_once {
            state.end(id, code, &ExitReason::Exited, now);
        }
        state.happened(Verb::StartContainer, name.as_str(), attempt, now);
        let life = state.lives.get(&name).copied();
        drop(state);
        if let Some((life, code)) = life {
            let (runtime, id) = (self.clone(), id.clone());
            // The program goes on whatever becomes of the daemon.
            tokio::spawn(async move {
                tokio::time::sleep(life).await;
                runtime.end_run(&id, code);
            });
        }
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
        state.tell(&Fact::Removed(RunFact::of(&container.status)));
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
        if let Some(code) = code {
            state.end(id, code, &ExitReason::Exited, now);
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

    fn note_signal(&self, id: &ContainerId, signal: Option<i32>, grace: Duration) {
        let mut state = self.lock();
        if let Some(status) = state.containers.get(id).map(|container| container.status.clone()) {
            state.tell(&Fact::StopAsked(RunFact::of(&status), grace));
            state.signals.insert(status.name, signal);
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

    fn tell_ran(&self, id: &ContainerId, command: &[String], exit_code: Option<i32>) {
        let state = self.lock();
        if let Some(container) = state.containers.get(id) {
            state.tell(&Fact::Ran(RunFact::of(&container.status), command, exit_code));
        }
    }

    /// Returns once the container does not run any more, or the test wants its command to end.
    async fn let_go(&self, id: &ContainerId, command: &[String]) -> i32 {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.check_running(id).is_err() {
                return 137;
            }
            if let Some(OnExec::Exits(code)) =
                command.first().and_then(|program| self.lock().on_exec.get(program).copied())
            {
                return code;
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
