//! The surface of the runtime: the verbs of CRI (kubernetes/cri-api, `RuntimeService`), as one trait.

use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use spec::{ContainerId, PodUid, SandboxId, VolumeName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use crate::config::{ContainerConfig, LinuxResources, PodSandboxConfig, QosClass};
use crate::error::RuntimeError;
use crate::status::{ContainerStatus, PodSandboxStatus, RuntimeEvent};
use crate::usage::PodUsage;

/// What is left of the making of a sandbox.
pub type SandboxRest = Pin<Box<dyn Future<Output = Result<(), RuntimeError>> + Send>>;

/// Pod sandboxes and containers. Every verb may be called again after a failure or a restart of the daemon:
/// stopping what is stopped and removing what is gone succeed.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Makes the sandbox: records it, starts its infra process, makes its namespaces, network and cgroup.
    /// On an error nothing of it is left.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<PodSandboxStatus, RuntimeError> {
        let (status, rest) = self.begin_pod_sandbox(config).await?;
        match rest.await {
            Ok(()) => Ok(status),
            Err(error) => {
                if let Err(cleanup) = self.remove_pod_sandbox(&status.id).await {
                    tracing::warn!(id = %status.id, error = &cleanup as &dyn std::error::Error, "a half-made sandbox is not all removed");
                }
                Err(error)
            }
        }
    }

    /// The same for callers who have more to do meanwhile: the sandbox has its address, and containers can be created in it.
    /// None starts before the rest is done; where that fails, the caller removes the sandbox.
    async fn begin_pod_sandbox(
        &self,
        config: PodSandboxConfig,
    ) -> Result<(PodSandboxStatus, SandboxRest), RuntimeError>;

    /// The UID of a Pod for which something was made ahead, if there is any: for a Pod of this class that is about to be created.
    /// Each is given once.
    fn prepared_uid(&self, _class: QosClass) -> Option<PodUid> {
        None
    }

    /// Kills all that runs in the sandbox at once, gives back its address, ends its infra process. Its containers'
    /// statuses and logs stay. Graceful ends come before, by [`Runtime::stop_container`].
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes a sandbox, its containers and their records; stops it first if need be. Logs stay.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// All sandboxes that are recorded.
    async fn list_pod_sandboxes(&self) -> Vec<PodSandboxStatus>;

    /// Records a container and prepares its root file system. Nothing runs yet.
    async fn create_container(&self, sandbox: &SandboxId, config: ContainerConfig)
    -> Result<ContainerId, RuntimeError>;

    /// Starts a created container; returns once its program is executed, or with why it could not be. After a failure
    /// the container is `Exited` with [`crate::ExitReason::StartFailed`].
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Sends `signal` (number as in signal(7); `None` takes the image's `STOPSIGNAL`, else SIGTERM) to the container's
    /// first process, kills the cgroup after `grace`, and returns when no process is left. A call with a shorter grace
    /// while another waits shortens it.
    async fn stop_container(&self, id: &ContainerId, signal: Option<i32>, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes a container's record and writable layer; kills it first if need be. Its log stays.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Goes on writing the log of a running container in a new file of the same name: the old one was renamed.
    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// All containers that are recorded.
    async fn list_containers(&self) -> Vec<ContainerStatus>;

    /// The sandboxes and containers of one Pod, without a walk over those of all others.
    async fn list_pod(&self, uid: &PodUid) -> (Vec<PodSandboxStatus>, Vec<ContainerStatus>) {
        let (mut sandboxes, mut containers) = (self.list_pod_sandboxes().await, self.list_containers().await);
        sandboxes.retain(|sandbox| sandbox.uid == *uid);
        containers.retain(|container| container.pod_uid == *uid);
        (sandboxes, containers)
    }

    /// Changes the limits of a running container in place.
    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError>;

    /// Changes the limits of a whole Pod in place.
    async fn update_pod_sandbox_resources(
        &self,
        id: &SandboxId,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError>;

    /// Starts one more process in a running container.
    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session, RuntimeError>;

    /// Runs a command to its end, or kills it at `timeout`; keeps at most `output_limit` bytes of each stream.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        output_limit: usize,
    ) -> Result<ExecOutput, RuntimeError>;

    /// Connects to the stdin and the output of a running container's first process.
    /// The session's `end` resolves when the container ends.
    async fn attach(&self, id: &ContainerId, stdin: bool, stdout: bool, stderr: bool) -> Result<Session, RuntimeError>;

    /// Connects to a TCP port as the Pod's own processes would by `localhost`: 127.0.0.1, then ::1.
    async fn connect(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError>;

    /// A directory descriptor of the root of a Pod's tmpfs, to write secrets into.
    async fn open_pod_tmpfs(&self, sandbox: &SandboxId, volume: &VolumeName) -> Result<OwnedFd, RuntimeError>;

    /// What a Pod's containers use at this moment.
    async fn pod_usage(&self, uid: &PodUid) -> PodUsage;

    /// Changes from now on. A receiver that lags has missed some and looks at everything.
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;
}

/// A process to be started in a running container.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Program and arguments; found by the container's `PATH` unless it has a slash.
    pub command: Vec<String>,
    /// Connect a stdin.
    pub stdin: bool,
    /// Connect its stdout.
    pub stdout: bool,
    /// Connect its stderr; never with `tty`.
    pub stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
}

/// Width and height of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A connection to a process. Dropping it ends an exec's process (it loses its terminal or pipes) and detaches an attach.
pub struct Session {
    /// Closing (shutting down) it gives the process end-of-file, when it is a pipe.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Ends when the process' side is closed.
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Ends when the process' side is closed.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Sets the size of the terminal, if there is one.
    pub resize: Option<Box<dyn Fn(TerminalSize) -> std::io::Result<()> + Send + Sync>>,
    /// How it ended. The output may still hold data then.
    pub end: Pin<Box<dyn Future<Output = SessionEnd> + Send>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("terminal", &self.resize.is_some()).finish_non_exhaustive()
    }
}

/// How the process of a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// With this code; 128+n when signal n killed it.
    Exited(i32),
    /// Nobody knows: its sandbox died.
    Lost,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// As [`SessionEnd::Exited`]; `None` if it ran into the time-out and was killed.
    pub exit_code: Option<i32>,
    /// At most the wanted number of bytes.
    pub stdout: Vec<u8>,
    /// At most the wanted number of bytes.
    pub stderr: Vec<u8>,
}
