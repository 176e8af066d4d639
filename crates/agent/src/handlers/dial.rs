//! Connections to servers in Pods, and how they end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Why there is no connection, in the words that a Go program has for it: people and tools look for them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name has no address.
    #[error("dial tcp: lookup {host}: {cause}")]
    Lookup {
        /// As the Pod writes it.
        host: String,
        /// What the name servers say.
        cause: String,
    },
    /// Nobody listens.
    #[error("dial tcp {address}: connect: connection refused")]
    Refused {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else that the kernel says.
    #[error("dial tcp {address}: connect: {}", word_of(source))]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Its word.
        #[source]
        source: io::Error,
    },
}

impl DialError {
    /// Whether it is this machine that has no connection to give, which says nothing about the server.
    pub(crate) fn is_ours(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        ours.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// Connects to the first address that answers.
///
/// Dropping resets the connection (`SO_LINGER` with zero, socket(7)): with a thousand Pods that are asked every second, what is
/// over would otherwise stay around in TIME_WAIT. A server that was told nothing is left by [`leave`].
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let mut failure = None;
    for address in addresses(host).await? {
        let address = SocketAddr::new(address, port);
        let connected = TcpStream::connect(address).await.and_then(|stream| {
            stream.set_zero_linger()?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => return Ok(stream),
            Err(source) => failure = Some(connect_error(address, source)),
        }
    }
    Err(failure.unwrap_or_else(|| lookup_error(host, "no such host")))
}

/// How long a server may take to see that its visitor has left (kubelet, `ProbeDialer`: `SO_LINGER` of a second).
const LEAVE: Duration = Duration::from_secs(1);

/// Ends a connection on which nothing was said in an orderly way, without being waited for. Many servers note a reset as an
/// error each time: memcached and rsyslog do (kubernetes/kubernetes#89898). What then stays in TIME_WAIT is bound
/// to its server's address and takes no port from others.
pub(crate) fn leave(mut stream: TcpStream) {
    tokio::spawn(async move {
        if stream.shutdown().await.is_ok() {
            let mut rest = [0; 512];
            let left = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
            // Whoever keeps its end open for longer is reset.
            drop(tokio::time::timeout(LEAVE, left).await);
        }
    });
}

fn connect_error(address: SocketAddr, source: io::Error) -> DialError {
    if source.kind() == io::ErrorKind::ConnectionRefused {
        DialError::Refused { address }
    } else {
        DialError::Connect { address, source }
    }
}

/// Reads `/etc/hosts` and `/etc/resolv.conf`; a static program cannot call getaddrinfo(3).
async fn addresses(host: &str) -> Result<Vec<IpAddr>, DialError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let failed = |error: hickory_resolver::net::NetError| lookup_error(host, &error.to_string());
    let resolver = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build).map_err(failed)?;
    Ok(resolver.lookup_ip(host).await.map_err(failed)?.iter().collect())
}

fn lookup_error(host: &str, cause: &str) -> DialError {
    DialError::Lookup { host: host.to_owned(), cause: cause.to_owned() }
}

/// The kernel's word without the number that std adds.
pub(super) fn word_of(error: &io::Error) -> String {
    let text = error.to_string();
    let word = text.split_once(" (os error ").map_or(text.as_str(), |(word, _number)| word);
    word.to_lowercase()
}
