//! UDP clients of Services whose server is gone: they do not notice, so they are led anew.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use super::{ServiceForward, ServiceProtocol};
use crate::conntrack::{self, UdpFlow};
use crate::netlink::{self, NetlinkError, NetlinkSocket};

/// Forgets flows to those of `concerned`, but for those that a present server of the same entrance answers.
pub fn forget_stale<'a>(
    present: &[ServiceForward],
    concerned: impl Iterator<Item = &'a ServiceForward>,
) -> Result<(), NetlinkError> {
    let mut servers: HashMap<(Option<Ipv4Addr>, u16), HashSet<Ipv4Addr>> = HashMap::new();
    let is_udp = |forward: &&ServiceForward| forward.protocol == ServiceProtocol::Udp;
    for forward in concerned.filter(is_udp) {
        servers.entry((forward.entrance.address(), forward.entrance.port())).or_default();
    }
    for forward in present.iter().filter(is_udp) {
        if let Some(servers) = servers.get_mut(&(forward.entrance.address(), forward.entrance.port())) {
            servers.extend(forward.to.iter().map(|server| *server.ip()));
        }
    }
    let addresses = netlink::addresses(&NetlinkSocket::open_route()?)?;
    let own: HashSet<Ipv4Addr> = addresses.into_iter().map(|interface| interface.address).collect();
    let is_stale = |flow: &UdpFlow| {
        let at_address = servers.get(&(Some(flow.destination), flow.port));
        let at_node = || servers.get(&(None, flow.port)).filter(|_| own.contains(&flow.destination));
        at_address.or_else(at_node).is_some_and(|servers| !servers.contains(&flow.answers_from))
    };
    conntrack::forget_udp_flows(is_stale)
}
