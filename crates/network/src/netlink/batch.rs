//! Encodes netlink requests: several of them in one buffer, for one send (rtnetlink(7), netlink(7), nfnetlink.h).

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;

use super::uapi::{
    AF_UNSPEC, NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NLM_F_ACK, NLM_F_REQUEST,
};

/// Answers are told apart by sequence number, also on a socket that served an earlier batch.
static SEQUENCE: AtomicU32 = AtomicU32::new(1);

/// Requests that the kernel gets in one system call and works through in order.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) steps: Vec<Step>,
}

/// One request of a batch, as its answer is understood.
#[derive(Debug)]
pub(super) struct Step {
    start: usize,
    pub(super) sequence: u32,
    /// Completes "cannot …".
    pub(super) what: &'static str,
    /// Answers that mean it was done already, or need not be done.
    pub(super) tolerated: &'static [Errno],
    /// Whether it may be asked for an acknowledgement; the marks around a transaction have none.
    pub(super) answered: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(512), steps: Vec::with_capacity(8) }
    }

    /// Adds a request; `what` completes "cannot …" should the kernel refuse it.
    pub fn request(&mut self, what: &'static str, kind: u16, flags: u16, header: &[u8]) -> Request<'_> {
        self.request_tolerating(&[], what, kind, flags, header)
    }

    /// Adds a request of which the refusals in `tolerated` are as good as success.
    pub fn request_tolerating(
        &mut self,
        tolerated: &'static [Errno],
        what: &'static str,
        kind: u16,
        flags: u16,
        header: &[u8],
    ) -> Request<'_> {
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        self.steps.push(Step { start: self.bytes.len(), sequence, what, tolerated, answered: true });
        self.bytes.extend_from_slice(&[0; 4]); // the length, set by `finish`
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]); // the port: the kernel fills in the sender's
        self.bytes.extend_from_slice(header);
        let mut request = Request { bytes: &mut self.bytes };
        request.pad();
        request
    }

    /// Begins a transaction of nftables: all requests until its end are done, or none.
    pub fn begin_transaction(&mut self, what: &'static str) {
        self.mark(what, NFNL_MSG_BATCH_BEGIN);
    }

    /// Ends it.
    pub fn end_transaction(&mut self, what: &'static str) {
        self.mark(what, NFNL_MSG_BATCH_END);
    }

    fn mark(&mut self, what: &'static str, kind: u16) {
        self.request(what, kind, 0, &netfilter_header(AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
        if let Some(step) = self.steps.last_mut() {
            step.answered = false;
        }
    }

    pub(super) fn is_transaction(&self) -> bool {
        self.steps.last().is_some_and(|step| !step.answered)
    }

    /// Sets the lengths, and asks for an acknowledgement of the last request only: refusals come for each.
    pub(super) fn finish(&mut self, acknowledge: bool) {
        let mut end = self.bytes.len();
        for step in self.steps.iter().rev() {
            put(&mut self.bytes, step.start, &length32(end - step.start));
            end = step.start;
        }
        if acknowledge && let Some(last) = self.steps.iter().rfind(|step| step.answered) {
            let at = last.start + 6;
            if let Some(&[low, high]) = self.bytes.get(at..at + 2) {
                put(&mut self.bytes, at, &(u16::from_ne_bytes([low, high]) | NLM_F_ACK).to_ne_bytes());
            }
        }
    }
}

/// The attributes of one request.
#[derive(Debug)]
pub struct Request<'batch> {
    bytes: &'batch mut Vec<u8>,
}

impl Request<'_> {
    /// An attribute of plain bytes.
    pub fn bytes(&mut self, attribute: u16, value: &[u8]) -> &mut Self {
        self.nested(attribute, |nest| nest.raw(value))
    }

    /// An attribute of 32 bits in the machine's order.
    pub fn word(&mut self, attribute: u16, value: u32) -> &mut Self {
        self.bytes(attribute, &value.to_ne_bytes())
    }

    /// An IPv4 address.
    pub fn address(&mut self, attribute: u16, value: Ipv4Addr) -> &mut Self {
        self.bytes(attribute, &value.octets())
    }

    /// A text, which the kernel wants with a closing zero.
    pub fn text(&mut self, attribute: u16, value: &str) -> &mut Self {
        self.nested(attribute, |nest| {
            nest.raw(value.as_bytes());
            nest.raw(&[0]);
        })
    }

    /// An attribute that holds others.
    pub fn nested(&mut self, attribute: u16, fill: impl FnOnce(&mut Request<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.raw(&[0; 2]);
        self.raw(&attribute.to_ne_bytes());
        fill(&mut Request { bytes: &mut *self.bytes });
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        put(self.bytes, start, &length.to_ne_bytes());
        self.pad();
        self
    }

    /// Bytes without a frame: the header that some nests begin with.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// `struct ifinfomsg`; with `up`, the link is set up.
pub fn link_header(index: u32, up: bool) -> [u8; 16] {
    let flags = if up { super::uapi::IFF_UP } else { 0 };
    let [.., f0, f1, f2, f3] = flags.to_ne_bytes();
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    [super::uapi::AF_UNSPEC, 0, 0, 0, i0, i1, i2, i3, f0, f1, f2, f3, f0, f1, f2, f3]
}

/// `struct ifaddrmsg` of an IPv4 address.
pub fn address_header(index: u32, prefix_length: u8) -> [u8; 8] {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    [super::uapi::AF_INET, prefix_length, 0, 0, i0, i1, i2, i3]
}

/// `struct rtmsg` of an IPv4 route in the main table.
pub fn route_header(prefix_length: u8, kind: u8, scope: u8, flags: u32) -> [u8; 12] {
    let [f0, f1, f2, f3] = flags.to_ne_bytes();
    let (family, table, protocol) = (super::uapi::AF_INET, super::uapi::RT_TABLE_MAIN, super::uapi::RTPROT_BOOT);
    [family, prefix_length, 0, 0, table, protocol, scope, kind, f0, f1, f2, f3]
}

/// `struct ndmsg` of an IPv4 neighbour.
pub fn neighbour_header(index: u32, state: u16) -> [u8; 12] {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    let [s0, s1] = state.to_ne_bytes();
    [super::uapi::AF_INET, 0, 0, 0, i0, i1, i2, i3, s0, s1, 0, 0]
}

/// `struct nfgenmsg`: the family, and for the marks of a transaction the subsystem that it is for.
pub fn netfilter_header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn length32(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..at + value.len()) {
        slot.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attributes, messages};

    #[test]
    fn what_is_encoded_is_read_back() {
        let mut batch = Batch::new();
        batch.request("a", 16, 0x400, &link_header(7, true)).text(3, "eth0").nested(18, |info| {
            info.bytes(1, b"veth").nested(2, |data| {
                data.raw(&[9; 16]);
                data.word(31, 1);
            });
        });
        batch.request("b", 20, 0, &address_header(2, 32)).address(2, Ipv4Addr::new(10, 85, 0, 2));
        batch.finish(true);

        let read: Vec<_> = messages(&batch.bytes).collect();
        assert_eq!(read.iter().map(|m| (m.kind, m.flags)).collect::<Vec<_>>(), [(16, 0x401), (20, 0x005)]);
        assert!(read[1].sequence > read[0].sequence);
        let link: Vec<_> = attributes(&read[0].payload[16..]).collect();
        assert_eq!(link[0], (3, &b"eth0\0"[..]));
        let info: Vec<_> = attributes(link[1].1).collect();
        assert_eq!(info[0], (1, &b"veth"[..]));
        assert_eq!(&info[1].1[..16], [9; 16]);
        assert_eq!(attributes(&info[1].1[16..]).collect::<Vec<_>>(), [(31, &1u32.to_ne_bytes()[..])]);
        assert_eq!(attributes(&read[1].payload[8..]).collect::<Vec<_>>(), [(2, &[10, 85, 0, 2][..])]);
    }
}
