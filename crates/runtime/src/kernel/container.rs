//! Containers: create prepares and records, start sends a finished plan to infra, stop waits for an empty cgroup.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt as _;
use futures::future::poll_immediate;
use image::Image;
use infra::protocol::{
    ContainerPlan, MountPlan, MountSource as PlanSource, PidPlan, ProcessPlan, Reply, Request, StartTimes,
};
use infra::versions::{self, Need};
use spec::{ContainerId, SandboxId, Timestamp};
use steps::{Within as _, step};
use store::StoreError;

use super::cgroups::{Before, CgroupPath, Placement, ShownTrees, Unit};
use super::cgroups_ahead::ContainerAhead;
use super::connection::{Answer, Connection, RequestError};
use super::exits::timestamp;
use super::log_directories::open_log_directory;
use super::records::{CONTAINERS, ContainerRecord};
use super::rootfs::{
    DetachedMount, clone_host_path, clone_known_paths, has_room_for_another, mount_image, mount_overlay,
};
use super::sandbox::remove_directory;
use super::seccomp::Filters;
use super::state::{Container, Prepared, Recording};
use super::user::{Account, AccountFiles, UserError};
use super::user_ids::{IdBlock, PodIds};
use super::{Kernel, PROMPT, START_LIMIT, borrow_all, capabilities, log_file, make_private_directory, remove_error};
use crate::config::{
    AppArmorProfile, ContainerConfig, LinuxResources, MountSource, PidMode, PodSandboxConfig, SeccompProfile,
};
use crate::error::RuntimeError;
use crate::status::{ContainerExit, ContainerState, ExitReason, PodSandboxState, ResolvedUser};

/// Rotation as the kubelet does it by default (`containerLogMaxSize`, `containerLogMaxFiles`).
const LOG_MAX_SIZE: u64 = 10 * 1024 * 1024;
const LOG_MAX_FILES: u32 = 5;
/// A killed container whose processes do not end is stuck in the kernel (a dead mount); the caller tries again.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// Wait before what a Pod leaves is removed.
const CLEAR_DELAY: Duration = Duration::from_millis(10);
/// Waits between attempts to remove what a container wrote.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Kernel {
    pub(super) async fn create_container(
        self: Arc<Self>,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.require_ready(sandbox)?;
        check_config(&config)?;
        let pod = self.state.sandbox_record(sandbox)?.config;
        // None for one that may use all devices.
        let ahead =
            if config.security.privileged { None } else { self.cgroups_ahead.take_container(&pod.uid, pod.qos) };
        let id = ahead.as_ref().map_or_else(ContainerId::random, |ahead| ahead.id.clone());
        match self.prepare_container(&id, (sandbox, &pod), &config, ahead).await {
            Ok((record, prepared)) => {
                let container = Container::new(record, ContainerState::Created, Some(prepared));
                self.state.lock().add_container(id.clone(), container);
                Ok(id)
            }
            Err(error) => {
                self.clear_container(&id);
                if let Err(cleanup) = self.cgroups.remove(&CgroupPath::of(&pod).container(&id)).await {
                    tracing::warn!(container = %id, error = &cleanup as &dyn std::error::Error, "the cgroup of a half-made container stays");
                }
                Err(error)
            }
        }
    }

    fn require_ready(&self, sandbox: &SandboxId) -> Result<(), RuntimeError> {
        let inner = self.state.lock();
        let found = inner.sandboxes.get(sandbox).ok_or_else(|| RuntimeError::NoSuchSandbox(sandbox.clone()))?;
        match found.state {
            PodSandboxState::Ready => Ok(()),
            PodSandboxState::NotReady => Err(RuntimeError::SandboxNotReady { pod: found.record.config.pod.clone() }),
            PodSandboxState::Silent => Err(RuntimeError::SandboxSilent { pod: found.record.config.pod.clone() }),
        }
    }

    pub(super) async fn reopen_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let running = self.state.running(id)?;
        let request = Request::ReopenLog { id: id.as_str().to_owned() };
        let reopened = running.connection.request(&request, &[], PROMPT).await;
        reopened.map(drop).map_err(|e| create_error(&running.record.config, "open its log anew", e))
    }

    async fn prepare_container(
        self: &Arc<Self>,
        id: &ContainerId,
        (sandbox, pod): (&SandboxId, &PodSandboxConfig),
        config: &ContainerConfig,
        ahead: Option<ContainerAhead>,
    ) -> Result<(ContainerRecord, Prepared), RuntimeError> {
        // The caller holds the image for as long as it wants the container.
        let image = self.images.get(&config.image_id).ok_or_else(|| no_such_image(config))?;
        let ids = self.state.pod_ids(sandbox)?;
        self.prepare_sub_paths(sandbox, config, ids.as_ref()).await?;
        let in_user_namespace = ids.is_some();
        // Known accounts need no root file system, so the record is on its way while that is made.
        let known = self.accounts.of(&config.image_id);
        let recording_early = async {
            let Some(accounts) = &known else { return Ok(None) };
            self.record_container(id, sandbox, config, (&image, accounts, in_user_namespace)).await.map(Some)
        };
        // The cgroup beside it: one that no record names is removed at the next start.
        let (directories, placement, early) = tokio::join!(
            self.make_directories(id, pod, config, ids).within(step!("mount the image")),
            self.place_container(id, pod, config, ahead).within(step!("make its cgroup")),
            recording_early.within(step!("record it"))
        );
        let ((rootfs, logs), (placement, shown)) = (directories?, placement?);
        let (record, recording) = if let Some(recorded) = early? {
            recorded
        } else {
            let read = step!("look up the user").in_scope(|| AccountFiles::read(rootfs.as_fd()));
            let accounts = self.accounts.note(&config.image_id, read.map_err(|error| user_error(config, error))?);
            self.record_container(id, sandbox, config, (&image, &accounts, in_user_namespace)).await?
        };
        Ok((record, Prepared { rootfs, logs, placement, shown, recording }))
    }

    /// Settles what a container is, and puts its record among the store's writes; its start waits for it.
    async fn record_container(
        &self,
        id: &ContainerId,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        (image, accounts, in_user_namespace): (&Image, &AccountFiles, bool),
    ) -> Result<(ContainerRecord, Recording), RuntimeError> {
        let user = config.security.run_as_username.as_deref().unwrap_or_else(|| image.user());
        let account = accounts.resolve(user, &config.security).map_err(|error| user_error(config, error))?;
        if in_user_namespace {
            check_ids(config, &account)?;
        }
        let record = ContainerRecord {
            sandbox: sandbox.clone(),
            config: config.clone(),
            created_at: Timestamp::now(),
            user: account.user,
            home: account.home,
            stop_signal: config
                .stop_signal
                .as_deref()
                .or_else(|| image.config.config().as_ref().and_then(|c| c.stop_signal().as_deref()))
                .and_then(sys::signal::number),
            exit: None,
            seccomp: self.read_seccomp_profile(config)?,
            apparmor: self.apparmor_profile(sandbox, config).await?,
        };
        let recording = self.store.put_record(CONTAINERS, id.as_str(), &record).boxed().shared();
        Ok((record, recording))
    }

    /// Makes a container's cgroup, on another thread: whoever creates a container has more to do meanwhile. One that was made ahead
    /// lacks nothing but its limits.
    async fn place_container(
        self: &Arc<Self>,
        id: &ContainerId,
        pod: &PodSandboxConfig,
        config: &ContainerConfig,
        ahead: Option<ContainerAhead>,
    ) -> Result<(Placement, ShownTrees), RuntimeError> {
        if let Some(ContainerAhead { placement, shown, .. }) = ahead {
            let cgroup = CgroupPath::of(pod).container(id);
            let limited = self.cgroups.set_limits(&cgroup, &config.resources, Unit::Container, Before::Unlimited);
            limited.map_err(|e| create_error(config, "limit its control group", e))?;
            return Ok((placement, shown));
        }
        let (kernel, id, pod, config) = (Arc::clone(self), id.clone(), pod.clone(), config.clone());
        let name = config.name.clone();
        let placed = tokio::task::spawn_blocking(move || kernel.make_container_cgroup(&id, &pod, &config));
        placed.await.unwrap_or_else(|lost| {
            let step = "make its control group".to_owned();
            Err(RuntimeError::CreateContainer { name, step, source: Box::new(lost) })
        })
    }

    /// Makes a container's cgroup, with its limits.
    fn make_container_cgroup(
        &self,
        id: &ContainerId,
        pod: &PodSandboxConfig,
        config: &ContainerConfig,
    ) -> Result<(Placement, ShownTrees), RuntimeError> {
        let cgroup = CgroupPath::of(pod).container(id);
        // Not beside the removal of one that was made ahead for the same Pod.
        self.cgroups_ahead.keep(&pod.uid, pod.qos);
        self.cgroups
            .create_limited(&cgroup, &config.resources, Unit::Container)
            .map_err(|e| create_error(config, "make its control group", e))?;
        if !config.security.privileged {
            self.cgroups
                .restrict_devices(&cgroup)
                .map_err(|e| create_error(config, "limit the devices of its control group", e))?;
        }
        let placement = self.cgroups.placement(&cgroup);
        let placement = placement.map_err(|e| create_error(config, "open its control group", e))?;
        Ok((placement, self.cgroups.shown_to(&cgroup)))
    }

    /// Mounts the image's layers with a fresh writable layer, since an earlier one of this container is not used again, and makes the
    /// directory of its log.
    async fn make_directories(
        &self,
        id: &ContainerId,
        pod: &PodSandboxConfig,
        config: &ContainerConfig,
        ids: Option<PodIds>,
    ) -> Result<(OwnedFd, OwnedFd), RuntimeError> {
        let (pod_logs, log) = (pod.log_directory.clone(), log_file(config));
        let mut layers: Vec<PathBuf> = self.images.layer_directories(&config.image_id);
        let directory = self.config.container_directory(id);
        let (mount_points, mounts) = (Arc::clone(&self.mount_points), config.mounts.clone());
        let ahead = if ids.is_none() { self.rootfs_ahead() } else { None };
        let logs_ahead = Arc::clone(&self.logs_ahead);
        let mount = move || {
            remove_directory(&directory)?;
            if has_room_for_another(&layers)
                && let Some(lowest) = mount_points.layer(&mounts, &layers)?
            {
                layers.insert(0, lowest);
            }
            if let Some(tree) = ahead.and_then(|ahead| ahead.take(&layers, &directory)) {
                return Ok(tree);
            }
            make_private_directory(&directory)?;
            mount_overlay(&layers, &directory.join("rootfs"), ids.as_ref())
        };
        let mounting = "mount its root file system";
        let made = tokio::task::spawn_blocking(move || {
            let rootfs = mount().map_err(|error| (mounting, error))?;
            let logs = open_log_directory(&pod_logs, &log, &logs_ahead);
            let logs = logs.map_err(|error| ("open its log directory", error))?;
            Ok((rootfs, logs))
        });
        let made = made.await.unwrap_or_else(|lost| Err((mounting, io::Error::other(lost))));
        made.map_err(|(step, error)| create_error(config, step, error))
    }

    pub(super) async fn start_container(self: Arc<Self>, id: &ContainerId) -> Result<(), RuntimeError> {
        let record = self.state.container_record(id)?;
        if let Some(state) = self.state.watch_container(id)
            && !matches!(*state.borrow(), ContainerState::Created)
        {
            return Ok(());
        }
        self.require_ready(&record.sandbox)?;
        match self.send_start(id, &record).await {
            Ok(started_at) => {
                self.mark_running(id, timestamp(started_at));
                Ok(())
            }
            Err(
                error @ (RuntimeError::NoSuchSandbox(_)
                | RuntimeError::SandboxNotReady { .. }
                | RuntimeError::SandboxSilent { .. }
                | RuntimeError::ContainerConfig { .. }
                | RuntimeError::Store(_)),
            ) => Err(error),
            Err(error) => {
                self.start_failed(id, record, &error).await;
                Err(error)
            }
        }
    }

    /// The exit may have been heard of before the reply to the start.
    fn mark_running(&self, id: &ContainerId, started_at: Timestamp) {
        if let Some(container) = self.state.lock().containers.get(id) {
            container.state.send_if_modified(|state| {
                let created = *state == ContainerState::Created;
                if created {
                    *state = ContainerState::Running { started_at };
                }
                created
            });
        }
    }

    async fn start_failed(&self, id: &ContainerId, record: ContainerRecord, error: &RuntimeError) {
        let Some(cgroup) = self.container_cgroup(id, &record) else { return };
        let exit = ContainerExit {
            started_at: None,
            finished_at: Timestamp::now(),
            exit_code: 128,
            reason: ExitReason::StartFailed { message: error.in_words() },
        };
        self.settle(id, record, &cgroup, false, exit).await;
    }

    async fn send_start(&self, id: &ContainerId, record: &ContainerRecord) -> Result<i64, RuntimeError> {
        let config = &record.config;
        let sandbox = self.state.sandbox_record(&record.sandbox)?;
        let connection = self.state.connection(&record.sandbox)?;
        let taken = self.state.lock().containers.get_mut(id).and_then(|container| container.prepared.take());
        let ids = self.state.pod_ids(&record.sandbox)?;
        let Prepared { rootfs, logs, placement, shown, recording } = if let Some(prepared) = taken {
            prepared
        } else {
            let (rootfs, logs) = self.make_directories(id, &sandbox.config, config, ids.clone()).await?;
            // An earlier daemon may have written it, or not come to that.
            let recording = self.store.put_record(CONTAINERS, id.as_str(), record).boxed().shared();
            let (placement, shown) = self.make_container_cgroup(id, &sandbox.config, config)?;
            Prepared { rootfs, logs, placement, shown, recording }
        };
        let mounts = self.open_mounts(config, ids).within(step!("open its volumes")).await?;
        let process =
            step!("plan the process").in_scope(|| self.process_plan(record, config.command.clone(), config.tty))?;
        let infra_version = self.state.infra_version(&record.sandbox);
        let shown = if infra_version >= versions::CGROUP_TREES.since { shown } else { ShownTrees::new() };
        let plan = container_plan(id, record, process, &mounts, (&placement, &shown));
        if let Some(need) = versions::container_lacks(&plan, infra_version) {
            return Err(RuntimeError::ContainerConfig { message: too_old(need) });
        }
        // Nothing of the Pod runs that a daemon which starts anew would not find.
        let recorded = async {
            self.wait_for_record(&record.sandbox).await?;
            recording.await
        };
        let recorded = recorded.within(step!("wait for its records"));
        let mut descriptors = vec![rootfs.as_fd(), logs.as_fd()];
        descriptors.extend(placement.v2.as_ref().map(AsFd::as_fd));
        descriptors.extend(borrow_all(&placement.v1_tasks));
        descriptors.extend(shown.iter().map(|(_, tree)| tree.as_fd()));
        descriptors.extend(mounts.iter().flatten().map(|mount| mount.tree.as_fd()));
        let may_hold = infra_version >= versions::HELD.since;
        let starting = start(&connection, plan, &descriptors, recorded, may_hold);
        match starting.within(step!("have infra start it")).await? {
            Ok((Reply::Started { started_at, times }, _)) => {
                note_times(times, started_at);
                Ok(started_at)
            }
            Ok(_) | Err(RequestError::Gone(_)) => {
                Err(RuntimeError::SandboxNotReady { pod: sandbox.config.pod.clone() })
            }
            Err(RequestError::Failed(failure, source)) => Err(RuntimeError::StartContainer {
                name: config.name.clone(),
                source: infra::sub_path::explain(&failure.step, source),
                step: failure.step,
                path: failure.path.map(PathBuf::from),
            }),
            Err(error) => Err(create_error(config, "start its first process", error)),
        }
    }

    /// Opens what the machine gives, in the order of the mounts; those of the sandbox's own tmpfs need nothing.
    async fn open_mounts(
        &self,
        config: &ContainerConfig,
        ids: Option<PodIds>,
    ) -> Result<Vec<Option<DetachedMount>>, RuntimeError> {
        if let Some(opened) = clone_known_paths(&self.config.data_dir, &config.mounts, ids.as_ref()) {
            return Ok(opened);
        }
        let mounts = config.mounts.clone();
        let images = self.images.clone();
        // A path on dead storage blocks: only this thread, and only until the time-out.
        let opened = tokio::task::spawn_blocking(move || {
            mounts
                .iter()
                .map(|mount| match &mount.source {
                    MountSource::HostPath(path) => clone_host_path(path, mount, ids.as_ref())
                        .map(Some)
                        .map_err(|e| Box::new((mount.clone(), path.clone(), e))),
                    MountSource::Image(id) => {
                        mount_image(&images.layer_directories(id), &images.empty_directory(), ids.as_ref())
                            .map(Some)
                            .map_err(|e| Box::new((mount.clone(), PathBuf::from(id.as_str()), e)))
                    }
                    MountSource::PodTmpfs(_) => Ok(None),
                })
                .collect::<Result<Vec<_>, _>>()
        });
        match tokio::time::timeout(START_LIMIT, opened).await {
            Ok(Ok(Ok(mounts))) => Ok(mounts),
            Ok(Ok(Err(failed))) => {
                let (mount, path, source) = *failed;
                let volume = mount.volume.as_str();
                let (step, path) = match mount.sub_path {
                    Some(sub_path) if !matches!(mount.source, MountSource::Image(_)) => {
                        (infra::sub_path::step(volume), sub_path)
                    }
                    _ => (format!("mount volume {volume:?} from"), path),
                };
                let source = infra::sub_path::explain(&step, source);
                Err(RuntimeError::StartContainer { name: config.name.clone(), step, path: Some(path), source })
            }
            Ok(Err(join)) => Err(create_error(config, "open its volumes", join)),
            Err(elapsed) => Err(create_error(config, "open its volumes", elapsed)),
        }
    }

    pub(super) async fn stop_container(
        &self,
        id: &ContainerId,
        signal: Option<i32>,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let Some(mut state) = self.state.watch_container(id) else { return Ok(()) };
        let record = self.state.container_record(id)?;
        if !matches!(*state.borrow(), ContainerState::Running { .. }) {
            return Ok(());
        }
        let first = self.state.lock().containers.get_mut(id).is_some_and(|c| !std::mem::replace(&mut c.stopping, true));
        if first && !grace.is_zero() {
            let signal = signal.unwrap_or_else(|| record.stop_signal());
            self.signal(id, &record, signal).within(step!("signal the container")).await;
        }
        let exited = |state: &ContainerState| matches!(state, ContainerState::Exited(_));
        if tokio::time::timeout(grace, state.wait_for(exited)).await.is_ok() {
            return Ok(());
        }
        if let Some(cgroup) = self.container_cgroup(id, &record) {
            self.cgroups.kill(&cgroup).map_err(|e| remove_error("kill the container's processes", e))?;
        }
        self.signal(id, &record, SIGKILL).await;
        match tokio::time::timeout(KILL_LIMIT, state.wait_for(exited)).await {
            // Closed: it was removed meanwhile.
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_elapsed) => {
                let name = record.config.name.as_str();
                let stuck = self.container_cgroup(id, &record).map(|cgroup| self.cgroups.stuck(&cgroup));
                Err(remove_error(&format!("end container {name:?}"), stuck.unwrap_or_default()))
            }
        }
    }

    /// A container that ended meanwhile needs no signal, and a sandbox that is gone has killed it.
    async fn signal(&self, id: &ContainerId, record: &ContainerRecord, signal: i32) {
        let Ok(connection) = self.state.connection(&record.sandbox) else { return };
        let request = Request::Signal { id: id.as_str().to_owned(), signal };
        if let Err(error) = connection.request(&request, &[], PROMPT).await {
            tracing::debug!(container = %id, signal, error = &error as &dyn std::error::Error, "a signal was not sent");
        }
    }

    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let record = match self.state.container_record(id) {
            Err(RuntimeError::NoSuchContainer(_)) => return Ok(()),
            found => found?,
        };
        self.stop_container(id, None, Duration::ZERO).await?;
        // That of a sandbox that is released went with the Pod's.
        let released = self.state.lock().sandboxes.get(&record.sandbox).is_some_and(|sandbox| sandbox.released);
        if let Some(cgroup) = self.container_cgroup(id, &record).filter(|_| !released) {
            self.cgroups.remove(&cgroup).await.map_err(|e| remove_error("remove the container's control group", e))?;
        }
        if let Some(container) = self.state.lock().containers.get_mut(id) {
            container.prepared = None;
        }
        self.state.lock().remove_container(id);
        self.clear_container(id);
        Ok(())
    }

    /// Removes a container's directory, then its record, in the background. A daemon that dies before begins anew, by the record.
    pub(super) fn clear_container(&self, id: &ContainerId) {
        let (directory, store, id) = (self.config.container_directory(id), self.store.clone(), id.clone());
        self.clear(directory, move || store.delete_record_soon(CONTAINERS, id.as_str()));
    }

    /// Removes a directory in the background, then does what follows: there may be much in it, and nobody waits for that. It comes a
    /// little later, when whoever removes the Pod is likely to be done.
    pub(super) fn clear(&self, directory: PathBuf, then: impl FnOnce() + Send + 'static) {
        self.clearing.spawn(async move {
            tokio::time::sleep(CLEAR_DELAY).await;
            let mut pause = FIRST_PAUSE;
            loop {
                let doomed = directory.clone();
                let removed = tokio::task::spawn_blocking(move || remove_directory(&doomed)).await;
                let Err(error) = removed.map_err(io::Error::other).and_then(|removed| removed) else { break };
                tracing::warn!(directory = %directory.display(), %error, "a directory is not removed yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            then();
        });
    }

    pub(super) async fn update_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let mut record = self.state.running(id)?.record;
        let cgroup = self.container_cgroup(id, &record).ok_or_else(|| RuntimeError::NoSuchContainer(id.clone()))?;
        self.cgroups
            .limit(&cgroup, resources, Unit::Container)
            .map_err(|e| create_error(&record.config, "limit its control group", e))?;
        record.config.resources = resources.clone();
        self.store.put_record(CONTAINERS, id.as_str(), &record).await?;
        if let Some(container) = self.state.lock().containers.get_mut(id) {
            container.record = record;
        }
        Ok(())
    }
}

/// Why an infra process of an earlier build is not asked for something that it would skip.
pub(super) fn too_old(need: Need) -> String {
    format!(
        "the pod was started by an earlier version of the engine, whose infra process knows no {}; create the pod anew",
        need.what
    )
}

/// What is refused before anything is made.
fn check_config(config: &ContainerConfig) -> Result<(), RuntimeError> {
    for mount in &config.mounts {
        if mount.target.parent().is_none() {
            return Err(RuntimeError::ContainerConfig {
                message: format!(
                    "volumeMount {:?}: mountPath \"/\" would cover the whole image",
                    mount.volume.as_str()
                ),
            });
        }
        // Writes of the engine to procfs could be led elsewhere by a mount in it (CVE-2019-16884).
        if mount.target.starts_with("/proc") {
            return Err(RuntimeError::ContainerConfig {
                message: format!(
                    "volumeMount {:?}: mountPath {:?} is at or below /proc, which no volume may cover",
                    mount.volume.as_str(),
                    mount.target.display(),
                ),
            });
        }
    }
    if let Some(path) = config.log_path.as_ref().filter(|path| !is_plain(path)) {
        return Err(RuntimeError::ContainerConfig {
            message: format!("log path {:?}: it must be a relative path without `..`", path.display()),
        });
    }
    capability_bits(config).map(drop)
}

/// Whether a path leads to a name below where it starts, and nowhere else.
fn is_plain(path: &Path) -> bool {
    path.file_name().is_some() && path.components().all(|component| matches!(component, Component::Normal(_)))
}

fn user_error(config: &ContainerConfig, error: UserError) -> RuntimeError {
    match error {
        UserError::RootByPod | UserError::RootByImage | UserError::NotNumeric(_) => {
            RuntimeError::ContainerConfig { message: error.to_string() }
        }
        UserError::NoSuchUser(_)
        | UserError::NoSuchGroup(_)
        | UserError::BadNumber(_)
        | UserError::Unreadable { .. } => create_error(config, "settle its user", error),
    }
}

/// A user namespace of a Pod has as many ids as the kubelet gives it.
fn check_ids(config: &ContainerConfig, account: &Account) -> Result<(), RuntimeError> {
    let ResolvedUser { uid, gid, groups } = &account.user;
    let beyond = [*uid, *gid].into_iter().chain(groups.iter().copied()).find(|&id| !IdBlock::holds(id));
    let Some(id) = beyond else { return Ok(()) };
    let message = format!(
        "container {:?}: id {id} is not one of the ids 0 to 65535 that a pod with hostUsers: false has",
        config.name.as_str()
    );
    Err(RuntimeError::ContainerConfig { message })
}

/// Has infra start a container; what is not its program waits for no record, where infra can hold it until then.
async fn start(
    connection: &Connection,
    mut plan: ContainerPlan,
    descriptors: &[BorrowedFd<'_>],
    recorded: impl Future<Output = Result<(), StoreError>>,
    may_hold: bool,
) -> Result<Result<Answer, RequestError>, StoreError> {
    let mut recorded = pin!(recorded);
    let done = if may_hold { poll_immediate(&mut recorded).await } else { Some(recorded.as_mut().await) };
    plan.held = done.is_none();
    let id = plan.id.clone();
    if let Some(done) = done {
        done?;
        return Ok(connection.request(&Request::Start(Box::new(plan)), descriptors, START_LIMIT).await);
    }
    let asked = match connection.ask(&Request::Start(Box::new(plan)), descriptors, START_LIMIT).await {
        Ok(asked) => asked,
        Err(error) => return Ok(Err(error)),
    };
    let done = recorded.await;
    let word = match &done {
        Ok(()) => Request::Release { id },
        Err(_) => Request::Signal { id, signal: SIGKILL },
    };
    let answer = match connection.tell(&word).await {
        Ok(()) => connection.answer(asked).await,
        Err(error) => Err(RequestError::Gone(error)),
    };
    done.map(|()| answer)
}

fn container_plan(
    id: &ContainerId,
    record: &ContainerRecord,
    process: ProcessPlan,
    opened: &[Option<DetachedMount>],
    (placement, shown): (&Placement, &ShownTrees),
) -> ContainerPlan {
    let config = &record.config;
    let mounts = config.mounts.iter().zip(opened).map(|(mount, opened)| MountPlan {
        target: mount.target.to_string_lossy().into_owned(),
        source: match (&mount.source, opened) {
            (MountSource::Image(_), _) => PlanSource::Image,
            (MountSource::PodTmpfs(volume), _) => PlanSource::Tmpfs { volume: volume.as_str().to_owned() },
            (MountSource::HostPath(_), opened) => {
                PlanSource::Detached { directory: opened.as_ref().is_none_or(|opened| opened.directory) }
            }
        },
        read_only: mount.read_only,
        volume: mount.volume.as_str().to_owned(),
        sub_path: mount.sub_path.as_ref().map(|path| path.to_string_lossy().into_owned()),
    });
    ContainerPlan {
        id: id.as_str().to_owned(),
        process,
        cgroup_v2: placement.v2.is_some(),
        cgroup_v1: u32::try_from(placement.v1_tasks.len()).unwrap_or(u32::MAX),
        mounts: mounts.collect(),
        read_only_rootfs: config.security.read_only_rootfs,
        privileged: config.security.privileged,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        log_file: log_file(config).file_name().unwrap_or_default().to_string_lossy().into_owned(),
        // A caller that chose the file rotates it.
        log_max_size: if config.log_path.is_some() { u64::MAX } else { LOG_MAX_SIZE },
        log_max_files: LOG_MAX_FILES,
        oom_score_adj: config.resources.oom_score_adj,
        pid: pid_plan(&config.pid),
        unmasked: config.security.unmasked,
        masked_paths: config.security.masked_paths.as_deref().map(texts),
        read_only_paths: config.security.read_only_paths.as_deref().map(texts),
        cgroup_trees: shown.iter().map(|(name, _)| name.clone()).collect(),
        held: false,
    }
}

fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

fn pid_plan(mode: &PidMode) -> Option<PidPlan> {
    match mode {
        PidMode::Container => None,
        PidMode::Pod => Some(PidPlan::Pod),
        PidMode::Host => Some(PidPlan::Host),
        PidMode::Target(container) => Some(PidPlan::Target { container: container.as_str().to_owned() }),
    }
}

fn capability_bits(config: &ContainerConfig) -> Result<u64, RuntimeError> {
    let security = &config.security;
    capabilities::bits(&security.add_capabilities, &security.drop_capabilities, security.privileged)
        .map_err(|e| create_error(config, "give it capabilities", e))
}

impl Kernel {
    /// Start and exec share user, groups, capabilities, filter and environment.
    pub(super) fn process_plan(
        &self,
        record: &ContainerRecord,
        command: Vec<String>,
        tty: bool,
    ) -> Result<ProcessPlan, RuntimeError> {
        let ContainerConfig { security, env, working_dir, .. } = &record.config;
        let capabilities = capability_bits(&record.config)?;
        Ok(ProcessPlan {
            command,
            env: environment(env, &record.home),
            working_dir: working_dir.to_string_lossy().into_owned(),
            uid: record.user.uid,
            gid: record.user.gid,
            groups: record.user.groups.clone(),
            capabilities,
            no_new_privileges: security.no_new_privileges,
            tty,
            seccomp: self.seccomp_program(record, capabilities)?.map(Into::into),
            apparmor: record.apparmor.clone(),
        })
    }

    async fn apparmor_profile(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<Option<String>, RuntimeError> {
        let ContainerConfig { security, .. } = config;
        let knows_profiles = self.state.infra_version(sandbox) >= versions::APPARMOR.since;
        let profile = self.apparmor.profile_of(&security.apparmor, security.privileged, knows_profiles).await;
        profile.map_err(|error| {
            let step = match &security.apparmor {
                AppArmorProfile::Localhost(name) => format!("apply AppArmor profile {name:?}"),
                AppArmorProfile::Unset | AppArmorProfile::Unconfined | AppArmorProfile::RuntimeDefault => {
                    "apply the default AppArmor profile".to_owned()
                }
            };
            create_error(config, &step, error)
        })
    }

    /// The program of a `Localhost` profile, for the record.
    fn read_seccomp_profile(&self, config: &ContainerConfig) -> Result<Option<String>, RuntimeError> {
        if config.security.privileged {
            return Ok(None);
        }
        let program = match &config.security.seccomp {
            SeccompProfile::Unconfined | SeccompProfile::RuntimeDefault => return Ok(None),
            SeccompProfile::Localhost(name) => self.filters.localhost(name, capability_bits(config)?),
            SeccompProfile::File(path) => Filters::file(path, capability_bits(config)?),
        };
        let program = program.map_err(|e| create_error(config, "load its seccomp profile", e))?;
        Ok(Some(BASE64_STANDARD.encode(program)))
    }

    fn seccomp_program(&self, record: &ContainerRecord, capabilities: u64) -> Result<Option<Vec<u8>>, RuntimeError> {
        let config = &record.config;
        let program = match (&config.security.seccomp, &record.seccomp) {
            _ if config.security.privileged => return Ok(None),
            (SeccompProfile::Unconfined, _) => return Ok(None),
            (SeccompProfile::RuntimeDefault, _) => self.filters.runtime_default(capabilities).map(|it| it.to_vec()),
            (SeccompProfile::Localhost(_) | SeccompProfile::File(_), Some(program)) => {
                BASE64_STANDARD.decode(program).map_err(io::Error::other)
            }
            (SeccompProfile::Localhost(_) | SeccompProfile::File(_), None) => Err(io::ErrorKind::NotFound.into()),
        };
        program.map(Some).map_err(|e| create_error(config, "compile its seccomp profile", e))
    }
}

/// The last entry of a name wins; `HOME` comes from the image's `/etc/passwd` unless it is set.
fn environment(env: &[(String, String)], home: &str) -> Vec<String> {
    let mut entries: Vec<(&str, &str)> = Vec::with_capacity(env.len() + 1);
    for (name, value) in env {
        match entries.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => entries.push((name, value)),
        }
    }
    if !entries.iter().any(|(name, _)| *name == "HOME") {
        entries.push(("HOME", home));
    }
    entries.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn no_such_image(config: &ContainerConfig) -> RuntimeError {
    let source = io::Error::new(io::ErrorKind::NotFound, format!("{} is not on this machine", config.image_id));
    create_error(config, &format!("use image {:?}", config.image_ref), source)
}

pub(super) fn create_error(
    config: &ContainerConfig,
    step: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> RuntimeError {
    RuntimeError::CreateContainer { name: config.name.clone(), step: step.to_owned(), source: Box::new(source) }
}

/// What infra and the container's first process did, as infra has timed it.
fn note_times(times: Option<StartTimes>, started_at: i64) {
    let Some(StartTimes { received_at, cloned_at, assembled_at, executing_at }) = times else { return };
    steps::note("clone the first process", received_at, cloned_at);
    steps::note("mount its file systems", cloned_at, assembled_at);
    steps::note("enter them, become the user", assembled_at, executing_at);
    steps::note("execute the program", executing_at, started_at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_variable_wins_and_home_is_added() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let env = [pair("A", "1"), pair("B", "2"), pair("A", "3")];
        assert_eq!(environment(&env, "/root"), ["A=3", "B=2", "HOME=/root"]);
        assert_eq!(environment(&[pair("HOME", "/x")], "/root"), ["HOME=/x"]);
    }
}
