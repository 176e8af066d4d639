//! Control groups made ahead, for Pods that are about to be created.
//!
//! The name of a Pod's cgroup holds its UID, so whoever creates a Pod takes its UID from here: that of a cgroup which is there
//! already, with one for a container in it. What is left to do at its start are its limits. On cgroup v1 that is a few writes
//! in place of fourteen directories and a list of devices.
//!
//! In the container's cgroup its first process may wait already, a child of a spare sandbox' infra process, which is then the Pod's.
//!
//! Nothing records them: a daemon that starts anew removes cgroups of Pods that it does not know, with what is in them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spec::{ContainerId, PodUid, SandboxId};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::cgroups::{CgroupError, CgroupPath, Cgroups, Placement, RemoveCgroupError, ShownTrees};
use crate::config::QosClass;

/// For so many Pods, of the classes that the last ones were created of.
const AHEAD: usize = 2;
/// A Pod that has not started so long after its creation gets its cgroup when it does.
const PATIENCE: Duration = Duration::from_secs(2);

/// The cgroups of a runtime that no Pod has yet.
#[derive(Debug, Default)]
pub(super) struct CgroupsAhead {
    /// Held while some are removed, so that nobody makes one again meanwhile.
    removal: Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of what the next ones are to be: as the last Pods were, the oldest of them first. None while nobody keeps any.
    wanted: VecDeque<QosClass>,
    /// Few: found by a walk.
    ready: Vec<Ahead>,
    promised: Vec<Promised>,
}

/// A Pod's cgroup, with one for a container.
#[derive(Debug)]
pub(super) struct Ahead {
    uid: PodUid,
    class: QosClass,
    pub(super) container: ContainerAhead,
    /// The spare sandbox whose infra process has a child waiting in it.
    pub(super) process_in: Option<SandboxId>,
}

/// A container's cgroup, in which only the default devices can be opened.
#[derive(Debug)]
pub(super) struct ContainerAhead {
    pub(super) id: ContainerId,
    pub(super) placement: Placement,
    /// None once a process that waits in it was given them.
    pub(super) shown: ShownTrees,
}

/// A cgroup whose UID was given to a Pod.
#[derive(Debug)]
struct Promised {
    uid: PodUid,
    class: QosClass,
    /// Until somebody takes it.
    container: Option<ContainerAhead>,
    process_in: Option<SandboxId>,
    at: Instant,
    /// The start of the Pod has begun, so it is not removed here any more.
    kept: bool,
    /// The Pod has taken its own.
    pod_taken: bool,
}

impl Ahead {
    pub(super) fn container_path(&self) -> CgroupPath {
        self.path().container(&self.container.id)
    }

    fn path(&self) -> CgroupPath {
        CgroupPath::pod(self.class, &self.uid)
    }
}

impl CgroupsAhead {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removal(&self) -> MutexGuard<'_, ()> {
        self.removal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The UID of one of this class, if there is any; another of it is made after that.
    pub(super) fn promise(&self, class: QosClass) -> Option<PodUid> {
        let mut inner = self.lock();
        if inner.wanted.pop_front().is_some() {
            inner.wanted.push_back(class);
        }
        let place = |prepared: bool| {
            inner.ready.iter().position(|ahead| ahead.class == class && ahead.process_in.is_some() == prepared)
        };
        let at = place(true).or_else(|| place(false))?;
        let Ahead { uid, class, container, process_in } = inner.ready.remove(at);
        let (container, at) = (Some(container), Instant::now());
        let promised = Promised { uid: uid.clone(), class, container, process_in, at, kept: false, pod_taken: false };
        inner.promised.push(promised);
        Some(uid)
    }

    /// One in which no process waits, for one to be made; nobody is promised it meanwhile.
    pub(super) fn take_unprepared(&self) -> Option<Ahead> {
        let mut inner = self.lock();
        let at = inner.ready.iter().position(|ahead| ahead.process_in.is_none())?;
        Some(inner.ready.remove(at))
    }

    /// The same one again.
    pub(super) fn put_back(&self, ahead: Ahead) {
        self.lock().ready.push(ahead);
    }

    /// The sandbox whose infra process has a child waiting for a container of this Pod.
    pub(super) fn sandbox_of(&self, uid: &PodUid) -> Option<SandboxId> {
        self.lock().promised.iter().find(|promised| promised.uid == *uid)?.process_in.clone()
    }

    /// All sandboxes of which that can be said.
    pub(super) fn sandboxes(&self) -> Vec<SandboxId> {
        let inner = self.lock();
        let ready = inner.ready.iter().filter_map(|ahead| ahead.process_in.clone());
        ready.chain(inner.promised.iter().filter_map(|promised| promised.process_in.clone())).collect()
    }

    /// It can be said of this one no more.
    pub(super) fn forget_process(&self, sandbox: &SandboxId) {
        let mut inner = self.lock();
        let Inner { ready, promised, .. } = &mut *inner;
        let ready = ready.iter_mut().map(|ahead| &mut ahead.process_in);
        for process_in in ready.chain(promised.iter_mut().map(|promised| &mut promised.process_in)) {
            process_in.take_if(|one| one == sandbox);
        }
    }

    /// Whether [`Self::take_pod`] is likely to find it.
    pub(super) fn has(&self, uid: &PodUid) -> bool {
        self.lock().promised.iter().any(|promised| promised.uid == *uid)
    }

    /// Says whether the Pod's cgroup is there; it is the caller's. May wait while others are removed.
    pub(super) fn take_pod(&self, uid: &PodUid, class: QosClass) -> bool {
        let _removal = self.removal();
        self.lock().take_from(uid, class, |promised| promised.pod_taken = true).is_some()
    }

    /// Somebody makes a cgroup in that of the Pod, which nobody else removes from now on. May wait, too.
    pub(super) fn keep(&self, uid: &PodUid, class: QosClass) {
        let _removal = self.removal();
        self.lock().take_from(uid, class, |_| ());
    }

    /// The cgroup for a container of a Pod that has one; it is the caller's.
    pub(super) fn take_container(&self, uid: &PodUid, class: QosClass) -> Option<ContainerAhead> {
        self.lock().take_from(uid, class, |promised| promised.container.take()).flatten()
    }

    /// The Pod's cgroup is removed, or soon will be.
    pub(super) fn forget(&self, uid: &PodUid) {
        self.lock().promised.retain(|promised| promised.uid != *uid);
    }

    /// Whether [`Self::fill`] has anything to do.
    pub(super) fn is_short(&self) -> bool {
        let inner = self.lock();
        inner.missing().is_some() || inner.surplus().is_some()
    }

    /// When [`Self::remove_stale`] has anything to remove.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.promised.iter().filter(|promised| !promised.kept).map(|promised| promised.at + PATIENCE).min()
    }

    /// Removes those of Pods that do not start. Blocks, on a thread of a runtime.
    pub(super) fn remove_stale(&self, cgroups: &Cgroups) -> Result<(), RemoveCgroupError> {
        let _removal = self.removal();
        let now = Instant::now();
        let stale: Vec<Promised> = {
            let is_stale = |promised: &mut Promised| !promised.kept && promised.at + PATIENCE <= now;
            self.lock().promised.extract_if(.., is_stale).collect()
        };
        let paths = stale.iter().map(|promised| CgroupPath::pod(promised.class, &promised.uid));
        paths.map(|path| remove(cgroups, &path)).fold(Ok(()), Result::and)
    }

    /// Makes what is missing, after what is not wanted any more is removed. Blocks, on a thread of a runtime.
    pub(super) fn fill(&self, cgroups: &Cgroups) -> Result<(), RemoveCgroupError> {
        while let Some(surplus) = { self.lock().take_surplus() } {
            remove(cgroups, &surplus.path())?;
        }
        while let Some(class) = { self.lock().missing() } {
            let (uid, id) = (PodUid::new(spec::ids::random_uuid()), ContainerId::random());
            let path = CgroupPath::pod(class, &uid);
            let made = make_container(cgroups, &path.container(&id));
            // What there is of it goes with what is unknown at the next start where it cannot be removed.
            let (placement, shown) = made.inspect_err(|_| drop(cgroups.remove_empty(&path)))?;
            let container = ContainerAhead { id, placement, shown };
            self.lock().ready.push(Ahead { uid, class, container, process_in: None });
        }
        Ok(())
    }

    /// Begins with the class of Pods that ask for nothing.
    pub(super) fn begin(&self) {
        self.lock().wanted = VecDeque::from([QosClass::BestEffort; AHEAD]);
    }

    /// Removes all that no Pod has, and makes none any more. Blocks, on a thread of a runtime.
    pub(super) fn end(&self, cgroups: &Cgroups) -> Result<(), RemoveCgroupError> {
        let _removal = self.removal();
        let (ready, promised) = {
            let mut inner = self.lock();
            inner.wanted.clear();
            let promised: Vec<Promised> = inner.promised.extract_if(.., |promised| !promised.kept).collect();
            (std::mem::take(&mut inner.ready), promised)
        };
        let promised = promised.iter().map(|promised| CgroupPath::pod(promised.class, &promised.uid));
        let paths = ready.iter().map(Ahead::path).chain(promised);
        paths.map(|path| remove(cgroups, &path)).fold(Ok(()), Result::and)
    }
}

/// With the process that may wait in it.
fn remove(cgroups: &Cgroups, path: &CgroupPath) -> Result<(), RemoveCgroupError> {
    Handle::current().block_on(cgroups.remove(path))
}

impl Inner {
    /// Takes a part of what was promised to a Pod; what has no more is forgotten.
    fn take_from<T>(&mut self, uid: &PodUid, class: QosClass, take: impl FnOnce(&mut Promised) -> T) -> Option<T> {
        let at = self.promised.iter().position(|promised| promised.uid == *uid && promised.class == class)?;
        let promised = self.promised.get_mut(at)?;
        promised.kept = true;
        let taken = take(promised);
        if promised.pod_taken && promised.container.is_none() {
            self.promised.swap_remove(at);
        }
        Some(taken)
    }

    /// How many of a class there are, and how many there are to be.
    fn counts(&self, class: QosClass) -> (usize, usize) {
        let ready = self.ready.iter().filter(|ahead| ahead.class == class).count();
        (ready, self.wanted.iter().filter(|wanted| **wanted == class).count())
    }

    fn missing(&self) -> Option<QosClass> {
        self.wanted.iter().copied().find(|&class| {
            let (ready, wanted) = self.counts(class);
            ready < wanted
        })
    }

    /// The place of one that is not wanted.
    fn surplus(&self) -> Option<usize> {
        self.ready.iter().position(|ahead| {
            let (ready, wanted) = self.counts(ahead.class);
            ready > wanted
        })
    }

    fn take_surplus(&mut self) -> Option<Ahead> {
        self.surplus().map(|at| self.ready.remove(at))
    }
}

fn make_container(cgroups: &Cgroups, path: &CgroupPath) -> Result<(Placement, ShownTrees), CgroupError> {
    cgroups.create(path)?;
    cgroups.restrict_devices(path)?;
    Ok((cgroups.placement(path)?, cgroups.shown_to(path)))
}
