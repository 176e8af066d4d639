//! The real runtime: sandboxes and containers on this machine's kernel.
//!
//! Start at `sandbox` for how a Pod's sandbox comes and goes, `container` for its containers, `recovery` for what a
//! daemon that starts anew does with what it finds.

mod apparmor;
mod capabilities;
mod cgroup_base;
mod cgroup_mounts;
mod cgroups;
mod cgroups_ahead;
mod connect;
mod connection;
mod container;
mod devices;
mod exits;
mod huge_pages;
mod id_range;
mod limits;
mod log_directories;
mod mount_points;
mod old_logs;
mod records;
mod recovery;
mod rootfs;
mod rootfs_ahead;
mod sandbox;
mod seccomp;
mod sessions;
mod spares;
mod state;
mod stuck;
mod sub_paths;
mod usage;
mod user;
mod user_ids;

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use image::ImageStore;
use network::Network;
use spec::{ContainerId, PodRef, PodUid, SandboxId, VolumeName};
use store::Store;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_util::task::TaskTracker;

pub use apparmor::apparmor_is_enabled;
pub use cgroups::CgroupError;
pub use devices::try_device_program;
pub use id_range::{SubordinateIdsError, subordinate_ids};

use crate::config::{ContainerConfig, LinuxResources, PodSandboxConfig, QosClass};
use crate::disk::keep_apart;
use crate::error::RuntimeError;
use crate::status::{ContainerStatus, PodSandboxStatus, RuntimeEvent};
use crate::usage::PodUsage;
use crate::verbs::{ExecOutput, ExecRequest, Runtime, SandboxRest, Session};
use apparmor::AppArmor;
use cgroups::Cgroups;
use cgroups_ahead::CgroupsAhead;
use id_range::IdRange;
use log_directories::LogDirectoriesAhead;
use mount_points::MountPoints;
use rootfs_ahead::RootfsAhead;
use seccomp::Filters;
use spares::Spares;
use state::State;
use user::KnownAccounts;

/// How long infra may take for what only needs itself.
const PROMPT: Duration = Duration::from_secs(10);
/// How long the removal of what containers wrote may take where all goes: a disk may have millions of files.
const CLEARING: Duration = Duration::from_mins(10);
/// For who waits besides for the end of the other side.
const LONG: Duration = Duration::from_hours(24 * 365);
/// How long a start may take: mounts of slow storage are in it. The kubelet gives its runtime two minutes.
const START_LIMIT: Duration = Duration::from_mins(2);

/// Where the runtime keeps things, and under which names.
#[derive(Debug, Clone)]
pub struct KernelRuntimeConfig {
    /// `serve --data-dir`: sandboxes and containers lie below it.
    pub data_dir: PathBuf,
    /// `serve --run-dir`: infra sockets lie below it.
    pub run_dir: PathBuf,
    /// Name of our cgroup, below which all others are made.
    pub cgroup_parent: String,
}

/// Why the runtime cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenRuntimeError {
    /// A directory cannot be used.
    #[error("cannot use {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The binary cannot be bound read-only.
    #[error(
        "cannot bind the running binary read-only, which infra processes are started from; `monopod check` says what is missing"
    )]
    Binary(#[source] io::Error),
    /// cgroups cannot be used.
    #[error("cannot set up control groups; `monopod check` says what is missing")]
    Cgroups(#[source] CgroupError),
    /// The machine's ids for Pods with `hostUsers: false` cannot be told.
    #[error("cannot tell which user ids pods with hostUsers: false may have")]
    SubordinateIds(#[source] SubordinateIdsError),
    /// What exists cannot be read from the store.
    #[error("cannot read what runs on this machine from the store")]
    Store(#[source] store::StoreError),
    /// A Pod runs that a later version of the engine has started.
    #[error(
        "pod {pod} was started by a newer monopod: its infra process speaks {} of the protocol, this one up to version \
         {known}; nothing was changed. Start the newer monopod again, and let it delete its pods before you go back",
        .speaks.map_or("a later version".to_owned(), |version| format!("version {version}"))
    )]
    NewerInfra {
        /// The Pod.
        pod: PodRef,
        /// Its infra's version, if that much was understood.
        speaks: Option<u32>,
        /// Ours.
        known: u32,
    },
    /// What an earlier daemon left cannot be released.
    #[error("cannot release what an earlier daemon left")]
    Network(#[source] network::DetachError),
}

/// The runtime on this machine's kernel; cheap to clone.
#[derive(Clone)]
pub struct KernelRuntime(Arc<Kernel>);

impl std::fmt::Debug for KernelRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelRuntime").field("config", &self.0.config).finish_non_exhaustive()
    }
}

struct Kernel {
    config: KernelRuntimeConfig,
    store: Store,
    images: ImageStore,
    network: Network,
    cgroups: Cgroups,
    cgroups_ahead: CgroupsAhead,
    binary: OwnedFd,
    filters: Filters,
    apparmor: AppArmor,
    /// The machine's ids that Pods may have.
    ids: IdRange,
    state: State,
    spares: Spares,
    mount_points: Arc<MountPoints>,
    accounts: KnownAccounts,
    rootfs_ahead: Arc<RootfsAhead>,
    logs_ahead: Arc<LogDirectoriesAhead>,
    /// The removals of what containers wrote.
    clearing: TaskTracker,
}

impl KernelRuntime {
    /// Opens the runtime and takes over what an earlier daemon left: living sandboxes go on, dead ones are cleared away.
    pub async fn open(
        config: KernelRuntimeConfig,
        store: Store,
        images: ImageStore,
        network: Network,
    ) -> Result<Self, OpenRuntimeError> {
        let trees = [config.sandboxes(), config.containers(), config.containers_ahead(), config.logs_ahead()];
        for path in trees.iter().chain([&config.sockets()]) {
            let made = make_private_directory(path);
            made.map_err(|source| OpenRuntimeError::Directory { path: path.clone(), source })?;
        }
        for path in &trees {
            keep_apart(path);
        }
        let cgroups = Cgroups::open(&config.cgroup_parent).map_err(OpenRuntimeError::Cgroups)?;
        let binary = rootfs::bind_own_binary().map_err(OpenRuntimeError::Binary)?;
        let filters = Filters::new(config.data_dir.join("seccomp"));
        let ids = IdRange::of_machine().map_err(OpenRuntimeError::SubordinateIds)?;
        let state = State::new();
        let apparmor = AppArmor::of_machine();
        let spares = Spares::default();
        let mount_points = Arc::new(MountPoints::new(config.data_dir.clone()));
        let rootfs_ahead = Arc::new(RootfsAhead::new(config.containers_ahead()));
        let logs_ahead = Arc::new(LogDirectoriesAhead::new(config.logs_ahead()));
        let kernel = Arc::new(Kernel {
            config,
            store,
            images,
            network,
            cgroups,
            cgroups_ahead: CgroupsAhead::default(),
            binary,
            filters,
            apparmor,
            ids,
            state,
            spares,
            mount_points,
            accounts: KnownAccounts::default(),
            rootfs_ahead,
            logs_ahead,
            clearing: TaskTracker::new(),
        });
        let preparing = Arc::clone(&kernel);
        tokio::spawn(async move { preparing.apparmor.prepare().await });
        kernel.recover().await?;
        Ok(Self(kernel))
    }

    /// Keeps a few sandboxes ready from now on, so that Pods start faster.
    pub fn keep_spare_sandboxes(&self) {
        self.0.keep_spares();
    }

    /// Keeps control groups ready as well, for callers who give their Pods the UIDs of [`Runtime::prepared_uid`].
    pub fn keep_control_groups_ahead(&self) {
        self.0.keep_cgroups_ahead();
    }

    /// Removes what is ready and nobody's, and makes none any more.
    pub async fn end_spare_sandboxes(&self) {
        self.0.end_spares().await;
    }

    /// Stops every sandbox and removes all that the runtime made, for `monopod reset`.
    pub async fn remove_all(&self) -> Result<(), RuntimeError> {
        let all: Vec<SandboxId> = self.0.state.lock().sandboxes.keys().cloned().collect();
        for sandbox in all {
            self.remove_pod_sandbox(&sandbox).await?;
        }
        self.0.clearing.close();
        if tokio::time::timeout(CLEARING, self.0.clearing.wait()).await.is_err() {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Err(remove_error("remove what containers wrote", late));
        }
        self.0.cgroups.remove_all().await.map_err(|source| remove_error("remove control groups", source))
    }
}

impl KernelRuntimeConfig {
    fn sandboxes(&self) -> PathBuf {
        self.data_dir.join("sandboxes")
    }

    fn containers(&self) -> PathBuf {
        self.data_dir.join("containers")
    }

    fn containers_ahead(&self) -> PathBuf {
        self.data_dir.join("containers-ahead")
    }

    fn logs_ahead(&self) -> PathBuf {
        self.data_dir.join("logs-ahead")
    }

    fn sockets(&self) -> PathBuf {
        self.run_dir.join("sandboxes")
    }

    fn sandbox_directory(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes().join(id.as_str())
    }

    fn socket(&self, id: &SandboxId) -> PathBuf {
        self.sockets().join(format!("{id}.sock"))
    }

    fn container_directory(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }
}

/// A container's log below the Pod's log directory: `<container>/<attempt>.log`, unless the caller chose it.
fn log_file(config: &ContainerConfig) -> PathBuf {
    match &config.log_path {
        Some(path) => path.clone(),
        None => Path::new(config.name.as_str()).join(format!("{}.log", config.attempt)),
    }
}

fn make_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove_error(step: &str, source: impl std::error::Error + Send + Sync + 'static) -> RuntimeError {
    RuntimeError::Remove { step: step.to_owned(), source: Box::new(source) }
}

/// A C string of text that may hold anything; a NUL ends it.
fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

#[async_trait]
impl Runtime for KernelRuntime {
    async fn begin_pod_sandbox(
        &self,
        config: PodSandboxConfig,
    ) -> Result<(PodSandboxStatus, SandboxRest), RuntimeError> {
        Arc::clone(&self.0).begin_sandbox(config).await
    }

    fn prepared_uid(&self, class: QosClass) -> Option<PodUid> {
        self.0.prepared_uid(class)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.0.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.0.remove_sandbox(id).await
    }

    async fn list_pod_sandboxes(&self) -> Vec<PodSandboxStatus> {
        self.0.state.list_sandboxes()
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        Arc::clone(&self.0).create_container(sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        Arc::clone(&self.0).start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, signal: Option<i32>, grace: Duration) -> Result<(), RuntimeError> {
        self.0.stop_container(id, signal, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.0.remove_container(id).await
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.0.reopen_log(id).await
    }

    async fn list_containers(&self) -> Vec<ContainerStatus> {
        self.0.state.list_containers()
    }

    async fn list_pod(&self, uid: &PodUid) -> (Vec<PodSandboxStatus>, Vec<ContainerStatus>) {
        self.0.state.list_pod(uid)
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        self.0.update_resources(id, resources).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        self.0.update_sandbox_resources(id, resources).await
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session, RuntimeError> {
        Arc::clone(&self.0).exec(id, request).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        output_limit: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        Arc::clone(&self.0).exec_sync(id, command, timeout, output_limit).await
    }

    async fn attach(&self, id: &ContainerId, stdin: bool, stdout: bool, stderr: bool) -> Result<Session, RuntimeError> {
        self.0.attach(id, stdin, stdout, stderr).await
    }

    async fn connect(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError> {
        self.0.connect(sandbox, port).await
    }

    async fn open_pod_tmpfs(&self, sandbox: &SandboxId, volume: &VolumeName) -> Result<OwnedFd, RuntimeError> {
        self.0.open_tmpfs(sandbox, volume).await
    }

    async fn pod_usage(&self, uid: &PodUid) -> PodUsage {
        self.0.pod_usage(uid)
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.0.state.events()
    }
}

/// Borrowed descriptors of several owners, in order.
fn borrow_all(descriptors: &[OwnedFd]) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd)
}

/// Watches a descriptor in the event loop.
#[expect(
    deprecated,
    reason = "the successor is unsafe for types that may close or swap their descriptor; OwnedFd does neither"
)]
fn watch_descriptor(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
