//! The agent: starts one worker per pod and wakes it when something of the pod has changed.

use std::collections::{BTreeMap, HashSet};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};

use image::{Credentials, ImageStore, Pull};
use runtime::{QosClass, Runtime};
use serde::Deserialize as _;
use serde_json::Value;
use spec::image_ref::InvalidImageReference;
use spec::k8s_openapi::api::core::v1::Pod;
use spec::placement::Demand;
use spec::{PodRef, PodUid, Timestamp};
use steps::step;
use store::{ObjectKey, Store, StoredObject};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admission::NodeRoom;
use crate::api_service;
use crate::clock::Clock;
use crate::config::{AgentConfig, StartAgentError};
use crate::desired::DesiredPod;
use crate::directories::{entries, make_path, remove_tree};
use crate::directories_ahead::DirectoriesAhead;
use crate::endings::Endings;
use crate::events::EventRecorder;
use crate::eviction::{Evictor, NodePressure};
use crate::expected::{ExpectedPod, ExpectedPods};
use crate::housekeeping::{self, ImageUse};
use crate::immutable::ImmutableObjects;
use crate::node::{NodeFacts, node_facts, write_default_objects};
use crate::node_lease;
use crate::node_shutdown::NodeShutdown;
use crate::node_status;
use crate::pod_tokens::PodTokens;
use crate::records::{PodPaths, PodRecord, image_holder, pods_directory};
use crate::static_pods::{any_mirror, keep_static_pods};
use crate::tokens::ServiceAccountTokens;
use crate::usage::meter::Meter;
use crate::watches;
use crate::worker::PodWorker;

/// Resource name of Pods in the store.
pub(crate) const PODS: &str = "pods";

/// Runs the Pods of the store on this machine. Dropping the last clone, or [`Agent::shutdown`], ends its tasks but no
/// container: the next agent on the same store goes on.
#[derive(Clone)]
pub struct Agent {
    pub(crate) shared: Arc<Shared>,
    _running: Arc<DropGuard>,
}

/// Why a pull did not begin.
#[derive(Debug, thiserror::Error)]
pub enum PullRefused {
    /// The name means nothing.
    #[error(transparent)]
    Reference(InvalidImageReference),
    /// The daemon knows no registry.
    #[error("there is no registry to pull from")]
    NoRegistry,
}

/// What a worker hears.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bells {
    /// It is to look at its pod.
    pub(crate) wake: Arc<Notify>,
    /// Its object has changed: it is to look unless it has seen the object as it is now.
    pub(crate) changed: Arc<Notify>,
}

/// What all workers use.
pub(crate) struct Shared {
    pub(crate) config: AgentConfig,
    pub(crate) store: Store,
    pub(crate) images: ImageStore,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: EventRecorder,
    pub(crate) node: NodeFacts,
    pub(crate) tokens: ServiceAccountTokens,
    /// New pods that the API is writing.
    pub(crate) expected: ExpectedPods,
    /// Who has and who wants how much of the node.
    pub(crate) room: NodeRoom,
    /// When this daemon began.
    pub(crate) started_at: Timestamp,
    /// What the node is short of.
    pub(crate) pressure: NodePressure,
    /// Something of the node is to be written at once.
    pub(crate) node_changed: Notify,
    /// Configuration that is not read again.
    pub(crate) immutable: ImmutableObjects,
    /// Pods that the node ends.
    pub(crate) endings: Endings,
    pub(crate) shutdown: NodeShutdown,
    pub(crate) image_use: ImageUse,
    pub(crate) directories_ahead: Arc<DirectoriesAhead>,
    /// What pods and node use of processor and memory.
    pub(crate) meter: Meter,
    /// Held by each pass, so that a test knows when all workers wait.
    #[cfg(test)]
    pub(crate) passes: Arc<()>,
    /// Woken in the same order each time.
    workers: Mutex<BTreeMap<PodUid, Bells>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// To be told when an object of a static pod is gone: its file may define the next one.
    pub(crate) static_pods: Notify,
    /// Tells contents apart that are not kept.
    pub(crate) fingerprints: RandomState,
}

impl Agent {
    /// Writes the Node and the default Namespaces, cleans up after Pods that are gone, and takes over what runs.
    pub async fn start(
        config: AgentConfig,
        store: Store,
        images: ImageStore,
        runtime: Arc<dyn Runtime>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartAgentError> {
        for (path, mode) in [(pods_directory(&config.data_dir), 0o700), (config.log_dir.clone(), 0o755)] {
            make_path(&path, mode).map_err(|source| StartAgentError::Directory { path: path.clone(), source })?;
            runtime::keep_apart(&path);
        }
        let directories_ahead = DirectoriesAhead::new(&config.data_dir);
        if let Err(error) = directories_ahead.clear() {
            tracing::warn!(%error, "directories of pods that were made ahead by an earlier daemon stay");
        }
        let tokens = ServiceAccountTokens::open(&config.data_dir.join("service-accounts.key"))?;
        let node = node_facts(&config);
        let started_at = clock.wall();
        let before = store.get(&ObjectKey::cluster("nodes", &config.node_name));
        write_default_objects(&config, &node, &store, started_at).await?;
        api_service::write(&store, &config, started_at).await.map_err(|source| StartAgentError::Object {
            resource: api_service::SERVICES,
            name: api_service::NAME.to_owned(),
            source: Box::new(source),
        })?;
        let (name, delay) = (config.node_name.clone(), config.event_delay);
        let (events, _writer) = EventRecorder::start(store.clone(), Arc::clone(&clock), name, delay);
        node_status::tell_start(&events, &store, &config.node_name, before.as_ref());
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            config,
            store,
            images,
            runtime,
            clock,
            events,
            node,
            tokens,
            expected: ExpectedPods::default(),
            fingerprints: RandomState::new(),
            room: NodeRoom::default(),
            started_at,
            pressure: NodePressure::default(),
            node_changed: Notify::new(),
            immutable: ImmutableObjects::default(),
            endings: Endings::default(),
            shutdown: NodeShutdown::default(),
            image_use: ImageUse::default(),
            directories_ahead: Arc::new(directories_ahead),
            meter: Meter::default(),
            #[cfg(test)]
            passes: Arc::default(),
            workers: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            static_pods: Notify::new(),
        });
        // Before the list, so that nothing falls between it and the watches.
        let runtime_events = shared.runtime.events();
        let present = shared.pods_on_this_machine().await?;
        shared.remove_stray_directories(&present)?;
        shared.take_over_pods(&present).await;
        let tasks = &shared.tasks;
        tasks.spawn(stop.clone().run_until_cancelled_owned(watches::watch_pods(Arc::clone(&shared))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(watches::watch_forthcoming_pods(Arc::clone(&shared))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(watches::watch_config(Arc::clone(&shared))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(api_service::keep(Arc::clone(&shared))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(watches::watch_node(Arc::clone(&shared))));
        tasks
            .spawn(stop.clone().run_until_cancelled_owned(watches::watch_runtime(Arc::clone(&shared), runtime_events)));
        tasks.spawn(stop.clone().run_until_cancelled_owned(Evictor::new(Arc::clone(&shared)).run()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(node_status::report(Arc::clone(&shared))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(housekeeping::collect_images(Arc::clone(&shared))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(housekeeping::collect_pods(Arc::clone(&shared))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(node_lease::keep_lease(Arc::clone(&shared))));
        for (uid, pod) in present {
            shared.wake_or_start(&uid, &pod);
        }
        if shared.config.static_pods.is_some() || any_mirror(&shared.store) {
            let static_pods = keep_static_pods(Arc::clone(&shared), shared.config.static_pods.clone());
            shared.tasks.spawn(stop.clone().run_until_cancelled_owned(static_pods));
        }
        Ok(Self { shared, _running: Arc::new(stop.drop_guard()) })
    }

    /// Makes directories of pods ahead from now on.
    pub fn keep_directories_ahead(&self) {
        self.shared.directories_ahead.keep();
    }

    /// The UID for a Pod that was admitted and is about to be stored, if something was made ahead for one like it. A gated Pod
    /// starts much later, and gets none.
    pub fn prepared_uid(&self, pod: &Value) -> Option<PodUid> {
        let class = QosClass::deserialize(pod.pointer("/status/qosClass")?).ok()?;
        if is_gated(pod) { None } else { self.shared.runtime.prepared_uid(class) }
    }

    /// Hands over a Pod that was admitted and is about to be stored under this UID, so that its worker need not read its object.
    /// It is kept as long as what is given is held. None for a gated Pod: it starts much later.
    pub fn expect(&self, uid: &str, pod: Box<Pod>) -> Option<ExpectedPod> {
        let is_gated = pod.spec.as_ref().is_some_and(spec::gates::is_gated);
        (!is_gated).then(|| self.shared.expected.expect(PodUid::new(uid), pod))
    }

    /// Signs the tokens of a Pod that was handed over, for whoever has nothing to do until it is stored. Its worker signs what it
    /// does not find.
    pub fn sign_tokens(&self, expected: &ExpectedPod) {
        let Shared { tokens, store, clock, .. } = &*self.shared;
        step!("sign its tokens")
            .in_scope(|| expected.sign(|bearer| PodTokens::issue(bearer, tokens, store, clock.wall())));
    }

    /// The tokens of ServiceAccounts.
    pub fn tokens(&self) -> &ServiceAccountTokens {
        &self.shared.tokens
    }

    /// The images of this machine.
    pub fn images(&self) -> &ImageStore {
        &self.shared.images
    }

    /// Begins to pull an image for a person, who may bring a user name and password. It ends with the answer.
    pub fn pull_image(&self, reference: &str, user: Option<(String, String)>) -> Result<Pull, PullRefused> {
        let parsed = reference.parse().map_err(PullRefused::Reference)?;
        let credentials = user.map(|(username, password)| Credentials::Password { username, password });
        self.shared.images.pull(&parsed, credentials.into_iter().collect()).ok_or(PullRefused::NoRegistry)
    }

    /// To be called when images were loaded: pods that wait for one look again at once.
    pub fn images_changed(&self) {
        self.shared.wake_all();
    }

    /// Waits until the events of all that has happened are written.
    pub async fn flush_events(&self) {
        self.shared.events.flush().await;
    }

    /// Ends all tasks, wherever they are; pods run on. What was begun is found and finished by the next start.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.directories_ahead.end().await;
    }

    /// The pod of that name, as it is in the store.
    pub(crate) fn pod(&self, pod: &PodRef) -> Option<DesiredPod> {
        self.shared.pod(pod)
    }
}

impl Shared {
    /// The pod of that name, as it is in the store.
    pub(crate) fn pod(&self, pod: &PodRef) -> Option<DesiredPod> {
        let stored = self.store.get(&pod_key(pod))?;
        match DesiredPod::read(&stored) {
            Ok(desired) => Some(desired),
            Err(error) => {
                tracing::error!(error = %crate::volumes::chain(&error), "a stored pod cannot be read");
                None
            }
        }
    }

    /// Where the files of a pod are.
    pub(crate) fn paths(&self, pod: &PodRef, uid: &PodUid) -> PodPaths {
        PodPaths::new(&self.config.data_dir, &self.config.log_dir, pod, uid)
    }

    /// Tells the worker of a pod that its object has changed, or starts one.
    pub(crate) fn wake_or_start(self: &Arc<Self>, uid: &PodUid, pod: &PodRef) {
        self.work(uid, pod, None);
    }

    /// Starts the worker of a pod that is about to become durable.
    pub(crate) fn start_forthcoming(self: &Arc<Self>, stored: StoredObject) {
        if let Some((uid, pod)) = identity(&stored) {
            self.work(&uid, &pod, Some(stored));
        }
    }

    fn work(self: &Arc<Self>, uid: &PodUid, pod: &PodRef, forthcoming: Option<StoredObject>) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bells) = workers.get(uid) {
            bells.changed.notify_one();
            return;
        }
        let bells = Bells::default();
        workers.insert(uid.clone(), bells.clone());
        // In one place from the beginning: a future has room for each that a value is moved through.
        let mut worker = Box::new(PodWorker::new(Arc::clone(self), uid.clone(), pod.clone(), bells));
        worker.forthcoming = forthcoming;
        let (shared, pod, uid, stop) = (Arc::clone(self), pod.clone(), uid.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            if stop.run_until_cancelled(worker.run()).await.is_some() {
                shared.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                // A static pod that came back before had nobody but the old worker to wake.
                if shared.pod(&pod).is_some_and(|desired| desired.uid == uid) {
                    shared.wake_or_start(&uid, &pod);
                }
            }
        });
    }

    /// Wakes the worker of a pod, if there is one.
    pub(crate) fn wake(&self, uid: &PodUid) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bells) = workers.get(uid) {
            bells.wake.notify_one();
        }
    }

    /// Wakes all workers.
    pub(crate) fn wake_all(&self) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.values().for_each(|bells| bells.wake.notify_one());
    }

    /// Everything that is or was a pod here: of the store, of the agent's records, of the runtime.
    async fn pods_on_this_machine(&self) -> Result<BTreeMap<PodUid, PodRef>, StartAgentError> {
        let mut pods = BTreeMap::new();
        for sandbox in self.runtime.list_pod_sandboxes().await {
            pods.insert(sandbox.uid, sandbox.pod);
        }
        for (uid, record) in PodRecord::load_all(&self.store)? {
            pods.insert(uid, record.pod);
        }
        for stored in self.store.list(PODS, None).objects {
            if let Some((uid, pod)) = identity(&stored) {
                pods.insert(uid, pod);
            }
        }
        Ok(pods)
    }

    /// Removes directories below our own `pods/` that belong to no pod any more.
    fn remove_stray_directories(&self, present: &BTreeMap<PodUid, PodRef>) -> Result<(), StartAgentError> {
        let root = pods_directory(&self.config.data_dir);
        let failed = |path| move |source| StartAgentError::Directory { path, source };
        for name in entries(&root).map_err(failed(root.clone()))? {
            if !present.contains_key(&PodUid::new(name.as_str())) {
                let path = root.join(name);
                remove_tree(&path).map_err(failed(path))?;
            }
        }
        Ok(())
    }

    /// Before anybody asks for room, pods that were let in before have theirs. Images that nobody uses are given back; those of
    /// pods that are still to be cleaned up stay held.
    async fn take_over_pods(&self, present: &BTreeMap<PodUid, PodRef>) {
        let mut live = HashSet::new();
        for stored in self.store.list(PODS, None).objects {
            if let Ok(desired) = DesiredPod::read(&stored)
                && !desired.is_terminal()
            {
                if desired.status.start_time.is_some() {
                    self.room.take(&desired.uid, Demand::of(&desired.object));
                }
                let names = desired.containers().map(|(_, container)| spec::ContainerName::new(&container.name));
                live.extend(names.map(|name| image_holder(&desired.pod, &desired.uid, &name)));
            }
        }
        for container in self.runtime.list_containers().await {
            if let Some(pod) = present.get(&container.pod_uid) {
                live.insert(image_holder(pod, &container.pod_uid, &container.name));
            }
        }
        self.images.retain_holders(&live);
    }
}

/// Where a pod is in the store.
pub(crate) fn pod_key(pod: &PodRef) -> ObjectKey {
    ObjectKey::namespaced(PODS, pod.pod_namespace.as_str(), pod.name.as_str())
}

/// Whether something else has to happen before the pod may start.
pub(crate) fn is_gated(pod: &Value) -> bool {
    let gates = pod.pointer("/spec/schedulingGates").and_then(Value::as_array);
    gates.is_some_and(|gates| !gates.is_empty())
}

/// UID and name of a stored pod.
pub(crate) fn identity(stored: &StoredObject) -> Option<(PodUid, PodRef)> {
    let value = stored.value.tree();
    let uid = spec::mirror::pod_uid(&value)?;
    Some((PodUid::new(uid), PodRef::new(stored.key.namespace.clone()?, stored.key.name.clone())))
}
