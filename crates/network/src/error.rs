//! Why a network could not be opened, joined, left or removed.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use spec::ids::SandboxId;
use store::StoreError;

use crate::firewall::FirewallError;
pub use crate::netlink::NetlinkError;
use crate::published::PublishError;

/// Why [`crate::Network::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenNetworkError {
    #[error("invalid pod network {pod_cidr:?}: {why}")]
    InvalidPodCidr { pod_cidr: String, why: String },
    #[error("invalid network for services {service_cidr:?}: {why}")]
    InvalidServiceCidr { service_cidr: String, why: String },
    #[error("the network for services {service_cidr} overlaps {other}; choose another with --service-cidr")]
    ServiceOverlap { service_cidr: String, other: String },
    #[error("invalid name {name:?} for {what}: {why}")]
    InvalidName { what: &'static str, name: String, why: &'static str },
    #[error(
        "the pod network {pod_cidr} overlaps the address {address} of the interface {interface:?}; \
         choose another with --pod-cidr"
    )]
    AddressOverlap { pod_cidr: String, interface: String, address: String },
    #[error("the pod network {pod_cidr} overlaps the route {route:?}; choose another with --pod-cidr")]
    RouteOverlap { pod_cidr: String, route: String },
    #[error("the interface {interface:?} exists and is not a bridge of ours but of the kind {kind:?}")]
    ForeignInterface { interface: String, kind: String },
    #[error("cannot set up the interface {interface:?}")]
    Gateway {
        interface: String,
        #[source]
        cause: NetlinkError,
    },
    #[error("cannot see what networks this machine has")]
    Inspect(#[source] NetlinkError),
    #[error("cannot write {}", path.display())]
    Sysctl {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("cannot set up the firewall's table for Pods")]
    Firewall(#[source] PublishError),
    #[error("cannot listen to changes of the firewall")]
    Watch(#[source] io::Error),
    #[error("cannot read which addresses Pods have")]
    Store(#[source] StoreError),
    #[error("cannot delete the link {interface:?} that no pod sandbox has")]
    Orphan {
        interface: String,
        #[source]
        cause: NetlinkError,
    },
    #[error("setting up the network was interrupted: the daemon stops")]
    Interrupted,
}

/// Why [`crate::Network::attach`] failed. The sandbox then has neither link nor address, unless it had them before.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("pod sandbox {sandbox}: all {capacity} addresses of the pod network {pod_cidr} are in use")]
    NoAddressLeft { sandbox: SandboxId, pod_cidr: String, capacity: u32 },
    #[error("pod sandbox {sandbox}: cannot record its address {address}")]
    Record {
        sandbox: SandboxId,
        address: Ipv4Addr,
        #[source]
        cause: StoreError,
    },
    #[error("pod sandbox {sandbox}: cannot make its link {interface:?} for the address {address}")]
    Link {
        sandbox: SandboxId,
        interface: String,
        address: Ipv4Addr,
        #[source]
        cause: NetlinkError,
    },
    #[error("pod sandbox {sandbox}: cannot lead its host ports to it")]
    Publish {
        sandbox: SandboxId,
        #[source]
        cause: PublishError,
    },
    #[error("pod sandbox {sandbox}: its network was given back meanwhile")]
    Detached { sandbox: SandboxId },
    #[error("pod sandbox {sandbox}: making its network was interrupted: the daemon stops")]
    Interrupted { sandbox: SandboxId },
}

/// Why [`crate::Network::detach`] or [`crate::Network::retain`] failed; calling it again goes on.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    #[error("cannot delete the link {interface:?}")]
    Link {
        interface: String,
        #[source]
        cause: NetlinkError,
    },
    #[error("pod sandbox {sandbox}: cannot withdraw its host ports")]
    Withdraw {
        sandbox: SandboxId,
        #[source]
        cause: PublishError,
    },
    #[error("giving networks back was interrupted: the daemon stops")]
    Interrupted,
    /// Several failed; all were tried.
    #[error("{}", join(.0))]
    Several(Vec<DetachError>),
}

/// Why [`crate::Network::remove`] left something behind; all was tried.
#[derive(Debug, thiserror::Error)]
pub enum RemoveNetworkError {
    #[error("cannot give back the network of all Pods")]
    Detach(#[source] DetachError),
    #[error("cannot remove the firewall's table for Pods")]
    Firewall(#[source] FirewallError),
    #[error("cannot remove the interface {interface:?}")]
    Gateway {
        interface: String,
        #[source]
        cause: NetlinkError,
    },
    #[error("cannot remove the record of the network")]
    Record(#[source] StoreError),
    #[error("removing the network was interrupted: the daemon stops")]
    Interrupted,
    /// Several failed; all were tried.
    #[error("{}", join(.0))]
    Several(Vec<RemoveNetworkError>),
}

/// One error for several: none is lost, each with its causes.
fn join<E: std::error::Error>(errors: &[E]) -> String {
    let with_causes = |error: &E| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    };
    errors.iter().map(with_causes).collect::<Vec<_>>().join("; ")
}
