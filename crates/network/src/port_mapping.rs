//! What a host port is, and the socket that holds it on this machine.
//!
//! Packets to a host port are led to the Pod before any socket sees them. The socket is there so that the port is taken:
//! no other program binds it unseen, and one that has it already is an error of the Pod and not lost traffic.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_reuseaddr};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, bind, listen, shutdown, socket_with};
use serde::{Deserialize, Serialize};
use spec::ContainerName;

/// A port of this machine that leads to one of a Pod's container (`ports[].hostPort`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// For messages.
    pub container: ContainerName,
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// The machine's address that it counts for; unspecified for all.
    pub host_ip: Ipv4Addr,
    /// The port of the machine.
    pub host_port: u16,
    /// The port of the Pod.
    pub container_port: u16,
}

/// `ports[].protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl PortProtocol {
    /// Its number (protocols(5)).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Such as `0.0.0.0:8080/TCP`.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            PortProtocol::Tcp => "TCP",
            PortProtocol::Udp => "UDP",
        };
        write!(f, "{}:{}/{protocol}", self.host_ip, self.host_port)
    }
}

impl PortMapping {
    /// Whether the machine reaches it by its loopback addresses.
    pub(crate) fn is_on_loopback(&self) -> bool {
        self.host_ip.is_unspecified() || self.host_ip.is_loopback()
    }

    /// Whether it counts for this address of the machine.
    pub(crate) fn covers(&self, address: Ipv4Addr) -> bool {
        self.host_ip.is_unspecified() || self.host_ip == address
    }
}

/// Why a host port is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum HoldPortError {
    /// Another program has it.
    #[error(
        "host port {mapping} of container {:?} is taken by another program; `{} 'sport = :{}'` shows which",
        mapping.container, socket_list(mapping.protocol), mapping.host_port
    )]
    Taken {
        /// The port.
        mapping: PortMapping,
        /// The kernel's word.
        #[source]
        cause: io::Error,
    },
    /// The machine has no such address.
    #[error(
        "host port {mapping} of container {:?}: this machine has no address {}; `ip address` lists those that it has",
        mapping.container, IpAddr::V4(mapping.host_ip)
    )]
    NoSuchAddress {
        /// The port.
        mapping: PortMapping,
        /// The kernel's word.
        #[source]
        cause: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("cannot take host port {mapping} of container {:?}", mapping.container)]
    Kernel {
        /// The port.
        mapping: PortMapping,
        /// The kernel's word.
        #[source]
        cause: io::Error,
    },
}

fn socket_list(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "ss -tlnp",
        PortProtocol::Udp => "ss -ulnp",
    }
}

/// Takes these ports of the machine; they are free again when their sockets are closed, by whoever has them then.
pub fn hold_ports(mappings: &[PortMapping]) -> Result<Vec<OwnedFd>, HoldPortError> {
    mappings.iter().map(|mapping| hold(mapping).map_err(|errno| refused(mapping.clone(), errno))).collect()
}

fn refused(mapping: PortMapping, errno: Errno) -> HoldPortError {
    let cause = errno.into();
    match errno {
        Errno::ADDRINUSE => HoldPortError::Taken { mapping, cause },
        Errno::ADDRNOTAVAIL => HoldPortError::NoSuchAddress { mapping, cause },
        _ => HoldPortError::Kernel { mapping, cause },
    }
}

fn hold(mapping: &PortMapping) -> rustix::io::Result<OwnedFd> {
    let address = SocketAddrV4::new(mapping.host_ip, mapping.host_port);
    match mapping.protocol {
        PortProtocol::Tcp => {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // Connections of a former server may wait out their time (socket(7), SO_REUSEADDR); but nobody shall share
            // the port with us, which a socket that has listened makes sure of.
            set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            listen(&socket, 0)?;
            // Not any longer: a client that gets here while the firewall's table is being restored shall hear a refusal
            // and not wait for an answer.
            shutdown(&socket, Shutdown::Both)?;
            set_socket_reuseaddr(&socket, false)?;
            Ok(socket)
        }
        PortProtocol::Udp => {
            let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            // Nobody reads it: what gets here while the firewall's table is being restored shall not pile up.
            set_socket_recv_buffer_size(&socket, 0)?;
            bind(&socket, &address)?;
            Ok(socket)
        }
    }
}
