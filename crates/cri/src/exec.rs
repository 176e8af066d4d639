//! Processes in running containers, and connections to them: `ExecSync` itself, and addresses of the streaming server.

use std::time::Duration;

use runtime::{ContainerState, ExecRequest, PodSandboxState};
use tonic::Status;

use crate::errors::{self, invalid};
use crate::proto;
use crate::service::Cri;
use crate::streaming::{AttachRequest, NoUrl};

/// The protocol's own limit of what is kept of an output (CVE-2022-1708, CVE-2022-31030).
const OUTPUT_LIMIT: usize = 16 << 20;
/// Without a time-out the caller's own ends the call.
const NO_TIMEOUT: Duration = Duration::from_hours(24 * 365);

impl Cri {
    pub(crate) async fn exec_sync(&self, request: proto::ExecSyncRequest) -> Result<proto::ExecSyncResponse, Status> {
        let container = self.find_running(&request.container_id).await?;
        let command = command(request.cmd)?;
        let timeout = match u64::try_from(request.timeout) {
            Ok(seconds @ 1..) => Duration::from_secs(seconds),
            _ => NO_TIMEOUT,
        };
        let output = self.0.runtime.exec_sync(&container, command, timeout, OUTPUT_LIMIT).await;
        let output = output.map_err(|error| errors::runtime(&error))?;
        match output.exit_code {
            Some(exit_code) => Ok(proto::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code }),
            // The kubelet takes this code for a failed probe.
            None => Err(Status::deadline_exceeded(format!(
                "the command in container {container} did not end within {} s and was killed",
                timeout.as_secs()
            ))),
        }
    }

    pub(crate) async fn exec(&self, request: proto::ExecRequest) -> Result<String, Status> {
        let container = self.find_running(&request.container_id).await?;
        let proto::ExecRequest { stdin, stdout, stderr, tty, .. } = request;
        let wanted = ExecRequest { command: command(request.cmd)?, stdin, stdout, stderr, tty };
        self.0.streams.exec_url(container, wanted).map_err(no_url)
    }

    pub(crate) async fn attach(&self, request: proto::AttachRequest) -> Result<String, Status> {
        let container = self.find_running(&request.container_id).await?;
        let proto::AttachRequest { stdin, stdout, stderr, tty, .. } = request;
        self.0.streams.attach_url(container, AttachRequest { stdin, stdout, stderr, tty }).map_err(no_url)
    }

    pub(crate) async fn port_forward(&self, request: proto::PortForwardRequest) -> Result<String, Status> {
        let sandbox = self.find_sandbox(&request.pod_sandbox_id).await?;
        if sandbox.state != PodSandboxState::Ready {
            return Err(Status::failed_precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let port =
            |port: i32| u16::try_from(port).map_err(|error| invalid("port", format!("{port} is not a port: {error}")));
        let ports = request.port.into_iter().map(port).collect::<Result<Vec<u16>, _>>()?;
        self.0.streams.port_forward_url(sandbox.id, ports).map_err(no_url)
    }

    async fn find_running(&self, id: &str) -> Result<spec::ContainerId, Status> {
        let container = self.find_container(id).await?;
        match container.state {
            ContainerState::Running { .. } => Ok(container.id),
            ContainerState::Created | ContainerState::Exited(_) => {
                Err(Status::failed_precondition(format!("container {} is not running", container.id)))
            }
        }
    }
}

fn command(command: Vec<String>) -> Result<Vec<String>, Status> {
    if command.is_empty() { Err(invalid("cmd", "it is empty")) } else { Ok(command) }
}

fn no_url(error: NoUrl) -> Status {
    match error {
        NoUrl::TerminalWithStderr | NoUrl::NoStream => Status::invalid_argument(error.to_string()),
        NoUrl::TooManyInFlight => Status::resource_exhausted(error.to_string()),
    }
}
