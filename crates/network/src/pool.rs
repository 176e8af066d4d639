//! Who has which address: the next one in the ring is given, never the one that was freed last.
//!
//! An address that was just freed may still be named by connections, caches and logs. So the ring goes on after a
//! restart too: a position ahead of all addresses given is recorded, and moved on each time it is reached.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use spec::ids::SandboxId;

use crate::cidr::PodCidr;

/// How many positions of the ring one record reserves: one write more for as many Pods.
const RESERVED_POSITIONS: u32 = 256;

/// An address that a pod sandbox has.
#[derive(Debug)]
pub struct Lease {
    pub address: Ipv4Addr,
    /// Held while the sandbox's link is made or deleted: one at a time.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Nothing leads there any more, and somebody is giving back the rest.
    pub is_going: AtomicBool,
}

/// What [`AddressPool::lease`] gives.
#[derive(Debug)]
pub struct Grant {
    pub lease: Arc<Lease>,
    /// The sandbox had no address before.
    pub fresh: bool,
    /// Where the ring goes on after a restart; to be recorded before the address is used.
    pub reserve: Option<Ipv4Addr>,
}

/// The addresses of one network. It keeps nothing: what must last is recorded by the caller.
#[derive(Debug)]
pub struct AddressPool {
    cidr: PodCidr,
    leases: HashMap<SandboxId, Arc<Lease>>,
    holders: HashMap<Ipv4Addr, SandboxId>,
    next: u32,
    reserved: u32,
}

impl AddressPool {
    /// The pool after a start: `resume` is the reserved address that was recorded last. Addresses recorded for
    /// another network are kept with their sandboxes, which run on.
    pub fn new(cidr: PodCidr, recorded: Vec<(SandboxId, Ipv4Addr)>, resume: Option<Ipv4Addr>) -> Self {
        let next = resume.and_then(|address| cidr.position(address)).unwrap_or(0);
        let mut pool = Self { cidr, leases: HashMap::new(), holders: HashMap::new(), next, reserved: 0 };
        for (sandbox, address) in recorded {
            pool.hold(sandbox, address);
        }
        pool
    }

    /// The address of this sandbox, a new one if it has none; `None` if all are given.
    pub fn lease(&mut self, sandbox: &SandboxId) -> Option<Grant> {
        if let Some(lease) = self.leases.get(sandbox) {
            return Some(Grant { lease: Arc::clone(lease), fresh: false, reserve: None });
        }
        let capacity = self.cidr.capacity();
        let steps = (0..capacity)
            .find(|step| !self.holders.contains_key(&self.cidr.pod_address((self.next + step) % capacity)))?;
        let position = (self.next + steps) % capacity;
        self.next = (position + 1) % capacity;
        let lease = self.hold(sandbox.clone(), self.cidr.pod_address(position));
        Some(Grant { lease, fresh: true, reserve: self.reserve(steps + 1) })
    }

    /// The lease of this sandbox.
    pub fn get(&self, sandbox: &SandboxId) -> Option<Arc<Lease>> {
        self.leases.get(sandbox).cloned()
    }

    /// Gives the address of this sandbox back.
    pub fn free(&mut self, sandbox: &SandboxId) {
        if let Some(lease) = self.leases.remove(sandbox) {
            self.holders.remove(&lease.address);
        }
    }

    /// All sandboxes that have an address.
    pub fn sandboxes(&self) -> impl Iterator<Item = &SandboxId> {
        self.leases.keys()
    }

    fn hold(&mut self, sandbox: SandboxId, address: Ipv4Addr) -> Arc<Lease> {
        let lease = Arc::new(Lease { address, turn: Arc::default(), is_going: AtomicBool::new(false) });
        self.holders.insert(address, sandbox.clone());
        self.leases.insert(sandbox, Arc::clone(&lease));
        lease
    }

    fn reserve(&mut self, steps: u32) -> Option<Ipv4Addr> {
        let capacity = self.cidr.capacity();
        if let Some(left) = self.reserved.checked_sub(steps) {
            self.reserved = left;
            return None;
        }
        self.reserved = RESERVED_POSITIONS.min(capacity - 1);
        Some(self.cidr.pod_address((self.next + self.reserved) % capacity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(number: u32) -> SandboxId {
        SandboxId::new(format!("{number:032x}"))
    }

    fn take(pool: &mut AddressPool, number: u32) -> Option<String> {
        pool.lease(&sandbox(number)).map(|grant| grant.lease.address.to_string())
    }

    #[test]
    fn addresses_come_in_ring_order_until_none_is_left() {
        let cidr = PodCidr::parse("10.0.0.0/29").unwrap();
        let mut pool = AddressPool::new(cidr, vec![(sandbox(9), "10.0.0.3".parse().unwrap())], None);
        assert_eq!(take(&mut pool, 1).unwrap(), "10.0.0.2");
        assert_eq!(take(&mut pool, 2).unwrap(), "10.0.0.4", "a recorded address is not given");
        pool.free(&sandbox(1));
        assert_eq!(take(&mut pool, 3).unwrap(), "10.0.0.5", "not the one freed last");
        assert_eq!(take(&mut pool, 3).unwrap(), "10.0.0.5", "a sandbox keeps its address");
        assert_eq!(take(&mut pool, 4).unwrap(), "10.0.0.6");
        assert_eq!(take(&mut pool, 5).unwrap(), "10.0.0.2", "the ring begins anew");
        assert_eq!(take(&mut pool, 6), None);
        pool.free(&sandbox(9));
        assert_eq!(take(&mut pool, 6).unwrap(), "10.0.0.3");
    }

    #[test]
    fn a_restart_goes_on_behind_every_address_given() {
        let cidr = PodCidr::parse("10.0.0.0/20").unwrap();
        let mut resume = None;
        let mut pool = AddressPool::new(cidr, Vec::new(), resume);
        let mut last = 0;
        for number in 0..3 * RESERVED_POSITIONS {
            let grant = pool.lease(&sandbox(number)).unwrap();
            resume = grant.reserve.or(resume);
            last = cidr.position(grant.lease.address).unwrap();
            let resumed = cidr.position(resume.unwrap()).unwrap();
            assert!(resumed > last && resumed - last <= RESERVED_POSITIONS + 1, "{resumed} after {last}");
            pool.free(&sandbox(number));
        }
        let mut pool = AddressPool::new(cidr, Vec::new(), resume);
        assert!(cidr.position(pool.lease(&sandbox(0)).unwrap().lease.address).unwrap() > last);
    }

    #[test]
    fn a_sandbox_of_another_network_keeps_its_address() {
        let cidr = PodCidr::parse("10.0.0.0/30").unwrap();
        let old = "10.9.9.9".parse().unwrap();
        let mut pool = AddressPool::new(cidr, vec![(sandbox(1), old)], Some("10.9.9.10".parse().unwrap()));
        assert_eq!(pool.lease(&sandbox(1)).unwrap().lease.address, old);
        assert_eq!(take(&mut pool, 2).unwrap(), "10.0.0.2");
    }
}
