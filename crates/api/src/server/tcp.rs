//! A TCP port with TLS: for clients of the machine, for remote ones, and for Pods.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::access::Peer;
use crate::context::Context;
use crate::http::status::chain;
use crate::server::connection::{is_passing, serve_connection};
use crate::server::{FAREWELL, ServeError};
use crate::tls::{ServingCertificate, identity_of};

/// Connections that one door serves at once; more wait in the kernel's queue. Each door has its own, so that Pods cannot
/// take the administrator's.
const CONNECTIONS: usize = 4096;

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
}

impl TlsDoor {
    /// Listens; port 0 takes any that is free.
    pub async fn open(address: SocketAddr, certificate: Arc<ServingCertificate>) -> Result<Self, ServeError> {
        let failed = |cause| ServeError::ListenTcp { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        // Now, so that a certificate that cannot be made ends the start, not the first connection.
        certificate.for_client_of(address.ip(), Context::now())?;
        Ok(Self { listener, address, certificate })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections until the context's shutdown fires, then lets answers that are under way end.
    pub async fn accept(self, context: Arc<Context>) -> Result<(), ServeError> {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let next = async {
                // It is never closed.
                let place = Arc::clone(&room).acquire_owned().await;
                (self.listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                () = context.shutdown.cancelled() => break,
                next = next => next,
            };
            match accepted {
                Ok((stream, client)) => {
                    let serving = serve_client(stream, client, Arc::clone(&self.certificate), Arc::clone(&context));
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) if is_passing(&error).await => {}
                Err(cause) => return Err(ServeError::Accept { door: self.address.to_string(), cause }),
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
    serve_connection(stream, peer, context).await;
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
