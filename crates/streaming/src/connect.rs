//! From a request for a session to the session: over a WebSocket or over SPDY.

use http::Response;
use hyper::Request;
use hyper::body::Incoming;
use runtime::Session;
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;
use crate::spdy_upgrade::{self, Upgrade};
use crate::websocket::{self, Handshake, Protocol};
use crate::{session, spdy_session};

/// Streams that a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// The other output.
    pub stderr: bool,
    /// A terminal, whose size may change.
    pub tty: bool,
}

impl Wanted {
    /// The streams that a SPDY client opens.
    fn spdy_streams(self) -> Vec<&'static str> {
        let all = [(true, "error"), (self.stdin, "stdin"), (self.stdout, "stdout"), (self.stderr, "stderr")];
        let all = all.into_iter().chain([(self.tty, "resize")]);
        all.filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect()
    }
}

/// Answers 101, then lets `start` make the session and carries it. What is wrong with it is told on the status channel,
/// since kubectl asks twice when an upgrade is refused; so an error of `start` is one line for the user.
pub fn connect(
    request: &mut Request<Incoming>,
    wanted: Wanted,
    shutdown: CancellationToken,
    start: impl Future<Output = Result<Session, String>> + Send + 'static,
) -> Result<Response<()>, Refusal> {
    if spdy_upgrade::is_wanted(request.headers()) {
        let (reply, open) = match spdy_upgrade::accept(request, "v4.channel.k8s.io")? {
            Upgrade::Accepted(reply, open) => (reply, open),
            Upgrade::Refused(reply) => return Ok(reply),
        };
        let serve = async move {
            let Ok(connection) = open.await else { return };
            if let Some(socket) = spdy_session::open(connection, &wanted.spdy_streams()).await {
                // A stream of SPDY can be closed by halves, as with v5.
                carry(socket, Protocol::V5, start).await;
            }
        };
        tokio::spawn(async move { shutdown.run_until_cancelled(serve).await });
        return Ok(reply);
    }
    let Handshake { protocol, reply, open } = websocket::accept(request, Protocol::ALL)?;
    let serve = async move {
        if let Ok(socket) = open.await {
            carry(socket, protocol, start).await;
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(serve).await });
    Ok(reply)
}

async fn carry(
    socket: impl session::Messages,
    protocol: Protocol,
    start: impl Future<Output = Result<Session, String>>,
) {
    let outcome = match start.await {
        Ok(started) => session::carry(socket, protocol, started).await,
        Err(error) => session::refuse(socket, protocol, &error).await,
    };
    if let Err(error) = outcome {
        tracing::debug!(error = error.to_string(), "a session lost its client");
    }
}
