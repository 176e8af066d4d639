//! One attempt of a probe, with the messages that the kubelet has for each end of it.

use std::time::Duration;

use runtime::Runtime;
use spec::ContainerId;

use crate::handlers::{Action, DialError, ExecFailure, GrpcCheck, GrpcFailure, HttpCause, HttpFailure, HttpGet, exec};

/// An error of ours is tried again at once so often (kubelet, `maxProbeRetries`).
const TRIES: u32 = 3;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should be.
    Success,
    /// Good enough, with something to say.
    Warning(String),
    /// Not as it should be.
    Failure(String),
    /// Nobody listens. Of a program that has just started that says nothing yet.
    Refused(String),
    /// It could not be found out.
    Unknown(String),
}

/// Tries once, and again if that failed for a reason of our own.
pub(crate) async fn attempt(runtime: &dyn Runtime, id: &ContainerId, action: &Action, timeout: Duration) -> Outcome {
    let mut outcome = once(runtime, id, action, timeout).await;
    for _ in 1..TRIES {
        match outcome {
            Outcome::Unknown(_) => outcome = once(runtime, id, action, timeout).await,
            Outcome::Success | Outcome::Warning(_) | Outcome::Failure(_) | Outcome::Refused(_) => break,
        }
    }
    outcome
}

async fn once(runtime: &dyn Runtime, id: &ContainerId, action: &Action, timeout: Duration) -> Outcome {
    match action {
        Action::Exec(command) => match exec::run(runtime, id, command, timeout).await {
            Ok(_output) => Outcome::Success,
            Err(ExecFailure::Exited { output, .. }) => Outcome::Failure(output),
            Err(failure @ ExecFailure::TimedOut { .. }) => Outcome::Failure(failure.to_string()),
            Err(failure @ ExecFailure::Runtime(_)) => Outcome::Unknown(failure.to_string()),
        },
        Action::Http(get) => http(get, timeout).await,
        Action::Tcp { host, port } => match tokio::time::timeout(timeout, crate::handlers::dial(host, *port)).await {
            Ok(Ok(connection)) => {
                crate::handlers::leave(connection);
                Outcome::Success
            }
            Ok(Err(error)) => not_dialled(&error, error.to_string()),
            Err(_elapsed) => {
                Outcome::Failure(format!("dial tcp {}: i/o timeout", crate::handlers::address(host, *port)))
            }
        },
        Action::Grpc(check) => grpc(check, timeout).await,
        // Validation knows no such probe.
        Action::Sleep(_) => Outcome::Unknown("a probe does not sleep".to_owned()),
    }
}

async fn http(get: &HttpGet, timeout: Duration) -> Outcome {
    let answer = match tokio::time::timeout(timeout, get.send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => return not_answered(&failure),
        Err(_elapsed) => {
            let url = &get.url;
            let message = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            return Outcome::Failure(format!("Get \"{url}\": {message}"));
        }
    };
    match answer.status.as_u16() {
        200..300 => Outcome::Success,
        // Where a redirect is not followed it is good enough.
        300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        // The body stays out of it: it may hold what is nobody's business (kubernetes/kubernetes#99425).
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

fn not_answered(failure: &HttpFailure) -> Outcome {
    match &failure.cause {
        HttpCause::Dial(error) => not_dialled(error, failure.to_string()),
        HttpCause::NotTls
        | HttpCause::Tls(_)
        | HttpCause::Exchange(_)
        | HttpCause::Redirects
        | HttpCause::Location(_) => Outcome::Failure(failure.to_string()),
    }
}

async fn grpc(check: &GrpcCheck, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, check.ask(timeout)).await {
        Ok(Ok(())) => Outcome::Success,
        Ok(Err(failure)) => match &failure {
            GrpcFailure::Dial { cause, .. } => not_dialled(cause, failure.to_string()),
            GrpcFailure::Unimplemented(_) | GrpcFailure::Rpc(_) | GrpcFailure::Unhealthy(_) => {
                Outcome::Failure(failure.to_string())
            }
        },
        Err(_elapsed) => {
            Outcome::Failure(format!("timeout: health rpc did not complete within {}s", timeout.as_secs()))
        }
    }
}

fn not_dialled(error: &DialError, message: String) -> Outcome {
    match error {
        DialError::Refused { .. } => Outcome::Refused(message),
        _ if error.is_ours() => Outcome::Unknown(message),
        DialError::Lookup { .. } | DialError::Connect { .. } => Outcome::Failure(message),
    }
}
