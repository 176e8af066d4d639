//! A netlink socket: sends a batch, and reads its answers until the last request is answered.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with,
};

use super::batch::Batch;
use super::parse::{Message, messages, word};
use super::uapi::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

/// Larger than any datagram of the kernel: a dump's are at most 32 KiB (`netlink_dump` in `af_netlink.c`).
const BUFFER_BYTES: usize = 64 * 1024;
/// How often a dump is begun anew when what it lists changes meanwhile.
const DUMP_ATTEMPTS: usize = 20;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct NetlinkError {
    /// Completes "cannot …".
    pub what: &'static str,
    /// The kernel's word.
    #[source]
    pub cause: io::Error,
}

impl NetlinkError {
    /// Whether the kernel refused with this error.
    pub fn is(&self, errno: Errno) -> bool {
        Errno::from_io_error(&self.cause) == Some(errno)
    }
}

/// A netlink socket; it acts in the network namespace that it was opened in.
#[derive(Debug)]
pub struct NetlinkSocket {
    descriptor: OwnedFd,
}

impl From<OwnedFd> for NetlinkSocket {
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }
}

impl NetlinkSocket {
    /// Opens one for links, addresses and routes in the network namespace of the calling thread (protocol 0 is
    /// `NETLINK_ROUTE`).
    pub fn open_route() -> Result<Self, NetlinkError> {
        Self::open(None, "open a route netlink socket")
    }

    /// Opens one for the firewall and connection tracking.
    pub fn open_netfilter() -> Result<Self, NetlinkError> {
        Self::open(Some(NETFILTER), "open a netfilter netlink socket")
    }

    fn open(protocol: Option<Protocol>, what: &'static str) -> Result<Self, NetlinkError> {
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map(Self::from)
            .map_err(|errno| NetlinkError { what, cause: errno.into() })
    }

    /// Sends all requests at once. The kernel works through all of them even if one is refused; the first refusal
    /// is the error.
    pub fn execute(&self, batch: Batch) -> Result<(), NetlinkError> {
        self.exchange(batch, |_| ()).map(|_complete| ())
    }

    /// Sends one question and hands each message of the answer to `each`.
    pub fn ask(&self, batch: Batch, each: impl FnMut(&Message<'_>)) -> Result<(), NetlinkError> {
        self.exchange(batch, each).map(|_complete| ())
    }

    /// Asks for all objects of a kind, and reads each by `read`; `header` may be followed by attributes.
    pub fn dump<T>(
        &self,
        what: &'static str,
        kind: u16,
        header: &[u8],
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _attempt in 0..DUMP_ATTEMPTS {
            let mut batch = Batch::new();
            batch.request(what, kind, NLM_F_DUMP, header);
            let mut found = Vec::new();
            if self.exchange(batch, |message| found.extend(read(message.payload)))? {
                return Ok(found);
            }
        }
        Err(NetlinkError { what, cause: Errno::INTR.into() })
    }

    /// The index of an interface. SIOCGIFINDEX works on a socket of any family and, unlike a netlink question, takes
    /// no lock (netdevice(7)).
    pub fn interface_index(&self, name: &str) -> Result<u32, NetlinkError> {
        netdevice::name_to_index(&self.descriptor, name)
            .map_err(|errno| NetlinkError { what: "find the interface", cause: errno.into() })
    }

    /// Whether the answer is a consistent one.
    fn exchange(&self, mut batch: Batch, mut each: impl FnMut(&Message<'_>)) -> Result<bool, NetlinkError> {
        batch.finish(true);
        let Some(last) = batch.steps.iter().rfind(|step| step.answered) else { return Ok(true) };
        let failed = |what, errno: Errno| NetlinkError { what, cause: errno.into() };
        rustix::io::retry_on_intr(|| send(&self.descriptor, &batch.bytes, SendFlags::empty()))
            .map_err(|errno| failed(last.what, errno))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut refusal = None;
        let mut consistent = true;
        let mut flags = RecvFlags::TRUNC;
        loop {
            let received = rustix::io::retry_on_intr(|| recv(&self.descriptor, buffer.as_mut_slice(), flags));
            let (length, whole) = match received {
                Err(Errno::AGAIN) if flags.contains(RecvFlags::DONTWAIT) => return refusal.map_or(Ok(consistent), Err),
                received => received.map_err(|errno| failed(last.what, errno))?,
            };
            if whole > length {
                return Err(failed(last.what, Errno::MSGSIZE));
            }
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                let Some(step) = batch.steps.iter().find(|step| step.sequence == message.sequence) else { continue };
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                if message.kind != NLMSG_ERROR && message.kind != NLMSG_DONE {
                    each(&message);
                    continue;
                }
                if let Some(errno) = refused(&message)
                    && !step.tolerated.contains(&errno)
                {
                    refusal.get_or_insert_with(|| failed(step.what, errno));
                }
                if step.sequence == last.sequence {
                    if !batch.is_transaction() {
                        return refusal.map_or(Ok(consistent), Err);
                    }
                    // A refusal of the whole comes after the answers, but it is there before `send` is back.
                    flags |= RecvFlags::DONTWAIT;
                }
            }
        }
    }
}

/// The error in an acknowledgement, or at the end of a dump; zero means none.
fn refused(message: &Message<'_>) -> Option<Errno> {
    let code = word(message.payload)?.cast_signed();
    (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
}
