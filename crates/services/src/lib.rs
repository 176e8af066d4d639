//! Services at work: the kernel forwards to their endpoints, and their names are answered.
//!
//! It reads Services and EndpointSlices, whoever wrote them, and writes nothing: which Pods are endpoints is decided by
//! `controllers`. How the kernel forwards is `network`'s.
//!
//! Start reading at [`Services::start`]; `catalog` is what both halves know, `forwards` and `dns::zone` are what follows
//! from it, without IO.
#![forbid(unsafe_code)]

mod catalog;
mod dns;
mod follow;
mod forwards;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::rr::Name;
use network::Network;
use store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use catalog::Catalog;
pub use dns::DnsSockets;
use follow::Follower;
pub use hickory_proto::rr::Name as DomainName;

/// What the half that answers names is told.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Domain of the cluster, such as `cluster.local.`.
    pub domain: Name,
    /// Names that are not the cluster's are asked of the servers in this file (resolv.conf(5)).
    pub host_resolv_conf: PathBuf,
    /// Addresses of Pods. Whoever is none of them, nor this machine, gets no answer.
    pub pods: AddressRange,
    /// Addresses of Services.
    pub services: AddressRange,
    /// Our own addresses: a name that is forwarded to one of them would never be answered.
    pub own_addresses: Vec<Ipv4Addr>,
}

/// A network of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The first address.
    pub address: Ipv4Addr,
    /// How many bits all addresses have in common.
    pub prefix_length: u8,
}

impl AddressRange {
    fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_length)).unwrap_or(0);
        address.to_bits() & mask == self.address.to_bits() & mask
    }
}

/// Why names cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for names of services on {address}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// The kernel's word.
    #[source]
    pub cause: io::Error,
}

/// Services at work.
#[derive(Debug)]
pub struct Services {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Services {
    /// Forwards to all Services of the store and answers their names from now on; those that there are now are forwarded
    /// to when this is back.
    pub async fn start(
        store: Store,
        network: Network,
        node_name: String,
        sockets: DnsSockets,
        config: DnsConfig,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let catalog = SharedCatalog::default();
        let follower = Follower::start(store, network, node_name, catalog.clone()).await;
        tasks.spawn(stop.clone().run_until_cancelled_owned(follower.run()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(dns::serve(sockets, config, catalog)));
        Self { tasks, stop }
    }

    /// Ends both halves. The kernel goes on forwarding; names are answered again by the next start.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What is known of Services: one task writes it, and whoever answers names reads it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedCatalog(Arc<RwLock<Catalog>>);

impl SharedCatalog {
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Catalog) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Catalog) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}
