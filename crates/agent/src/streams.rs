//! exec, attach and logs: finds the container that a client means and connects it.

use runtime::{ContainerState, ContainerStatus, ExecRequest, PodSandboxState, RuntimeError, Session};
use spec::{ContainerName, PodRef};
use steps::step;
use tokio::net::TcpStream;
use tracing::Instrument as _;

use crate::agent::Agent;
use crate::desired::DesiredPod;
use crate::logs::files::RunLog;
use crate::logs::{Followed, LogError, LogOptions, LogStream, Rendering, Since, read_logs, select_run};

/// Why a process cannot be started or attached to.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The Pod is not in the store.
    #[error("pods {:?} not found", pod.name)]
    NoSuchPod {
        /// The Pod.
        pod: PodRef,
    },
    /// The Pod has no such container.
    #[error("container {container} is not valid for pod {}", pod.name)]
    NoSuchContainer {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
    },
    /// The Pod has ended.
    #[error("cannot exec into a container in a completed pod; current phase is {phase}")]
    Completed {
        /// `Succeeded` or `Failed`.
        phase: String,
    },
    /// The container does not run now.
    #[error("container not found ({:?})", container.as_str())]
    NotRunning {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
    },
    /// The Pod has no network now.
    #[error("pod {pod} is not running")]
    NoSandbox {
        /// The Pod.
        pod: PodRef,
    },
    /// Nobody takes the connection.
    #[error(transparent)]
    Connect {
        /// Why.
        source: RuntimeError,
    },
    /// The runtime cannot do it.
    #[error("pod {pod}: cannot connect to container {container:?}")]
    Runtime {
        /// The Pod.
        pod: PodRef,
        /// The container.
        container: ContainerName,
        /// Why.
        #[source]
        source: RuntimeError,
    },
}

impl Agent {
    /// Starts one more process in a running container.
    pub async fn exec(
        &self,
        pod: &PodRef,
        container: &ContainerName,
        request: ExecRequest,
    ) -> Result<Session, StreamError> {
        let (desired, run) = self.running(pod, container).await?;
        let step = steps::of_pod(desired.uid.as_str()).in_scope(|| step!("exec a process"));
        let started = self.shared.runtime.exec(&run.id, request).instrument(step).await;
        started.map_err(|source| connect_error(pod, container, source))
    }

    /// Connects to the first process of a running container. Also says whether that has a terminal.
    pub async fn attach(
        &self,
        pod: &PodRef,
        container: &ContainerName,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<(Session, bool), StreamError> {
        let (desired, run) = self.running(pod, container).await?;
        let spec = desired.container(container);
        let tty = spec.and_then(|spec| spec.tty).unwrap_or(false);
        let stdin = stdin && spec.and_then(|spec| spec.stdin).unwrap_or(false);
        let session = self.shared.runtime.attach(&run.id, stdin, stdout, stderr && !tty).await;
        session.map(|session| (session, tty)).map_err(|source| connect_error(pod, container, source))
    }

    /// Connects to a TCP port of a running Pod's `localhost`.
    pub async fn connect(&self, pod: &PodRef, port: u16) -> Result<TcpStream, StreamError> {
        let desired = self.pod(pod).ok_or_else(|| StreamError::NoSuchPod { pod: pod.clone() })?;
        let (sandboxes, _) = self.shared.runtime.list_pod(&desired.uid).await;
        let ready = sandboxes.into_iter().find(|sandbox| sandbox.state == PodSandboxState::Ready);
        let sandbox = ready.ok_or_else(|| StreamError::NoSandbox { pod: pod.clone() })?;
        let connected = self.shared.runtime.connect(&sandbox.id, port).await;
        connected.map_err(|source| StreamError::Connect { source })
    }

    /// The logs of a container.
    #[expect(clippy::needless_pass_by_value, reason = "a request is used up by its answer")]
    pub fn logs(&self, pod: &PodRef, container: &ContainerName, options: LogOptions) -> Result<LogStream, LogError> {
        let desired = self.pod(pod).ok_or_else(|| LogError::NoSuchPod { pod: pod.clone() })?;
        let run = select_run(&desired, container, options.previous)?;
        let paths = self.shared.paths(pod, &desired.uid);
        let directory = paths.logs.strip_prefix(&self.shared.config.log_dir).unwrap_or(&paths.logs);
        let log = RunLog {
            log_dir: self.shared.config.log_dir.clone(),
            directory: directory.join(container.as_str()),
            attempt: run.attempt,
        };
        let since = options.since.map(|since| match since {
            Since::Time(time) => time,
            Since::SecondsAgo(seconds) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                let span = spec::k8s_openapi::jiff::SignedDuration::from_secs(seconds);
                self.shared.clock.wall().checked_sub(span).unwrap_or(spec::Timestamp::MIN)
            }
        });
        let files = match log.open_all(since) {
            Ok(files) => files,
            // A container that has ended before it wrote anything may have no log.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(LogError::Open { pod: pod.clone(), container: container.clone(), source }),
        };
        let rendering = Rendering {
            since,
            timestamps: options.timestamps,
            stream: options.stream,
            limit_bytes: options.limit_bytes,
        };
        let followed = options.follow.then(|| Followed {
            runtime: std::sync::Arc::clone(&self.shared.runtime),
            pod_uid: desired.uid.clone(),
            id: run.id.clone(),
        });
        Ok(read_logs(log, files, options.tail_lines, rendering, followed))
    }

    async fn running(
        &self,
        pod: &PodRef,
        container: &ContainerName,
    ) -> Result<(DesiredPod, ContainerStatus), StreamError> {
        let desired = self.pod(pod).ok_or_else(|| StreamError::NoSuchPod { pod: pod.clone() })?;
        if desired.container(container).is_none() {
            return Err(StreamError::NoSuchContainer { pod: pod.clone(), container: container.clone() });
        }
        if desired.is_terminal() {
            return Err(StreamError::Completed { phase: desired.status.phase.clone().unwrap_or_default() });
        }
        let (_, runs) = self.shared.runtime.list_pod(&desired.uid).await;
        let running = runs.into_iter().find(|run| {
            &run.name == container
                && match run.state {
                    ContainerState::Running { .. } => true,
                    ContainerState::Created | ContainerState::Exited(_) => false,
                }
        });
        match running {
            Some(run) => Ok((desired, run)),
            None => Err(StreamError::NotRunning { pod: pod.clone(), container: container.clone() }),
        }
    }
}

fn connect_error(pod: &PodRef, container: &ContainerName, source: RuntimeError) -> StreamError {
    StreamError::Runtime { pod: pod.clone(), container: container.clone(), source }
}
