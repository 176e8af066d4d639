//! One pod's worker: the only one that acts for the pod and writes its status.
//!
//! A pass is level-triggered: observe, compute, act, publish. It remembers between passes only what a pass after a
//! restart of the daemon could find out again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use runtime::{ContainerState, RuntimeError};
use spec::k8s_openapi::api::core::v1::Pod;
use spec::ordered::{map_of, set_of};
use spec::{ContainerId, ContainerName, Digest, PodRef, PodUid, SandboxId};
use steps::{Scope, Within as _, step};
use store::StoredObject;
use tokio::task::JoinSet;
use tracing::Instrument as _;

#[cfg(not(test))]
use crate::actions::compute_pod_actions;
use crate::actions::{PodActions, PodLifecycle};
use crate::agent::{Bells, PODS, Shared, pod_key};
use crate::backoff::{LONGEST, RetryBackOff};
use crate::clock::{BootTime, Now, wall_between};
use crate::desired::DesiredPod;
use crate::ending::Active;
use crate::events::EventSubject;
use crate::hooks::{Joined, PodHooks};
use crate::kills::Kill;
use crate::observation::{PodObservation, is_running, remembered_runs};
use crate::on_disk::on_disk;
use crate::pod_tokens::PodTokens;
use crate::probes::PodProbes;
use crate::pulls::{ImageUse, PullForStart};
use crate::records::{PodPaths, PodRecord};
use crate::resize::{ResizeState, allocation_of, apply};
use crate::restart_all::counted;
#[cfg(test)]
use crate::simulation::mutants::compute_pod_actions;
use crate::start::StartFailure;
use crate::status::{Waiting, gated_status};
use crate::terminate::{LEAST_POD_GRACE, grace_of};
use crate::volumes::{PlannedVolume, chain};

/// No sleep is longer than this: tokio's clock stands still in suspend, ours does not.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// An event tells of a back-off that lasts longer once more each time that this has passed (kubelet, `SyncFrequency`: each
/// of its passes tells of it).
const BACK_OFF_TOLD_EVERY: Duration = Duration::from_mins(1);
/// Wait after a pass that failed as a whole, such as for a full disk.
const FAILED_PASS: Duration = Duration::from_secs(1);

/// Why a pass could not be finished. It is begun again a little later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The store did not take or give something.
    #[error("cannot use the store")]
    Store(#[from] store::StoreError),
    /// The runtime did not stop or remove something.
    #[error("cannot clean up what runs")]
    Runtime(#[from] RuntimeError),
    /// Files of the pod could not be removed or read.
    #[error("cannot {step}")]
    Files {
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// A thread that waits for the disk was lost.
    #[error("cannot wait for the disk")]
    Blocking(#[from] tokio::task::JoinError),
    /// The object of the pod means nothing.
    #[error("cannot read the pod")]
    Unreadable(#[from] crate::desired::UnreadablePod),
}

/// What comes after a pass.
pub(crate) enum Next {
    /// Another pass at once: something was done.
    Again,
    /// Nothing to do until something happens, or until then.
    Wait(Option<BootTime>),
    /// Nothing of the pod is left.
    Gone,
}

pub(crate) struct PodWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) uid: PodUid,
    pub(crate) pod: PodRef,
    pub(crate) paths: PodPaths,
    pub(crate) bells: Bells,
    pub(crate) lifecycle: PodLifecycle,
    /// The object of a new pod, which may not be durable yet: for the first look at it.
    pub(crate) forthcoming: Option<StoredObject>,
    /// The revision that this pass goes by, if it could not be read from the store when it was looked at.
    ahead_of_store: Option<u64>,
    /// The object as it was read last; `None` once it is gone from the store.
    pub(crate) desired: Option<Arc<DesiredPod>>,
    /// The object as it was last, of a pod that was removed without its end being waited for.
    pub(crate) removed: Option<Arc<DesiredPod>>,
    /// The revision of the object that the last pass went by; `None` if there was none.
    seen: Option<u64>,
    /// `None` until it is loaded or made.
    pub(crate) record: Option<PodRecord>,
    /// When dead containers ended, on the clock that does not jump.
    exits: BTreeMap<ContainerId, BootTime>,
    /// For how long the pod had been active when it was first looked at.
    pub(crate) active: Option<Active>,
    /// Containers that could not be started.
    pub(crate) failures: BTreeMap<ContainerName, StartFailure>,
    pub(crate) volume_failure: Option<RetryBackOff>,
    /// Whether the failure was that an object is missing.
    pub(crate) volumes_wait_for_objects: bool,
    pub(crate) sandbox_failure: Option<RetryBackOff>,
    /// Volumes as they were written last in this sandbox: as much as tells whether they are others now.
    written_volumes: Option<(SandboxId, u64)>,
    /// What its volumes hold of them.
    pub(crate) tokens: PodTokens,
    pub(crate) held_images: BTreeMap<ContainerName, Digest>,
    /// Images that are being pulled, or were, for starts that are still to come.
    pub(crate) pulls: BTreeMap<ImageUse, PullForStart>,
    /// Images of volumes, held for the containers that mount them.
    pub(crate) held_volumes: BTreeSet<(ContainerName, Digest)>,
    pub(crate) termination_messages: BTreeMap<ContainerId, String>,
    /// Crash loops that an event told of: of which crash, and when.
    announced_back_offs: BTreeMap<ContainerName, (u32, BootTime)>,
    /// Stops under way, with the deadline that each was given.
    pub(crate) stopping: HashMap<ContainerId, BootTime>,
    /// Runs that an event told of that they are being ended.
    pub(crate) announced_stops: HashSet<ContainerId>,
    /// When a stop failed: it is not asked for again at once.
    pub(crate) stop_failures: HashMap<ContainerId, BootTime>,
    /// Stops that failed and that no event has told of yet.
    pub(crate) untold_stops: Vec<String>,
    pub(crate) stops: JoinSet<(ContainerId, Result<(), RuntimeError>)>,
    /// When to tell of what has ended while the rest of the pod is still ending.
    pub(crate) tell_at: Option<BootTime>,
    /// Containers that are ended while the pod lives on.
    pub(crate) kills: BTreeMap<ContainerId, Kill>,
    pub(crate) probes: PodProbes,
    pub(crate) hooks: PodHooks,
    /// What woke the worker, for its next pass.
    hook_ended: Option<Joined>,
    pub(crate) scheduled_announced: bool,
    pub(crate) resize: ResizeState,
    /// Whether an event has told that its infra process does not answer.
    told_of_silence: bool,
    /// Whether the pod has its room on the node.
    pub(crate) admitted: bool,
    /// Whether all that an ended pod gives back was given back.
    pub(crate) cleaned: bool,
    /// Whether the object is removed. A static pod that comes back has the same UID, and is the next worker's.
    pub(crate) object_gone: bool,
    /// What the pod's timeline says last; `None`: what the stored status says.
    pub(crate) shown: Option<crate::timeline::Shown>,
}

impl PodWorker {
    pub(crate) fn new(shared: Arc<Shared>, uid: PodUid, pod: PodRef, bells: Bells) -> Self {
        let paths = shared.paths(&pod, &uid);
        Self {
            shared,
            uid,
            pod,
            paths,
            bells,
            lifecycle: PodLifecycle::Syncing,
            told_of_silence: false,
            forthcoming: None,
            ahead_of_store: None,
            desired: None,
            removed: None,
            seen: None,
            record: None,
            exits: BTreeMap::new(),
            active: None,
            failures: BTreeMap::new(),
            volume_failure: None,
            volumes_wait_for_objects: false,
            sandbox_failure: None,
            written_volumes: None,
            tokens: PodTokens::default(),
            held_images: BTreeMap::new(),
            pulls: BTreeMap::new(),
            held_volumes: BTreeSet::new(),
            termination_messages: BTreeMap::new(),
            announced_back_offs: BTreeMap::new(),
            stopping: HashMap::new(),
            announced_stops: HashSet::new(),
            stop_failures: HashMap::new(),
            untold_stops: Vec::new(),
            stops: JoinSet::new(),
            tell_at: None,
            kills: BTreeMap::new(),
            probes: PodProbes::default(),
            hooks: PodHooks::default(),
            hook_ended: None,
            scheduled_announced: false,
            resize: ResizeState::default(),
            admitted: false,
            cleaned: false,
            object_gone: false,
            shown: None,
        }
    }

    /// Passes until nothing of the pod is left.
    pub(crate) async fn run(&mut self) {
        let span = tracing::info_span!("pod", pod = %self.pod, uid = %self.uid);
        let steps = Scope::of_pod(&self.shared.config.steps, self.uid.as_str());
        self.passes().within(steps).instrument(span).await;
    }

    async fn passes(&mut self) {
        loop {
            // Boxed, so that a worker that waits does not hold the room of a pass.
            let next = match Box::pin(self.pass().within(step!("pass"))).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a pass failed and is tried again");
                    // Whatever happens meanwhile: what the pass did before it failed would wake the worker at once.
                    tokio::time::sleep(FAILED_PASS).await;
                    Next::Again
                }
            };
            // Without its object the next look would end the pod.
            self.until_durable().await;
            match next {
                Next::Again => tokio::task::yield_now().await,
                Next::Wait(until) => {
                    // Most pods wait most of the time: what the store has in memory is read again when it is needed. One that is
                    // ending waits for little.
                    if !matches!(self.lifecycle, PodLifecycle::Terminating { .. }) {
                        self.desired = None;
                    }
                    self.shown = None;
                    self.wait(until).await;
                }
                Next::Gone => {
                    self.shared.events.timelines().forget(&self.uid);
                    return;
                }
            }
        }
    }

    async fn wait(&mut self, until: Option<BootTime>) {
        let clock = Arc::clone(&self.shared.clock);
        let timer = async {
            let Some(until) = until else { return std::future::pending().await };
            // At least once, also for what is overdue: others are to have their turn.
            loop {
                tokio::time::sleep(until.since(clock.boot()).min(LONGEST_SLEEP)).await;
                if clock.boot() >= until {
                    return;
                }
            }
        };
        let (shared, key, seen) = (&self.shared, pod_key(&self.pod), self.seen);
        // What the last pass has read is no news, nor what it has written itself where that changes nothing for it.
        let changed = async {
            loop {
                self.bells.changed.notified().await;
                if shared.store.get(&key).map(|stored| stored.revision) != seen {
                    return;
                }
            }
        };
        tokio::select! {
            // In this order, not in a random one: any of them brings another pass, which looks at everything.
            biased;
            () = self.bells.wake.notified() => {}
            () = changed => {}
            () = timer => {}
            Some(stopped) = self.stops.join_next() => self.note_stopped(stopped),
            Some(ended) = self.hooks.join_next() => self.hook_ended = Some(ended),
        }
    }

    fn note_stopped(&mut self, stopped: Result<(ContainerId, Result<(), RuntimeError>), tokio::task::JoinError>) {
        match stopped {
            Ok((_, Ok(()))) => {}
            Ok((id, Err(error))) => {
                tracing::warn!(container_id = %id, error = %chain(&error), "a container does not stop");
                self.untold_stops.push(format!("error killing pod: {}", chain(&error)));
                self.stopping.remove(&id);
                self.stop_failures.insert(id, self.shared.clock.boot());
            }
            Err(error) => tracing::error!(%error, "a stop was lost"),
        }
    }

    async fn pass(&mut self) -> Result<Next, PassError> {
        #[cfg(test)]
        let _pass = Arc::clone(&self.shared.passes);
        while let Some(stopped) = self.stops.try_join_next() {
            self.note_stopped(stopped);
        }
        let admitted = self.forthcoming.as_ref().and_then(|_| self.shared.expected.take_pod(&self.uid));
        // The UID of one that was admitted just now is nobody else's.
        if self.record.is_none() && admitted.is_none() {
            self.record = PodRecord::load(&self.shared.store, &self.uid)?;
        }
        step!("read the object").in_scope(|| self.read_desired(admitted))?;
        for message in self.untold_stops.drain(..) {
            if let Some(desired) = &self.desired {
                self.shared.events.warning(EventSubject::pod(desired), "FailedKillPod", message);
            }
        }
        while let Some(ended) = self.hook_ended.take().or_else(|| self.hooks.try_join_next()) {
            self.note_hook(ended);
        }
        self.settle_hooks().await?;
        self.note_ending().await?;
        let now = self.shared.clock.now();
        self.end_past_deadline(now).await?;
        self.move_lifecycle(now);
        let observed = self.observe(now).within(step!("look at what runs")).await?;
        if let Some(wait) = self.wait_for_answer(&observed, now) {
            return Ok(wait);
        }
        match (self.lifecycle, self.desired.clone()) {
            (PodLifecycle::Syncing, Some(desired)) => self.sync_pass(&desired, observed, now).await,
            // Never reached: without an object a pod terminates.
            (PodLifecycle::Syncing, None) => Ok(Next::Gone),
            (PodLifecycle::Terminating { deadline }, desired) => {
                self.terminate_pass(desired.as_deref(), &observed, deadline, now).await
            }
            (PodLifecycle::Terminated, desired) => self.clean_up(desired.as_deref(), &observed).await,
        }
    }

    /// What is not known is left as it is, until the pod must have ended. The runtime's event wakes the worker.
    fn wait_for_answer(&mut self, observed: &PodObservation, now: Now) -> Option<Next> {
        let was_told = std::mem::replace(&mut self.told_of_silence, observed.is_silent());
        let until = match self.lifecycle {
            _ if !observed.is_silent() => return None,
            PodLifecycle::Syncing => None,
            PodLifecycle::Terminating { deadline } if deadline > now.boot => Some(deadline),
            PodLifecycle::Terminating { .. } | PodLifecycle::Terminated => return None,
        };
        if let Some(desired) = self.desired.as_ref().filter(|_| !was_told) {
            let message = "the pod's infra process lives but does not answer: it is stopped, or the machine is starved; \
                           its containers are left as they are until it does";
            self.shared.events.warning(EventSubject::pod(desired), "FailedSync", message.to_owned());
        }
        Some(Next::Wait(until))
    }

    /// Waits until the object that this pass goes by can be read from the store. Where that fails it never will.
    pub(crate) async fn until_durable(&mut self) {
        if let Some(revision) = self.ahead_of_store.take()
            && self.shared.store.revision() < revision
            && let Err(error) = self.shared.store.flush().await
        {
            tracing::warn!(error = %chain(&error), "a new pod is not durable, and goes");
        }
    }

    /// Reads the object, unless it was read as it is now; `admitted`: a forthcoming one in its type.
    fn read_desired(&mut self, admitted: Option<Box<Pod>>) -> Result<(), PassError> {
        // In this order: what can be read once it is asked for could not be missing before.
        let new = self.forthcoming.take();
        let new_revision = new.as_ref().map(|new| new.revision);
        let forthcoming = new.filter(|new| self.shared.store.revision() < new.revision);
        self.ahead_of_store = forthcoming.as_ref().map(|new| new.revision);
        let stored = forthcoming.or_else(|| self.shared.store.get(&pod_key(&self.pod)));
        let stored = stored.filter(|_| !self.object_gone);
        let revision = stored.as_ref().map(|stored| stored.revision);
        let seen = std::mem::replace(&mut self.seen, revision);
        if revision.is_some() && self.desired.as_ref().map(|desired| desired.revision) == revision {
            return Ok(());
        }
        // Is it visible by now, it may have changed since.
        let admitted = admitted.filter(|_| new_revision == revision);
        let desired = match (stored, admitted) {
            (Some(stored), Some(admitted)) => {
                let desired = DesiredPod::of_admitted(*admitted, self.uid.clone(), stored.revision);
                debug_assert_eq!(desired, DesiredPod::read(&stored)?);
                Some(desired)
            }
            (Some(stored), None) => Some(DesiredPod::read(&stored)?),
            (None, _) => None,
        };
        let mut desired = desired.filter(|desired| desired.uid == self.uid);
        if let (Some(desired), Some(record)) = (&mut desired, &mut self.record) {
            let granted = record.allocated.get_or_insert_with(|| allocation_of(&desired.spec));
            self.resize.wanted = apply(desired, granted);
        }
        self.desired = desired.map(Arc::new);
        let ends = self.lifecycle != PodLifecycle::Terminated && !self.object_gone;
        if let Some(seen) = seen.filter(|_| self.desired.is_none() && ends)
            && let Some(removed) = self.as_it_was(seen)
        {
            self.removed = Some(Arc::new(removed));
        }
        Ok(())
    }

    /// The pod at that revision, or at the oldest that the store still knows.
    fn as_it_was(&self, revision: u64) -> Option<DesiredPod> {
        let namespace = Some(self.pod.pod_namespace.as_str());
        let list_at = |revision| self.shared.store.list_at(PODS, namespace, revision);
        let list = list_at(revision).or_else(|expired| list_at(expired.oldest)).ok()?;
        let stored = list.objects.into_iter().find(|stored| stored.key.name == self.pod.name.as_str())?;
        DesiredPod::read(&stored).ok().filter(|desired| desired.uid == self.uid)
    }

    /// Moves down the life of the pod, never up; a deadline only comes nearer.
    fn move_lifecycle(&mut self, now: Now) {
        let deadline = match self.desired.as_deref() {
            None => Some(now.boot.after(LEAST_POD_GRACE)),
            Some(desired) => {
                let deletion = crate::terminate::deadline_of(desired, now);
                deletion.into_iter().chain(self.ending_deadline(desired, now)).min()
            }
        };
        let terminal = self.desired.as_ref().is_some_and(|desired| desired.is_terminal());
        self.lifecycle = match (self.lifecycle, deadline) {
            (PodLifecycle::Syncing, _) if terminal => PodLifecycle::Terminated,
            (PodLifecycle::Syncing, Some(deadline)) => PodLifecycle::Terminating { deadline },
            (PodLifecycle::Syncing, None) => PodLifecycle::Syncing,
            (PodLifecycle::Terminating { deadline: present }, deadline) => {
                PodLifecycle::Terminating { deadline: deadline.map_or(present, |deadline| deadline.min(present)) }
            }
            (PodLifecycle::Terminated, _) => PodLifecycle::Terminated,
        };
        if self.lifecycle != PodLifecycle::Syncing {
            // Nothing starts any more; dropping them gives them up.
            self.pulls.clear();
        }
    }

    /// Looks at the runtime, and at what the pod's dead containers left.
    pub(crate) async fn observe(&mut self, now: Now) -> Result<PodObservation, PassError> {
        let (sandboxes, containers) = self.shared.runtime.list_pod(&self.uid).await;
        let mut observed = PodObservation::new(&self.uid, sandboxes, containers);
        if let Some(desired) = &self.desired {
            observed.remembered = remembered_runs(desired);
            observed.counted = counted(desired);
            self.read_termination_messages(&observed).await?;
        }
        self.anchor_exits(&mut observed, now);
        if let Some(record) = &self.record {
            observed.back_offs.clone_from(&record.back_offs);
            observed.replaced.clone_from(&record.replaced);
            observed.condemned.clone_from(&record.condemned);
        }
        if let Some(desired) = self.desired.clone() {
            self.find_out(&desired, &mut observed, now);
        }
        let known = Self::known_runs(&observed);
        self.stopping.retain(|id, _| known.contains(id));
        self.announced_stops.retain(|id| known.contains(id));
        self.stop_failures.retain(|id, _| known.contains(id));
        Ok(observed)
    }

    /// Puts the ends of containers, which the runtime tells in wall time, on the clock that does not jump.
    fn anchor_exits(&mut self, observed: &mut PodObservation, now: Now) {
        let seen = observed.containers.iter().filter_map(|run| match &run.state {
            ContainerState::Exited(exit) => Some((run.id.clone(), Some(exit.finished_at))),
            ContainerState::Created | ContainerState::Running { .. } => None,
        });
        // One that runs has no end yet, whatever the status remembers of it.
        let runs = |id: &ContainerId| observed.containers.iter().any(|run| run.id == *id && is_running(run));
        let remembered = observed.remembered.values().filter(|run| !runs(&run.id));
        // A status has whole seconds: without the lost fraction a back-off could end too early.
        let whole = |finished_at| finished_at + Duration::from_secs(1);
        let remembered =
            remembered.map(|run| (run.id.clone(), run.exit.as_ref().and_then(|exit| exit.finished_at.map(whole))));
        let mut exits = BTreeMap::new();
        for (id, finished_at) in seen.chain(remembered) {
            let anchored = self.exits.get(&id).copied().unwrap_or_else(|| {
                let ago = finished_at.map_or(Duration::ZERO, |finished_at| wall_between(finished_at, now.wall));
                now.boot.before(ago.min(LONGEST))
            });
            exits.entry(id).or_insert(anchored);
        }
        observed.exits.clone_from(&exits);
        self.exits = exits;
    }

    async fn sync_pass(
        &mut self,
        desired: &Arc<DesiredPod>,
        mut observed: PodObservation,
        now: Now,
    ) -> Result<Next, PassError> {
        if desired.is_gated() {
            // What it says decides nothing here, so it needs no look either.
            if let Some(written) = self.write_status(gated_status(desired, now.wall), false).await?
                && written.onto == Some(desired.revision)
            {
                self.seen = written.revision;
            }
            return Ok(Next::Wait(None));
        }
        if let Some(next) = self.admit(desired, &observed).within(step!("find room on the node")).await? {
            return Ok(next);
        }
        if let Some(next) = self.restart_in_place(desired, &observed, now).await? {
            return Ok(next);
        }
        if let Some(next) = self.resize(desired, &observed, now).await? {
            return Ok(next);
        }
        step!("look after its tokens").in_scope(|| {
            if self.tokens.is_empty()
                && let Some(signed) = self.shared.expected.take_tokens(&self.uid)
            {
                self.tokens = signed;
            }
            self.tokens.refresh(desired, &self.shared.tokens, &self.shared.store, now.wall);
        });
        self.forget_healed_failures(desired, &observed);
        observed.not_before = map_of(self.failures.iter().map(|(name, failure)| (name.clone(), failure.not_before)));
        let actions = compute_pod_actions(desired, self.lifecycle, &observed, now);
        if actions.ended {
            // Sidecars are still to be ended, if there are any.
            self.lifecycle = PodLifecycle::Terminating { deadline: now.boot.after(grace_of(desired)) };
            return Ok(Next::Again);
        }
        let tell_back_off_at = self.announce_back_offs(desired, &observed, &actions, now.boot);
        let stopped = self.stop_replaced(desired, &observed, &actions, now).await?;
        let (discarded, discard_at) = self.discard(&actions).await?;
        let (started, retry_at) = if observed.in_post_start.is_empty() {
            self.start(desired, &observed, &actions, now).await?
        } else {
            (false, None)
        };
        if stopped || discarded || started {
            return Ok(Next::Again);
        }
        self.update_volumes(desired, &observed, now).await?;
        let (pulling, tell_again) = self.pulls_under_way(desired, &observed);
        let mut waiting = self.waiting(desired, &actions);
        for (name, waits) in pulling {
            waiting.entry(name).or_insert(waits);
        }
        // Who sees the status sees what has led to it.
        self.shared.events.flush().await;
        self.publish(desired, &observed, &waiting, false).within(step!("publish the status")).await?;
        let failures = self.failures.values().map(|failure| failure.not_before).filter(|time| *time > now.boot);
        let failures = failures.collect::<Vec<_>>();
        let hooked = self.kills.values().filter(|kill| self.hooks.holds_back_stop(kill.id())).map(|kill| kill.deadline);
        let hooked = hooked.collect::<Vec<_>>();
        let end = self.active_deadline(desired, now);
        let times = failures.into_iter().chain(hooked).chain(actions.look_again);
        let times = times.chain(retry_at).chain(tell_again).chain(end).chain(self.resize.retry_at);
        let times = times.chain(tell_back_off_at);
        let times = times.chain(discard_at).chain(self.stop_again_at(now.boot)).chain(self.tokens.renewal(now));
        Ok(Next::Wait(times.min()))
    }

    /// Why containers wait, for the status.
    fn waiting(&self, desired: &DesiredPod, actions: &PodActions) -> BTreeMap<ContainerName, Waiting> {
        let failed = self.failures.iter().map(|(name, failure)| (name.clone(), failure.waiting.clone()));
        let backing_off = actions.backing_off.iter().map(|(name, delay)| {
            let delay = crate::backoff::go_duration(*delay);
            let message = format!("back-off {delay} restarting failed container={name} pod={}", desired.kubelet_name());
            (name.clone(), Waiting { reason: "CrashLoopBackOff", message })
        });
        map_of(failed.chain(backing_off))
    }

    /// Tells of each crash loop; and when to tell of it again.
    fn announce_back_offs(
        &mut self,
        desired: &DesiredPod,
        observed: &PodObservation,
        actions: &PodActions,
        now: BootTime,
    ) -> Option<BootTime> {
        self.announced_back_offs.retain(|name, _| actions.backing_off.contains_key(name));
        for name in actions.backing_off.keys() {
            let crash = observed.next_attempt(name);
            let told = self.announced_back_offs.get(name).filter(|(told, _)| *told == crash);
            if told.is_some_and(|(_, at)| now < at.after(BACK_OFF_TOLD_EVERY)) {
                continue;
            }
            self.announced_back_offs.insert(name.clone(), (crash, now));
            self.shared.events.warning(
                EventSubject::container(desired, name),
                "BackOff",
                format!("Back-off restarting failed container {name} in pod {}", desired.kubelet_name()),
            );
        }
        self.announced_back_offs.values().map(|(_, at)| at.after(BACK_OFF_TOLD_EVERY)).min()
    }

    /// Removes what newer runs and sandboxes replaced; whether it did. Nobody waits for it: what fails is tried again then.
    pub(crate) async fn discard(&mut self, actions: &PodActions) -> Result<(bool, Option<BootTime>), PassError> {
        let (mut discarded, mut retry_at) = (false, None);
        for run in &actions.discard {
            if let Err(error) = self.shared.runtime.remove_container(&run.id).await {
                tracing::warn!(container_id = %run.id, error = %chain(&error), "an old run is not removed");
                retry_at = Some(self.shared.clock.boot().after(FAILED_PASS));
                continue;
            }
            discarded = true;
            self.termination_messages.remove(&run.id);
            let directory = self.paths.logs.join(run.name.as_str());
            let attempt = run.attempt;
            on_disk(move || crate::logs::files::remove_older_runs(&directory, attempt))
                .await?
                .map_err(|source| PassError::Files { step: "remove old logs", source })?;
        }
        for sandbox in &actions.discard_sandboxes {
            match self.shared.runtime.remove_pod_sandbox(sandbox).await {
                Ok(()) => discarded = true,
                Err(error) => {
                    tracing::warn!(sandbox_id = %sandbox, error = %chain(&error), "an old sandbox is not removed");
                    retry_at = Some(self.shared.clock.boot().after(FAILED_PASS));
                }
            }
        }
        Ok((discarded, retry_at))
    }

    /// Makes the record durable before anything of the pod exists on this machine, and after each change of it.
    pub(crate) async fn save_record(&mut self, change: impl FnOnce(&mut PodRecord)) -> Result<(), PassError> {
        let mut record = self.record.clone().unwrap_or_else(|| PodRecord::new(self.pod.clone()));
        change(&mut record);
        if self.record.as_ref() != Some(&record) {
            record.save(&self.shared.store, &self.uid).await?;
            self.record = Some(record);
        }
        Ok(())
    }

    /// Notes what the volumes hold in this sandbox.
    pub(crate) fn note_written(&mut self, sandbox: &SandboxId, planned: &[PlannedVolume]) {
        self.written_volumes = Some((sandbox.clone(), self.shared.fingerprints.hash_one(planned)));
    }

    /// Whether the volumes hold this already.
    pub(crate) fn is_written(&self, sandbox: &SandboxId, planned: &[PlannedVolume]) -> bool {
        let written = self.written_volumes.as_ref().filter(|(id, _)| id == sandbox);
        written.is_some_and(|(_, written)| *written == self.shared.fingerprints.hash_one(planned))
    }

    /// The runs that the runtime still knows.
    pub(crate) fn known_runs(observed: &PodObservation) -> BTreeSet<ContainerId> {
        set_of(observed.containers.iter().map(|run| run.id.clone()))
    }
}
