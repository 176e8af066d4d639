//! What stands in the maps for a list of Services: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use super::{Entrance, ServiceChain, ServiceForward, WithoutServers};
use crate::elements::{Content, Place, padded};

/// Map: address, protocol and port of a Service, to the chain that its packets go on in.
pub const SERVICES: &str = "services";
/// Map: the same with a number, to address and port of an endpoint.
pub const ENDPOINTS: &str = "service_endpoints";
/// Map: protocol and port of the node, to a chain.
pub const NODE_PORTS: &str = "node_ports";
/// Map: the same with a number, to address and port of an endpoint.
pub const NODE_PORT_ENDPOINTS: &str = "node_port_endpoints";
/// Set: the address of each endpoint, twice: a Pod that asks for itself.
pub const SERVICE_HAIRPINS: &str = "service_hairpins";
/// Set: address, protocol and port of Services that nobody serves.
pub const UNSERVED: &str = "unserved";
/// Set: protocol and port of the node, of Services that nobody serves.
pub const UNSERVED_NODE_PORTS: &str = "unserved_node_ports";
/// Map: address, protocol and port of Services that remember their clients, to the chain that does so.
pub const REMEMBERING: &str = "remembering";
/// Map: the same for ports of the node.
pub const REMEMBERING_NODE_PORTS: &str = "remembering_node_ports";
/// Map that the kernel fills: address, protocol and port of a Service and address of a client, to its endpoint.
pub const AFFINITY: &str = "affinity";

/// All that are filled from here.
pub const SETS: [&str; 9] = [
    SERVICES,
    ENDPOINTS,
    NODE_PORTS,
    NODE_PORT_ENDPOINTS,
    SERVICE_HAIRPINS,
    UNSERVED,
    UNSERVED_NODE_PORTS,
    REMEMBERING,
    REMEMBERING_NODE_PORTS,
];

/// The elements for these Services, and the chains that they need.
pub fn of(forwards: &[ServiceForward]) -> (BTreeMap<Place, Content>, BTreeSet<ServiceChain>) {
    let (mut elements, mut chains, mut taken) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for forward in forwards {
        if taken.insert((forward.entrance.address(), forward.protocol, forward.entrance.port())) {
            add(forward, &mut elements, &mut chains);
        }
    }
    (elements, chains)
}

fn add(forward: &ServiceForward, elements: &mut BTreeMap<Place, Content>, chains: &mut BTreeSet<ServiceChain>) {
    let is_node_port = matches!(forward.entrance, Entrance::NodePort(_));
    let at = |of_address, of_node| Place { set: if is_node_port { of_node } else { of_address }, key: key(forward) };
    let count = u32::try_from(forward.to.len()).unwrap_or(u32::MAX);
    if count == 0 {
        match forward.without_servers {
            WithoutServers::Drop => elements.insert(at(SERVICES, NODE_PORTS), Content::Drop),
            WithoutServers::Refuse => elements.insert(at(UNSERVED, UNSERVED_NODE_PORTS), Content::Member),
        };
        return;
    }
    let spread = if is_node_port { ServiceChain::NodeSpread(count) } else { ServiceChain::Spread(count) };
    let sticky = if is_node_port { ServiceChain::NodeSticky(count) } else { ServiceChain::Sticky(count) };
    let first = forward.affinity_seconds.map_or(spread, |_seconds| sticky);
    chains.extend([spread, first]);
    elements.insert(at(SERVICES, NODE_PORTS), Content::Goto(first.to_string()));
    if let Some(seconds) = forward.affinity_seconds {
        let remember = ServiceChain::Remember(seconds);
        chains.insert(remember);
        elements.insert(at(REMEMBERING, REMEMBERING_NODE_PORTS), Content::Goto(remember.to_string()));
    }
    for (number, server) in (0_u32..).zip(&forward.to) {
        let mut place = at(ENDPOINTS, NODE_PORT_ENDPOINTS);
        // `numgen` draws a number of the machine's own byte order.
        place.key.extend_from_slice(&number.to_ne_bytes());
        elements.insert(place, Content::Value(value(*server)));
        let itself = [server.ip().octets(); 2].concat();
        elements.insert(Place { set: SERVICE_HAIRPINS, key: itself }, Content::Member);
    }
}

/// Address, if it has one, protocol, and port.
pub fn key(forward: &ServiceForward) -> Vec<u8> {
    let mut key = forward.entrance.address().map(|address| address.octets().to_vec()).unwrap_or_default();
    key.extend_from_slice(&[forward.protocol.number(), 0, 0, 0]);
    key.extend_from_slice(&padded(forward.entrance.port()));
    key
}

/// Address and port of an endpoint.
pub fn value(server: SocketAddrV4) -> Vec<u8> {
    [server.ip().octets(), padded(server.port())].concat()
}

#[cfg(test)]
mod tests {
    use super::super::ServiceProtocol;
    use super::*;

    fn forward(entrance: Entrance, servers: &[&str]) -> ServiceForward {
        ServiceForward {
            entrance,
            protocol: ServiceProtocol::Tcp,
            to: servers.iter().map(|server| server.parse().unwrap()).collect(),
            affinity_seconds: None,
            without_servers: WithoutServers::Refuse,
        }
    }

    fn cluster(at: &str) -> Entrance {
        Entrance::Cluster(at.parse().unwrap())
    }

    /// `set key` for each element, with what stands there.
    fn told(forwards: &[ServiceForward]) -> Vec<String> {
        let tell = |(place, content): (&Place, &Content)| {
            let content = match content {
                Content::Member => String::new(),
                Content::Value(value) => format!(" {value:?}"),
                Content::Goto(chain) => format!(" {chain}"),
                Content::Drop => " drop".to_owned(),
            };
            format!("{} {:?}{content}", place.set, place.key)
        };
        of(forwards).0.iter().map(tell).collect()
    }

    #[test]
    fn a_service_is_a_chain_and_numbered_endpoints() {
        let forwards = [forward(cluster("10.96.0.7:80"), &["10.85.0.2:8080", "10.85.0.3:8080"])];
        assert_eq!(
            told(&forwards),
            [
                "service_endpoints [10, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0] [10, 85, 0, 2, 31, 144, 0, 0]",
                "service_endpoints [10, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0, 1, 0, 0, 0] [10, 85, 0, 3, 31, 144, 0, 0]",
                "service_hairpins [10, 85, 0, 2, 10, 85, 0, 2]",
                "service_hairpins [10, 85, 0, 3, 10, 85, 0, 3]",
                "services [10, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0] spread_2",
            ]
        );
        assert_eq!(of(&forwards).1, BTreeSet::from([ServiceChain::Spread(2)]));
    }

    #[test]
    fn a_service_without_servers_refuses_or_drops() {
        let mut local = forward(cluster("10.96.0.8:80"), &[]);
        local.without_servers = WithoutServers::Drop;
        let forwards = [forward(cluster("10.96.0.7:80"), &[]), local, forward(Entrance::NodePort(30_000), &[])];
        assert_eq!(
            told(&forwards),
            [
                "services [10, 96, 0, 8, 6, 0, 0, 0, 0, 80, 0, 0] drop",
                "unserved [10, 96, 0, 7, 6, 0, 0, 0, 0, 80, 0, 0]",
                "unserved_node_ports [6, 0, 0, 0, 117, 48, 0, 0]",
            ]
        );
    }

    #[test]
    fn sticky_ones_remember_and_node_ports_have_maps_of_their_own() {
        let mut sticky = forward(Entrance::NodePort(30_000), &["10.85.0.2:80"]);
        sticky.affinity_seconds = Some(60);
        let (elements, chains) = of(&[sticky]);
        let sets: Vec<&str> = elements.keys().map(|place| place.set).collect();
        assert_eq!(sets, [NODE_PORT_ENDPOINTS, NODE_PORTS, REMEMBERING_NODE_PORTS, SERVICE_HAIRPINS]);
        let expected =
            BTreeSet::from([ServiceChain::NodeSpread(1), ServiceChain::NodeSticky(1), ServiceChain::Remember(60)]);
        assert_eq!(chains, expected);
    }

    #[test]
    fn of_two_that_want_the_same_the_first_has_it() {
        let one = forward(Entrance::External("192.0.2.1:80".parse().unwrap()), &["10.85.0.2:80"]);
        let other = forward(cluster("192.0.2.1:80"), &["10.85.0.3:80", "10.85.0.4:80"]);
        assert_eq!(of(&[one.clone(), other]), of(&[one]));
    }
}
