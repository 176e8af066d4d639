//! Services as the kernel sees them: where a packet to a Service's address goes.
//!
//! Rules do not grow with Services: a packet finds its Service in one map, goes on in the chain for that number of
//! endpoints, which draws one of them from a second map. A change is one transaction on the elements of these maps, so
//! no packet ever sees half of it; chains come only for a number of endpoints that there has not been before.

mod affinity;
mod chain;
mod elements;
mod flows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

pub use chain::{ServiceChain, USUAL};
pub use elements::{
    AFFINITY, ENDPOINTS, NODE_PORT_ENDPOINTS, NODE_PORTS, REMEMBERING, REMEMBERING_NODE_PORTS, SERVICE_HAIRPINS,
    SERVICES, UNSERVED, UNSERVED_NODE_PORTS,
};

use elements::SETS;

use crate::elements::{Content, Place, Transaction};
use crate::firewall::{Firewall, FirewallError};
use crate::netlink::NetlinkError;
use crate::network::Network;

/// One port of a Service, at one of the places where it can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceForward {
    pub entrance: Entrance,
    pub protocol: ServiceProtocol,
    /// The servers, each of which gets its share of new connections.
    pub to: Vec<SocketAddrV4>,
    /// Seconds for which a client comes to the same server again (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// What a client gets that asks while there is no server.
    pub without_servers: WithoutServers,
}

/// Where a Service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entrance {
    /// At its own address, such as `clusterIP`.
    Cluster(SocketAddrV4),
    /// At an address that leads here from outside as well (`externalIPs`).
    External(SocketAddrV4),
    /// At this port of each address of the machine, its loopback aside.
    NodePort(u16),
}

/// `spec.ports[].protocol` of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceProtocol {
    Tcp,
    Udp,
    Sctp,
}

/// What a client of a Service without servers gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WithoutServers {
    /// An answer at once: nobody is there.
    Refuse,
    /// Nothing: there are servers, but not for it (`internalTrafficPolicy: Local`).
    Drop,
}

/// Why the kernel does not forward to Services as it should.
#[derive(Debug, thiserror::Error)]
pub enum ForwardServicesError {
    /// The maps could not be changed.
    #[error("cannot change the firewall's maps of services")]
    Maps(#[source] NetlinkError),
    /// The table could not be set up.
    #[error(transparent)]
    Table(FirewallError),
    /// The daemon stops.
    #[error("forwarding to services was interrupted: the daemon stops")]
    Interrupted,
}

/// What is forwarded now.
#[derive(Debug)]
pub struct ForwardedServices {
    firewall: Firewall,
    forwards: Vec<ServiceForward>,
    /// What the kernel's maps hold; unknown at a start.
    elements: Option<BTreeMap<Place, Content>>,
    /// Chains that are there.
    chains: BTreeSet<ServiceChain>,
}

impl Network {
    /// Forwards to these Services from now on, and to no others. Where two want the same address and port, the first
    /// has it. Connections that were made before go on; of UDP, only those whose server still serves.
    pub async fn forward_services(&self, forwards: Vec<ServiceForward>) -> Result<(), ForwardServicesError> {
        let services = Arc::clone(&self.shared.services);
        let set = move || services.lock().unwrap_or_else(PoisonError::into_inner).set(forwards);
        spawn_blocking(set).await.map_err(|_stopped| ForwardServicesError::Interrupted)?
    }
}

/// After the table was deleted: all of it anew.
pub fn restore(services: &Mutex<ForwardedServices>) -> Result<(), ForwardServicesError> {
    services.lock().unwrap_or_else(PoisonError::into_inner).restore()
}

impl ForwardedServices {
    /// Nothing is known of what a former daemon has forwarded, and nothing changes about it yet.
    pub fn new(firewall: Firewall, chains: BTreeSet<ServiceChain>) -> Self {
        Self { firewall, forwards: Vec::new(), elements: None, chains }
    }

    fn set(&mut self, forwards: Vec<ServiceForward>) -> Result<(), ForwardServicesError> {
        let (wanted, chains) = elements::of(&forwards);
        let changed: Vec<ServiceForward> =
            forwards.iter().filter(|forward| !self.forwards.contains(forward)).cloned().collect();
        let gone = self.forwards.iter().filter(|forward| !forwards.contains(forward)).cloned().collect::<Vec<_>>();
        self.forwards = forwards;
        let updated = match self.elements.take() {
            Some(present) if chains.is_subset(&self.chains) => self.update(&present, &wanted),
            _ => Err(None),
        };
        match updated {
            Ok(()) => self.elements = Some(wanted),
            Err(_) => self.fill(wanted, chains)?,
        }
        self.forget_what_is_gone(&changed, &gone);
        Ok(())
    }

    /// Changes what differs.
    fn update(
        &self,
        present: &BTreeMap<Place, Content>,
        wanted: &BTreeMap<Place, Content>,
    ) -> Result<(), Option<NetlinkError>> {
        let differs =
            |one: &BTreeMap<Place, Content>, place: &Place, content: &Content| one.get(place) != Some(content);
        let out: Vec<_> = present.iter().filter(|(place, content)| differs(wanted, place, content)).collect();
        let into: Vec<_> = wanted.iter().filter(|(place, content)| differs(present, place, content)).collect();
        if out.is_empty() && into.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::new(&self.firewall.table);
        transaction.remove("take a service out of the maps", out);
        transaction.add("put a service into the maps", into);
        transaction.execute().map_err(Some)
    }

    /// Sets all anew, in one transaction: at a start, for a new chain, or where the maps are not as they should be.
    fn fill(
        &mut self,
        wanted: BTreeMap<Place, Content>,
        chains: BTreeSet<ServiceChain>,
    ) -> Result<(), ForwardServicesError> {
        if !chains.is_subset(&self.chains) {
            self.chains.extend(chains);
            self.chains = self.firewall.apply(&self.chains).map_err(ForwardServicesError::Table)?;
        }
        let mut transaction = Transaction::new(&self.firewall.table);
        for set in SETS {
            transaction.empty(set);
        }
        transaction.add("put services into the maps", &wanted);
        transaction.execute().map_err(ForwardServicesError::Maps)?;
        self.elements = Some(wanted);
        Ok(())
    }

    fn restore(&mut self) -> Result<(), ForwardServicesError> {
        if self.elements.is_none() {
            return Ok(());
        }
        let (wanted, chains) = elements::of(&self.forwards);
        self.chains.clear();
        self.fill(wanted, chains)
    }

    fn forget_what_is_gone(&self, changed: &[ServiceForward], gone: &[ServiceForward]) {
        let concerned = || changed.iter().chain(gone);
        let mut outcomes = Vec::new();
        if concerned().any(|forward| forward.protocol == ServiceProtocol::Udp) {
            outcomes.push(flows::forget_stale(&self.forwards, concerned()));
        }
        if concerned().any(|forward| forward.affinity_seconds.is_some()) {
            outcomes.push(affinity::forget_stale(&self.firewall.table, &self.forwards));
        }
        for error in outcomes.into_iter().filter_map(Result::err) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "clients of a service may be led to a server that is gone");
        }
    }
}

impl ServiceProtocol {
    /// Its number (protocols(5)).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl Entrance {
    /// The address; `None` for all of the machine.
    fn address(self) -> Option<Ipv4Addr> {
        match self {
            Self::Cluster(at) | Self::External(at) => Some(*at.ip()),
            Self::NodePort(_) => None,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Cluster(at) | Self::External(at) => at.port(),
            Self::NodePort(port) => port,
        }
    }
}
