//! One connection: requests one after another, each bounded in size and time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::access::Peer;
use crate::context::Context;
use crate::dispatch::answer;
use crate::http::reply;
use crate::http::status::ApiError;

/// A head that takes longer, or a connection that asks for nothing for so long, is closed.
const HEAD_TIME: Duration = Duration::from_mins(1);

/// What a head may hold: the command of an exec is in it.
const HEAD_SIZE: usize = 256 * 1024;

/// Whether accepting may go on after this error.
pub async fn is_passing(error: &io::Error) -> bool {
    // No descriptor is left: one will be free again when a connection ends.
    if matches!(error.raw_os_error(), Some(23 | 24)) {
        tracing::warn!(error = error.to_string(), "cannot accept a connection now");
        tokio::time::sleep(Duration::from_millis(100)).await;
        return true;
    }
    error.kind() == io::ErrorKind::ConnectionAborted
}

/// A client whom there is no place for has so long to say what it wants.
const FAREWELL_TIME: Duration = Duration::from_secs(10);

/// Tells a client that there is no place for it, in answer to whatever it asks first, and closes.
pub async fn turn_away<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|_request: Request<Incoming>| {
        let error = ApiError::too_many("too many connections are open");
        std::future::ready(Ok::<_, std::convert::Infallible>(reply::error(&error)))
    });
    let connection =
        http1::Builder::new().keep_alive(false).max_buf_size(HEAD_SIZE).serve_connection(TokioIo::new(stream), service);
    // Whoever does not listen has been told.
    drop(tokio::time::timeout(FAREWELL_TIME, connection).await);
}

/// Serves a connection to its end.
pub async fn serve_connection<S>(stream: S, peer: Peer, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shutdown = context.shutdown.clone();
    let service = service_fn(move |request| {
        let (context, peer) = (Arc::clone(&context), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(context, &peer, request).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        // A client that goes away is nothing to tell of.
        tracing::debug!(error = crate::http::status::chain(&error), "a connection ended");
    }
}
