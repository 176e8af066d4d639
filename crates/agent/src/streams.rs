//! exec, attach and logs: finds the container that a client means and connects it.

use std::sync::Arc;

use runtime::{ContainerState, ContainerStatus, ExecRequest, PodSandboxState, RuntimeError, Session};
use serde_json::Value;
use spec::mirror::pod_uid;
use spec::{ContainerName, PodRef, PodUid};
use steps::{Scope, Within as _, step};
use tokio::net::TcpStream;

use crate::agent::{Agent, pod_key};
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
    /// The runtime cannot do it; it names the container.
    #[error("{}", _0.in_words())]
    Runtime(RuntimeError),
}

/// A container that runs.
struct Running {
    /// Of its Pod.
    uid: PodUid,
    run: ContainerStatus,
    /// Whether it was made with a terminal, and with a stdin.
    tty: bool,
    stdin: bool,
}

impl Agent {
    /// Starts one more process in a running container.
    pub async fn exec(
        &self,
        pod: &PodRef,
        container: &ContainerName,
        request: ExecRequest,
    ) -> Result<Session, StreamError> {
        let Running { uid, run, .. } = self.running(pod, container).await?;
        let step = Scope::of_pod(&self.shared.config.steps, uid.as_str()).in_scope(|| step!("exec a process"));
        let started = self.shared.runtime.exec(&run.id, request).within(step).await;
        started.map_err(StreamError::Runtime)
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
        let Running { run, tty, stdin: reads, .. } = self.running(pod, container).await?;
        let session = self.shared.runtime.attach(&run.id, stdin && reads, stdout, stderr && !tty).await;
        session.map(|session| (session, tty)).map_err(StreamError::Runtime)
    }

    /// Connects to a TCP port of a running Pod's `localhost`.
    pub async fn connect(&self, pod: &PodRef, port: u16) -> Result<TcpStream, StreamError> {
        let (uid, _) = self.stored(pod).ok_or_else(|| StreamError::NoSuchPod { pod: pod.clone() })?;
        let (sandboxes, _) = self.shared.runtime.list_pod(&uid).await;
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
            runtime: Arc::clone(&self.shared.runtime),
            pod_uid: desired.uid.clone(),
            id: run.id.clone(),
        });
        Ok(read_logs(log, files, options.tail_lines, rendering, followed))
    }

    /// The Pod as the store has it: to read all of it as its type would take longer than what little is asked of it here.
    fn stored(&self, pod: &PodRef) -> Option<(PodUid, Arc<Value>)> {
        let object = self.shared.store.get(&pod_key(pod))?.value.tree();
        Some((PodUid::new(pod_uid(&object).unwrap_or_default()), object))
    }

    async fn running(&self, pod: &PodRef, container: &ContainerName) -> Result<Running, StreamError> {
        let (uid, object) = self.stored(pod).ok_or_else(|| StreamError::NoSuchPod { pod: pod.clone() })?;
        let Some(spec) = container_of(&object, container) else {
            return Err(StreamError::NoSuchContainer { pod: pod.clone(), container: container.clone() });
        };
        if let Some(phase @ ("Succeeded" | "Failed")) = object.pointer("/status/phase").and_then(Value::as_str) {
            return Err(StreamError::Completed { phase: phase.to_owned() });
        }
        let asks_for = |field| spec.get(field).and_then(Value::as_bool).unwrap_or_default();
        let (_, runs) = self.shared.runtime.list_pod(&uid).await;
        let running = runs.into_iter().find(|run| {
            &run.name == container
                && match run.state {
                    ContainerState::Running { .. } => true,
                    ContainerState::Created | ContainerState::Exited(_) => false,
                }
        });
        match running {
            Some(run) => Ok(Running { uid, run, tty: asks_for("tty"), stdin: asks_for("stdin") }),
            None => Err(StreamError::NotRunning { pod: pod.clone(), container: container.clone() }),
        }
    }
}

/// A container of a Pod, whichever of its lists it stands in.
fn container_of<'a>(pod: &'a Value, name: &ContainerName) -> Option<&'a Value> {
    let lists = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
    let mut containers = lists.into_iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten();
    containers.find(|container| container.get("name").and_then(Value::as_str) == Some(name.as_str()))
}
