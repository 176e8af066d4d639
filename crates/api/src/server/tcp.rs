//! A TCP port with TLS: for clients of the machine, for remote ones, and for Pods.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::access::Peer;
use crate::context::Context;
use crate::http::status::chain;
use crate::server::connection::{is_passing, serve_connection, turn_away};
use crate::server::{FAREWELL, ServeError};
use crate::tls::{ServingCertificate, identity_of};

/// Connections that one door serves at once. Each door has its own, so that Pods cannot take the administrator's.
const CONNECTIONS: usize = 4096;

/// Connections beyond them that are told so at once; more wait in the kernel's queue.
const TURNED_AWAY: usize = 64;

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A peer that is silent for a minute is asked whether it lives, and then four times more.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(15);

/// A port to serve on.
pub struct TlsDoor {
    listener: TcpListener,
    address: SocketAddr,
    certificate: Arc<ServingCertificate>,
    /// How many it serves at once.
    pub connections: usize,
}

/// What becomes of a client.
enum Welcome {
    /// It is served while it holds its place.
    Served(OwnedSemaphorePermit),
    /// It is told that there is no place.
    TurnedAway(OwnedSemaphorePermit),
}

impl TlsDoor {
    /// Listens; port 0 takes any that is free.
    pub async fn open(address: SocketAddr, certificate: Arc<ServingCertificate>) -> Result<Self, ServeError> {
        let failed = |cause| ServeError::ListenTcp { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // Now, so that a certificate that cannot be made ends the start, not the first connection.
        certificate.for_client_of(address.ip(), Context::now())?;
        Ok(Self { listener, address, certificate, connections: CONNECTIONS })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections until the context's shutdown fires, then lets answers that are under way end.
    pub async fn accept(self, context: Arc<Context>) -> Result<(), ServeError> {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(self.connections));
        let threshold = Arc::new(Semaphore::new(TURNED_AWAY));
        loop {
            // Neither of them is ever closed.
            let next = async { (Arc::clone(&threshold).acquire_owned().await, self.listener.accept().await) };
            let (waiting, accepted) = tokio::select! {
                () = context.shutdown.cancelled() => break,
                next = next => next,
            };
            let welcome = Arc::clone(&room).try_acquire_owned().map(Welcome::Served);
            let welcome = welcome.or_else(|_full| waiting.map(Welcome::TurnedAway));
            match (accepted, welcome) {
                (Ok((stream, client)), Ok(welcome)) => {
                    let certificate = Arc::clone(&self.certificate);
                    connections.spawn(serve_client(stream, client, certificate, Arc::clone(&context), welcome));
                }
                (Ok(_), Err(_closed)) => {}
                (Err(error), _) if is_passing(&error).await => {}
                (Err(cause), _) => return Err(ServeError::Accept { door: self.address.to_string(), cause }),
            }
        }
        connections.close();
        if tokio::time::timeout(FAREWELL, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections did not end in time");
        }
        Ok(())
    }
}

async fn serve_client(
    stream: TcpStream,
    client: SocketAddr,
    certificate: Arc<ServingCertificate>,
    context: Arc<Context>,
    welcome: Welcome,
) {
    let config = stream.local_addr().map_err(ClientError::Socket).and_then(|local| {
        tune(&stream).map_err(ClientError::Socket)?;
        Ok(certificate.for_client_of(local.ip(), Context::now())?)
    });
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(%client, error = chain(&error), "cannot serve a client");
            return;
        }
    };
    let stream = match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%client, error = error.to_string(), "a TLS handshake failed");
            return;
        }
        Err(_elapsed) => {
            tracing::debug!(%client, "a TLS handshake took too long");
            return;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = match shown.map(identity_of) {
        Some(Some(identity)) => Peer::Certificate(identity),
        Some(None) | None => Peer::Unknown,
    };
    match welcome {
        Welcome::Served(_place) => serve_connection(stream, peer, context).await,
        Welcome::TurnedAway(_place) => turn_away(stream).await,
    }
}

#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error("cannot use the connection")]
    Socket(#[source] io::Error),
    #[error(transparent)]
    Certificate(#[from] crate::tls::ServingError),
}

/// Small answers go out at once, and the end of a peer that said nothing more is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_PERIOD)?;
    Ok(sockopt::set_tcp_keepcnt(stream, 4)?)
}
