//! The host ports of all Pods, as elements of the firewall's maps: a Pod changes elements, never rules.
//!
//! What is published stands in memory, from the records, and the kernel's maps follow it: a change is one transaction,
//! and where that finds the maps otherwise than expected, all are set anew in one transaction.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use spec::ids::SandboxId;

use crate::conntrack;
use crate::firewall::{Firewall, FirewallError};
use crate::netlink::uapi::{
    NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM, NFTA_DATA_VALUE, NFTA_LIST_ELEM,
    NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE, NLM_F_CREATE,
};
use crate::netlink::{Batch, NetlinkError, NetlinkSocket, netfilter_header};
use crate::port_mapping::{PortMapping, PortProtocol};

/// Map: protocol and port on every address of the machine, to address and port of a Pod.
pub const ON_ALL_ADDRESSES: &str = "host_ports";
/// Map: address of the machine, protocol and port, to address and port of a Pod.
pub const ON_ONE_ADDRESS: &str = "host_ports_at";
/// Set: the address of each Pod that has host ports, twice: a Pod that asks for its own.
pub const HAIRPINS: &str = "hairpins";

/// Elements in one message: the length of an attribute has 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 500;

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

/// An element of one of the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    set: &'static str,
    key: Vec<u8>,
    data: Option<Vec<u8>>,
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
    /// it. No packet sees the maps without what was in them and stays.
    pub fn restore(&self) -> Result<(), PublishError> {
        self.firewall.apply().map_err(PublishError::Table)?;
        let elements: Vec<Element> = self.pods.values().flat_map(PublishedPod::elements).collect();
        let mut batch = transaction();
        for set in [ON_ALL_ADDRESSES, ON_ONE_ADDRESS, HAIRPINS] {
            self.request(&mut batch, "empty a map of the firewall", NFT_MSG_DELSETELEM, set, &[]);
            let ours: Vec<_> = elements.iter().filter(|element| element.set == set).collect();
            for some in ours.chunks(ELEMENTS_PER_MESSAGE) {
                self.request(&mut batch, "fill a map of the firewall", NFT_MSG_NEWSETELEM, set, some);
            }
        }
        execute(batch).map_err(PublishError::Maps)
    }

    /// Leads these ports to a Pod. UDP clients that asked before the Pod was there are led to it too.
    pub fn publish(&mut self, sandbox: &SandboxId, pod: PublishedPod) -> Result<(), PublishError> {
        if pod.ports.is_empty() {
            return Ok(());
        }
        let (elements, ports) = (pod.elements(), pod.ports.clone());
        self.pods.insert(sandbox.clone(), pod);
        let added = self.change("publish a host port", NFT_MSG_NEWSETELEM, &elements);
        let outcome = if added.is_ok() { Ok(()) } else { self.restore() };
        if let Err(error) = outcome {
            self.pods.remove(sandbox);
            return Err(error);
        }
        told(conntrack::forget_flows_to(&ports));
        Ok(())
    }

    /// Leads nothing to this Pod any more, and ends UDP flows that are still led there.
    pub fn withdraw(&mut self, sandbox: &SandboxId) -> Result<(), PublishError> {
        let Some(pod) = self.pods.remove(sandbox) else { return Ok(()) };
        let removed = self.change("withdraw a host port", NFT_MSG_DELSETELEM, &pod.elements());
        let outcome = if removed.is_ok() { Ok(()) } else { self.restore() };
        if let Err(error) = outcome {
            self.pods.insert(sandbox.clone(), pod);
            return Err(error);
        }
        if pod.ports.iter().any(|port| port.protocol == PortProtocol::Udp) {
            told(conntrack::forget_flows_led_to(pod.address));
        }
        Ok(())
    }

    fn change(&self, what: &'static str, kind: u16, elements: &[Element]) -> Result<(), NetlinkError> {
        let mut batch = transaction();
        for element in elements {
            self.request(&mut batch, what, kind, element.set, &[element]);
        }
        execute(batch)
    }

    fn request(&self, batch: &mut Batch, what: &'static str, kind: u16, set: &str, elements: &[&Element]) {
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        let mut request = batch.request(what, kind, NLM_F_CREATE, &netfilter_header(NFPROTO_INET, 0));
        request.text(NFTA_SET_ELEM_LIST_TABLE, &self.firewall.table).text(NFTA_SET_ELEM_LIST_SET, set);
        if elements.is_empty() {
            return;
        }
        request.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            for element in elements {
                list.nested(NFTA_LIST_ELEM, |one| {
                    one.nested(NFTA_SET_ELEM_KEY, |key| {
                        key.bytes(NFTA_DATA_VALUE, &element.key);
                    });
                    if let Some(data) = &element.data {
                        one.nested(NFTA_SET_ELEM_DATA, |value| {
                            value.bytes(NFTA_DATA_VALUE, data);
                        });
                    }
                });
            }
        });
    }
}

/// A UDP client that sends on without a pause then stays where it was; nobody else is the worse for it.
fn told(forgotten: Result<(), NetlinkError>) {
    if let Err(error) = forgotten {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "former UDP connections are not forgotten");
    }
}

fn transaction() -> Batch {
    let mut batch = Batch::new();
    batch.begin_transaction("change the maps of the firewall");
    batch
}

fn execute(mut batch: Batch) -> Result<(), NetlinkError> {
    batch.end_transaction("change the maps of the firewall");
    NetlinkSocket::open_netfilter()?.execute(batch)
}

impl PublishedPod {
    fn elements(&self) -> Vec<Element> {
        let hairpin = Element { set: HAIRPINS, key: [self.address.octets(); 2].concat(), data: None };
        self.ports.iter().map(|port| self.element(port)).chain([hairpin]).collect()
    }

    /// Each part of a key or value fills words of 32 bits, in the network's order (nft(8), concatenations).
    fn element(&self, port: &PortMapping) -> Element {
        let (set, mut key) = if port.host_ip.is_unspecified() {
            (ON_ALL_ADDRESSES, Vec::new())
        } else {
            (ON_ONE_ADDRESS, port.host_ip.octets().to_vec())
        };
        key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&padded(port.host_port));
        let data = [self.address.octets(), padded(port.container_port)].concat();
        Element { set, key, data: Some(data) }
    }
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
