//! Forgets UDP flows that connection tracking would go on leading where they no longer belong.
//!
//! The kernel chooses where a flow goes at its first packet. A UDP client that keeps its port stays in one flow for as
//! long as it sends, so one that began before a host port was published, or was led to a Pod that is gone, never comes
//! to the new Pod. TCP clients notice by themselves: their connection ends. (`nfnetlink_conntrack.h`)

use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::netlink::uapi::{
    AF_INET, CTA_FILTER, CTA_FILTER_F_CTA_IP_SRC, CTA_FILTER_F_CTA_PROTO_DST_PORT, CTA_FILTER_F_CTA_PROTO_NUM,
    CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS, CTA_ID, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE, IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET, NFNL_SUBSYS_CTNETLINK, NLA_F_NESTED, NLM_F_DUMP,
};
use crate::netlink::{self, Batch, NetlinkError, NetlinkSocket, Request, attributes, netfilter_header};
use crate::port_mapping::{PortMapping, PortProtocol};

const UDP: u8 = 17;
/// Deletions in one send: their refusals must fit into the socket's buffer.
const DELETIONS_PER_SEND: usize = 64;

/// What is needed of a flow: where it was sent to, who answers, and how to name it again.
#[derive(Debug)]
pub struct UdpFlow {
    /// The address that its client sends to.
    pub destination: Ipv4Addr,
    /// The port that its client sends to.
    pub port: u16,
    /// The address that answers come from.
    pub answers_from: Ipv4Addr,
    /// `CTA_TUPLE_ORIG`, `CTA_ID` and `CTA_ZONE` as the kernel told them.
    name: Vec<(u16, Vec<u8>)>,
}

/// Forgets flows to UDP ports of this machine that are published from now on. Flows that this machine only passes on, to
/// the same port elsewhere, are left alone.
pub fn forget_flows_to(ports: &[PortMapping]) -> Result<(), NetlinkError> {
    if ports.iter().all(|port| port.protocol != PortProtocol::Udp) {
        return Ok(());
    }
    let own: Vec<Ipv4Addr> =
        netlink::addresses(&NetlinkSocket::open_route()?)?.into_iter().map(|interface| interface.address).collect();
    let socket = NetlinkSocket::open_netfilter()?;
    for port in ports.iter().filter(|port| port.protocol == PortProtocol::Udp) {
        let mut flows = flows(&socket, |request| sent_to(request, port.host_port))?;
        flows.retain(|flow| {
            port.covers(flow.destination) && (flow.destination.is_loopback() || own.contains(&flow.destination))
        });
        forget(&socket, &flows)?;
    }
    Ok(())
}

/// Forgets flows that were led from a port of this machine to a Pod that had this address.
pub fn forget_flows_led_to(pod: Ipv4Addr) -> Result<(), NetlinkError> {
    let socket = NetlinkSocket::open_netfilter()?;
    let mut flows = flows(&socket, |request| answered_by(request, pod))?;
    flows.retain(|flow| flow.destination != pod);
    forget(&socket, &flows)
}

/// Forgets the flows of which this is true.
pub fn forget_udp_flows(is_stale: impl Fn(&UdpFlow) -> bool) -> Result<(), NetlinkError> {
    let socket = NetlinkSocket::open_netfilter()?;
    let mut flows = flows(&socket, of_udp)?;
    flows.retain(is_stale);
    forget(&socket, &flows)
}

fn of_udp(request: &mut Request<'_>) {
    request.nested(CTA_TUPLE_ORIG, |tuple| {
        tuple.nested(CTA_TUPLE_PROTO, |protocol| {
            protocol.bytes(CTA_PROTO_NUM, &[UDP]);
        });
    });
    request.nested(NLA_F_NESTED | CTA_FILTER, |filter| {
        filter.word(CTA_FILTER_ORIG_FLAGS, CTA_FILTER_F_CTA_PROTO_NUM);
        filter.word(CTA_FILTER_REPLY_FLAGS, 0);
    });
}

fn sent_to(request: &mut Request<'_>, port: u16) {
    request.nested(CTA_TUPLE_ORIG, |tuple| {
        tuple.nested(CTA_TUPLE_PROTO, |protocol| {
            protocol.bytes(CTA_PROTO_NUM, &[UDP]).bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        });
    });
    request.nested(NLA_F_NESTED | CTA_FILTER, |filter| {
        filter.word(CTA_FILTER_ORIG_FLAGS, CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT);
        filter.word(CTA_FILTER_REPLY_FLAGS, 0);
    });
}

fn answered_by(request: &mut Request<'_>, pod: Ipv4Addr) {
    request.nested(CTA_TUPLE_REPLY, |tuple| {
        tuple.nested(CTA_TUPLE_IP, |ip| {
            ip.address(CTA_IP_V4_SRC, pod);
        });
        tuple.nested(CTA_TUPLE_PROTO, |protocol| {
            protocol.bytes(CTA_PROTO_NUM, &[UDP]);
        });
    });
    request.nested(NLA_F_NESTED | CTA_FILTER, |filter| {
        filter.word(CTA_FILTER_ORIG_FLAGS, 0);
        filter.word(CTA_FILTER_REPLY_FLAGS, CTA_FILTER_F_CTA_IP_SRC | CTA_FILTER_F_CTA_PROTO_NUM);
    });
}

/// The flows that the filter lets through; the kernel looks at all, but tells only those.
fn flows(socket: &NetlinkSocket, filter: impl Fn(&mut Request<'_>)) -> Result<Vec<UdpFlow>, NetlinkError> {
    let (what, kind) = ("list the UDP connections", NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET);
    let mut batch = Batch::new();
    filter(&mut batch.request(what, kind, NLM_F_DUMP, &netfilter_header(AF_INET, 0)));
    let mut found = Vec::new();
    // A flow that came or went meanwhile does not matter, so an inconsistent answer is as good.
    match socket.ask(batch, |message| found.extend(read(message.payload))) {
        // Connection tracking has not begun in this network namespace.
        Err(error) if error.is(Errno::OPNOTSUPP) || error.is(Errno::NOENT) => Ok(Vec::new()),
        asked => asked.map(|()| found),
    }
}

fn read(payload: &[u8]) -> Option<UdpFlow> {
    let (mut sent, mut answered, mut name) = (None, None, Vec::new());
    for (kind, value) in attributes(payload.get(4..)?) {
        if kind == CTA_TUPLE_ORIG {
            let (address, port) =
                (inside(value, CTA_TUPLE_IP, CTA_IP_V4_DST), inside(value, CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT));
            sent = Some((ipv4(address?)?, u16::from_be_bytes(*port?.first_chunk()?)));
        }
        if kind == CTA_TUPLE_REPLY {
            answered = ipv4(inside(value, CTA_TUPLE_IP, CTA_IP_V4_SRC)?);
        }
        if matches!(kind, CTA_TUPLE_ORIG | CTA_ID | CTA_ZONE) {
            name.push((kind, value.to_vec()));
        }
    }
    let (destination, port) = sent?;
    Some(UdpFlow { destination, port, answers_from: answered?, name })
}

fn inside(tuple: &[u8], part: u16, wanted: u16) -> Option<&[u8]> {
    let (_, part) = attributes(tuple).find(|&(kind, _)| kind == part)?;
    attributes(part).find(|&(kind, _)| kind == wanted).map(|(_, value)| value)
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

fn forget(socket: &NetlinkSocket, flows: &[UdpFlow]) -> Result<(), NetlinkError> {
    for flows in flows.chunks(DELETIONS_PER_SEND) {
        let mut batch = Batch::new();
        for flow in flows {
            let kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
            let (what, header) = ("delete a UDP connection", netfilter_header(AF_INET, 0));
            // One that ended meanwhile is as good.
            let mut request = batch.request_tolerating(&[Errno::NOENT], what, kind, 0, &header);
            for (kind, value) in &flow.name {
                request.bytes(*kind, value);
            }
        }
        socket.execute(batch)?;
    }
    Ok(())
}
