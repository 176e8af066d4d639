//! The link between a pod sandbox and the host: a veth pair, routed on the host's side.
//!
//! There is no bridge between the Pods. Each has an address of its own (/32), and its only neighbour is the gateway,
//! whose hardware address it is told; the host has a route and a permanent neighbour per Pod. So nothing is flooded or
//! learned, neighbour tables do not fill up (permanent entries are not counted), there is no limit of 1,023 ports, a
//! Pod cannot take another's address, and all traffic of Pods passes the host's firewall.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;
use spec::ids::SandboxId;

use crate::netlink::uapi::{
    AF_INET, AF_INET6, IFA_ADDRESS, IFA_LOCAL, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_IFNAME, IFLA_INET_CONF,
    IFLA_INET6_ADDR_GEN_MODE, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, IFLA_NET_NS_FD,
    IFLA_NUM_RX_QUEUES, IFLA_NUM_TX_QUEUES, IN6_ADDR_GEN_MODE_NONE, IPV4_DEVCONF_ACCEPT_REDIRECTS,
    IPV4_DEVCONF_ROUTE_LOCALNET, IPV4_DEVCONF_RP_FILTER, NDA_DST, NDA_LLADDR, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE,
    NUD_PERMANENT, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREFSRC, RTM_DELLINK,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_SETLINK, RTN_UNICAST, RTNH_F_ONLINK, VETH_INFO_PEER,
};
use crate::netlink::{
    self, Batch, NetlinkError, NetlinkSocket, Request, address_header, link_header, neighbour_header, route_header,
};

/// What the Pod calls its interface.
const POD_INTERFACE: &str = "eth0";
/// Of `lo`, in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// What the link of one sandbox looks like.
#[derive(Debug, Clone)]
pub struct PodLink {
    /// The host's end.
    pub name: String,
    /// Marks all host ends of this daemon: the firewall's rules and the search for orphans go by it.
    pub group: u32,
    pub mtu: u32,
    pub gateway: Ipv4Addr,
    pub address: Ipv4Addr,
    /// The host's loopback leads here by host ports, so its addresses may stand in packets on this link.
    pub from_loopback: bool,
}

/// What the names of Pods' links begin with at the host's end.
pub const POD_LINK: &str = "mp";

/// The name of the host's end: 14 of the 15 bytes that are possible.
pub fn host_interface(sandbox: &SandboxId) -> String {
    let digits: String = sandbox.as_str().chars().take(12).collect();
    format!("{POD_LINK}{digits}")
}

/// A locally administered hardware address that follows from the IP address. A fixed one is not changed by udev.
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

impl PodLink {
    /// Makes the link, or mends it if it exists; `pod` is a socket inside `netns`.
    ///
    /// 1. Both ends in one request, the Pod's end born in its namespace: moving it there would cost two RCU grace
    ///    periods (16 ms). It is born down: the end of a pair cannot go up before the pair is joined (`ENOTCONN`).
    /// 2. IPv6 off on the host's end before it goes up: else the host would take router advertisements from the
    ///    Pod (CVE-2020-10749), and say its own address and groups on each new link.
    /// 3. The host's end up, its route and neighbour, in one send.
    /// 4. The Pod's side in one send, by the Pod's own socket.
    pub fn establish(
        &self,
        host: &NetlinkSocket,
        netns: BorrowedFd<'_>,
        pod: &NetlinkSocket,
    ) -> Result<(), NetlinkError> {
        match self.create(host, netns) {
            Err(error) if error.is(Errno::EXIST) && netlink::link(host, &self.name)?.is_some() => {
                if !self.joins(host, pod)? {
                    delete(host, &self.name)?;
                    self.create(host, netns)?;
                }
            }
            created => created?,
        }
        disable_ipv6(&self.name)
            .map_err(|cause| NetlinkError { what: "turn IPv6 off on the host's end of the link", cause })?;
        host.execute(self.host_side(host.interface_index(&self.name)?))?;
        pod.execute(self.pod_side(pod.interface_index(POD_INTERFACE)?))
    }

    fn create(&self, host: &NetlinkSocket, netns: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        let mut request =
            batch.request("create the veth pair", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, false));
        self.end(&mut request, &self.name, self.gateway).word(IFLA_GROUP, self.group);
        request.nested(IFLA_LINKINFO, |info| {
            info.bytes(IFLA_INFO_KIND, b"veth").nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, false));
                    self.end(peer, POD_INTERFACE, self.address).word(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
                });
            });
        });
        host.execute(batch)
    }

    /// What both ends have. One queue is what a Pod's traffic uses, and each further one costs at creation.
    fn end<'request, 'batch>(
        &self,
        request: &'request mut Request<'batch>,
        name: &str,
        hardware: Ipv4Addr,
    ) -> &'request mut Request<'batch> {
        request
            .text(IFLA_IFNAME, name)
            .bytes(IFLA_ADDRESS, &hardware_address(hardware))
            .word(IFLA_MTU, self.mtu)
            .word(IFLA_NUM_TX_QUEUES, 1)
            .word(IFLA_NUM_RX_QUEUES, 1)
    }

    /// Whether the host's end that exists and the Pod's are two ends of one pair.
    fn joins(&self, host: &NetlinkSocket, pod: &NetlinkSocket) -> Result<bool, NetlinkError> {
        let host_end = netlink::link(host, &self.name)?;
        let pod_end = netlink::link(pod, POD_INTERFACE)?;
        Ok(host_end.zip(pod_end).is_some_and(|(host_end, pod_end)| pod_end.peer == host_end.index))
    }

    fn host_side(&self, index: u32) -> Batch {
        let mut batch = Batch::new();
        batch.request("set up the host's end of the link", RTM_SETLINK, 0, &link_header(index, true)).nested(
            IFLA_AF_SPEC,
            |spec| {
                spec.nested(AF_INET.into(), |inet| {
                    inet.nested(IFLA_INET_CONF, |conf| {
                        // Strict: from this interface only packets that would be answered through it (RFC 3704).
                        conf.word(IPV4_DEVCONF_RP_FILTER, 1).word(IPV4_DEVCONF_ACCEPT_REDIRECTS, 0);
                        conf.word(IPV4_DEVCONF_ROUTE_LOCALNET, self.from_loopback.into());
                    });
                });
            },
        );
        batch
            .request(
                "add the route to the pod",
                RTM_NEWROUTE,
                NLM_F_CREATE | NLM_F_REPLACE,
                &route_header(32, RTN_UNICAST, RT_SCOPE_LINK, 0),
            )
            .address(RTA_DST, self.address)
            .address(RTA_PREFSRC, self.gateway)
            .word(RTA_OIF, index);
        neighbour(&mut batch, "add the pod as neighbour", index, self.address, self.address);
        batch
    }

    fn pod_side(&self, index: u32) -> Batch {
        let mut batch = Batch::new();
        batch.request("set up lo in the pod", RTM_SETLINK, 0, &link_header(LOOPBACK_INDEX, true));
        // Without an address of its own, the kernel's IPv6 says nothing on this link: no DAD, no MLD, no RS. The
        // sysctl `disable_ipv6` can be written by a process inside the namespace only.
        batch
            .request_tolerating(
                &[Errno::AFNOSUPPORT, Errno::OPNOTSUPP],
                "turn IPv6 addresses off in the pod",
                RTM_SETLINK,
                0,
                &link_header(index, false),
            )
            .nested(IFLA_AF_SPEC, |spec| {
                spec.nested(AF_INET6.into(), |inet6| {
                    inet6.bytes(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
                });
            });
        batch.request("set up eth0 in the pod", RTM_SETLINK, 0, &link_header(index, true));
        batch
            .request("add the pod's address", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &address_header(index, 32))
            .address(IFA_LOCAL, self.address)
            .address(IFA_ADDRESS, self.address);
        batch
            .request(
                "add the pod's default route",
                RTM_NEWROUTE,
                NLM_F_CREATE | NLM_F_REPLACE,
                &route_header(0, RTN_UNICAST, RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
            )
            .address(RTA_GATEWAY, self.gateway)
            .word(RTA_OIF, index);
        neighbour(&mut batch, "add the gateway as the pod's neighbour", index, self.gateway, self.gateway);
        batch
    }
}

/// Deletes an interface; one that is not there is as good.
pub fn delete(socket: &NetlinkSocket, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch
        .request_tolerating(&[Errno::NODEV], "delete the link", RTM_DELLINK, 0, &link_header(0, false))
        .text(IFLA_IFNAME, name);
    socket.execute(batch)
}

/// Deletes many interfaces at once: they wait for one RCU grace period together, instead of each for its own.
pub fn delete_all(socket: &NetlinkSocket, names: &[String], doomed_group: u32) -> Result<(), NetlinkError> {
    if let [name] = names {
        return delete(socket, name);
    }
    // Each send must fit into the socket's buffer, and its refusals too.
    for names in names.chunks(64) {
        let mut batch = Batch::new();
        for name in names {
            batch
                .request_tolerating(
                    &[Errno::NODEV],
                    "mark the link for deletion",
                    RTM_SETLINK,
                    0,
                    &link_header(0, false),
                )
                .text(IFLA_IFNAME, name)
                .word(IFLA_GROUP, doomed_group);
        }
        socket.execute(batch)?;
    }
    let mut batch = Batch::new();
    batch
        .request_tolerating(&[Errno::NODEV], "delete the marked links", RTM_DELLINK, 0, &link_header(0, false))
        .word(IFLA_GROUP, doomed_group);
    socket.execute(batch)
}

/// Writes the sysctl `disable_ipv6`; a kernel without IPv6 does not have it (ip-sysctl.rst).
pub fn disable_ipv6(interface: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

fn neighbour(batch: &mut Batch, what: &'static str, index: u32, address: Ipv4Addr, hardware: Ipv4Addr) {
    batch
        .request(what, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &neighbour_header(index, NUD_PERMANENT))
        .address(NDA_DST, address)
        .bytes(NDA_LLADDR, &hardware_address(hardware));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hardware_addresses_fit_the_kernel() {
        let name = host_interface(&SandboxId::new("0123456789abcdef0123456789abcdef"));
        assert_eq!(name, "mp0123456789ab");
        assert!(name.len() < 16, "IFNAMSIZ counts the closing zero");
        let [first, ..] = hardware_address(Ipv4Addr::new(10, 85, 0, 2));
        assert_eq!(first & 0b11, 0b10, "locally administered, and not a group address");
    }
}
