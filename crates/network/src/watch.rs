//! Notices when somebody deletes our nftables table, as `nft flush ruleset` and a restart of nftables.service do.

use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

use crate::netlink::uapi::{NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, NFT_MSG_DELTABLE, NFTA_TABLE_NAME};
use crate::netlink::{attributes, messages, text};

/// `struct nfgenmsg` comes before the attributes (nfnetlink.h).
const HEADER_BYTES: usize = 4;

/// The kernel's news about nftables.
#[derive(Debug)]
pub struct TableWatch {
    /// Of the family `AF_NETLINK`; this type is tokio's safe way to wait for a datagram on a descriptor.
    socket: UnixDatagram,
    table: String,
}

impl TableWatch {
    /// Listens from now on, in the network namespace of the calling thread.
    pub fn open(table: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, 1 << (NFNLGRP_NFTABLES - 1)))?;
        Ok(Self { socket: UnixDatagram::from_std(StdDatagram::from(socket))?, table: table.to_owned() })
    }

    /// Is back when the table was deleted, or may have been: news get lost when too many come at once.
    pub async fn deleted(&self) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) if self.tells_of_deletion(buffer.get(..length).unwrap_or_default()) => return Ok(()),
                Ok(_) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn tells_of_deletion(&self, datagram: &[u8]) -> bool {
        messages(datagram)
            .filter(|message| message.kind == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE))
            .flat_map(|message| attributes(message.payload.get(HEADER_BYTES..).unwrap_or_default()))
            .any(|(kind, value)| kind == NFTA_TABLE_NAME && text(value) == self.table)
    }
}
