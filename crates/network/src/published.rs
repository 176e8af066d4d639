//! The host ports of all Pods, as elements of the firewall's maps: a Pod changes elements, never rules.
//!
//! What is published stands in memory, from the records, and the kernel's maps follow it: a change is one transaction,
//! and where that finds the maps otherwise than expected, all are set anew in one transaction.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use spec::ids::SandboxId;

use crate::conntrack;
use crate::elements::{Content, Place, Transaction, padded};
use crate::firewall::{Firewall, FirewallError};
use crate::netlink::NetlinkError;
use crate::port_mapping::{PortMapping, PortProtocol};
use crate::services::ServiceChain;

/// Map: protocol and port on every address of the machine, to address and port of a Pod.
pub const ON_ALL_ADDRESSES: &str = "host_ports";
/// Map: address of the machine, protocol and port, to address and port of a Pod.
pub const ON_ONE_ADDRESS: &str = "host_ports_at";
/// Set: the address of each Pod that has host ports, twice: a Pod that asks for its own.
pub const HAIRPINS: &str = "hairpins";

/// What is published, and for whom.
#[derive(Debug)]
pub struct PublishedPorts {
    firewall: Firewall,
    pods: HashMap<SandboxId, PublishedPod>,
}

/// A Pod's host ports.
#[derive(Debug, Clone)]
pub struct PublishedPod {
    pub address: Ipv4Addr,
    pub ports: Vec<PortMapping>,
}

/// Why ports are not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("cannot change the firewall's maps of host ports")]
    Maps(#[source] NetlinkError),
    #[error(transparent)]
    Table(FirewallError),
}

impl PublishedPorts {
    /// Those of the records.
    pub fn new(firewall: Firewall, pods: HashMap<SandboxId, PublishedPod>) -> Self {
        Self { firewall, pods }
    }

    /// Sets the firewall's table, if it is not as it should be, and all elements, at a start or after somebody deleted
    /// it. No packet sees the maps without what was in them and stays. Gives back which chains of Services there are.
    pub fn restore(&self) -> Result<BTreeSet<ServiceChain>, PublishError> {
        let chains = self.firewall.apply(&BTreeSet::new()).map_err(PublishError::Table)?;
        let mut elements: Vec<(Place, Content)> = self.pods.values().flat_map(PublishedPod::elements).collect();
        spec::ordered::sort_by(&mut elements, |one, other| one.0.cmp(&other.0));
        // A daemon that was killed has records of a sandbox whose link was still going, and of the next one of the same Pod.
        // The dead one is withdrawn in a moment, and then the ports lead to the other.
        elements.dedup_by(|one, other| one.0 == other.0);
        let mut transaction = Transaction::new(&self.firewall.table);
        for set in [ON_ALL_ADDRESSES, ON_ONE_ADDRESS, HAIRPINS] {
            transaction.empty(set);
        }
        transaction.add("fill a map of the firewall", borrowed(&elements));
        transaction.execute().map_err(PublishError::Maps)?;
        Ok(chains)
    }

    /// Leads these ports to a Pod. UDP clients that asked before the Pod was there are led to it too.
    pub fn publish(&mut self, sandbox: &SandboxId, pod: PublishedPod) -> Result<(), PublishError> {
        if pod.ports.is_empty() {
            return Ok(());
        }
        let (elements, ports) = (pod.elements(), pod.ports.clone());
        self.pods.insert(sandbox.clone(), pod);
        let mut transaction = Transaction::new(&self.firewall.table);
        transaction.add("publish a host port", borrowed(&elements));
        let outcome = match transaction.execute() {
            Ok(()) => Ok(()),
            // Another Pod's ports stay its own.
            Err(error) if self.has_others(sandbox, &elements) => Err(PublishError::Maps(error)),
            Err(_) => self.restore().map(|_chains| ()),
        };
        if let Err(error) = outcome {
            self.pods.remove(sandbox);
            return Err(error);
        }
        told(conntrack::forget_flows_to(&ports));
        Ok(())
    }

    /// Whether any of these places is another sandbox's, too.
    fn has_others(&self, sandbox: &SandboxId, elements: &[(Place, Content)]) -> bool {
        let others = self.pods.iter().filter(|(other, _)| *other != sandbox).flat_map(|(_, pod)| pod.elements());
        others.into_iter().any(|(place, _)| elements.iter().any(|(own, _)| *own == place))
    }

    /// Leads nothing to this Pod any more, and ends UDP flows that are still led there.
    pub fn withdraw(&mut self, sandbox: &SandboxId) -> Result<(), PublishError> {
        let Some(pod) = self.pods.remove(sandbox) else { return Ok(()) };
        let elements = pod.elements();
        let mut transaction = Transaction::new(&self.firewall.table);
        transaction.remove("withdraw a host port", borrowed(&elements));
        let is_removed = !self.has_others(sandbox, &elements) && transaction.execute().is_ok();
        let outcome = if is_removed { Ok(()) } else { self.restore().map(|_chains| ()) };
        if let Err(error) = outcome {
            self.pods.insert(sandbox.clone(), pod);
            return Err(error);
        }
        if pod.ports.iter().any(|port| port.protocol == PortProtocol::Udp) {
            told(conntrack::forget_flows_led_to(pod.address));
        }
        Ok(())
    }
}

fn borrowed(elements: &[(Place, Content)]) -> impl Iterator<Item = (&Place, &Content)> {
    elements.iter().map(|(place, content)| (place, content))
}

/// A UDP client that sends on without a pause then stays where it was; nobody else is the worse for it.
fn told(forgotten: Result<(), NetlinkError>) {
    if let Err(error) = forgotten {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "former UDP connections are not forgotten");
    }
}

impl PublishedPod {
    fn elements(&self) -> Vec<(Place, Content)> {
        let hairpin = Place { set: HAIRPINS, key: [self.address.octets(); 2].concat() };
        self.ports.iter().map(|port| self.element(port)).chain([(hairpin, Content::Member)]).collect()
    }

    fn element(&self, port: &PortMapping) -> (Place, Content) {
        let (set, mut key) = if port.host_ip.is_unspecified() {
            (ON_ALL_ADDRESSES, Vec::new())
        } else {
            (ON_ONE_ADDRESS, port.host_ip.octets().to_vec())
        };
        key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&padded(port.host_port));
        (Place { set, key }, Content::Value([self.address.octets(), padded(port.container_port)].concat()))
    }
}
