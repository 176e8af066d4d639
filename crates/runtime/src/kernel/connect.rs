//! Connections into a Pod. A socket belongs to the network it was opened in, so infra opens it and the daemon connects it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use infra::protocol::Request;
use spec::SandboxId;
use tokio::net::{TcpSocket, TcpStream};

use super::connection::Connection;
use super::{Kernel, PROMPT};
use crate::error::RuntimeError;

/// A listener in the same network answers at once, or its queue is full.
const LIMIT: Duration = Duration::from_secs(10);

impl Kernel {
    /// Connects to a port of the Pod's `localhost`. The error of 127.0.0.1 is the one to tell: most programs listen there.
    pub(super) async fn connect(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, RuntimeError> {
        let record = self.state.sandbox_record(sandbox)?;
        let connection = self.state.connection(sandbox)?;
        let failed = |source| RuntimeError::Connect { pod: record.config.pod.clone(), port, source };
        let first = match attempt(&connection, Ipv4Addr::LOCALHOST.into(), port).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        attempt(&connection, Ipv6Addr::LOCALHOST.into(), port).await.map_err(|_also| failed(first))
    }
}

async fn attempt(connection: &Connection, address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let request = Request::OpenSocket { ipv6: address.is_ipv6() };
    let (_, descriptors) = connection.request(&request, &[], PROMPT).await.map_err(io::Error::other)?;
    let socket = descriptors.into_iter().next().ok_or(io::ErrorKind::Unsupported)?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    socket.set_nodelay(true)?;
    match tokio::time::timeout(LIMIT, socket.connect(SocketAddr::new(address, port))).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}
