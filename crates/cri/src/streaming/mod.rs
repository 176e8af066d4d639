//! exec, attach and port-forward in two steps: a call of CRI says what is wanted and is answered with a URL; whoever has
//! the URL asks for it once, soon, and gets the session over WebSocket or SPDY, as from any runtime that uses
//! k8s.io/cri-streaming. A kubelet hands its own client's connection through to it.

mod asked;
mod serve;
mod tokens;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use runtime::{ExecRequest, Runtime};
use spec::{ContainerId, SandboxId};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use asked::Asked;
pub use asked::AttachRequest;
use tokens::Tokens;

/// Why there is no URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoUrl {
    /// `INVALID_ARGUMENT`: a terminal has one output.
    #[error("tty and stderr cannot both be true")]
    TerminalWithStderr,
    /// `INVALID_ARGUMENT`: there is nothing to carry.
    #[error("one of stdin, stdout, or stderr must be set")]
    NoStream,
    /// `RESOURCE_EXHAUSTED`: as many were handed out and not asked for.
    #[error("maximum number of in-flight requests exceeded")]
    TooManyInFlight,
}

/// The server behind the URLs. A clone is the same server.
#[derive(Clone)]
pub struct StreamingServer {
    base: String,
    shared: Arc<Shared>,
}

/// What each request needs.
struct Shared {
    tokens: Tokens<Asked>,
    runtime: Arc<dyn Runtime>,
    shutdown: CancellationToken,
}

impl StreamingServer {
    /// Serves on `listener` until `shutdown` fires, which ends all sessions, too.
    pub fn start(listener: TcpListener, runtime: Arc<dyn Runtime>, shutdown: CancellationToken) -> io::Result<Self> {
        let base = format!("http://{}", reachable(listener.local_addr()?));
        let shared = Arc::new(Shared { tokens: Tokens::new(), runtime, shutdown });
        tokio::spawn(serve::accept(listener, Arc::clone(&shared)));
        Ok(Self { base, shared })
    }

    /// Where one more process in a container can be had.
    pub fn exec_url(&self, container: ContainerId, request: ExecRequest) -> Result<String, NoUrl> {
        check_streams([request.stdin, request.stdout, request.stderr], request.tty)?;
        self.url("exec", Asked::Exec(container, request))
    }

    /// Where the streams of a container's first process can be had.
    pub fn attach_url(&self, container: ContainerId, request: AttachRequest) -> Result<String, NoUrl> {
        check_streams([request.stdin, request.stdout, request.stderr], request.tty)?;
        self.url("attach", Asked::Attach(container, request))
    }

    /// Where ports of a sandbox can be had. Only a client that speaks WebSocket without SPDY needs `ports` said now.
    pub fn port_forward_url(&self, sandbox: SandboxId, ports: Vec<u16>) -> Result<String, NoUrl> {
        self.url("portforward", Asked::PortForward(sandbox, ports))
    }

    fn url(&self, door: &str, asked: Asked) -> Result<String, NoUrl> {
        let token = self.shared.tokens.insert(asked).ok_or(NoUrl::TooManyInFlight)?;
        Ok(format!("{}/{door}/{token}", self.base))
    }
}

fn check_streams(streams: [bool; 3], tty: bool) -> Result<(), NoUrl> {
    match streams {
        [_, _, true] if tty => Err(NoUrl::TerminalWithStderr),
        [false, false, false] => Err(NoUrl::NoStream),
        _ => Ok(()),
    }
}

/// The address by which a client on this machine finds the server.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
