//! Sandboxes made ahead: a Pod that asks for a usual one gets it without waiting for a process, namespaces and a network. The
//! root file systems that are mounted ahead (`rootfs_ahead.rs`) and directories for logs (`log_directories.rs`) come and go with
//! them.
//!
//! A spare sandbox has a record like any other, with a mark that it is nobody's. So a daemon that starts anew takes the
//! living ones over and removes the rest, and `monopod reset` finds them. Whoever ends in order leaves none.
//!
//! There are as many as lately were wanted at once: more after a Pod that found none, few again after a quiet minute. They
//! are made after the starts that ask for them, never beside; and none while the machine is short of memory.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use infra::protocol::{AssignPlan, PreparePlan, Request, VERSION};
use network::PortMapping;
use spec::{PodRef, PodUid, SandboxId, Timestamp};
use steps::{Within as _, step};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::cgroups::{Cgroups, RemoveCgroupError};
use super::cgroups_ahead::{Ahead, CgroupsAhead};
use super::connection::{Asked, Connection, RequestError};
use super::records::{SANDBOXES, SandboxRecord};
use super::rootfs_ahead::RootfsAhead;
use super::sandbox::{self, run_error};
use super::state::Recording;
use super::{Kernel, PROMPT, borrow_all};
use crate::config::{LinuxResources, NetworkMode, PodNamespaces, PodSandboxConfig, QosClass};
use crate::error::RuntimeError;
use crate::status::{PodSandboxState, PodSandboxStatus};
use crate::verbs::SandboxRest;

/// How many are kept when nobody asks, and at most.
const LEAST: usize = 2;
const MOST: usize = 16;
/// The next ones are made so long after a Pod has taken one: its start is over by then.
const AFTER_A_START: Duration = Duration::from_millis(25);
/// After this time without a Pod there are [`LEAST`] again.
const QUIET: Duration = Duration::from_mins(1);
/// Bytes of `/dev/shm` that a spare one has, Kubernetes' value.
const SHM_SIZE: u64 = 64 << 20;
/// None is made while less of the machine's memory is available: one part in so many.
const MEMORY_PART: u64 = 16;

/// The spare sandboxes of a runtime.
#[derive(Debug, Default)]
pub(super) struct Spares {
    inner: Mutex<Inner>,
    /// Somebody took one, or all are to go.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    ready: VecDeque<SandboxId>,
    /// How many there are to be; 0 while nobody keeps any.
    wanted: usize,
    /// When the last Pod asked.
    asked: Option<Instant>,
    keeper: Option<JoinHandle<()>>,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is ready now: `wanted` if it is, else rather none of the `promised`. Who finds none raises the number for those who come
    /// after.
    fn take(&self, wanted: Option<&SandboxId>, promised: &[SandboxId]) -> Option<SandboxId> {
        let mut inner = self.lock();
        if inner.wanted == 0 {
            return None;
        }
        inner.asked = Some(Instant::now());
        let place = inner.ready.iter().position(|id| Some(id) == wanted);
        let place = place.or_else(|| inner.ready.iter().position(|id| !promised.contains(id)));
        let found = inner.ready.remove(place.unwrap_or_default());
        if found.is_none() {
            inner.wanted = (inner.wanted * 2).min(MOST);
        }
        self.changed.notify_one();
        found
    }

    /// One more, made or found.
    pub(super) fn add(&self, id: SandboxId) {
        self.lock().ready.push_back(id);
    }

    /// One that is ready and none of these.
    fn beside(&self, others: &[SandboxId]) -> Option<SandboxId> {
        self.lock().ready.iter().find(|id| !others.contains(id)).cloned()
    }

    fn has(&self, id: &SandboxId) -> bool {
        self.lock().ready.contains(id)
    }

    /// Those that are more than wanted, once it was quiet.
    fn surplus(&self, now: Instant) -> Vec<SandboxId> {
        let mut inner = self.lock();
        if inner.asked.is_some_and(|asked| now.duration_since(asked) >= QUIET) {
            inner.wanted = inner.wanted.min(LEAST);
            inner.asked = None;
        }
        let kept = inner.wanted.min(inner.ready.len());
        inner.ready.split_off(kept).into()
    }

    /// When [`Self::surplus`] is worth a look.
    fn quiet_at(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.asked.filter(|_| inner.wanted > LEAST).map(|asked| asked + QUIET)
    }

    fn is_short(&self) -> bool {
        let inner = self.lock();
        inner.ready.len() < inner.wanted
    }

    fn is_over(&self) -> bool {
        self.lock().wanted == 0
    }

    /// Somebody has taken something else that is made ahead.
    fn taken(&self) {
        self.changed.notify_one();
    }
}

impl Kernel {
    /// Keeps sandboxes ready from now on.
    pub(super) fn keep_spares(self: &Arc<Self>) {
        let mut inner = self.spares.lock();
        inner.wanted = LEAST;
        let (changed, kernel) = (Arc::clone(&self.spares.changed), Arc::downgrade(self));
        inner.keeper = Some(tokio::spawn(keep(changed, kernel)));
    }

    /// Keeps control groups ready from now on, too, for who asks for their UIDs.
    pub(super) fn keep_cgroups_ahead(&self) {
        self.cgroups_ahead.begin();
        self.spares.taken();
    }

    /// Keeps none any more; back when all are gone, with their links and addresses.
    pub(super) async fn end_spares(self: &Arc<Self>) {
        let keeper = {
            let mut inner = self.spares.lock();
            inner.wanted = 0;
            inner.keeper.take()
        };
        let Some(keeper) = keeper else { return };
        self.spares.changed.notify_one();
        if let Err(error) = keeper.await {
            tracing::error!(%error, "the making of spare sandboxes was lost");
        }
        let left = std::mem::take(&mut self.spares.lock().ready);
        futures::future::join_all(left.iter().map(|id| self.remove_spare(id))).await;
        let (ahead, logs) = (Arc::clone(&self.rootfs_ahead), Arc::clone(&self.logs_ahead));
        let cleared = tokio::task::spawn_blocking(move || {
            logs.clear();
            ahead.clear()
        });
        let cleared = cleared.await;
        if let Ok(Err(error)) = cleared {
            tracing::warn!(error = &error as &dyn std::error::Error, "not all that was mounted ahead is removed");
        }
        self.on_cgroups_ahead(CgroupsAhead::end).await;
        // Records of what is gone wait for the next write, and there is none any more.
        if let Err(error) = self.store.flush().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "records of spare sandboxes stay until the next start"
            );
        }
    }

    /// The root file systems mounted ahead, while anything is made ahead; more are made after that.
    pub(super) fn rootfs_ahead(&self) -> Option<Arc<RootfsAhead>> {
        if self.spares.is_over() {
            return None;
        }
        self.spares.taken();
        Some(Arc::clone(&self.rootfs_ahead))
    }

    /// The UID of a Pod of this class whose cgroup is there, while anything is made ahead; more are made after that.
    pub(super) fn prepared_uid(&self, class: QosClass) -> Option<PodUid> {
        if self.spares.is_over() {
            return None;
        }
        self.spares.taken();
        self.cgroups_ahead.promise(class)
    }

    /// What cannot be made is made by the Pod's start, and what cannot be removed goes at the daemon's.
    async fn on_cgroups_ahead(self: &Arc<Self>, work: fn(&CgroupsAhead, &Cgroups) -> Result<(), RemoveCgroupError>) {
        let kernel = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&kernel.cgroups_ahead, &kernel.cgroups)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(error = &error as &dyn std::error::Error, "a control group is not made ahead, or stays");
        }
    }

    async fn remove_spare(&self, id: &SandboxId) {
        self.cgroups_ahead.forget_process(id);
        if let Err(error) = self.network.detach_and_wait(id).await {
            tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "the network of a spare sandbox stays");
        }
        if let Err(error) = self.remove_sandbox(id).await {
            tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "a spare sandbox is not all removed");
        }
    }

    async fn make_spare(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let status = Arc::clone(self).make_recorded(spare_record()).await?;
        self.spares.add(status.id);
        Ok(())
    }

    /// Has spare sandboxes clone the first processes of containers that are still to come, into control groups that are there.
    async fn prepare_processes(&self) -> Result<(), PrepareError> {
        while let Some(id) = self.spares.beside(&self.cgroups_ahead.sandboxes())
            && memory_suffices()
            && let Some(mut ahead) = self.cgroups_ahead.take_unprepared()
        {
            let prepared = self.prepare_process(&id, &mut ahead).await;
            // It may be a Pod's by now, and was told then that it is to keep none.
            ahead.process_in = Some(id).filter(|id| prepared.is_ok() && self.spares.has(id));
            let is_prepared = ahead.process_in.is_some();
            self.cgroups_ahead.put_back(ahead);
            prepared?;
            if !is_prepared {
                break;
            }
        }
        Ok(())
    }

    async fn prepare_process(&self, id: &SandboxId, ahead: &mut Ahead) -> Result<(), PrepareError> {
        let connection = self.state.connection(id)?;
        let mut shown = std::mem::take(&mut ahead.container.shown);
        if shown.is_empty() {
            shown = self.cgroups.shown_to(&ahead.container_path());
        }
        let placement = &ahead.container.placement;
        let plan = PreparePlan {
            id: ahead.container.id.as_str().to_owned(),
            cgroup_v2: placement.v2.is_some(),
            cgroup_v1: u32::try_from(placement.v1_tasks.len()).unwrap_or(u32::MAX),
            cgroup_trees: shown.iter().map(|(name, _)| name.clone()).collect(),
        };
        let trees = shown.iter().map(|(_, tree)| tree.as_fd());
        let descriptors: Vec<_> =
            placement.v2.iter().map(|v2| v2.as_fd()).chain(borrow_all(&placement.v1_tasks)).chain(trees).collect();
        connection.request(&Request::Prepare(plan), &descriptors, PROMPT).await?;
        Ok(())
    }

    /// Ends the process that waits for a container of this Pod, which gets another sandbox than that one's.
    async fn discard_process(&self, uid: &PodUid) {
        let Some(sandbox) = self.cgroups_ahead.sandbox_of(uid) else { return };
        if let Ok(connection) = self.state.connection(&sandbox)
            && let Err(error) = connection.request(&Request::Discard, &[], PROMPT).await
        {
            // Where infra is gone, so is its child.
            tracing::warn!(%sandbox, error = &error as &dyn std::error::Error, "a process made ahead may stay in the cgroup of {uid}");
        }
        self.cgroups_ahead.forget_process(&sandbox);
        self.spares.taken();
    }

    /// A spare sandbox for this Pod, if one is ready and fits; what is wrong with it is seen by the next pass of its maker.
    pub(super) async fn take_spare(
        self: &Arc<Self>,
        config: &PodSandboxConfig,
    ) -> Option<(PodSandboxStatus, SandboxRest)> {
        if !is_usual(config) {
            self.discard_process(&config.uid).await;
            return None;
        }
        let prepared = self.cgroups_ahead.sandbox_of(&config.uid);
        let id = self.spares.take(prepared.as_ref(), &self.cgroups_ahead.sandboxes())?;
        if prepared.as_ref() != Some(&id) {
            // What waits in it is for another Pod, and ends.
            self.cgroups_ahead.forget_process(&id);
        }
        match self.assign(&id, config).await {
            Ok(taken) => Some(taken),
            Err(error) => {
                tracing::debug!(sandbox = %id, error = &error as &dyn std::error::Error, "a spare sandbox does not serve");
                self.remove_spare(&id).await;
                None
            }
        }
    }

    /// Makes a spare sandbox a Pod's. What is done to the machine is done while the record is on its way to the disk, and only
    /// the start of a container waits for that: a daemon that dies meanwhile leaves a sandbox without a container, which its
    /// infra process says is no spare one, and a cgroup that no record names.
    async fn assign(
        self: &Arc<Self>,
        id: &SandboxId,
        config: &PodSandboxConfig,
    ) -> Result<(PodSandboxStatus, SandboxRest), RuntimeError> {
        let connection = self.state.connection(id)?;
        let record = SandboxRecord {
            config: config.clone(),
            created_at: Timestamp::now(),
            stopped: false,
            ids: None,
            spare: false,
        };
        // That of its first container follows, or there is none that waits.
        let recording: Recording = self.store.put_record_with_next(SANDBOXES, id.as_str(), &record).boxed().shared();
        if let Some(sandbox) = self.state.lock().set_sandbox_record(id, record) {
            sandbox.recording = Some(recording);
        }
        let status = {
            let inner = self.state.lock();
            let sandbox = inner.sandboxes.get(id).filter(|sandbox| sandbox.state == PodSandboxState::Ready);
            sandbox.map(|sandbox| sandbox.status(id))
        };
        let status = status.ok_or_else(|| RuntimeError::SandboxNotReady { pod: config.pod.clone() })?;
        let plan = AssignPlan {
            name: config.pod.to_string(),
            hostname: config.hostname.clone(),
            tmpfs: sandbox::tmpfs_plans(config),
            more: !config.ports.is_empty(),
            prepared: self.cgroups_ahead.sandbox_of(&config.uid).as_ref() == Some(id),
        };
        // Now, not when the caller has done what it has to do: so one that is dead is found out, too.
        let asked = connection.ask(&Request::Assign(plan), &[], PROMPT).await;
        let asked = asked.map_err(|e| run_error(config, "make its namespaces", e))?;
        let (kernel, id, config) = (Arc::clone(self), id.clone(), config.clone());
        let rest = async move {
            let made = kernel.make_it_a_pods(&id, &config, &connection, asked).await;
            if made.is_err()
                && let Some(sandbox) = kernel.state.lock().sandboxes.get_mut(&id)
            {
                // Nothing starts in it even where it cannot be removed now, and what was made meanwhile goes with it, also
                // where infra has ended and all else was given back.
                (sandbox.state, sandbox.released) = (PodSandboxState::NotReady, false);
            }
            kernel.state.announce(&config.uid);
            made
        };
        Ok((status, rest.within(step!("make a spare sandbox the pod's")).boxed()))
    }

    async fn make_it_a_pods(
        self: &Arc<Self>,
        id: &SandboxId,
        config: &PodSandboxConfig,
        connection: &Connection,
        asked: Asked,
    ) -> Result<(), RuntimeError> {
        let assigned = connection.answer(asked);
        let placing = self.place_pod(config).within(step!("make the pod's cgroup"));
        let (assigned, placed) = tokio::join!(assigned.within(step!("tell infra")), placing);
        placed?;
        assigned.map_err(|e| run_error(config, "make its namespaces", e))?;
        if config.ports.is_empty() {
            return Ok(());
        }
        let ports = network::hold_ports(&config.ports).map_err(|e| run_error(config, "publish its ports", e))?;
        let held = ports.into_iter().collect();
        sandbox::hand_over(connection, held).await.map_err(|e| run_error(config, "hold its ports", e))?;
        self.publish(id, config.ports.clone()).await.map_err(|e| run_error(config, "publish its ports", e))?;
        let whole = connection.request(&Request::MarkReady, &[], PROMPT).await;
        whole.map(drop).map_err(|e| run_error(config, "finish its sandbox", e))
    }

    /// Makes the Pod's cgroup, on another thread unless it was made ahead: then only its limits are missing.
    async fn place_pod(self: &Arc<Self>, config: &PodSandboxConfig) -> Result<(), RuntimeError> {
        if self.cgroups_ahead.has(&config.uid) {
            return self.make_pod_cgroup(config);
        }
        let (kernel, placed) = (Arc::clone(self), config.clone());
        let placing = tokio::task::spawn_blocking(move || kernel.make_pod_cgroup(&placed));
        placing.await.unwrap_or_else(|lost| Err(run_error(config, "make its control group", io::Error::other(lost))))
    }

    /// Leads ports of the machine to a sandbox that has its network.
    async fn publish(&self, id: &SandboxId, ports: Vec<PortMapping>) -> Result<(), PublishSpareError> {
        let connection = self.state.connection(id)?;
        let (_, descriptors) = connection.request(&Request::Hello { version: VERSION }, &[], PROMPT).await?;
        let mut descriptors = descriptors.into_iter().skip(1);
        let (Some(netns), Some(route)) = (descriptors.next(), descriptors.next()) else {
            return Err(PublishSpareError::NoNamespace);
        };
        self.network.attach(id, netns, route, ports).await?;
        Ok(())
    }
}

/// Why a spare sandbox could not be given its Pod's ports.
#[derive(Debug, thiserror::Error)]
enum PublishSpareError {
    #[error(transparent)]
    Gone(#[from] RuntimeError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the pod's infra process gave no network namespace")]
    NoNamespace,
    #[error(transparent)]
    Attach(#[from] network::AttachError),
}

/// Why no process could be made ahead.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error(transparent)]
    Gone(#[from] RuntimeError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Makes spare sandboxes as they are wanted, for as long as the runtime lives.
async fn keep(changed: Arc<Notify>, kernel: Weak<Kernel>) {
    loop {
        let quiet_at = {
            let Some(kernel) = kernel.upgrade() else { return };
            let surplus = kernel.spares.surplus(Instant::now());
            futures::future::join_all(surplus.iter().map(|id| kernel.remove_spare(id))).await;
            fill(&kernel).await;
            if kernel.spares.is_over() {
                return;
            }
            [kernel.spares.quiet_at(), kernel.cgroups_ahead.stale_at()].into_iter().flatten().min()
        };
        let quiet = async {
            match quiet_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = quiet => {}
        }
        if kernel.upgrade().is_some_and(|kernel| !kernel.spares.is_over()) {
            tokio::time::sleep(AFTER_A_START).await;
        }
    }
}

async fn fill(kernel: &Arc<Kernel>) {
    if kernel.cgroups_ahead.stale_at().is_some_and(|at| at <= Instant::now()) {
        kernel.on_cgroups_ahead(CgroupsAhead::remove_stale).await;
    }
    if kernel.cgroups_ahead.is_short() && memory_suffices() {
        kernel.on_cgroups_ahead(CgroupsAhead::fill).await;
    }
    while kernel.spares.is_short() && memory_suffices() {
        if let Err(error) = kernel.make_spare().await {
            // The next Pod makes its own and says what is wrong.
            tracing::debug!(error = &error as &dyn std::error::Error, "no spare sandbox could be made");
            return;
        }
    }
    if let Err(error) = kernel.prepare_processes().await {
        // The next container has its own made and hears what is wrong.
        tracing::debug!(error = &error as &dyn std::error::Error, "no process could be made ahead");
    }
    if kernel.logs_ahead.is_short() {
        let ahead = Arc::clone(&kernel.logs_ahead);
        let filled = tokio::task::spawn_blocking(move || ahead.fill()).await;
        if let Ok(Err(error)) = filled {
            // The next container makes its own and says what is wrong.
            tracing::debug!(%error, "no directory for logs could be made ahead");
        }
    }
    if kernel.rootfs_ahead.is_short() && memory_suffices() {
        let ahead = Arc::clone(&kernel.rootfs_ahead);
        let filled = tokio::task::spawn_blocking(move || ahead.fill()).await;
        if let Ok(Err(error)) = filled {
            // The next container mounts its own and says what is wrong.
            tracing::debug!(%error, "no root file system could be mounted ahead");
        }
    }
}

/// proc_meminfo(5).
fn memory_suffices() -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return false };
    let field = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    matches!((field("MemAvailable:"), field("MemTotal:")), (Some(free), Some(all)) if free > all / MEMORY_PART)
}

/// Whether what the Pod wants can be given to a sandbox that was made before.
fn is_usual(config: &PodSandboxConfig) -> bool {
    let PodSandboxConfig { network, namespaces, shm_size, .. } = config;
    *network == NetworkMode::Pod && *namespaces == PodNamespaces::default() && *shm_size == SHM_SIZE
}

fn spare_record() -> SandboxRecord {
    let config = PodSandboxConfig {
        pod: PodRef::new("monopod", "spare"),
        // Of no Pod: UIDs of objects have no such form.
        uid: PodUid::new("spare"),
        attempt: 0,
        hostname: "spare".to_owned(),
        network: NetworkMode::Pod,
        qos: QosClass::BestEffort,
        resources: LinuxResources::default(),
        log_directory: std::path::PathBuf::new(),
        tmpfs: Vec::new(),
        shm_size: SHM_SIZE,
        ports: Vec::new(),
        namespaces: PodNamespaces::default(),
        cgroup: None,
        labels: BTreeMap::new(),
    };
    SandboxRecord { config, created_at: Timestamp::now(), stopped: false, ids: None, spare: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> SandboxId {
        SandboxId::new(format!("{number:032x}"))
    }

    #[test]
    fn their_number_follows_demand() {
        let spares = Spares::default();
        assert_eq!(spares.take(None, &[]), None, "nobody keeps any");
        assert!(!spares.is_short());
        spares.lock().wanted = LEAST;
        for number in 0..LEAST {
            spares.add(id(number));
        }
        assert_eq!(spares.take(None, &[]), Some(id(0)), "the oldest first: addresses follow each other");
        assert!(spares.is_short());
        assert_eq!(spares.take(None, &[]), Some(id(1)));
        for _ in 0..8 {
            assert_eq!(spares.take(None, &[]), None);
        }
        assert_eq!(spares.lock().wanted, MOST, "who finds none wants more, up to a number");
        (0..MOST).for_each(|number| spares.add(id(number)));
        assert!(!spares.is_short() && spares.surplus(Instant::now()).is_empty());
        let quiet_at = spares.quiet_at().unwrap();
        assert_eq!(spares.surplus(quiet_at).len(), MOST - LEAST, "a quiet time ends it");
        assert_eq!(spares.quiet_at(), None, "and nothing wakes up any more");
    }
}
