//! Gives a pod sandbox its address and its link.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use spec::ids::SandboxId;
use store::StoreError;
use tokio::task::spawn_blocking;

use crate::error::{AttachError, DetachError};
use crate::link::host_interface;
use crate::netlink::RouteSocket;
use crate::network::{ADDRESSES, AddressRecord, Network, RING, RING_KEY};
use crate::pool::{Grant, Lease};

impl Network {
    /// Gives this sandbox an address and a link, by which it reaches the host, all Pods and the world. A sandbox that
    /// has them keeps its address, and its link is mended.
    ///
    /// `netns` is the sandbox's network namespace (`/proc/…/ns/net`); `route_socket` is a `NETLINK_ROUTE` socket that
    /// was opened inside it.
    ///
    /// The link is made while its record is being written, and this returns when both are done: so no one uses an
    /// address that is not recorded. After a crash in between, [`Network::open`] deletes the link.
    pub async fn attach(
        &self,
        sandbox: &SandboxId,
        netns: OwnedFd,
        route_socket: OwnedFd,
    ) -> Result<Vec<IpAddr>, AttachError> {
        let grant = self.pool().lease(sandbox).ok_or_else(|| self.no_address_left(sandbox))?;
        let turn = Arc::clone(&grant.lease.turn).lock_owned().await;
        if !self.is_held(sandbox, &grant.lease) {
            return Err(AttachError::Detached { sandbox: sandbox.clone() });
        }
        // A task of its own, which keeps the turn: should the caller give up midway, its `detach` waits for the end.
        let (network, id) = (self.clone(), sandbox.clone());
        let attached = tokio::spawn(async move {
            let attached = network.attach_sandbox(&id, &grant, netns, route_socket).await;
            drop(turn);
            attached
        });
        match attached.await {
            Ok(attached) => attached,
            Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
            Err(_stopped) => Err(AttachError::Interrupted { sandbox: sandbox.clone() }),
        }
    }

    async fn attach_sandbox(
        &self,
        sandbox: &SandboxId,
        grant: &Grant,
        netns: OwnedFd,
        route_socket: OwnedFd,
    ) -> Result<Vec<IpAddr>, AttachError> {
        let address = grant.lease.address;
        let link = self.link(sandbox, address);
        let interface = link.name.clone();
        let establish = spawn_blocking(move || {
            let host = RouteSocket::open()?;
            link.establish(&host, netns.as_fd(), &RouteSocket::from(route_socket))
        });
        let (recorded, established) = tokio::join!(self.record(sandbox, grant), establish);
        let established = established.map_err(|_stopped| AttachError::Interrupted { sandbox: sandbox.clone() })?;
        let outcome = match (established, recorded) {
            (Err(cause), _) => Err(AttachError::Link { sandbox: sandbox.clone(), interface, address, cause }),
            (Ok(()), Err(cause)) => Err(AttachError::Record { sandbox: sandbox.clone(), address, cause }),
            (Ok(()), Ok(())) => Ok(vec![IpAddr::V4(address)]),
        };
        if outcome.is_err()
            && grant.fresh
            && let Err(error) = self.give_back(sandbox, address).await
        {
            // The address stays with the sandbox, for `detach` and `retain` to try again.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%sandbox, error, "a link that could not be made could not be removed either");
        }
        outcome
    }

    async fn record(&self, sandbox: &SandboxId, grant: &Grant) -> Result<(), StoreError> {
        let store = &self.shared.store;
        let record = AddressRecord { address: grant.lease.address };
        let address = store.put_record(ADDRESSES, sandbox.as_str(), &record);
        match grant.reserve {
            None => address.await,
            Some(reserved) => {
                let record = AddressRecord { address: reserved };
                let (address, ring) = tokio::join!(address, store.put_record(RING, RING_KEY, &record));
                address.and(ring)
            }
        }
    }

    fn no_address_left(&self, sandbox: &SandboxId) -> AttachError {
        let cidr = self.shared.gateway.cidr;
        AttachError::NoAddressLeft { sandbox: sandbox.clone(), pod_cidr: cidr.to_string(), capacity: cidr.capacity() }
    }

    /// Deletes the link of this sandbox and frees its address. Does nothing for one that has none.
    pub async fn detach(&self, sandbox: &SandboxId) -> Result<(), DetachError> {
        let Some(lease) = self.pool().get(sandbox) else { return Ok(()) };
        let _turn = lease.turn.lock().await;
        if self.is_held(sandbox, &lease) { self.give_back(sandbox, lease.address).await } else { Ok(()) }
    }

    /// Gives back, at start, the addresses and links of all sandboxes but those in `live`. (Links that nobody recorded
    /// are gone since [`Network::open`].)
    pub async fn retain(&self, live: &HashSet<SandboxId>) -> Result<(), DetachError> {
        let dead: Vec<_> = self.pool().sandboxes().filter(|sandbox| !live.contains(*sandbox)).cloned().collect();
        let mut tasks = tokio::task::JoinSet::new();
        for sandbox in dead {
            let network = self.clone();
            tasks.spawn(async move { network.detach(&sandbox).await });
        }
        let mut errors = Vec::new();
        while let Some(detached) = tasks.join_next().await {
            errors.extend(detached.unwrap_or(Err(DetachError::Interrupted)).err());
        }
        match errors.pop() {
            None => Ok(()),
            Some(error) if errors.is_empty() => Err(error),
            Some(error) => {
                errors.push(error);
                Err(DetachError::Several(errors))
            }
        }
    }

    /// The address is free only when its link is gone and its record too, in this order.
    async fn give_back(&self, sandbox: &SandboxId, address: Ipv4Addr) -> Result<(), DetachError> {
        let interface = host_interface(sandbox);
        let deleted = self.shared.reaper.delete(interface.clone()).await;
        deleted.map_err(|cause| DetachError::Link { interface, cause })?;
        let forgotten = self.shared.store.delete_record(ADDRESSES, sandbox.as_str()).await;
        forgotten.map_err(|cause| DetachError::Record { sandbox: sandbox.clone(), address, cause })?;
        self.pool().free(sandbox);
        Ok(())
    }

    fn is_held(&self, sandbox: &SandboxId, lease: &Arc<Lease>) -> bool {
        self.pool().get(sandbox).is_some_and(|held| Arc::ptr_eq(&held, lease))
    }
}
