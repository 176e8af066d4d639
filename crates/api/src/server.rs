//! The server: the unix socket, who may use it, and the life of connections.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use store::Store;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::Context;
use crate::dispatch::answer;
use crate::verbs::resume_terminating_namespaces;

/// A head that takes longer, or a connection that asks for nothing for so long, is closed.
const HEAD_TIME: Duration = Duration::from_mins(1);

/// How long answers that are under way may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the server is told when it starts.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The socket to listen on; its directory must exist.
    pub socket: PathBuf,
    /// The name of this machine's Node: where every Pod is bound to.
    pub node_name: String,
    /// Version of the engine, shown behind that of Kubernetes.
    pub version: String,
    /// Where uploads are kept while they arrive: `images/tmp` of the data directory.
    pub spool: PathBuf,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another daemon answers there.
    #[error("another daemon serves {}; end it, or use another --run-dir", socket.display())]
    InUse {
        /// The socket.
        socket: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("{} is not a socket; move it away", socket.display())]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// The socket could not be made.
    #[error("cannot listen on {}", socket.display())]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// No further connection can be taken.
    #[error("cannot accept connections on {}", socket.display())]
    Accept {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Serves until `shutdown` resolves; then watches end, and answers that are under way have a moment to end.
pub async fn serve(
    config: ApiConfig,
    store: Store,
    agent: Agent,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let ApiConfig { socket, node_name, version, spool } = config;
    let stop = CancellationToken::new();
    let context = Arc::new(Context { store, agent, node_name, version, spool, shutdown: stop.clone() });
    let listener = listen(&socket).await?;
    resume_terminating_namespaces(&context);
    let serving = accept(listener, &socket, context);
    tokio::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown => {
            stop.cancel();
            serving.await
        }
    }
}

/// Takes connections until the context's shutdown fires, then lets answers that are under way end.
pub async fn accept(listener: UnixListener, socket: &Path, context: Arc<Context>) -> Result<(), ServeError> {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = context.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _address)) if is_trusted(&stream) => {
                connections.spawn(serve_connection(stream, Arc::clone(&context)));
            }
            Ok((_stranger, _address)) => {}
            // No descriptor is left: one will be free again when a connection ends.
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                tracing::warn!(error = error.to_string(), "cannot accept a connection now");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(cause) => return Err(ServeError::Accept { socket: socket.to_owned(), cause }),
        }
    }
    connections.close();
    if tokio::time::timeout(FAREWELL, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time");
    }
    // A later daemon replaces what stays; then this is no longer ours to remove, and it does not exist or refuses.
    drop(listener);
    if is_stale(socket).await
        && let Err(error) = std::fs::remove_file(socket)
    {
        tracing::warn!(error = error.to_string(), "cannot remove the socket");
    }
    Ok(())
}

/// Makes the socket, 0600 from its first moment at its name. The socket of a dead daemon is replaced; whether it is
/// dead is told by the connection that it refuses.
pub async fn listen(socket: &Path) -> Result<UnixListener, ServeError> {
    let failed = |cause| ServeError::Listen { socket: socket.to_owned(), cause };
    match std::fs::symlink_metadata(socket) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::NotASocket { socket: socket.to_owned() });
        }
        Ok(_) if !is_stale(socket).await => return Err(ServeError::InUse { socket: socket.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(failed(cause)),
    }
    let fresh = socket.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(failed)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&fresh, socket).map_err(failed)?;
    Ok(listener)
}

async fn is_stale(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The socket is as good as root, so it is for root and for the daemon's own user, whatever the file's mode says.
fn is_trusted(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "refused a connection");
            false
        }
        Err(error) => {
            tracing::warn!(error = error.to_string(), "refused a connection of an unknown peer");
            false
        }
    }
}

async fn serve_connection(stream: UnixStream, context: Arc<Context>) {
    let shutdown = context.shutdown.clone();
    let service = service_fn(move |request| {
        let context = Arc::clone(&context);
        async move { Ok::<_, std::convert::Infallible>(answer(context, request).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
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
