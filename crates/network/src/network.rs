//! The network of this node's Pods: opened once at start, and shared by all that use it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use spec::ids::SandboxId;
use store::Store;
use tokio::task::{AbortHandle, spawn_blocking};

use crate::cidr::PodCidr;
use crate::error::OpenNetworkError;
use crate::firewall::Firewall;
use crate::gateway::{Gateway, HostNetwork, enable_forwarding};
use crate::link::{self, PodLink};
use crate::netlink::NetlinkSocket;
use crate::pool::AddressPool;
use crate::port_mapping::PortMapping;
use crate::published::{PublishError, PublishedPod, PublishedPorts};
use crate::reaper::LinkReaper;
use crate::services::{self, ForwardedServices, ServiceChain};
use crate::watch::TableWatch;

/// Records: which pod sandbox has which address; the key is the sandbox.
pub(crate) const ADDRESSES: &str = "network-addresses";
/// Record: where the ring of addresses goes on after a restart.
pub(crate) const RING: &str = "network-ring";
/// Record: the addresses for Pods, for `monopod reset`.
pub(crate) const CIDR: &str = "network-cidr";
/// The key of the one record in [`CIDR`].
pub(crate) const CIDR_KEY: &str = "pods";
/// The key of the one record in [`RING`].
pub(crate) const RING_KEY: &str = "next";

/// An address as it is recorded, with the host ports that lead to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddressRecord {
    pub(crate) address: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<PortMapping>,
}

/// What a daemon's network is called, and which addresses it has.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The interface with the gateway's address, such as `mono0`; at most 15 bytes.
    pub bridge: String,
    /// The nftables table of the family `inet`, such as `monopod`.
    pub nft_table: String,
    /// The addresses for Pods, such as `10.85.0.0/16`; the first is the gateway's.
    pub pod_cidr: String,
    /// The addresses of Services, such as `10.96.0.0/16`; without any there are none.
    pub service_cidr: Option<String>,
}

/// The network of this node's Pods.
#[derive(Clone)]
pub struct Network {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) gateway: Gateway,
    pub(crate) mtu: u32,
    pub(crate) firewall: Firewall,
    /// Locked by threads that may wait for the kernel only.
    pub(crate) ports: Arc<Mutex<PublishedPorts>>,
    /// The same.
    pub(crate) services: Arc<Mutex<ForwardedServices>>,
    pub(crate) reaper: LinkReaper,
    pub(crate) store: Store,
    pub(crate) watch: AbortHandle,
    pool: Mutex<AddressPool>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Network {
    /// Sets up what all Pods share, or takes it over from a former start without disturbing traffic.
    ///
    /// 1. Nothing is changed before the check that nobody else uses these addresses.
    /// 2. The watch on our table is there before the table, so that no deletion goes unseen.
    /// 3. The table is there before packets are passed on.
    /// 4. A link without a record belongs to an `attach` that did not come to its end: it is deleted before any
    ///    address is given.
    pub async fn open(config: NetworkConfig, store: Store) -> Result<Self, OpenNetworkError> {
        let cidr = PodCidr::parse(&config.pod_cidr)
            .map_err(|why| OpenNetworkError::InvalidPodCidr { pod_cidr: config.pod_cidr.clone(), why })?;
        let services = config.service_cidr.map(|text| {
            PodCidr::parse(&text).map_err(|why| OpenNetworkError::InvalidServiceCidr { service_cidr: text, why })
        });
        let services = services.transpose()?;
        validate_name("the bridge", &config.bridge)?;
        validate_name("the nftables table", &config.nft_table)?;
        let group = interface_group(&config.bridge);
        let gateway = Gateway { interface: config.bridge, cidr, services, group };
        let firewall = Firewall { table: config.nft_table, group, gateway: cidr.gateway(), services };
        let (pool, published) = recorded_addresses(cidr, &store)?;
        let known = pool.sandboxes().map(link::host_interface).collect();
        let ports = Arc::new(Mutex::new(PublishedPorts::new(firewall.clone(), published)));
        let watch = TableWatch::open(&firewall.table).map_err(OpenNetworkError::Watch)?;
        let (setup, rules) = (gateway.clone(), Arc::clone(&ports));
        let SetUp { mtu, chains } = spawn_blocking(move || set_up(&setup, &rules, &known))
            .await
            .map_err(|_stopped| OpenNetworkError::Interrupted)??;
        let services = Arc::new(Mutex::new(ForwardedServices::new(firewall.clone(), chains)));
        if Self::recorded_cidr(&store)? != Some(cidr.to_string()) {
            store.put_record(CIDR, CIDR_KEY, &cidr.to_string()).await.map_err(OpenNetworkError::Store)?;
        }
        let watch = keep_table(watch, firewall.table.clone(), Arc::clone(&ports), Arc::clone(&services));
        let watch = tokio::spawn(watch).abort_handle();
        let (reaper, pool) = (LinkReaper::new(group ^ 1), Mutex::new(pool));
        Ok(Self { shared: Arc::new(Shared { gateway, mtu, firewall, ports, services, reaper, store, watch, pool }) })
    }

    /// The addresses that a daemon with this store has had for Pods last, whatever it was started with.
    pub fn recorded_cidr(store: &Store) -> Result<Option<String>, OpenNetworkError> {
        store.record(CIDR, CIDR_KEY).map_err(OpenNetworkError::Store)
    }

    /// The host's address in the pod network, which Pods have as their gateway.
    pub fn gateway(&self) -> IpAddr {
        self.shared.gateway.cidr.gateway().into()
    }

    /// The addresses of this sandbox; none if it is not attached.
    pub fn addresses(&self, sandbox: &SandboxId) -> Vec<IpAddr> {
        self.pool().get(sandbox).map(|lease| IpAddr::V4(lease.address)).into_iter().collect()
    }

    pub(crate) fn pool(&self) -> MutexGuard<'_, AddressPool> {
        self.shared.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn link(&self, sandbox: &SandboxId, address: Ipv4Addr, ports: &[PortMapping]) -> PodLink {
        PodLink {
            name: link::host_interface(sandbox),
            group: self.shared.gateway.group,
            mtu: self.shared.mtu,
            gateway: self.shared.gateway.cidr.gateway(),
            address,
            from_loopback: ports.iter().any(PortMapping::is_on_loopback),
        }
    }
}

/// The host ends of this daemon's Pods, which have no record.
fn orphans(host: &HostNetwork, group: u32, known: &HashSet<String>) -> Vec<String> {
    let ours = host.links.iter().filter(|link| link.group == group || link.group == group ^ 1);
    ours.map(|link| link.name.clone()).filter(|name| !known.contains(name)).collect()
}

/// What was found when the network was set up.
struct SetUp {
    mtu: u32,
    chains: BTreeSet<ServiceChain>,
}

fn set_up(
    gateway: &Gateway,
    ports: &Mutex<PublishedPorts>,
    known: &HashSet<String>,
) -> Result<SetUp, OpenNetworkError> {
    let host = NetlinkSocket::open_route().map_err(OpenNetworkError::Inspect)?;
    let now = HostNetwork::read(&host).map_err(OpenNetworkError::Inspect)?;
    gateway.refuse_overlap(&now)?;
    gateway.establish(&host, &now)?;
    let chains = restore(ports).map_err(OpenNetworkError::Firewall)?;
    enable_forwarding()?;
    for interface in orphans(&now, gateway.group, known) {
        link::delete(&host, &interface).map_err(|cause| OpenNetworkError::Orphan { interface, cause })?;
    }
    Ok(SetUp { mtu: now.outside_mtu(), chains })
}

type Recorded = (AddressPool, HashMap<SandboxId, PublishedPod>);

fn recorded_addresses(cidr: PodCidr, store: &Store) -> Result<Recorded, OpenNetworkError> {
    let records = store.records::<AddressRecord>(ADDRESSES).map_err(OpenNetworkError::Store)?;
    let ring = store.record::<AddressRecord>(RING, RING_KEY).map_err(OpenNetworkError::Store)?;
    let (mut recorded, mut published) = (Vec::new(), HashMap::new());
    for (sandbox, AddressRecord { address, ports }) in records {
        let sandbox = SandboxId::new(sandbox);
        recorded.push((sandbox.clone(), address));
        if !ports.is_empty() {
            published.insert(sandbox, PublishedPod { address, ports });
        }
    }
    Ok((AddressPool::new(cidr, recorded, ring.map(|record| record.address)), published))
}

fn restore(ports: &Mutex<PublishedPorts>) -> Result<BTreeSet<ServiceChain>, PublishError> {
    ports.lock().unwrap_or_else(PoisonError::into_inner).restore()
}

/// Sets our table anew whenever somebody has deleted it, with all host ports and Services.
async fn keep_table(
    watch: TableWatch,
    table: String,
    ports: Arc<Mutex<PublishedPorts>>,
    services: Arc<Mutex<ForwardedServices>>,
) {
    loop {
        if let Err(error) = watch.deleted().await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(table, error, "the firewall is no longer watched");
            return;
        }
        let (ports, services) = (Arc::clone(&ports), Arc::clone(&services));
        match spawn_blocking(move || (restore(&ports), services::restore(&services))).await {
            Ok((Ok(_), Ok(()))) => tracing::warn!(table, "the firewall's table was deleted and is set anew"),
            Ok((Err(error), _)) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(table, error, "the firewall's table was deleted: pods are cut off");
            }
            Ok((Ok(_), Err(error))) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(table, error, "the firewall's table was deleted: services are cut off");
            }
            Err(_stopped) => return,
        }
    }
}

/// The interface group of a daemon: a number that follows from its bridge's name (FNV-1a), even, and so large that
/// nobody chooses it by hand. The odd number after it is for links that are about to be deleted.
fn interface_group(bridge: &str) -> u32 {
    let hash = bridge.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash & 0x3fff_fffe) | 0x4000_0000
}

/// Interface names have at most 15 bytes; both names stand in an nftables script, so they are words.
fn validate_name(what: &'static str, name: &str) -> Result<(), OpenNetworkError> {
    let invalid = |why| OpenNetworkError::InvalidName { what, name: name.to_owned(), why };
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(invalid("it must begin with a letter"));
    }
    if name.len() > 15 {
        return Err(invalid("it must have at most 15 bytes"));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(invalid("it may have letters, digits, \"-\" and \"_\" only"));
    }
    Ok(())
}
