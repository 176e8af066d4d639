//! A Pod's sandbox: its record, its infra process, its network and its cgroup, made in this order and removed in reverse.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use infra::protocol::{BootPlan, Event, Reply, Request, SysctlPlan, TmpfsPlan};
use infra::wire::MAX_DESCRIPTORS;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use spec::{ContainerId, SandboxId, Timestamp, VolumeName};
use steps::{Within as _, step};
use store::StoreError;
use tokio::io::Interest;
use tokio::sync::mpsc;

use super::cgroups::{Before, CgroupPath, Unit};
use super::connection::{Connection, RequestError};
use super::records::{SANDBOXES, SandboxRecord};
use super::state::{Sandbox, no_such_tmpfs};
use super::user_ids::{self, IdBlock};
use super::{
    Kernel, LONG, PROMPT, borrow_all, c_string, id_range, make_private_directory, remove_error, watch_descriptor,
};
use crate::config::{NetworkMode, PodSandboxConfig};
use crate::error::RuntimeError;
use crate::status::{PodSandboxState, PodSandboxStatus};
use crate::verbs::SandboxRest;

/// Connections that wait until infra takes them.
const BACKLOG: i32 = 16;

/// A sandbox whose infra process answers.
struct Made {
    connection: Arc<Connection>,
    events: mpsc::UnboundedReceiver<Box<Event>>,
    infra: OwnedFd,
    user_namespace: Option<OwnedFd>,
    addresses: Vec<std::net::IpAddr>,
}

impl Kernel {
    /// Takes a sandbox that is ready, or makes one; on an error nothing of it is left.
    pub(super) async fn begin_sandbox(
        self: Arc<Self>,
        config: PodSandboxConfig,
    ) -> Result<(PodSandboxStatus, SandboxRest), RuntimeError> {
        if let Some(taken) = self.take_spare(&config).await {
            return Ok(taken);
        }
        let record = SandboxRecord { config, created_at: Timestamp::now(), stopped: false, ids: None, spare: false };
        let status = self.make_recorded(record).await?;
        Ok((status, futures::future::ok(()).boxed()))
    }

    /// Makes a sandbox after its record.
    pub(super) async fn make_recorded(
        self: Arc<Self>,
        record: SandboxRecord,
    ) -> Result<PodSandboxStatus, RuntimeError> {
        let id = SandboxId::random();
        let record = self.insert_sandbox(&id, record)?;
        if let Err(error) = self.store.put_record(SANDBOXES, id.as_str(), &record).await {
            self.state.lock().remove_sandbox(&id);
            return Err(error.into());
        }
        match self.make_sandbox(&id, &record).await {
            Ok(made) => Ok(self.adopt(&id, record, made)),
            Err(error) => {
                if let Err(cleanup) = self.remove_sandbox(&id).await {
                    tracing::warn!(%id, error = &cleanup as &dyn std::error::Error, "a half-made sandbox is not all removed");
                }
                Err(error)
            }
        }
    }

    /// Takes a sandbox into memory, with a block of ids of its own if it needs one: chosen and taken under one lock.
    pub(super) fn insert_sandbox(&self, id: &SandboxId, record: SandboxRecord) -> Result<SandboxRecord, RuntimeError> {
        let mut inner = self.state.lock();
        let (ids, id_lock) = match record.ids {
            None if record.config.namespaces.own_users => {
                let recorded = inner.sandboxes.values().map(|sandbox| &sandbox.record);
                let start = user_ids::start_of(&self.config.cgroup_parent, self.ids);
                let lock = |block: IdBlock| id_range::lock(block.first_id());
                let chosen = IdBlock::choose(&record.config.uid, recorded, self.ids, start, lock);
                let (block, locked) = chosen.map_err(|e| run_error(&record.config, "give it user ids", e))?;
                (Some(block), Some(locked.into()))
            }
            ids => (ids, None),
        };
        let record = SandboxRecord { ids, ..record };
        let sandbox = Sandbox {
            record: record.clone(),
            state: PodSandboxState::NotReady,
            addresses: Vec::new(),
            connection: None,
            infra: None,
            user_namespace: None,
            id_lock,
            infra_version: infra::protocol::VERSION,
            recording: None,
            released: false,
        };
        inner.add_sandbox(id.clone(), sandbox);
        Ok(record)
    }

    fn adopt(self: Arc<Self>, id: &SandboxId, record: SandboxRecord, made: Made) -> PodSandboxStatus {
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.state = PodSandboxState::Ready;
            sandbox.addresses.clone_from(&made.addresses);
            sandbox.connection = Some(made.connection);
            sandbox.infra = Some(Arc::new(made.infra));
            sandbox.user_namespace = made.user_namespace.map(Arc::new);
        }
        self.state.announce(&record.config.uid);
        let (kernel, sandbox) = (Arc::clone(&self), id.clone());
        tokio::spawn(async move { kernel.follow(&sandbox, made.events).await });
        PodSandboxStatus {
            id: id.clone(),
            pod: record.config.pod,
            uid: record.config.uid,
            attempt: record.config.attempt,
            state: PodSandboxState::Ready,
            addresses: made.addresses,
            created_at: record.created_at,
            resources: record.config.resources,
            labels: record.config.labels,
        }
    }

    /// The order matters:
    /// 1. Directories and the Pod's cgroup exist before anything that lives in them.
    /// 2. The socket is bound by us and listened on by infra: a later daemon either reaches a living infra or is refused.
    /// 3. infra makes its namespaces itself: this process has threads.
    /// 4. infra holds the host ports and the lock on its user ids before anything is led to the Pod: a taken one is found before that, and they are
    ///    free again when infra is gone, whatever becomes of us.
    /// 5. The network comes last, into the namespace that infra hands out.
    async fn make_sandbox(&self, id: &SandboxId, record: &SandboxRecord) -> Result<Made, RuntimeError> {
        let config = &record.config;
        let ports = network::hold_ports(&config.ports).map_err(|e| run_error(config, "publish its ports", e))?;
        let directory = self.config.sandbox_directory(id);
        make_private_directory(&directory).map_err(|e| run_error(config, "make its directory", e))?;
        if !record.spare {
            self.make_pod_cgroup(config)?;
        }
        let socket = self.start_infra(id, record).map_err(|e| run_error(config, "start its infra process", e))?;
        let (connection, events) =
            Connection::over(socket).map_err(|e| run_error(config, "talk to its infra process", e))?;
        // Known from now on: should a later step fail, it is told to end.
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.connection = Some(Arc::clone(&connection));
        }
        let mut descriptors = boot(&connection, self.cgroups.mounts(), record, &directory).await?;
        let user_namespace = record.ids.and_then(|_| descriptors.pop());
        let [infra, netns, route] = <[OwnedFd; 3]>::try_from(descriptors).map_err(|_wrong_count| {
            run_error(config, "talk to its infra process", io::Error::from(io::ErrorKind::InvalidData))
        })?;
        let id_lock = self.state.lock().sandboxes.get_mut(id).and_then(|sandbox| sandbox.id_lock.take());
        let held = ports.into_iter().chain(id_lock).collect();
        hand_over(&connection, held).await.map_err(|e| run_error(config, "hold its ports and user ids", e))?;
        let addresses = match config.network {
            NetworkMode::Pod => {
                let attached = self.network.attach(id, netns, route, config.ports.clone()).await;
                attached.map_err(|e| run_error(config, "make its network", e))?
            }
            NetworkMode::Host => Vec::new(),
        };
        connection
            .request(&Request::MarkReady, &[], PROMPT)
            .await
            .map_err(|e| run_error(config, "finish its sandbox", e))?;
        Ok(Made { connection, events, infra, user_namespace, addresses })
    }

    /// Waits until a sandbox' record is durable. One that could not be written is written again for whoever asks next.
    pub(super) async fn wait_for_record(&self, id: &SandboxId) -> Result<(), StoreError> {
        let recording = self.state.lock().sandboxes.get(id).and_then(|sandbox| sandbox.recording.clone());
        let Some(recording) = recording else { return Ok(()) };
        let recorded = recording.await;
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.recording = match &recorded {
                Ok(()) => None,
                Err(_) => Some(self.store.put_record(SANDBOXES, id.as_str(), &sandbox.record).boxed().shared()),
            };
        }
        recorded
    }

    /// Makes the Pod's cgroup.
    pub(super) fn make_pod_cgroup(&self, config: &PodSandboxConfig) -> Result<(), RuntimeError> {
        let pod = CgroupPath::of(config);
        let make_error = |e| run_error(config, "make its control group", e);
        if !pod.is_ours() {
            return self.cgroups.create(&pod).map(drop).map_err(make_error);
        }
        if self.cgroups_ahead.take_pod(&config.uid, config.qos) {
            self.cgroups.set_limits(&pod, &config.resources, Unit::Pod, Before::Unlimited).map_err(make_error)?;
        } else {
            self.cgroups.create_limited(&pod, &config.resources, Unit::Pod).map_err(make_error)?;
        }
        self.weigh_class(config.qos).map_err(|e| run_error(config, "weigh the control group of its class", e))
    }

    /// Starts infra and returns our end of the first connection to it.
    fn start_infra(&self, id: &SandboxId, record: &SandboxRecord) -> io::Result<OwnedFd> {
        let path = self.config.socket(id);
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        bind(&listener, &SocketAddrUnix::new(path.as_path())?)?;
        // Before infra exists, not by it: a daemon that dies now leaves a process that is booting, and the next one must
        // reach it to end it. Refused, it would take it for dead, and infra would wait for ever (listen(2): the backlog).
        listen(&listener, BACKLOG)?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let log = self.config.sandbox_directory(id).join("infra.log");
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
        let placement = self.cgroups.placement(&CgroupPath::infra()).map_err(io::Error::other)?;
        let child = sys::spawn::spawn(&sys::spawn::SpawnOptions {
            program: self.binary.as_fd(),
            argv: vec![c_string("monopod"), c_string("infra"), c_string(&shown_name(id, record))].into(),
            envp: Vec::new().into(),
            descriptors: vec![null.as_fd(), null.as_fd(), log.as_fd(), listener.as_fd(), theirs.as_fd()],
            cgroup: placement.v2.as_ref().map(AsFd::as_fd),
            cgroup_v1_tasks: borrow_all(&placement.v1_tasks).collect(),
        })?;
        reap_when_ended(child.pidfd)?;
        Ok(ours)
    }

    /// Hears what an infra process says, until it is gone.
    pub(super) async fn follow(self: Arc<Self>, id: &SandboxId, mut events: mpsc::UnboundedReceiver<Box<Event>>) {
        // Bytes of lost output that were told, by container.
        let mut told: HashMap<String, u64> = HashMap::new();
        loop {
            while let Some(event) = events.recv().await {
                match *event {
                    // Boxed, as what follows: the task of a Pod that only runs has no room for them.
                    Event::Exited(report) => Box::pin(self.container_exited(&report)).await,
                    Event::ExecExited { id: exec, end } => {
                        let waiting = self.state.lock().execs.remove(&exec);
                        if waiting.is_some_and(|(_, sender)| sender.send(end).is_err()) {
                            tracing::debug!(%exec, "a process ended that nobody waits for");
                        }
                    }
                    Event::LogRotated { id: container } => self.pack_logs_later(&ContainerId::new(container)),
                    Event::LogLost { id: container, bytes, errno } => {
                        let error = io::Error::from_raw_os_error(errno);
                        let before = told.entry(container.clone()).or_default();
                        // A full disk loses line after line; each is told of once it has doubled the loss.
                        if bytes < before.saturating_mul(2) {
                            continue;
                        }
                        *before = bytes;
                        tracing::warn!(sandbox = %id, %container, bytes, %error, "log lines are lost");
                        let container = ContainerId::new(container);
                        if let Err(gone) = self.state.announce_lost_output(&container, bytes, error.to_string()) {
                            tracing::debug!(%container, error = %gone, "nobody hears of lost log lines");
                        }
                    }
                }
            }
            match Box::pin(self.reconnect(id)).await {
                Some(again) => events = again,
                None => return Box::pin(self.sandbox_lost(id)).await,
            }
        }
    }

    /// The connection broke, yet infra may live: it drops a daemon that does not take its answers.
    async fn reconnect(&self, id: &SandboxId) -> Option<mpsc::UnboundedReceiver<Box<Event>>> {
        let infra = {
            let mut inner = self.state.lock();
            let sandbox = inner.sandboxes.get_mut(id).filter(|sandbox| !sandbox.record.stopped)?;
            sandbox.connection = None;
            sandbox.infra.clone()?
        };
        if has_ended(&infra) {
            return None;
        }
        let (connection, events) = Connection::open(&self.config.socket(id)).ok()?;
        // However long it takes: only the end of the process is its end.
        let (reply, _) = tokio::select! {
            reply = connection.hello(LONG) => reply.ok()?,
            _ended = until_ended(&infra) => return None,
        };
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.connection = Some(connection);
        }
        if let Reply::State { containers, .. } = reply {
            for report in containers.iter().filter(|report| report.exit.is_some()) {
                self.container_exited(report).await;
            }
        }
        Some(events)
    }

    /// Its infra process is gone: what it left is killed, and the Pod gets a new sandbox from the agent.
    async fn sandbox_lost(&self, id: &SandboxId) {
        let record = {
            let mut inner = self.state.lock();
            inner.execs.retain(|_, (sandbox, _)| sandbox != id);
            let Some(sandbox) = inner.sandboxes.get_mut(id).filter(|sandbox| !sandbox.record.stopped) else { return };
            sandbox.state = PodSandboxState::NotReady;
            sandbox.connection = None;
            sandbox.record.clone()
        };
        tracing::warn!(pod = %record.config.pod, sandbox = %id, "an infra process ended, its sandbox is lost");
        if record.spare {
            // It stays among the spare ones until somebody wants it, and finds that it is gone.
            return;
        }
        if let Err(error) = self.release(id, &record).await {
            tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "a lost sandbox is not all released");
        }
        self.state.announce(&record.config.uid);
    }

    /// Ends a sandbox: containers first, then infra, network and cgroup. Does nothing the second time.
    pub(super) async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let record = self.state.sandbox_record(id)?;
        if self.state.lock().sandboxes.get(id).is_some_and(|sandbox| sandbox.released) {
            return Ok(());
        }
        for container in self.state.containers_of(id) {
            self.stop_container(&container, None, Duration::ZERO).await?;
        }
        self.release(id, &record).await?;
        self.state.announce(&record.config.uid);
        Ok(())
    }

    /// Gives back all that a sandbox holds but its record and its containers' statuses.
    pub(super) async fn release(&self, id: &SandboxId, record: &SandboxRecord) -> Result<(), RuntimeError> {
        if !record.stopped {
            // Who starts anew and does not find this finds infra's end.
            let stopped = SandboxRecord { stopped: true, ..record.clone() };
            self.store.put_record_soon(SANDBOXES, id.as_str(), &stopped)?;
        }
        let (connection, infra) = {
            let mut inner = self.state.lock();
            inner.execs.retain(|_, (sandbox, _)| sandbox != id);
            match inner.sandboxes.get_mut(id) {
                Some(sandbox) => {
                    sandbox.record.stopped = true;
                    sandbox.state = PodSandboxState::NotReady;
                    sandbox.addresses = Vec::new();
                    sandbox.user_namespace = None;
                    (sandbox.connection.take(), sandbox.infra.take())
                }
                None => (None, None),
            }
        };
        let pod = CgroupPath::of(&record.config);
        let ending = async {
            // Until they are stored it is the only other one that knows how its containers ended.
            self.state.ends_stored(id).await;
            end_infra(connection, infra).within(step!("end infra")).await
        };
        let (ended, removed) =
            tokio::join!(ending, self.remove_pod_cgroup(id, record, &pod).within(step!("remove the pod's cgroup")));
        ended.and(removed)?;
        for container in self.state.containers_of(id) {
            if !pod.is_ours() {
                let removed = self.cgroups.remove(&pod.container(&container)).await;
                removed.map_err(|e| remove_error("remove the container's control group", e))?;
            }
            self.settle_lost_container(&container).await;
        }
        let detached = self.network.detach(id).within(step!("detach the network")).await;
        detached.map_err(|e| remove_error("give back the pod's address", e))?;
        remove_file(&self.config.socket(id)).map_err(|e| remove_error("remove the infra socket", e))?;
        if let Some(sandbox) = self.state.lock().sandboxes.get_mut(id) {
            sandbox.released = true;
        }
        Ok(())
    }

    /// infra lives elsewhere, and nothing else of the Pod is to live on.
    async fn remove_pod_cgroup(
        &self,
        id: &SandboxId,
        record: &SandboxRecord,
        pod: &CgroupPath,
    ) -> Result<(), RuntimeError> {
        // A newer sandbox of the same Pod lives in the same cgroup.
        if pod.is_ours() && !self.has_other_sandbox(id, record) {
            self.cgroups_ahead.forget(&record.config.uid);
            self.cgroups.remove(pod).await.map_err(|e| remove_error("remove the pod's control group", e))?;
        }
        self.weigh_class(record.config.qos).map_err(|e| remove_error("weigh the control group of its class", e))
    }

    fn has_other_sandbox(&self, id: &SandboxId, record: &SandboxRecord) -> bool {
        let inner = self.state.lock();
        let mut others = inner.sandboxes_of(&record.config.uid).filter(|(other, _)| *other != id);
        others.any(|(_, sandbox)| !sandbox.record.stopped)
    }

    /// Removes a sandbox and its containers; its directory goes in the background.
    pub(super) async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let record = match self.state.sandbox_record(id) {
            Err(RuntimeError::NoSuchSandbox(_)) => return Ok(()),
            found => found?,
        };
        self.stop_sandbox(id).await?;
        for container in self.state.containers_of(id) {
            self.remove_container(&container).await?;
        }
        // Directories of sandboxes that nobody knows are removed by the next daemon.
        self.store.delete_record_soon(SANDBOXES, id.as_str());
        self.state.lock().remove_sandbox(id);
        self.clear(self.config.sandbox_directory(id), || ());
        self.state.announce(&record.config.uid);
        Ok(())
    }

    pub(super) async fn open_tmpfs(&self, sandbox: &SandboxId, volume: &VolumeName) -> Result<OwnedFd, RuntimeError> {
        let record = self.state.sandbox_record(sandbox)?;
        let connection = self.state.connection(sandbox)?;
        let request = Request::OpenTmpfs { volume: volume.as_str().to_owned() };
        let step = format!("open the memory volume {:?}", volume.as_str());
        let (_, descriptors) =
            connection.request(&request, &[], PROMPT).await.map_err(|e| run_error(&record.config, &step, e))?;
        descriptors.into_iter().next().ok_or_else(|| run_error(&record.config, &step, no_such_tmpfs(volume)))
    }
}

async fn boot(
    connection: &Connection,
    cgroup_mounts: Vec<infra::protocol::CgroupMount>,
    record: &SandboxRecord,
    directory: &Path,
) -> Result<Vec<OwnedFd>, RuntimeError> {
    let config = &record.config;
    let records = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| run_error(config, "open its directory", io::Error::from(e)))?;
    let plan = BootPlan {
        hostname: config.hostname.clone(),
        own_network: config.network == NetworkMode::Pod,
        tmpfs: tmpfs_plans(config),
        shm_size: config.shm_size,
        cgroup_mounts,
        host_ipc: config.namespaces.host_ipc,
        shared_pid: config.namespaces.shared_pid,
        user_namespace: record.ids.map(IdBlock::plan),
        sysctls: config
            .namespaces
            .sysctls
            .iter()
            .map(|(path, value)| SysctlPlan { path: path.clone(), value: value.clone() })
            .collect(),
        spare: record.spare,
    };
    let (_, descriptors) = connection
        .request(&Request::Boot(plan), &[records.as_fd()], PROMPT)
        .await
        .map_err(|e| run_error(config, "make its namespaces", e))?;
    Ok(descriptors)
}

/// What ps(1) shows; the name of a spare one leaves room for that of its Pod.
fn shown_name(id: &SandboxId, record: &SandboxRecord) -> String {
    let spare = || format!("{:room$}", format!("(spare) {id}"), room = infra::title::ROOM);
    if record.spare { spare() } else { record.config.pod.to_string() }
}

/// The memory file systems of a Pod, as infra is told of them.
pub(super) fn tmpfs_plans(config: &PodSandboxConfig) -> Vec<TmpfsPlan> {
    let plan = |tmpfs: &crate::config::PodTmpfs| TmpfsPlan {
        volume: tmpfs.volume.as_str().to_owned(),
        size: tmpfs.size,
        mode: tmpfs.mode,
        group: tmpfs.group,
        page_size: tmpfs.page_size,
    };
    config.tmpfs.iter().map(plan).collect()
}

/// Gives descriptors to infra to keep.
pub(super) async fn hand_over(connection: &Connection, held: Vec<OwnedFd>) -> Result<(), RequestError> {
    for some in held.chunks(MAX_DESCRIPTORS) {
        let held: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        connection.request(&Request::Hold, &held, PROMPT).await?;
    }
    Ok(())
}

/// Asks infra to end, and kills it if it does not.
pub(super) async fn end_infra(
    connection: Option<Arc<Connection>>,
    infra: Option<Arc<OwnedFd>>,
) -> Result<(), RuntimeError> {
    if let Some(connection) = &connection {
        // It may be gone already, or take nothing any more.
        drop(tokio::time::timeout(Duration::from_secs(1), connection.tell(&Request::Shutdown)).await);
    }
    let Some(infra) = infra else { return Ok(()) };
    let ended = |limit| {
        let infra = Arc::clone(&infra);
        async move { tokio::time::timeout(limit, until_ended(&infra)).await.is_ok() }
    };
    if ended(Duration::from_secs(2)).await {
        return Ok(());
    }
    // It may end at this very moment.
    drop(sys::signal::pidfd_send(&infra, 9));
    if ended(Duration::from_secs(5)).await {
        return Ok(());
    }
    Err(remove_error("end the infra process", io::Error::from(io::ErrorKind::TimedOut)))
}

/// Resolves when the process of a pidfd has ended (pidfd_open(2): it becomes readable).
pub(super) async fn until_ended(pidfd: &OwnedFd) -> io::Result<()> {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(pidfd, 3)?;
    drop(watch_descriptor(duplicate, Interest::READABLE)?.readable().await?);
    Ok(())
}

/// Whether the process of a pidfd has ended.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// infra is our child as long as we live; afterwards the machine's init reaps it.
fn reap_when_ended(pidfd: OwnedFd) -> io::Result<()> {
    let watched = watch_descriptor(pidfd, Interest::READABLE)?;
    tokio::spawn(async move {
        if watched.readable().await.is_ok()
            && let Err(error) = waitid(WaitId::PidFd(watched.get_ref().as_fd()), WaitIdOptions::EXITED)
        {
            tracing::debug!(%error, "an infra process was reaped by somebody else");
        }
    });
    Ok(())
}

/// Removes a directory and all in it, following no link; one that is gone is removed.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes a file; one that is gone is removed.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

pub(super) fn run_error(
    config: &PodSandboxConfig,
    step: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> RuntimeError {
    RuntimeError::RunSandbox { pod: config.pod.clone(), step: step.to_owned(), source: Box::new(source) }
}
