//! What the runtime knows in memory: sandboxes and containers, behind one short lock.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, Shared, join_all};
use infra::protocol::End;
use spec::{ContainerId, PodUid, SandboxId, VolumeName};
use store::StoreError;
use tokio::sync::{broadcast, oneshot, watch};

use super::cgroups::{Placement, ShownTrees};
use super::connection::Connection;
use super::records::{ContainerRecord, SandboxRecord};
use super::user_ids::PodIds;
use crate::error::RuntimeError;
use crate::status::{ContainerState, ContainerStatus, LostOutput, PodSandboxState, PodSandboxStatus, RuntimeEvent};

/// Events that wait at most; who is slower looks at everything. Their room is there from the beginning.
const EVENTS: usize = 1024;

/// Sandboxes and containers; all that is behind the lock is quick.
#[derive(Debug)]
pub(super) struct State {
    inner: Mutex<Inner>,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Boxed, as the containers: a table that grows has twice the room.
    pub(super) sandboxes: HashMap<SandboxId, Box<Sandbox>>,
    pub(super) containers: HashMap<ContainerId, Box<Container>>,
    /// By Pod and by sandbox, so that a look at one Pod takes no longer beside many others.
    sandboxes_of: HashMap<PodUid, Vec<SandboxId>>,
    containers_of: HashMap<SandboxId, Vec<ContainerId>>,
    /// Processes started by exec, by their id.
    pub(super) execs: HashMap<String, (SandboxId, oneshot::Sender<End>)>,
    /// Containers whose rotated logs are about to be packed.
    pub(super) packing: HashSet<ContainerId>,
}

#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) record: SandboxRecord,
    pub(super) state: PodSandboxState,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) connection: Option<Arc<Connection>>,
    /// A pidfd of its infra process.
    pub(super) infra: Option<Arc<OwnedFd>>,
    /// Its user namespace, if it has one of its own.
    pub(super) user_namespace: Option<Arc<OwnedFd>>,
    /// The machine's lock on its ids, until infra holds it.
    pub(super) id_lock: Option<OwnedFd>,
    /// Version of the protocol that its infra process speaks.
    pub(super) infra_version: u32,
    /// The write of its record, where nobody has waited for it: what starts in it does.
    pub(super) recording: Option<Recording>,
    /// All that it held is given back but its record.
    pub(super) released: bool,
}

/// A record on its way to the disk.
pub(super) type Recording = Shared<BoxFuture<'static, Result<(), StoreError>>>;

#[derive(Debug)]
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    /// Watched by those who wait for its end.
    pub(super) state: watch::Sender<ContainerState>,
    /// What was made for its start, between create and start.
    pub(super) prepared: Option<Prepared>,
    /// A stop was begun: the signal is sent once.
    pub(super) stopping: bool,
    /// The write of its end, until that is stored.
    pub(super) storing_end: Option<Recording>,
}

/// What a container's start needs of the kernel.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its root file system.
    pub(super) rootfs: OwnedFd,
    /// The directory of its log.
    pub(super) logs: OwnedFd,
    /// Its cgroup, limited.
    pub(super) placement: Placement,
    /// What it is shown of cgroups.
    pub(super) shown: ShownTrees,
    /// The write of its record.
    pub(super) recording: Recording,
}

impl Inner {
    pub(super) fn add_sandbox(&mut self, id: SandboxId, sandbox: Sandbox) {
        self.sandboxes_of.entry(sandbox.record.config.uid.clone()).or_default().push(id.clone());
        self.sandboxes.insert(id, Box::new(sandbox));
    }

    /// Gives it another record, which may be of another Pod.
    pub(super) fn set_sandbox_record(&mut self, id: &SandboxId, record: SandboxRecord) -> Option<&mut Sandbox> {
        let sandbox = self.sandboxes.get_mut(id)?;
        remove_from(&mut self.sandboxes_of, &sandbox.record.config.uid, id);
        self.sandboxes_of.entry(record.config.uid.clone()).or_default().push(id.clone());
        sandbox.record = record;
        Some(sandbox)
    }

    pub(super) fn remove_sandbox(&mut self, id: &SandboxId) {
        if let Some(sandbox) = self.sandboxes.remove(id) {
            remove_from(&mut self.sandboxes_of, &sandbox.record.config.uid, id);
        }
    }

    pub(super) fn sandboxes_of(&self, pod: &PodUid) -> impl Iterator<Item = (&SandboxId, &Sandbox)> {
        let ids = self.sandboxes_of.get(pod).into_iter().flatten();
        ids.filter_map(|id| Some((id, &**self.sandboxes.get(id)?)))
    }

    pub(super) fn add_container(&mut self, id: ContainerId, container: Container) {
        self.containers_of.entry(container.record.sandbox.clone()).or_default().push(id.clone());
        self.containers.insert(id, Box::new(container));
    }

    pub(super) fn remove_container(&mut self, id: &ContainerId) {
        if let Some(container) = self.containers.remove(id) {
            remove_from(&mut self.containers_of, &container.record.sandbox, id);
        }
    }

    pub(super) fn containers_of(&self, sandbox: &SandboxId) -> &[ContainerId] {
        self.containers_of.get(sandbox).map_or(&[], Vec::as_slice)
    }
}

/// Takes one out of a list; without any the list goes, too.
fn remove_from<K: Eq + std::hash::Hash, V: PartialEq>(lists: &mut HashMap<K, Vec<V>>, of: &K, value: &V) {
    if let Some(list) = lists.get_mut(of) {
        list.retain(|listed| listed != value);
        if list.is_empty() {
            lists.remove(of);
        }
    }
}

impl Container {
    pub(super) fn new(record: ContainerRecord, state: ContainerState, prepared: Option<Prepared>) -> Self {
        Self { record, state: watch::Sender::new(state), prepared, stopping: false, storing_end: None }
    }
}

/// What a request to a container needs.
#[derive(Debug)]
pub(super) struct RunningContainer {
    pub(super) record: ContainerRecord,
    pub(super) sandbox: SandboxRecord,
    pub(super) connection: Arc<Connection>,
}

impl State {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner::default()), events: broadcast::Sender::new(EVENTS) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    /// Says that something of a Pod changed.
    pub(super) fn announce(&self, pod_uid: &PodUid) {
        // Without a receiver nobody has to know.
        drop(self.events.send(RuntimeEvent { pod_uid: pod_uid.clone(), lost_output: None }));
    }

    /// Says that output of a container is lost.
    pub(super) fn announce_lost_output(&self, id: &ContainerId, bytes: u64, why: String) -> Result<(), RuntimeError> {
        let record = self.container_record(id)?;
        let sandbox = self.sandbox_record(&record.sandbox)?.config;
        let lost = LostOutput { pod: sandbox.pod, container: record.config.name, bytes, why };
        // Without a receiver nobody has to know.
        drop(self.events.send(RuntimeEvent { pod_uid: sandbox.uid, lost_output: Some(Box::new(lost)) }));
        Ok(())
    }

    pub(super) fn sandbox_record(&self, id: &SandboxId) -> Result<SandboxRecord, RuntimeError> {
        self.lock().sandboxes.get(id).map(|s| s.record.clone()).ok_or_else(|| RuntimeError::NoSuchSandbox(id.clone()))
    }

    pub(super) fn container_record(&self, id: &ContainerId) -> Result<ContainerRecord, RuntimeError> {
        let inner = self.lock();
        inner.containers.get(id).map(|c| c.record.clone()).ok_or_else(|| RuntimeError::NoSuchContainer(id.clone()))
    }

    /// The connection of a living sandbox.
    pub(super) fn connection(&self, id: &SandboxId) -> Result<Arc<Connection>, RuntimeError> {
        let inner = self.lock();
        let sandbox = inner.sandboxes.get(id).ok_or_else(|| RuntimeError::NoSuchSandbox(id.clone()))?;
        sandbox
            .connection
            .clone()
            .ok_or_else(|| RuntimeError::SandboxNotReady { pod: sandbox.record.config.pod.clone() })
    }

    /// Which version of the protocol its infra process speaks; none when there is no such sandbox.
    pub(super) fn infra_version(&self, id: &SandboxId) -> u32 {
        self.lock().sandboxes.get(id).map_or(0, |sandbox| sandbox.infra_version)
    }

    /// The ids of a living sandbox with a user namespace of its own.
    pub(super) fn pod_ids(&self, id: &SandboxId) -> Result<Option<PodIds>, RuntimeError> {
        let inner = self.lock();
        let sandbox = inner.sandboxes.get(id).ok_or_else(|| RuntimeError::NoSuchSandbox(id.clone()))?;
        match (sandbox.record.ids, &sandbox.user_namespace) {
            (None, _) => Ok(None),
            (Some(block), Some(namespace)) => {
                Ok(Some(PodIds { user_namespace: Arc::clone(namespace), first_id: block.first_id() }))
            }
            (Some(_), None) => Err(RuntimeError::SandboxNotReady { pod: sandbox.record.config.pod.clone() }),
        }
    }

    /// A container that runs, with what it takes to reach it.
    pub(super) fn running(&self, id: &ContainerId) -> Result<RunningContainer, RuntimeError> {
        let (record, running) = {
            let inner = self.lock();
            let container = inner.containers.get(id).ok_or_else(|| RuntimeError::NoSuchContainer(id.clone()))?;
            let running = matches!(*container.state.borrow(), ContainerState::Running { .. });
            (container.record.clone(), running)
        };
        if !running {
            return Err(RuntimeError::NotRunning { name: record.config.name });
        }
        let connection = self.connection(&record.sandbox)?;
        let sandbox = self.sandbox_record(&record.sandbox)?;
        Ok(RunningContainer { record, sandbox, connection })
    }

    pub(super) fn set_container_state(&self, id: &ContainerId, state: ContainerState) {
        if let Some(container) = self.lock().containers.get(id) {
            container.state.send_replace(state);
        }
    }

    pub(super) fn watch_container(&self, id: &ContainerId) -> Option<watch::Receiver<ContainerState>> {
        self.lock().containers.get(id).map(|container| container.state.subscribe())
    }

    pub(super) fn containers_of(&self, sandbox: &SandboxId) -> Vec<ContainerId> {
        self.lock().containers_of(sandbox).to_vec()
    }

    /// Waits until the ends of a sandbox's containers that are told are stored, or cannot be.
    pub(super) async fn ends_stored(&self, sandbox: &SandboxId) {
        let storing: Vec<_> = {
            let inner = self.lock();
            let ids = inner.containers_of(sandbox).iter();
            ids.filter_map(|id| inner.containers.get(id)?.storing_end.clone()).collect()
        };
        // Whoever writes them tells of a failure.
        drop(join_all(storing).await);
    }

    pub(super) fn list_sandboxes(&self) -> Vec<PodSandboxStatus> {
        let inner = self.lock();
        let of_pods = inner.sandboxes.iter().filter(|(_, sandbox)| !sandbox.record.spare);
        of_pods.map(|(id, sandbox)| sandbox.status(id)).collect()
    }

    pub(super) fn list_containers(&self) -> Vec<ContainerStatus> {
        let inner = self.lock();
        let found = inner
            .containers
            .iter()
            .filter_map(|(id, container)| Some(container.status(id, inner.sandboxes.get(&container.record.sandbox)?)));
        found.collect()
    }

    /// What belongs to one Pod.
    pub(super) fn list_pod(&self, uid: &PodUid) -> (Vec<PodSandboxStatus>, Vec<ContainerStatus>) {
        let inner = self.lock();
        let containers = inner.sandboxes_of(uid).flat_map(|(id, sandbox)| {
            let ids = inner.containers_of(id).iter();
            ids.filter_map(|id| Some(inner.containers.get(id)?.status(id, sandbox)))
        });
        let containers = containers.collect();
        (inner.sandboxes_of(uid).map(|(id, sandbox)| sandbox.status(id)).collect(), containers)
    }
}

impl Sandbox {
    pub(super) fn status(&self, id: &SandboxId) -> PodSandboxStatus {
        PodSandboxStatus {
            id: id.clone(),
            pod: self.record.config.pod.clone(),
            uid: self.record.config.uid.clone(),
            attempt: self.record.config.attempt,
            state: self.state,
            addresses: self.addresses.clone(),
            created_at: self.record.created_at,
            resources: self.record.config.resources.clone(),
            labels: self.record.config.labels.clone(),
        }
    }
}

impl Container {
    fn status(&self, id: &ContainerId, sandbox: &Sandbox) -> ContainerStatus {
        let record = &self.record;
        ContainerStatus {
            id: id.clone(),
            sandbox_id: record.sandbox.clone(),
            pod_uid: sandbox.record.config.uid.clone(),
            name: record.config.name.clone(),
            attempt: record.config.attempt,
            image_ref: record.config.image_ref.clone(),
            image_id: record.config.image_id.clone(),
            labels: record.config.labels.clone(),
            created_at: record.created_at,
            log_path: sandbox.record.config.log_directory.join(super::log_file(&record.config)),
            resources: record.config.resources.clone(),
            user: Some(record.user.clone()),
            stop_signal: sys::signal::name(record.stop_signal()),
            state: self.state.borrow().clone(),
        }
    }
}

/// For messages about a tmpfs that a sandbox does not have.
pub(super) fn no_such_tmpfs(volume: &VolumeName) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, format!("the sandbox has no memory volume {volume:?}"))
}
