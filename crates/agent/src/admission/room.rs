//! What the pods of this node take of it, and who waits for room. Everything is decided under one lock, so that two
//! workers never take the same room.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spec::PodUid;
use spec::k8s_openapi::api::core::v1::PodSpec;
use spec::placement::{Demand, Misfit, NodeView, Used, kubelet_misfit, resource_misfits, scheduler_misfits};

/// The node's book of who has what.
#[derive(Debug, Default)]
pub(crate) struct NodeRoom {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    taken: HashMap<PodUid, Demand>,
    used: Used,
    /// By priority, then by who came first.
    waiting: BTreeMap<Place, Waiting>,
    places: HashMap<PodUid, Place>,
    next: u64,
    /// Pods that were not resized for want of room.
    want_more: BTreeSet<PodUid>,
}

type Place = (Reverse<i32>, u64);

#[derive(Debug)]
struct Waiting {
    uid: PodUid,
    spec: PodSpec,
    demand: Demand,
    misfits: Vec<Misfit>,
}

impl NodeRoom {
    /// The pod has its room, whether or not there is that much.
    pub(crate) fn take(&self, uid: &PodUid, demand: Demand) {
        self.book().take(uid, demand);
    }

    /// Gives room to a pod that nobody has bound, or lets it wait.
    pub(crate) fn schedule(
        &self,
        uid: &PodUid,
        spec: &PodSpec,
        demand: Demand,
        node: &NodeView,
    ) -> Result<(), Vec<Misfit>> {
        let mut book = self.book();
        if book.taken.contains_key(uid) {
            return Ok(());
        }
        let misfits = scheduler_misfits(spec, &demand, node, &book.used);
        if misfits.is_empty() {
            book.take(uid, demand);
            return Ok(());
        }
        let (uid, spec) = (uid.clone(), spec.clone());
        book.wait(Waiting { uid, spec, demand, misfits: misfits.clone() });
        Err(misfits)
    }

    /// Gives room to a pod that somebody has bound here, if there is any.
    pub(crate) fn admit_bound(
        &self,
        uid: &PodUid,
        spec: &PodSpec,
        demand: Demand,
        node: &NodeView,
    ) -> Result<(), Misfit> {
        let mut book = self.book();
        if book.taken.contains_key(uid) {
            return Ok(());
        }
        match kubelet_misfit(spec, &demand, node, &book.used) {
            None => {
                book.take(uid, demand);
                Ok(())
            }
            Some(misfit) => Err(misfit),
        }
    }

    /// Gives a pod that has room more or less of it, if there is as much; else it is told when to ask again.
    pub(crate) fn resize(&self, uid: &PodUid, demand: Demand, node: &NodeView) -> Result<(), Misfit> {
        let mut book = self.book();
        let mut others = book.used.clone();
        if let Some(own) = book.taken.get(uid) {
            others.remove(own);
        }
        if let Some(misfit) = resource_misfits(&demand, node, &others).into_iter().next() {
            book.want_more.insert(uid.clone());
            return Err(misfit);
        }
        book.take(uid, demand);
        Ok(())
    }

    /// Whether the pod has its room.
    pub(crate) fn has(&self, uid: &PodUid) -> bool {
        self.book().taken.contains_key(uid)
    }

    /// The pod neither has nor wants anything any more. Whether it had something.
    pub(crate) fn leave(&self, uid: &PodUid) -> bool {
        let mut book = self.book();
        book.want_more.remove(uid);
        book.wait_no_longer(uid);
        let Some(demand) = book.taken.remove(uid) else { return false };
        book.used.remove(&demand);
        true
    }

    /// Gives room to those that wait, the most important first. Answers with all whose case has changed.
    pub(crate) fn look_again(&self, node: &NodeView) -> Vec<PodUid> {
        let mut book = self.book();
        // Who has room already comes first, as the kubelet tries resizes before it admits.
        let mut changed: Vec<PodUid> = std::mem::take(&mut book.want_more).into_iter().collect();
        let mut placed = Vec::new();
        let Book { taken, used, waiting, .. } = &mut *book;
        for one in waiting.values_mut() {
            let misfits = scheduler_misfits(&one.spec, &one.demand, node, used);
            if misfits.is_empty() {
                used.add(&one.demand);
                taken.insert(one.uid.clone(), one.demand.clone());
                placed.push(one.uid.clone());
            }
            if misfits != one.misfits {
                one.misfits = misfits;
                changed.push(one.uid.clone());
            }
        }
        for uid in &placed {
            book.wait_no_longer(uid);
        }
        changed
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn take(&mut self, uid: &PodUid, demand: Demand) {
        self.wait_no_longer(uid);
        self.used.add(&demand);
        if let Some(before) = self.taken.insert(uid.clone(), demand) {
            self.used.remove(&before);
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        let priority = Reverse(waiting.spec.priority.unwrap_or_default());
        // Who waits already keeps its turn.
        let turn = self.places.get(&waiting.uid).map_or(self.next, |(_, turn)| *turn);
        self.wait_no_longer(&waiting.uid);
        self.next = self.next.max(turn + 1);
        self.places.insert(waiting.uid.clone(), (priority, turn));
        self.waiting.insert((priority, turn), waiting);
    }

    fn wait_no_longer(&mut self, uid: &PodUid) {
        if let Some(place) = self.places.remove(uid) {
            self.waiting.remove(&place);
        }
    }
}
