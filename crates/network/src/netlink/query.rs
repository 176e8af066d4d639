//! What the kernel has now: links, addresses and routes of the network namespace of a socket.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::batch::{Batch, address_header, link_header, route_header};
use super::parse::{attributes, text, word};
use super::socket::{NetlinkError, NetlinkSocket};
use super::uapi::{
    AF_INET, IFA_ADDRESS, IFA_LOCAL, IFLA_EXT_MASK, IFLA_GROUP, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINKINFO,
    IFLA_MTU, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PRIORITY, RTA_TABLE, RTEXT_FILTER_SKIP_STATS, RTM_GETADDR,
    RTM_GETLINK, RTM_GETROUTE,
};

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Such as `bridge`; empty for hardware.
    pub kind: String,
    pub mtu: u32,
    /// The group that `ip link set group` shows.
    pub group: u32,
    /// The other end of a veth pair, by its index in its own network namespace.
    pub peer: u32,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub index: u32,
    pub address: Ipv4Addr,
    /// Of the network that is reached through it: its far end's, on a point-to-point link.
    pub network: Ipv4Addr,
    pub prefix_length: u8,
}

/// An IPv4 route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Addr,
    pub prefix_length: u8,
    pub kind: u8,
    pub table: u32,
    pub metric: u32,
    pub gateway: Option<Ipv4Addr>,
    pub interface: Option<u32>,
}

/// All interfaces.
pub fn links(socket: &NetlinkSocket) -> Result<Vec<Link>, NetlinkError> {
    let mut request = link_header(0, false).to_vec();
    // `struct nlattr` and its word. The counters of a link are most of an answer, and its cost.
    request.extend_from_slice(&8_u16.to_ne_bytes());
    request.extend_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    request.extend_from_slice(&RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    socket.dump("list the interfaces", RTM_GETLINK, &request, read_link)
}

/// The interface of this name.
pub fn link(socket: &NetlinkSocket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request("look for the interface", RTM_GETLINK, 0, &link_header(0, false)).text(IFLA_IFNAME, name);
    let mut found = None;
    match socket.ask(batch, |message| found = read_link(message.payload)) {
        Ok(()) => Ok(found),
        Err(error) if error.is(Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All IPv4 addresses.
pub fn addresses(socket: &NetlinkSocket) -> Result<Vec<InterfaceAddress>, NetlinkError> {
    socket.dump("list the addresses", RTM_GETADDR, &address_header(0, 0), read_address)
}

/// All IPv4 routes of all tables.
pub fn routes(socket: &NetlinkSocket) -> Result<Vec<Route>, NetlinkError> {
    let mut header = route_header(0, 0, 0, 0);
    header.fill(0);
    if let Some(family) = header.first_mut() {
        *family = AF_INET;
    }
    socket.dump("list the routes", RTM_GETROUTE, &header, read_route)
}

fn read_link(payload: &[u8]) -> Option<Link> {
    let mut link = Link { index: word(payload.get(4..)?)?, ..Link::default() };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = word(value)?,
            IFLA_GROUP => link.group = word(value)?,
            IFLA_LINK => link.peer = word(value)?,
            IFLA_LINKINFO => {
                link.kind = attributes(value).find(|&(kind, _)| kind == IFLA_INFO_KIND).map(|(_, kind)| text(kind))?;
            }
            _ => {}
        }
    }
    Some(link)
}

fn read_address(payload: &[u8]) -> Option<InterfaceAddress> {
    let &[AF_INET, prefix_length, ..] = payload else { return None };
    let (mut local, mut network) = (None, None);
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            IFA_LOCAL => local = ipv4(value),
            IFA_ADDRESS => network = ipv4(value),
            _ => {}
        }
    }
    let index = word(payload.get(4..)?)?;
    Some(InterfaceAddress { index, address: local.or(network)?, network: network.or(local)?, prefix_length })
}

fn read_route(payload: &[u8]) -> Option<Route> {
    let &[AF_INET, prefix_length, _, _, table, _, _, kind, ..] = payload else { return None };
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_length,
        kind,
        table: table.into(),
        metric: 0,
        gateway: None,
        interface: None,
    };
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            RTA_DST => route.destination = ipv4(value)?,
            RTA_TABLE => route.table = word(value)?,
            RTA_PRIORITY => route.metric = word(value)?,
            RTA_GATEWAY => route.gateway = ipv4(value),
            RTA_OIF => route.interface = word(value),
            _ => {}
        }
    }
    Some(route)
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    value.first_chunk::<4>().copied().map(Ipv4Addr::from)
}
