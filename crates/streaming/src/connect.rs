//! From a request for a session to the session: over a WebSocket or over SPDY.

use futures::FutureExt as _;
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

/// Answers 101 and carries the session that `start` makes. What is wrong with it is told on the status channel,
/// since kubectl asks twice when an upgrade is refused; so an error of `start` is one line for the user.
///
/// Over a WebSocket all is said with the request, so it starts while the client hears so: what has become of a client that is
/// not there any more is dropped. One of SPDY has its streams to open first.
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
    let start = begin(start);
    let serve = async move {
        if let Ok(socket) = open.await {
            carry(socket, protocol, start).await;
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(serve).await });
    Ok(reply)
}

/// The same future after a first look: it goes as far as it does without waiting. Whoever awaits it looks again, so nobody need
/// be woken meanwhile.
fn begin<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    let output = future.as_mut().now_or_never();
    async move {
        match output {
            Some(output) => output,
            None => future.await,
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_begun_waits_for_whoever_awaits_it() {
        let begun = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = oneshot::channel();
        let future = begin({
            let begun = Arc::clone(&begun);
            async move {
                begun.store(true, Ordering::Relaxed);
                receiver.await.unwrap()
            }
        });
        assert!(begun.load(Ordering::Relaxed));
        let awaiting = tokio::spawn(future);
        tokio::task::yield_now().await;
        sender.send(7).unwrap();
        assert_eq!(awaiting.await.unwrap(), 7);
        assert_eq!(begin(async { 8 }).await, 8);
    }

    #[tokio::test]
    async fn what_is_begun_and_not_awaited_is_dropped() {
        let (sender, receiver) = oneshot::channel::<()>();
        drop(begin(receiver));
        assert!(sender.is_closed());
    }
}
