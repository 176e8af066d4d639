//! Runs one hook to its end. Whoever drops it breaks it off: its command is killed, its request is given up.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use spec::ContainerId;
use spec::k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::desired::DesiredPod;
use crate::events::{EventRecorder, EventSubject};
use crate::handlers::{Action, ExecFailure, HttpCause, HttpFailure, HttpGet, InvalidAction, exec};

/// A hook of one run of a container.
pub(crate) struct Hook {
    runtime: Arc<dyn Runtime>,
    events: EventRecorder,
    pod: EventSubject,
    id: ContainerId,
    action: Result<Action, InvalidAction>,
    /// `Container "app" in Pod "web_default(uid)"`.
    whose: String,
    /// Of a request.
    path: String,
}

/// Why a hook failed, in the kubelet's words. It goes into the container's status and into the log, never into an event:
/// what a command prints may be secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookFailure {
    /// A command ended badly.
    #[error("Exec lifecycle hook ({command:?}) for {whose} failed - error: {failure}, message: {output:?}")]
    Exec {
        /// Whose it is.
        whose: String,
        /// The command.
        command: Vec<String>,
        /// How.
        failure: ExecFailure,
        /// All that it printed.
        output: String,
    },
    /// A request got no answer.
    #[error("HTTP lifecycle hook ({path}) for {whose} failed - error: {failure}")]
    Http {
        /// Whose it is.
        whose: String,
        /// What was asked for.
        path: String,
        /// Why.
        failure: HttpFailure,
    },
    /// It is none that can be run.
    #[error("Cannot run handler: {0}")]
    Invalid(InvalidAction),
}

impl Hook {
    /// `address` is the Pod's, or the node's with `hostNetwork`.
    pub(crate) fn new(
        handler: &LifecycleHandler,
        desired: &DesiredPod,
        container: &Container,
        id: &ContainerId,
        address: Option<IpAddr>,
        (runtime, events): (&Arc<dyn Runtime>, &EventRecorder),
    ) -> Self {
        Self {
            runtime: Arc::clone(runtime),
            events: events.clone(),
            pod: EventSubject::pod(desired),
            id: id.clone(),
            action: Action::of_hook(handler, container, address),
            whose: format!("Container {:?} in Pod {:?}", container.name, desired.kubelet_name()),
            path: handler.http_get.as_ref().and_then(|get| get.path.clone()).unwrap_or_default(),
        }
    }

    /// Takes as long as it takes; the caller sets the limit.
    pub(crate) async fn run(self) -> Result<(), HookFailure> {
        match &self.action {
            Ok(Action::Exec(command)) => self.exec(command).await,
            Ok(Action::Http(get)) => self.http(get).await,
            Ok(Action::Sleep(duration)) => {
                tokio::time::sleep(*duration).await;
                Ok(())
            }
            Ok(Action::Tcp { .. } | Action::Grpc(_)) => {
                Err(HookFailure::Invalid(InvalidAction::Handler("a hook runs a command, sends a request or sleeps")))
            }
            Err(invalid) => Err(HookFailure::Invalid(invalid.clone())),
        }
    }

    async fn exec(&self, command: &[String]) -> Result<(), HookFailure> {
        let ran = exec::run(self.runtime.as_ref(), &self.id, command, Duration::MAX).await;
        ran.map(drop).map_err(|failure| HookFailure::Exec {
            whose: self.whose.clone(),
            command: command.to_vec(),
            output: match &failure {
                ExecFailure::Exited { output, .. } => output.clone(),
                ExecFailure::TimedOut { .. } | ExecFailure::Runtime(_) => String::new(),
            },
            failure,
        })
    }

    /// Any answer is good. A server without TLS is asked once more in the clear (kubelet, `runHTTPHandler`).
    async fn http(&self, get: &HttpGet) -> Result<(), HookFailure> {
        let failed = |failure| HookFailure::Http { whose: self.whose.clone(), path: self.path.clone(), failure };
        match get.send().await {
            Ok(_answer) => Ok(()),
            Err(failure) if matches!(failure.cause, HttpCause::NotTls) => {
                let clear = get.in_the_clear();
                if clear.send().await.is_err() {
                    return Err(failed(failure));
                }
                let host = clear.url.host_str().unwrap_or_default();
                let port = clear.url.port_or_known_default().unwrap_or(80);
                self.events.warning(
                    self.pod.clone(),
                    "LifecycleHTTPFallback",
                    format!(
                        "request to HTTPS lifecycle hook {host}:{port} got HTTP response, retry with HTTP succeeded"
                    ),
                );
                Ok(())
            }
            Err(failure) => Err(failed(failure)),
        }
    }
}
