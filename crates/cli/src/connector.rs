//! Reaches the daemon: a connector for hyper that dials the unix socket whatever the address says.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Dials one unix socket.
#[derive(Debug, Clone)]
pub struct UnixConnector {
    socket: PathBuf,
}

impl UnixConnector {
    /// A connector for the socket at this path.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

impl tower::Service<http::Uri> for UnixConnector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let socket = self.socket.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) })
    }
}
