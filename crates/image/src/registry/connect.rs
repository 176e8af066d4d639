//! Connections: names resolved in Rust, a tunnel through the proxy, TLS with the system's authorities.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::RegistryConfig;
use super::endpoint::{host_of, is_loopback};
use super::proxy::Proxy;

/// Where distributions keep the authorities' certificates: Debian, Fedora, openSUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// One address of several is given up after this.
const ONE_ADDRESS: Duration = Duration::from_secs(5);
/// The head of a proxy's answer.
const PROXY_ANSWER: usize = 16 * 1024;

/// Why a server cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Its name leads nowhere.
    #[error("cannot resolve host {host:?}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No address of it answers.
    #[error("cannot connect to {address}")]
    Tcp {
        /// The last one tried.
        address: SocketAddr,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The proxy makes no tunnel.
    #[error("proxy {proxy} gives no tunnel to {authority}: {answer}")]
    Proxy {
        /// Of `HTTPS_PROXY`.
        proxy: String,
        /// Where to.
        authority: String,
        /// Its status line, or what else went wrong.
        answer: String,
    },
    /// The authorities' certificates cannot be read.
    #[error("cannot read certificates of {}", path.display())]
    Certificates {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There are none.
    #[error(
        "no certificates of authorities on this machine: install the package ca-certificates, or name a directory with --registry-ca-dir"
    )]
    NoCertificates,
    /// It speaks, but not TLS.
    #[error(
        "{authority} does not speak TLS; if it is to be spoken to without, start the daemon with --insecure-registry {authority}"
    )]
    NotTls {
        /// The server.
        authority: String,
    },
    /// No trust.
    #[error("cannot speak TLS with {authority}")]
    Tls {
        /// The server.
        authority: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{authority} does not answer within {seconds} s")]
    Silent {
        /// The server.
        authority: String,
        /// So long.
        seconds: u64,
    },
}

/// What bytes go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Makes connections. What it read of the machine's configuration lives as long as it does: one pull.
pub(super) struct Connector {
    resolver: OnceCell<TokioResolver>,
    proxy: Option<Proxy>,
    limit: Duration,
    ca_directory: Option<PathBuf>,
    tls: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

impl Connector {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        Self {
            resolver: OnceCell::new(),
            proxy: config.proxy.clone(),
            limit: config.patience.connect,
            ca_directory: config.ca_directory.clone(),
            tls: Mutex::default(),
        }
    }

    /// Connects to `HOST[:PORT]`.
    pub(super) async fn connect(&self, https: bool, authority: &str) -> Result<Box<dyn Stream>, ConnectError> {
        let silent = |_elapsed| ConnectError::Silent { authority: authority.to_owned(), seconds: self.limit.as_secs() };
        timeout(self.limit, self.connect_now(https, authority)).await.map_err(silent).flatten()
    }

    async fn connect_now(&self, https: bool, authority: &str) -> Result<Box<dyn Stream>, ConnectError> {
        if !https {
            return Ok(Box::new(self.tcp(authority, 80).await?));
        }
        let tls = self.tls_for(authority)?;
        let stream = match self.proxy.as_ref().filter(|proxy| proxy.is_for(authority)) {
            Some(proxy) => self.tunnel(proxy, authority).await?,
            None => self.tcp(authority, 443).await?,
        };
        let failed = |source| ConnectError::Tls { authority: authority.to_owned(), source };
        let name = ServerName::try_from(host_of(authority).to_owned())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        match TlsConnector::from(tls).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if speaks_no_tls(&error) => Err(ConnectError::NotTls { authority: authority.to_owned() }),
            Err(error) => Err(failed(error)),
        }
    }

    async fn tcp(&self, authority: &str, default_port: u16) -> Result<TcpStream, ConnectError> {
        let host = host_of(authority);
        let port = port_of(authority).unwrap_or(default_port);
        let mut failure = None;
        for address in self.resolve(host).await? {
            let address = SocketAddr::new(address, port);
            let connected = timeout(ONE_ADDRESS, TcpStream::connect(address)).await;
            match connected.map_err(|_elapsed| io::ErrorKind::TimedOut.into()).flatten() {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(|source| ConnectError::Tcp { address, source })?;
                    return Ok(stream);
                }
                Err(source) => failure = Some(ConnectError::Tcp { address, source }),
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::Resolve {
            host: host.to_owned(),
            source: "the name has no address".into(),
        }))
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        // Plain HTTP is allowed with it, so no name server may say where it is (RFC 6761, 6.3).
        if is_loopback(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()]);
        }
        let failed = |source| ConnectError::Resolve { host: host.to_owned(), source: Box::new(source) };
        // Without getaddrinfo(3), which a static program cannot call; reads /etc/hosts and /etc/resolv.conf.
        let make = || async { TokioResolver::builder_tokio()?.build() };
        let resolver = self.resolver.get_or_try_init(make).await.map_err(failed)?;
        Ok(resolver.lookup_ip(host).await.map_err(failed)?.iter().collect())
    }

    async fn tunnel(&self, proxy: &Proxy, authority: &str) -> Result<TcpStream, ConnectError> {
        let failed = |answer: String| ConnectError::Proxy {
            proxy: proxy.authority.clone(),
            authority: authority.to_owned(),
            answer,
        };
        let target = format!("{}:{}", authority_host(authority), port_of(authority).unwrap_or(443));
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &proxy.authorization {
            request = format!("{request}Proxy-Authorization: {authorization}\r\n");
        }
        request.push_str("\r\n");
        let mut stream = self.tcp(&proxy.authority, 80).await?;
        stream.write_all(request.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        let mut head = Vec::new();
        // Byte by byte: what follows the head belongs to TLS.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= PROXY_ANSWER {
                return Err(failed("its answer has no end".to_owned()));
            }
            head.push(stream.read_u8().await.map_err(|error| failed(error.to_string()))?);
        }
        let head = String::from_utf8_lossy(&head);
        let status = head.lines().next().unwrap_or_default();
        match status.split(' ').nth(1) {
            Some(code) if code.len() == 3 && code.starts_with('2') => Ok(stream),
            _ => Err(failed(status.chars().filter(|c| !c.is_control()).take(200).collect())),
        }
    }

    fn tls_for(&self, authority: &str) -> Result<Arc<ClientConfig>, ConnectError> {
        let mut cached = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = cached.get(authority) {
            return Ok(Arc::clone(config));
        }
        let roots = trusted_roots(self.ca_directory.as_deref(), authority)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder
            .map_err(|error| ConnectError::Tls { authority: authority.to_owned(), source: io::Error::other(error) })?;
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        cached.insert(authority.to_owned(), Arc::clone(&config));
        Ok(config)
    }
}

/// The system's authorities, and those of the directory.
fn trusted_roots(directory: Option<&Path>, authority: &str) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    if let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
        add_file(&mut roots, bundle)?;
    }
    if let Some(directory) = directory {
        add_directory(&mut roots, directory)?;
        let of_this_one = directory.join(authority);
        // An authority is no path: a name with a slash in it never comes here (`http::uri::Authority`).
        if of_this_one.is_dir() {
            add_directory(&mut roots, &of_this_one)?;
        }
    }
    if roots.is_empty() { Err(ConnectError::NoCertificates) } else { Ok(roots) }
}

fn add_directory(roots: &mut RootCertStore, directory: &Path) -> Result<(), ConnectError> {
    let failed =
        |source: io::Error| ConnectError::Certificates { path: directory.to_owned(), source: Box::new(source) };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "crt" || extension == "pem") {
            add_file(roots, &path)?;
        }
    }
    Ok(())
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), ConnectError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Certificates { path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(|error| failed(Box::new(error)))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // Some bundles hold old certificates that nothing can use any more.
    let (_added, _ignored) =
        roots.add_parsable_certificates(certificates.map_err(|error| failed(error.to_string().into()))?);
    Ok(())
}

/// What answers a TLS greeting with plain words, or hangs up, is no TLS server.
fn speaks_no_tls(error: &io::Error) -> bool {
    let word = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(word, Some(rustls::Error::InvalidMessage(_)))
        || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

fn port_of(authority: &str) -> Option<u16> {
    authority.strip_prefix(authority_host(authority))?.strip_prefix(':')?.parse().ok()
}

/// Host with its brackets.
fn authority_host(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => authority.get(..=end).unwrap_or(authority),
        None => host_of(authority),
    }
}
