//! What the pods of this node take of it, and who waits for room. Everything is decided under one lock, so that two
//! workers never take the same room.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spec::PodUid;
use spec::k8s_openapi::api::core::v1::PodSpec;
use spec::placement::{
    Demand, Holder, Misfit, NodeView, Used, kubelet_misfits, kubelet_victims, resource_misfits, scheduler_misfits,
    scheduler_victims,
};
use spec::qos::QosClass;

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
    /// Pods that have to go for others.
    going: BTreeSet<PodUid>,
    /// Those that wait and for which others go: what they leave is for them, not for somebody less important.
    nominated: BTreeSet<PodUid>,
}

type Place = (Reverse<i32>, u64);

#[derive(Debug)]
struct Waiting {
    uid: PodUid,
    spec: PodSpec,
    demand: Demand,
    misfits: Vec<Misfit>,
    /// Somebody has bound it here: the kubelet's questions are asked, not the scheduler's.
    bound: bool,
}

impl Waiting {
    fn misfits(&self, node: &NodeView, used: &Used) -> Vec<Misfit> {
        if self.bound {
            kubelet_misfits(&self.spec, &self.demand, node, used)
        } else {
            scheduler_misfits(&self.spec, &self.demand, node, used)
        }
    }

    /// One that is bound waits only for what others were made to leave.
    fn priority(&self) -> i32 {
        if self.bound { i32::MAX } else { self.demand.priority }
    }
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
        let misfits = scheduler_misfits(spec, &demand, node, &book.used_for(uid, demand.priority));
        if misfits.is_empty() {
            book.take(uid, demand);
            return Ok(());
        }
        let (uid, spec) = (uid.clone(), spec.clone());
        book.wait(Waiting { uid, spec, demand, misfits: misfits.clone(), bound: false });
        Err(misfits)
    }

    /// Gives room to a pod that somebody has bound here, if there is any.
    pub(crate) fn admit_bound(
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
        let misfits = kubelet_misfits(spec, &demand, node, &book.used_for(uid, demand.priority));
        if misfits.is_empty() {
            book.take(uid, demand);
            return Ok(());
        }
        Err(misfits)
    }

    /// Whether somebody less important has room: only then is it worth asking for victims.
    pub(crate) fn has_less_important(&self, priority: i32) -> bool {
        self.book().taken.values().any(|demand| demand.priority < priority)
    }

    /// Whom the scheduler deletes for a pod that waits; from then on what they leave is the pod's. `holders` describes
    /// those that have room, as far as anything is known of them.
    pub(crate) fn preempt(
        &self,
        uid: &PodUid,
        node: &NodeView,
        holders: BTreeMap<PodUid, Holder>,
    ) -> Result<Vec<PodUid>, Vec<Misfit>> {
        let mut book = self.book();
        let Some(place) = book.places.get(uid).copied() else { return Err(Vec::new()) };
        let Some(waiting) = book.waiting.get(&place) else { return Err(Vec::new()) };
        let used = book.used_for(uid, waiting.demand.priority);
        let victims = scheduler_victims(&waiting.spec, &waiting.demand, node, &used, &book.holders(holders));
        if victims.is_ok() {
            book.nominated.insert(uid.clone());
        } else {
            book.nominated.remove(uid);
        }
        book.going.extend(victims.iter().flatten().cloned());
        victims
    }

    /// Whom the kubelet ends for a pod that was bound here and has not enough of what is missing. It waits for them.
    pub(crate) fn preempt_for_bound(
        &self,
        uid: &PodUid,
        spec: &PodSpec,
        demand: Demand,
        missing: Vec<Misfit>,
        holders: BTreeMap<PodUid, Holder>,
    ) -> Result<Vec<PodUid>, String> {
        let mut book = self.book();
        let victims = kubelet_victims(&demand, true, &missing, &book.holders(holders))?;
        book.nominated.insert(uid.clone());
        let (uid, spec) = (uid.clone(), spec.clone());
        book.wait(Waiting { uid, spec, demand, misfits: missing, bound: true });
        book.going.extend(victims.iter().cloned());
        Ok(victims)
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

    /// The pod neither has nor wants anything any more. Whether it had something, or something was kept for it.
    pub(crate) fn leave(&self, uid: &PodUid) -> bool {
        let mut book = self.book();
        book.want_more.remove(uid);
        book.going.remove(uid);
        let nominated = book.nominated.remove(uid);
        book.wait_no_longer(uid);
        let Some(demand) = book.taken.remove(uid) else { return nominated };
        book.used.remove(&demand);
        true
    }

    /// Gives room to those that wait, the most important first. Answers with all whose case has changed.
    pub(crate) fn look_again(&self, node: &NodeView) -> Vec<PodUid> {
        let mut book = self.book();
        // Who has room already comes first, as the kubelet tries resizes before it admits.
        let mut changed: Vec<PodUid> = std::mem::take(&mut book.want_more).into_iter().collect();
        let mut placed = Vec::new();
        let in_order: Vec<Place> = book.waiting.keys().copied().collect();
        for place in in_order {
            let Some(one) = book.waiting.get(&place) else { continue };
            let (uid, demand) = (one.uid.clone(), one.demand.clone());
            let misfits = one.misfits(node, &book.used_for(&uid, one.priority()));
            let is_new = misfits != one.misfits;
            if misfits.is_empty() {
                book.used.add(&demand);
                book.taken.insert(uid.clone(), demand);
                book.nominated.remove(&uid);
                placed.push(uid.clone());
            }
            if is_new {
                changed.push(uid);
                if let Some(one) = book.waiting.get_mut(&place) {
                    one.misfits = misfits;
                }
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
        self.nominated.remove(uid);
        self.wait_no_longer(uid);
        self.used.add(&demand);
        if let Some(before) = self.taken.insert(uid.clone(), demand) {
            self.used.remove(&before);
        }
    }

    /// What is not to be had for a pod of that priority: what others have, and what is kept for those that are as
    /// important.
    fn used_for(&self, uid: &PodUid, priority: i32) -> Cow<'_, Used> {
        let mut used = Cow::Borrowed(&self.used);
        let kept = self.nominated.iter().filter(|nominated| *nominated != uid && !self.taken.contains_key(*nominated));
        let kept = kept.filter_map(|nominated| self.waiting.get(self.places.get(nominated)?));
        kept.filter(|one| one.priority() >= priority).for_each(|one| used.to_mut().add(&one.demand));
        used
    }

    /// All that have room. Of whom nothing is known, the object is gone, and so will be the pod.
    fn holders(&self, known: BTreeMap<PodUid, Holder>) -> Vec<Holder> {
        let mut known = known;
        let holders = self.taken.iter().map(|(uid, demand)| match known.remove(uid) {
            Some(holder) => Holder { leaving: holder.leaving || self.going.contains(uid), ..holder },
            None => Holder {
                uid: uid.clone(),
                demand: demand.clone(),
                started: None,
                qos: QosClass::BestEffort,
                critical: false,
                leaving: true,
                removable: false,
            },
        });
        let mut holders: Vec<_> = holders.collect();
        spec::ordered::sort_by(&mut holders, |one, other| one.uid.cmp(&other.uid));
        holders
    }

    fn wait(&mut self, waiting: Waiting) {
        let priority = Reverse(waiting.priority());
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
