//! Gives a pod sandbox its address and its link.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use spec::ids::SandboxId;
use store::StoreError;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use crate::error::{AttachError, DetachError};
use crate::link::host_interface;
use crate::netlink::NetlinkSocket;
use crate::network::{ADDRESSES, AddressRecord, Network, RING, RING_KEY};
use crate::pool::{Grant, Lease};
use crate::port_mapping::PortMapping;
use crate::published::PublishedPod;

/// Waits between attempts to give back what the kernel or the store would not take.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Network {
    /// Gives this sandbox an address and a link, by which it reaches the host, all Pods and the world. A sandbox that
    /// has them keeps its address, and its link is mended.
    ///
    /// `netns` is the sandbox's network namespace (`/proc/…/ns/net`); `route_socket` is a `NETLINK_ROUTE` socket that
    /// was opened inside it. `ports` of the machine lead to the sandbox once this is back; hold them before, see
    /// [`crate::hold_ports`].
    ///
    /// The link is made while its record is being written, and this returns when both are done: so no one uses an
    /// address that is not recorded. After a crash in between, [`Network::open`] deletes the link.
    pub async fn attach(
        &self,
        sandbox: &SandboxId,
        netns: OwnedFd,
        route_socket: OwnedFd,
        ports: Vec<PortMapping>,
    ) -> Result<Vec<IpAddr>, AttachError> {
        let grant = self.pool().lease(sandbox).ok_or_else(|| self.no_address_left(sandbox))?;
        let turn = Arc::clone(&grant.lease.turn).lock_owned().await;
        if !self.is_held(sandbox, &grant.lease) {
            return Err(AttachError::Detached { sandbox: sandbox.clone() });
        }
        // A task of its own, which keeps the turn: should the caller give up midway, its `detach` waits for the end.
        let (network, id) = (self.clone(), sandbox.clone());
        let attached = tokio::spawn(async move {
            let attached = network.attach_sandbox(&id, &grant, netns, route_socket, ports).await;
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
        ports: Vec<PortMapping>,
    ) -> Result<Vec<IpAddr>, AttachError> {
        let address = grant.lease.address;
        let link = self.link(sandbox, address, &ports);
        let interface = link.name.clone();
        let establish = spawn_blocking(move || {
            let host = NetlinkSocket::open_route()?;
            link.establish(&host, netns.as_fd(), &NetlinkSocket::from(route_socket))
        });
        let (recorded, established) = tokio::join!(self.record(sandbox, grant, &ports), establish);
        let established = established.map_err(|_stopped| AttachError::Interrupted { sandbox: sandbox.clone() })?;
        let outcome = match (established, recorded) {
            (Err(cause), _) => Err(AttachError::Link { sandbox: sandbox.clone(), interface, address, cause }),
            (Ok(()), Err(cause)) => Err(AttachError::Record { sandbox: sandbox.clone(), address, cause }),
            (Ok(()), Ok(())) => self.publish(sandbox, PublishedPod { address, ports }).await,
        };
        let outcome = outcome.map(|()| vec![IpAddr::V4(address)]);
        if outcome.is_err()
            && grant.fresh
            && let Err(error) = self.give_back(sandbox).await
        {
            // The address stays with the sandbox, for `detach` and `retain` to try again.
            warn_of(sandbox, &error);
        }
        outcome
    }

    async fn publish(&self, sandbox: &SandboxId, pod: PublishedPod) -> Result<(), AttachError> {
        if pod.ports.is_empty() {
            return Ok(());
        }
        let (published, id) = (Arc::clone(&self.shared.ports), sandbox.clone());
        let publish =
            spawn_blocking(move || published.lock().unwrap_or_else(PoisonError::into_inner).publish(&id, pod)).await;
        let outcome = publish.map_err(|_stopped| AttachError::Interrupted { sandbox: sandbox.clone() })?;
        outcome.map_err(|cause| AttachError::Publish { sandbox: sandbox.clone(), cause })
    }

    async fn withdraw(&self, sandbox: &SandboxId) -> Result<(), DetachError> {
        let (published, id) = (Arc::clone(&self.shared.ports), sandbox.clone());
        let withdraw =
            spawn_blocking(move || published.lock().unwrap_or_else(PoisonError::into_inner).withdraw(&id)).await;
        let outcome = withdraw.map_err(|_stopped| DetachError::Interrupted)?;
        outcome.map_err(|cause| DetachError::Withdraw { sandbox: sandbox.clone(), cause })
    }

    async fn record(&self, sandbox: &SandboxId, grant: &Grant, ports: &[PortMapping]) -> Result<(), StoreError> {
        let store = &self.shared.store;
        let record = AddressRecord { address: grant.lease.address, ports: ports.to_vec() };
        let address = store.put_record(ADDRESSES, sandbox.as_str(), &record);
        match grant.reserve {
            None => address.await,
            Some(reserved) => {
                let record = AddressRecord { address: reserved, ports: Vec::new() };
                let (address, ring) = tokio::join!(address, store.put_record(RING, RING_KEY, &record));
                address.and(ring)
            }
        }
    }

    fn no_address_left(&self, sandbox: &SandboxId) -> AttachError {
        let cidr = self.shared.gateway.cidr;
        AttachError::NoAddressLeft { sandbox: sandbox.clone(), pod_cidr: cidr.to_string(), capacity: cidr.capacity() }
    }

    /// Takes the network from a sandbox. Its host ports are free when this is back; its link and its address follow
    /// soon after, in the background, since the kernel takes 20 ms to let a link go. After a crash in between the next
    /// start goes on by the record. Does nothing for a sandbox that has no network, or whose network is going already.
    pub async fn detach(&self, sandbox: &SandboxId) -> Result<(), DetachError> {
        let Some(lease) = self.pool().get(sandbox).filter(|lease| !lease.is_going.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let Some(turn) = self.begin_detach(sandbox, &lease).await? else { return Ok(()) };
        lease.is_going.store(true, Ordering::Relaxed);
        let (network, sandbox) = (self.clone(), sandbox.clone());
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Err(error) = network.give_back(&sandbox).await {
                warn_of(&sandbox, &error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            drop(turn);
        });
        Ok(())
    }

    /// The same, back when link and address are gone too.
    pub async fn detach_and_wait(&self, sandbox: &SandboxId) -> Result<(), DetachError> {
        let Some(lease) = self.pool().get(sandbox) else { return Ok(()) };
        match self.begin_detach(sandbox, &lease).await? {
            Some(_turn) => self.give_back(sandbox).await,
            None => Ok(()),
        }
    }

    /// `None`: the lease ended while this waited for its turn.
    async fn begin_detach(
        &self,
        sandbox: &SandboxId,
        lease: &Arc<Lease>,
    ) -> Result<Option<OwnedMutexGuard<()>>, DetachError> {
        let turn = Arc::clone(&lease.turn).lock_owned().await;
        if !self.is_held(sandbox, lease) {
            return Ok(None);
        }
        self.withdraw(sandbox).await?;
        Ok(Some(turn))
    }

    /// Gives back, at start, the addresses and links of all sandboxes but those in `live`. (Links that nobody recorded
    /// are gone since [`Network::open`].)
    pub async fn retain(&self, live: &HashSet<SandboxId>) -> Result<(), DetachError> {
        let dead: Vec<_> = self.pool().sandboxes().filter(|sandbox| !live.contains(*sandbox)).cloned().collect();
        let mut tasks = tokio::task::JoinSet::new();
        for sandbox in dead {
            let network = self.clone();
            tasks.spawn(async move { network.detach_and_wait(&sandbox).await });
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
    async fn give_back(&self, sandbox: &SandboxId) -> Result<(), DetachError> {
        let interface = host_interface(sandbox);
        let deleted = self.shared.reaper.delete(interface.clone()).await;
        deleted.map_err(|cause| DetachError::Link { interface, cause })?;
        // Before that of the next one who gets the address: writes keep their order.
        self.shared.store.delete_record_soon(ADDRESSES, sandbox.as_str());
        self.pool().free(sandbox);
        Ok(())
    }

    fn is_held(&self, sandbox: &SandboxId, lease: &Arc<Lease>) -> bool {
        self.pool().get(sandbox).is_some_and(|held| Arc::ptr_eq(&held, lease))
    }
}

fn warn_of(sandbox: &SandboxId, error: &DetachError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(%sandbox, error, "a pod's address is not given back yet");
}
