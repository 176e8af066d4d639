//! What a token stands for, and how it is carried out.

use std::sync::Arc;

use http::Response;
use hyper::Request;
use hyper::body::Incoming;
use runtime::{ExecRequest, Runtime, Session, SessionEnd};
use spec::{ContainerId, SandboxId, chain};
use streaming::{Refusal, Target, Wanted};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Streams of a container's first process.
#[derive(Debug, Clone, Copy)]
pub struct AttachRequest {
    /// Its input, if the container has one.
    pub stdin: bool,
    /// Its output.
    pub stdout: bool,
    /// Its other output; never with `tty`.
    pub stderr: bool,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// What a call of CRI asked for.
pub enum Asked {
    /// One more process.
    Exec(ContainerId, ExecRequest),
    /// The first process' streams.
    Attach(ContainerId, AttachRequest),
    /// Connections to ports.
    PortForward(SandboxId, Vec<u16>),
}

impl Asked {
    /// The first part of the path that leads here.
    pub fn door(&self) -> &'static str {
        match self {
            Self::Exec(..) => "exec",
            Self::Attach(..) => "attach",
            Self::PortForward(..) => "portforward",
        }
    }

    /// Answers 101, and does it.
    pub fn carry_out(
        self,
        request: &mut Request<Incoming>,
        runtime: Arc<dyn Runtime>,
        shutdown: CancellationToken,
    ) -> Result<Response<()>, Refusal> {
        match self {
            Self::Exec(container, process) => {
                let ExecRequest { stdin, stdout, stderr, tty, .. } = process;
                let start = async move {
                    let started = runtime.exec(&container, process).await;
                    started.map_err(|error| format!("error executing command in container: {}", chain(&error)))
                };
                streaming::connect(request, Wanted { stdin, stdout, stderr, tty }, shutdown, start)
            }
            Self::Attach(container, AttachRequest { stdin, stdout, stderr, tty }) => {
                let start = async move {
                    let attached = runtime.attach(&container, stdin, stdout, stderr).await;
                    let attached = attached.map(without_exit_code);
                    attached.map_err(|error| format!("error attaching to container: {}", chain(&error)))
                };
                streaming::connect(request, Wanted { stdin, stdout, stderr, tty }, shutdown, start)
            }
            Self::PortForward(sandbox, ports) => {
                streaming::port_forward(request, ports, Ports { runtime, sandbox }, shutdown)
            }
        }
    }
}

/// In CRI an attach only carries: how the container ended, clients learn from its status.
fn without_exit_code(session: Session) -> Session {
    let end = async {
        match session.end.await {
            SessionEnd::Exited(_) => SessionEnd::Exited(0),
            SessionEnd::Lost => SessionEnd::Lost,
        }
    };
    Session { end: Box::pin(end), ..session }
}

/// The ports of a sandbox.
#[derive(Clone)]
struct Ports {
    runtime: Arc<dyn Runtime>,
    sandbox: SandboxId,
}

impl Target for Ports {
    fn pod(&self) -> String {
        self.sandbox.to_string()
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        self.runtime.connect(&self.sandbox, port).await.map_err(|error| chain(&error))
    }
}
