//! Netlink as far as a pod network needs it: batches of requests, their answers, and what the kernel has now.

mod batch;
mod parse;
mod query;
mod socket;
pub mod uapi;

pub use batch::{Batch, Request, address_header, link_header, neighbour_header, netfilter_header, route_header};
pub use parse::{attributes, messages, text};
pub use query::{InterfaceAddress, Link, Route, addresses, link, links, routes};
pub use socket::{NetlinkError, NetlinkSocket};
