//! The server: its doors, and the life of connections.

mod connection;
mod tcp;
mod unix;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use spec::service_network::ServiceNetwork;
use store::Store;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::http::status::chain;
use crate::kubeconfig::{ADMIN, kubeconfig, write_kubeconfig};
use crate::limits::Limits;
use crate::owned::keep_owned;
use crate::quotas;
use crate::standing::keep_standing_objects;
use crate::tls::{Authority, AuthorityError, ServingCertificate, ServingError};
use crate::verbs::resume_terminating_namespaces;

pub use tcp::TlsDoor;
pub use unix::{accept, listen};

/// How long answers that are under way may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often the age of the administrator's kubeconfig is looked at: soon after the clock was set, too.
const LOOK: Duration = Duration::from_mins(1);
/// When it is written anew; its certificate is good for a year.
const OLD: SignedDuration = SignedDuration::from_hours(24 * 240);

/// What the server is told when it starts.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The socket to listen on; its directory must exist.
    pub socket: PathBuf,
    /// Where clients come over TLS.
    pub listen: SocketAddr,
    /// The address at which Pods find the server, on the same port.
    pub pods_address: IpAddr,
    /// What clients call this server besides its own names.
    pub names: Vec<String>,
    /// Directory of the certificate authority.
    pub authority: PathBuf,
    /// Where the administrator's kubeconfig is written.
    pub kubeconfig: PathBuf,
    /// The name of this machine's Node: where every Pod is bound to.
    pub node_name: String,
    /// Where Services get their addresses from.
    pub service_network: ServiceNetwork,
    /// Where the steps of Pods' starts are kept.
    pub steps: steps::Recorder,
    /// Version of the engine, shown behind that of Kubernetes.
    pub version: String,
    /// The data directory, for what a backup takes from it.
    pub data_dir: PathBuf,
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
    /// The address could not be listened on.
    #[error("cannot listen on {address}; another --listen may be free")]
    ListenTcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// An object that is always there could not be made.
    #[error("cannot make the objects that are always there")]
    Store(#[source] store::StoreError),
    /// No further connection can be taken.
    #[error("cannot accept connections on {door}")]
    Accept {
        /// The socket or address.
        door: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Connections cannot be secured.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// The administrator's kubeconfig could not be written.
    #[error("cannot write {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Where clients come, before anybody answers: whoever comes early waits. They are opened before the agent starts, which
/// tells each Pod where the API is.
pub struct Doors {
    config: ApiConfig,
    authority: Arc<Authority>,
    /// Its socket is removed with it if it is never served on.
    unix: Option<UnixListener>,
    tls: Vec<TlsDoor>,
}

impl Doors {
    /// Listens on the socket and on the addresses.
    pub async fn open(config: ApiConfig) -> Result<Self, ServeError> {
        let unix = Some(listen(&config.socket).await?);
        let authority = Authority::open(&config.authority).map(Arc::new);
        let mut doors = match authority {
            Ok(authority) => Self { config, authority, unix, tls: Vec::new() },
            Err(error) => {
                remove_socket(&config.socket);
                return Err(error.into());
            }
        };
        doors.tls = tls_doors(&doors.config, &doors.authority).await?;
        Ok(doors)
    }

    /// Where clients of this machine come over TLS.
    fn address(&self) -> SocketAddr {
        self.tls.first().map_or(self.config.listen, TlsDoor::address)
    }

    /// Where Pods come.
    pub fn for_pods(&self) -> SocketAddr {
        SocketAddr::new(self.config.pods_address, self.address().port())
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        if self.unix.take().is_some() {
            remove_socket(&self.config.socket);
        }
    }
}

fn remove_socket(socket: &std::path::Path) {
    if let Err(error) = std::fs::remove_file(socket) {
        tracing::warn!(error = error.to_string(), "cannot remove the socket");
    }
}

/// Serves until `shutdown` resolves; then watches end, and answers that are under way have a moment to end.
///
/// Boxed here: what is awaited by another crate is compiled there once more, and here that is the whole API.
pub fn serve(
    doors: Doors,
    store: Store,
    agent: Agent,
    shutdown: BoxFuture<'_, ()>,
) -> BoxFuture<'_, Result<(), ServeError>> {
    serve_until(doors, store, agent, shutdown).boxed()
}

async fn serve_until(
    mut doors: Doors,
    store: Store,
    agent: Agent,
    shutdown: BoxFuture<'_, ()>,
) -> Result<(), ServeError> {
    let stop = CancellationToken::new();
    let server = format!("https://{}", reachable(doors.address()));
    let authority = Arc::clone(&doors.authority);
    tracing::info!(socket = %doors.config.socket.display(), server, "serving");
    let ApiConfig { socket, node_name, service_network, steps, version, data_dir, spool, kubeconfig: file, .. } =
        doors.config.clone();
    let ca = Some(authority.certificate_pem().to_owned());
    let shared_writes = tokio::sync::Mutex::new(());
    let shutdown_of_all = stop.clone();
    let context = Arc::new(Context {
        store,
        agent,
        node_name,
        service_network,
        shared_writes,
        steps,
        limits: Limits::default(),
        version,
        data_dir,
        spool,
        ca,
        shutdown: shutdown_of_all,
    });
    keep_standing_objects(&context).await.map_err(ServeError::Store)?;
    resume_terminating_namespaces(&context);
    keep_owned(&context);
    quotas::keep(&context);
    let written = match write_admin_kubeconfig(&authority, &server, &file) {
        Ok(()) => Some(Context::now()),
        // A daemon starts on a full disk, too: what frees space is asked of it.
        Err(ServeError::Kubeconfig { cause, .. }) if store::is_full(&cause) && file.exists() => {
            tracing::warn!(path = %file.display(), error = %cause, "the administrator's kubeconfig stays as it was");
            None
        }
        Err(error) => return Err(error),
    };
    let renewing = stop.clone().run_until_cancelled_owned(renew_admin_kubeconfig(authority, server, file, written));
    tokio::spawn(renewing);
    let tls = std::mem::take(&mut doors.tls);
    let over_tls = futures::future::try_join_all(tls.into_iter().map(|door| door.accept(Arc::clone(&context))));
    let listener = doors.unix.take();
    let over_unix = async {
        match listener {
            Some(listener) => accept(listener, &socket, Arc::clone(&context)).await,
            None => Ok(()),
        }
    };
    let serving = async { tokio::try_join!(over_unix, over_tls).map(|_all| ()) };
    tokio::pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown => {
            stop.cancel();
            serving.await
        }
    }
}

/// The door for clients, and the one for Pods where the first does not take them, too.
async fn tls_doors(config: &ApiConfig, authority: &Arc<Authority>) -> Result<Vec<TlsDoor>, ServeError> {
    let local = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut names: Vec<String> = local.into_iter().map(str::to_owned).collect();
    names.extend(["kubernetes.default.svc.cluster.local".to_owned(), config.node_name.clone()]);
    names.extend(config.names.iter().cloned());
    let of_service = IpAddr::V4(config.service_network.api());
    let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let named_addresses = names.iter().filter_map(|name| name.parse().ok());
    let addresses: Vec<IpAddr> = loopback
        .into_iter()
        .chain([config.listen.ip(), config.pods_address, of_service])
        .chain(named_addresses)
        .collect();
    names.retain(|name| name.parse::<IpAddr>().is_err());
    let certificate = Arc::new(ServingCertificate::new(Arc::clone(authority), names, addresses));
    let first = TlsDoor::open(config.listen, Arc::clone(&certificate)).await?;
    if config.listen.ip().is_unspecified() {
        return Ok(vec![first]);
    }
    let for_pods = SocketAddr::new(config.pods_address, first.address().port());
    let second = TlsDoor::open(for_pods, certificate).await?;
    Ok(vec![first, second])
}

/// The address by which a client on this machine finds the server.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), address.port())
        }
        _ => address,
    }
}

fn write_admin_kubeconfig(authority: &Authority, server: &str, path: &std::path::Path) -> Result<(), ServeError> {
    let config = kubeconfig(authority, server, ADMIN, Context::now())?;
    write_kubeconfig(path, &config).map_err(|cause| ServeError::Kubeconfig { path: path.to_owned(), cause })
}

/// `written`: when it was, unless it could not be.
async fn renew_admin_kubeconfig(
    authority: Arc<Authority>,
    server: String,
    path: PathBuf,
    mut written: Option<spec::Timestamp>,
) {
    loop {
        tokio::time::sleep(LOOK).await;
        if written.is_some_and(|written| Context::now().duration_since(written) < OLD) {
            continue;
        }
        match write_admin_kubeconfig(&authority, &server, &path) {
            Ok(()) => written = Some(Context::now()),
            Err(error) => tracing::warn!(error = chain(&error), "the administrator's kubeconfig gets old"),
        }
    }
}
