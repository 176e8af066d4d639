//! The health check of gRPC (grpc.health.v1, `Health/Check`), over HTTP/2 in the clear. Its two messages are one field
//! each, so they are written and read here.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::OUTPUT_LIMIT;
use super::dial::{DialError, dial};

const SERVING: u64 = 1;
/// `UNIMPLEMENTED` of gRPC's status codes.
const UNIMPLEMENTED: &str = "12";
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A question that can be asked again and again.
#[derive(Debug, Clone)]
pub(crate) struct GrpcCheck {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Which service is meant; empty for the whole server.
    pub(crate) service: String,
    pub(super) user_agent: &'static str,
}

/// Why the server is not healthy, in the kubelet's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcFailure {
    /// There is no connection.
    #[error(
        "error: failed to connect service at {address:?}: connection error: desc = \"transport: Error while dialing: {cause}\""
    )]
    Dial {
        /// Host and port.
        address: String,
        /// Why.
        cause: DialError,
    },
    /// It has no health service.
    #[error("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {0}")]
    Unimplemented(String),
    /// It refused, or speaks no gRPC.
    #[error("error: health rpc probe failed: {0}")]
    Rpc(String),
    /// It says so itself.
    #[error("service unhealthy (responded with {0:?})")]
    Unhealthy(&'static str),
}

impl GrpcCheck {
    /// Asks. The server is told how long it may take.
    pub(crate) async fn ask(&self, timeout: Duration) -> Result<(), GrpcFailure> {
        let failed = |cause| GrpcFailure::Dial { address: self.address(), cause };
        let stream = dial(&self.host, self.port).await.map_err(failed)?;
        let (headers, message, trailers) = self.exchange(stream, timeout).await.map_err(rpc_error)?;
        // A server that refuses at once sends its status with the headers.
        let status_of = |headers: &HeaderMap| text(headers, "grpc-status");
        if let Some(status) = status_of(&trailers).or_else(|| status_of(&headers)).filter(|status| status != "0") {
            let message = text(&trailers, "grpc-message").or_else(|| text(&headers, "grpc-message"));
            let message = message.unwrap_or_default();
            return Err(match status.as_str() {
                UNIMPLEMENTED => GrpcFailure::Unimplemented(message),
                _ => GrpcFailure::Rpc(format!("rpc error: code = {} desc = {message}", code_name(&status))),
            });
        }
        match serving_status(&message) {
            Some(SERVING) => Ok(()),
            Some(status) => Err(GrpcFailure::Unhealthy(status_name(status))),
            None => Err(GrpcFailure::Rpc("the answer is no HealthCheckResponse".to_owned())),
        }
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> String {
        super::address(&self.host, self.port)
    }

    async fn exchange(&self, stream: TcpStream, timeout: Duration) -> Result<(HeaderMap, Vec<u8>, HeaderMap), Failed> {
        let request = Request::post(format!("http://{}/grpc.health.v1.Health/Check", self.address()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", format!("{}m", timeout.as_millis()))
            .header("user-agent", self.user_agent)
            .body(Full::new(Bytes::from(check_request(&self.service))))?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let talk = async {
            let answer = sender.send_request(request).await?;
            if !answer.status().is_success() {
                return Err(format!("unexpected HTTP status code received from server: {}", answer.status()).into());
            }
            let headers = answer.headers().clone();
            let (message, trailers) = read_all(answer.into_body()).await?;
            Ok((headers, message, trailers))
        };
        let moving = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            talked = talk => talked,
            () = moving => Err("the connection ended".into()),
        }
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[expect(clippy::needless_pass_by_value, reason = "it is used up")]
fn rpc_error(error: Failed) -> GrpcFailure {
    let mut text = error.to_string();
    if let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
    }
    GrpcFailure::Rpc(format!("rpc error: code = Unavailable desc = {text}"))
}

async fn read_all(mut body: Incoming) -> Result<(Vec<u8>, HeaderMap), Failed> {
    let (mut message, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
        if message.len() > OUTPUT_LIMIT {
            return Err("the answer is too long".into());
        }
    }
    Ok((message, trailers))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// `HealthCheckRequest { string service = 1; }` with its prefix.
fn check_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.push(0x0a);
        push_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], length.as_slice(), &message].concat()
}

fn push_varint(message: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        message.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    message.push(u8::try_from(number).unwrap_or_default());
}

/// `HealthCheckResponse { ServingStatus status = 1; }`: `None` if it is something else.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, mut message) = framed.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix.get(1..)?.try_into().ok()?);
    if prefix.first() != Some(&0) || usize::try_from(length) != Ok(message.len()) {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn status_name(status: u64) -> &'static str {
    match status {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "an unknown status",
    }
}

/// grpc-go's names of the status codes.
fn code_name(status: &str) -> &str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    status.parse::<usize>().ok().and_then(|code| NAMES.get(code).copied()).unwrap_or(status)
}
