//! Connections to servers in Pods, closed by a reset.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use rustix::io::Errno;
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
/// Closing resets the connection (`SO_LINGER` with zero, socket(7)): a thousand Pods that are asked every second would
/// otherwise fill the range of ports with connections in TIME_WAIT.
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
