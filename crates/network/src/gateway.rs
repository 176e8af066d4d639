//! The host's side of the pod network: the interface with the gateway's address, the route that fails fast, and the
//! check that nobody else uses these addresses.

use std::fs;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cidr::PodCidr;
use crate::error::OpenNetworkError;
use crate::link::{self, hardware_address};
use crate::netlink::uapi::{
    IFA_ADDRESS, IFA_LOCAL, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, NLM_F_CREATE, NLM_F_EXCL,
    NLM_F_REPLACE, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN, RTA_DST, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY,
    RTM_DELADDR, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_SETLINK, RTN_UNICAST, RTN_UNREACHABLE,
};
use crate::netlink::{
    self, Batch, InterfaceAddress, Link, NetlinkError, NetlinkSocket, Route, address_header, link_header, route_header,
};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The MTU of Ethernet; a Pod's is this, or less where the way out takes less.
const ETHERNET_MTU: u32 = 1500;
/// VPNs split the default route into a few routes shorter than any network that one has (0.0.0.0/1, 128.0.0.0/1).
const SHORTEST_REAL_ROUTE: u8 = 8;
/// Interface groups of our daemons, which are the metrics of their routes, are no smaller.
pub const SMALLEST_GROUP: u32 = 0x4000_0000;

/// What the host has now.
#[derive(Debug)]
pub struct HostNetwork {
    pub links: Vec<Link>,
    pub addresses: Vec<InterfaceAddress>,
    pub routes: Vec<Route>,
}

impl HostNetwork {
    /// Asks the kernel.
    pub fn read(host: &NetlinkSocket) -> Result<Self, NetlinkError> {
        Ok(Self { links: netlink::links(host)?, addresses: netlink::addresses(host)?, routes: netlink::routes(host)? })
    }

    /// The largest packet that goes out whole by the default route.
    pub fn outside_mtu(&self) -> u32 {
        let default = |route: &&Route| route.table == u32::from(RT_TABLE_MAIN) && route.prefix_length == 0;
        let route = self.routes.iter().filter(default).min_by_key(|route| route.metric);
        let link = route.and_then(|route| self.link(route.interface?));
        link.map_or(ETHERNET_MTU, |link| link.mtu.min(ETHERNET_MTU))
    }

    fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }
}

/// The interface that carries the gateway's address: a bridge without ports, which every kernel with containers has.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub interface: String,
    pub cidr: PodCidr,
    /// Addresses of Services: no interface has one, but the host must find a way to ask one.
    pub services: Option<PodCidr>,
    /// The interface group of the host ends; as a metric it marks our route.
    pub group: u32,
}

impl Gateway {
    /// Refuses a pod network that something else on this machine uses.
    pub fn refuse_overlap(&self, host: &HostNetwork) -> Result<(), OpenNetworkError> {
        let pod_cidr = self.cidr.to_string();
        for address in &host.addresses {
            let name = host.link(address.index).map_or("", |link| link.name.as_str());
            let overlaps =
                self.cidr.overlaps(address.network, address.prefix_length) || self.cidr.overlaps(address.address, 32);
            if overlaps && name != self.interface {
                let address = format!("{}/{}", address.address, address.prefix_length);
                return Err(OpenNetworkError::AddressOverlap { pod_cidr, interface: name.to_owned(), address });
            }
        }
        self.refuse_overlap_of_services(host)?;
        for route in &host.routes {
            let link = route.interface.and_then(|index| host.link(index));
            let ours = link.is_some_and(|link| link.name == self.interface || link.group == self.group);
            let real = route.kind == RTN_UNICAST
                && route.table == u32::from(RT_TABLE_MAIN)
                && route.prefix_length >= SHORTEST_REAL_ROUTE;
            if real && !ours && self.cidr.overlaps(route.destination, route.prefix_length) {
                return Err(OpenNetworkError::RouteOverlap { pod_cidr, route: describe(route, link) });
            }
        }
        Ok(())
    }

    /// Whatever is asked at an address of a Service that there is not is refused, so these must be nobody's. Other daemons
    /// of ours may have them too: each looks after its own Pods.
    fn refuse_overlap_of_services(&self, host: &HostNetwork) -> Result<(), OpenNetworkError> {
        let Some(services) = self.services else { return Ok(()) };
        let refused =
            |other: String| Err(OpenNetworkError::ServiceOverlap { service_cidr: services.to_string(), other });
        if let Some(address) = host.addresses.iter().find(|address| services.overlaps(address.address, 32)) {
            let name = host.link(address.index).map_or("", |link| link.name.as_str());
            return refused(format!("the address {} of the interface {name:?}", address.address));
        }
        for route in &host.routes {
            let link = route.interface.and_then(|index| host.link(index));
            let real = route.kind == RTN_UNICAST
                && route.table == u32::from(RT_TABLE_MAIN)
                && route.prefix_length >= SHORTEST_REAL_ROUTE
                && route.metric < SMALLEST_GROUP;
            if real && services.overlaps(route.destination, route.prefix_length) {
                return refused(format!("the route {:?}", describe(route, link)));
            }
        }
        Ok(())
    }

    /// Makes the interface, or takes it over from a former start; traffic of Pods goes on meanwhile.
    pub fn establish(&self, host: &NetlinkSocket, now: &HostNetwork) -> Result<(), OpenNetworkError> {
        let failed = |cause| OpenNetworkError::Gateway { interface: self.interface.clone(), cause };
        match now.links.iter().find(|link| link.name == self.interface) {
            None => self.create(host).map_err(failed)?,
            Some(link) if link.kind == "bridge" => {}
            Some(link) => {
                let (interface, kind) = (link.name.clone(), link.kind.clone());
                return Err(OpenNetworkError::ForeignInterface { interface, kind });
            }
        }
        link::disable_ipv6(&self.interface).map_err(|cause| OpenNetworkError::Sysctl {
            path: PathBuf::from(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.interface)),
            cause,
        })?;
        let index = host.interface_index(&self.interface).map_err(failed)?;
        host.execute(self.configuration(index)).map_err(failed)?;
        host.execute(self.leftovers(index, now)).map_err(failed)
    }

    /// Removes the interface, with its address, and our route.
    pub fn remove(&self, host: &NetlinkSocket) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        self.unreachable(&mut batch, "remove the route of the pod network", RTM_DELROUTE, 0, self.cidr);
        let route = host.execute(batch);
        link::delete(host, &self.interface).and(route)
    }

    fn create(&self, host: &NetlinkSocket) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request("create the bridge", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, false))
            .text(IFLA_IFNAME, &self.interface)
            .bytes(IFLA_ADDRESS, &hardware_address(self.cidr.gateway()))
            .nested(IFLA_LINKINFO, |info| {
                info.bytes(IFLA_INFO_KIND, b"bridge");
            });
        host.execute(batch)
    }

    fn configuration(&self, index: u32) -> Batch {
        let gateway = self.cidr.gateway();
        let mut batch = Batch::new();
        batch.request("set up the bridge", RTM_SETLINK, 0, &link_header(index, true));
        batch
            .request("add the gateway's address", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &address_header(index, 32))
            .address(IFA_LOCAL, gateway)
            .address(IFA_ADDRESS, gateway);
        // What no Pod has must fail at once, and must not leave by the default route.
        self.unreachable(&mut batch, "add the route of the pod network", RTM_NEWROUTE, NLM_F_CREATE, self.cidr);
        // The host's own packets need a route before the firewall leads them elsewhere. It goes with the interface.
        if let Some(services) = self.services {
            let header = route_header(services.prefix_length(), RTN_UNICAST, RT_SCOPE_LINK, 0);
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            batch
                .request("add the route of services", RTM_NEWROUTE, flags, &header)
                .address(RTA_DST, services.network())
                .word(RTA_OIF, index)
                .address(RTA_PREFSRC, gateway)
                .word(RTA_PRIORITY, self.group);
        }
        batch
    }

    /// Removes what a start with another `--pod-cidr` has made.
    fn leftovers(&self, index: u32, now: &HostNetwork) -> Batch {
        let mut batch = Batch::new();
        let gateway = self.cidr.gateway();
        for address in now.addresses.iter().filter(|address| address.index == index && address.address != gateway) {
            let header = address_header(index, address.prefix_length);
            batch
                .request_tolerating(&[Errno::ADDRNOTAVAIL], "remove a former address", RTM_DELADDR, 0, &header)
                .address(IFA_LOCAL, address.address);
        }
        for route in now.routes.iter().filter(|route| route.kind == RTN_UNREACHABLE && route.metric == self.group) {
            if route.destination != self.cidr.network() || route.prefix_length != self.cidr.prefix_length() {
                let header = route_header(route.prefix_length, RTN_UNREACHABLE, RT_SCOPE_UNIVERSE, 0);
                batch
                    .request_tolerating(&[Errno::SRCH], "remove a former route", RTM_DELROUTE, 0, &header)
                    .address(RTA_DST, route.destination)
                    .word(RTA_PRIORITY, self.group);
            }
        }
        let is_of_services =
            |route: &&Route| route.kind == RTN_UNICAST && route.metric == self.group && route.interface == Some(index);
        for route in now.routes.iter().filter(is_of_services) {
            let present = self.services.map(|services| (services.network(), services.prefix_length()));
            if present != Some((route.destination, route.prefix_length)) {
                let header = route_header(route.prefix_length, RTN_UNICAST, RT_SCOPE_LINK, 0);
                batch
                    .request_tolerating(&[Errno::SRCH], "remove a former route", RTM_DELROUTE, 0, &header)
                    .address(RTA_DST, route.destination)
                    .word(RTA_OIF, index)
                    .word(RTA_PRIORITY, self.group);
            }
        }
        batch
    }

    fn unreachable(&self, batch: &mut Batch, what: &'static str, kind: u16, flags: u16, cidr: PodCidr) {
        let header = route_header(cidr.prefix_length(), RTN_UNREACHABLE, RT_SCOPE_UNIVERSE, 0);
        batch
            .request_tolerating(&[Errno::EXIST, Errno::SRCH], what, kind, flags, &header)
            .address(RTA_DST, cidr.network())
            .word(RTA_PRIORITY, self.group);
    }
}

/// Lets the host pass packets on between interfaces (ip-sysctl.rst, `ip_forward`). It stays on when we go: others may
/// have come to rely on it.
pub fn enable_forwarding() -> Result<(), OpenNetworkError> {
    if fs::read_to_string(IP_FORWARD).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(IP_FORWARD, "1").map_err(|cause| OpenNetworkError::Sysctl { path: IP_FORWARD.into(), cause })
}

/// As `ip route` prints it.
fn describe(route: &Route, link: Option<&Link>) -> String {
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let dev = link.map(|link| format!(" dev {}", link.name)).unwrap_or_default();
    format!("{}/{}{via}{dev}", route.destination, route.prefix_length)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn link(index: u32, name: &str, group: u32, mtu: u32) -> Link {
        Link { index, name: name.to_owned(), group, mtu, ..Link::default() }
    }

    fn route(destination: [u8; 4], prefix_length: u8, interface: u32) -> Route {
        Route {
            destination: destination.into(),
            prefix_length,
            kind: RTN_UNICAST,
            table: RT_TABLE_MAIN.into(),
            metric: 0,
            gateway: None,
            interface: Some(interface),
        }
    }

    fn address(index: u32, address: [u8; 4], prefix_length: u8) -> InterfaceAddress {
        InterfaceAddress { index, address: address.into(), network: address.into(), prefix_length }
    }

    fn host(addresses: Vec<InterfaceAddress>, routes: Vec<Route>) -> HostNetwork {
        let links = vec![
            link(1, "lo", 0, 65536),
            link(2, "wan0", 0, 1450),
            link(3, "mono0", 0, 1500),
            link(9, "mp12", 77, 1500),
        ];
        HostNetwork { links, addresses, routes }
    }

    #[test]
    fn an_overlap_is_refused_by_its_name() {
        let gateway = Gateway {
            interface: "mono0".into(),
            cidr: PodCidr::parse("10.85.0.0/16").unwrap(),
            services: PodCidr::parse("10.96.0.0/16").ok(),
            group: 77,
        };
        let via = Route { gateway: Some(Ipv4Addr::new(192, 168, 1, 1)), ..route([10, 0, 0, 0], 8, 2) };
        let other_table = Route { table: 100, ..via.clone() };
        let unreachable = Route { kind: RTN_UNREACHABLE, interface: None, ..route([10, 85, 0, 0], 16, 0) };
        let cases: Vec<(HostNetwork, Option<&str>)> = vec![
            (host(vec![], vec![]), None),
            (host(vec![address(2, [10, 85, 9, 9], 24)], vec![]), Some("10.85.9.9/24 of the interface \"wan0\"")),
            (host(vec![address(3, [10, 85, 0, 1], 32)], vec![]), None),
            (host(vec![address(2, [10, 84, 0, 1], 16)], vec![route([10, 84, 0, 0], 16, 2)]), None),
            (host(vec![], vec![route([10, 85, 7, 0], 24, 2)]), Some("\"10.85.7.0/24 dev wan0\"")),
            (host(vec![], vec![via]), Some("\"10.0.0.0/8 via 192.168.1.1 dev wan0\"")),
            (host(vec![], vec![other_table]), None),
            (
                host(vec![address(2, [10, 96, 3, 4], 24)], vec![]),
                Some("the address 10.96.3.4 of the interface \"wan0\""),
            ),
            (host(vec![], vec![route([10, 96, 7, 0], 24, 2)]), Some("the route \"10.96.7.0/24 dev wan0\"")),
            (host(vec![], vec![Route { metric: SMALLEST_GROUP, ..route([10, 96, 0, 0], 16, 3) }]), None),
            (host(vec![], vec![route([0, 0, 0, 0], 0, 2), route([0, 0, 0, 0], 1, 2)]), None),
            (host(vec![], vec![route([10, 85, 0, 2], 32, 9), unreachable]), None),
        ];
        for (host, expected) in cases {
            match (gateway.refuse_overlap(&host), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(name)) if error.to_string().contains(name) => {}
                (outcome, _) => panic!("{host:?}: {outcome:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn the_mtu_is_that_of_the_best_way_out() {
        let worse = Route { metric: 5, ..route([0, 0, 0, 0], 0, 1) };
        assert_eq!(host(vec![], vec![worse, route([0, 0, 0, 0], 0, 2)]).outside_mtu(), 1450);
        assert_eq!(host(vec![], vec![route([0, 0, 0, 0], 0, 1)]).outside_mtu(), ETHERNET_MTU);
        assert_eq!(host(vec![], vec![]).outside_mtu(), ETHERNET_MTU);
    }
}
