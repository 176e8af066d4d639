//! The network of this node's Pods: addresses, links, the gateway, and the firewall's table for them.
//!
//! It knows sandboxes and namespaces, not Pods, and it never enters a namespace: it gets descriptors. It does not
//! write sysctls inside a Pod's namespace (only a process in there can), and does no name resolution.
//!
//! Start reading at [`Network::open`], then [`Network::attach`]; `link` holds the sequence for one Pod and says why
//! Pods are routed and not bridged.
#![forbid(unsafe_code)]

mod attach;
mod cidr;
mod conntrack;
mod elements;
mod error;
mod firewall;
mod gateway;
mod link;
mod netlink;
mod network;
mod pool;
mod port_mapping;
mod published;
mod reaper;
mod remove;
mod services;
mod watch;

pub use error::{AttachError, DetachError, NetlinkError, OpenNetworkError, RemoveNetworkError};
pub use firewall::FirewallError;
pub use link::POD_LINK;
pub use network::{Network, NetworkConfig};
pub use port_mapping::{HoldPortError, PortMapping, PortProtocol, hold_ports};
pub use published::PublishError;
pub use services::{Entrance, ForwardServicesError, ServiceForward, ServiceProtocol, WithoutServers};
