//! The unix socket: who may use it, and what happens to one that is there already.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

use crate::access::Peer;
use crate::context::Context;
use crate::server::connection::{is_passing, serve_connection};
use crate::server::{FAREWELL, ServeError};

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
                connections.spawn(serve_connection(stream, Peer::Owner, Arc::clone(&context)));
            }
            Ok((_stranger, _address)) => {}
            Err(error) if is_passing(&error).await => {}
            Err(cause) => return Err(ServeError::Accept { door: socket.display().to_string(), cause }),
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
