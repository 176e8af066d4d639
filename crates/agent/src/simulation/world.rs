//! A machine of its own for one schedule: clocks, store, runtime and agent, all on one thread, in time that only passes
//! when everybody waits.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use image::{FakePull, FakeRegistry, ImageStore};
use runtime::fake::{FakeRuntime, OnExec, OnSignal};
use serde_json::{Value, json};
use spec::PodUid;
use store::{Change, FakeDisk, ObjectKey, Store, WatchEvent};
use tokio::time::Instant;

use super::clock::SimulatedClock;
use super::faults::{Fault, VERBS};
use super::model::PodModel;
use super::mutants;
use super::pods::{LIVENESS, POST_START, PRE_STOP, Plan, READINESS, STARTUP};
use super::watcher::Watcher;
use crate::agent::Agent;
use crate::clock::Clock;
use crate::config::{AgentConfig, ENDING_DELAY};
use crate::tokens::ServiceAccountTokens;

/// So long everybody has to come to rest, without anything happening by itself.
const MOMENT: Duration = Duration::from_millis(1);
/// A daemon that could not start is started again (as systemd does it).
const START_AGAIN: Duration = Duration::from_secs(1);

/// `status.reason` of a Pod that the node ended.
pub const EVICTED: &str = "Evicted";

/// To be made once.
const KEY: &str = "service-accounts.key";

/// What many schedules on one thread share: images, and a directory.
#[derive(Debug)]
pub struct Ground {
    directory: tempfile::TempDir,
    images: ImageStore,
    registry: FakeRegistry,
    /// Of the store of the images.
    image_disk: Arc<Disk>,
    image_store: Store,
}

impl Ground {
    pub async fn new() -> Self {
        // In memory, if there is such a place: files are written and removed all the time.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let image_disk = Arc::new(Disk::default());
        let image_store = Store::fake(Arc::clone(&image_disk) as _);
        let images = ImageStore::open(&directory.path().join("images"), image_store.clone()).unwrap();
        let rootfs = directory.path().join("rootfs");
        std::fs::create_dir(&rootfs).unwrap();
        for reference in ["app:1", "app:2"] {
            std::fs::write(rootfs.join("program"), reference).unwrap();
            let config = image::ImportConfig { entrypoint: vec!["/program".to_owned()], ..Default::default() };
            images.import_rootfs(&rootfs, reference, config).await.unwrap();
        }
        let registry = FakeRegistry::default();
        images.use_fake_registry(registry.clone());
        ServiceAccountTokens::open(&directory.path().join(KEY)).unwrap();
        std::fs::write(directory.path().join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
        Self { directory, images, registry, image_disk, image_store }
    }
}

/// A disk that is slow or full for a while, whose writes are steps of the daemon, and where the daemon may die.
#[derive(Debug, Default)]
struct Disk(Mutex<DiskState>);

#[derive(Default)]
struct DiskState {
    runtime: Option<FakeRuntime>,
    watcher: Option<Watcher>,
    /// It is a user who writes, not the daemon.
    is_user: bool,
    slow: Option<(Duration, Instant)>,
    full_until: Option<Instant>,
}

impl std::fmt::Debug for DiskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskState").field("is_user", &self.is_user).finish_non_exhaustive()
    }
}

impl Disk {
    fn change(&self, change: impl FnOnce(&mut DiskState)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl FakeDisk for Disk {
    fn turn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let (mut runtime, mut slow) = (None, None);
        self.change(|state| {
            if !state.is_user {
                runtime = state.runtime.clone();
                slow = state.slow.filter(|(_, until)| Instant::now() < *until).map(|(takes, _)| takes);
            }
        });
        Box::pin(async move {
            if let Some(runtime) = &runtime {
                runtime.step().await;
            }
            if let Some(slow) = slow {
                tokio::time::sleep(slow).await;
            }
        })
    }

    fn is_full(&self) -> bool {
        let mut full = false;
        self.change(|state| full = !state.is_user && state.full_until.is_some_and(|until| Instant::now() < until));
        full
    }

    fn written(&self, changes: &[WatchEvent]) {
        let mut watcher = None;
        self.change(|state| watcher.clone_from(&state.watcher));
        if let Some(watcher) = watcher {
            watcher.written(changes);
        }
    }
}

/// The machine.
pub struct World<'a> {
    ground: &'a Ground,
    base: PathBuf,
    pub store: Store,
    disk: Arc<Disk>,
    pub runtime: FakeRuntime,
    clock: Arc<SimulatedClock>,
    pub watcher: Watcher,
    agent: Option<Agent>,
    plan: Plan,
    pub pods: u32,
    /// How long the daemon is away once it dies of the steps that it was given.
    away: Duration,
    /// Until when the status may be behind.
    troubled_until: Instant,
    /// Failures of verbs that are still to come.
    failures: u32,
}

impl<'a> World<'a> {
    pub async fn new(ground: &'a Ground, plan: &Plan, trace: super::trace::Trace) -> Self {
        let base = ground.directory.path().join("world");
        match std::fs::remove_dir_all(&base) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            Ok(()) | Err(_) => {}
        }
        std::fs::create_dir_all(base.join("data")).unwrap();
        std::fs::hard_link(ground.directory.path().join(KEY), base.join("data").join(KEY)).unwrap();
        let clock = Arc::new(SimulatedClock::new());
        let watcher = Watcher::new(Arc::clone(&clock), trace);
        let wall = Arc::clone(&clock);
        let runtime = FakeRuntime::new(base.join("tmpfs"), move || wall.wall());
        let listener = watcher.clone();
        runtime.listen(move |fact| listener.fact(fact));
        let disk = Arc::new(Disk::default());
        for one in [&disk, &ground.image_disk] {
            one.change(|state| *state = DiskState { runtime: Some(runtime.clone()), ..DiskState::default() });
        }
        disk.change(|state| state.watcher = Some(watcher.clone()));
        let store = Store::fake(Arc::clone(&disk) as _);
        let troubled_until = Instant::now();
        let plan = plan.clone();
        let mut world = Self {
            ground,
            base,
            store,
            disk,
            runtime,
            clock,
            watcher,
            agent: None,
            plan,
            pods: 0,
            away: Duration::ZERO,
            troubled_until,
            failures: 0,
        };
        world.heal();
        world.start_agent().await;
        world
    }

    fn config(&self) -> AgentConfig {
        let mut config = AgentConfig {
            host_resolv_conf: self.ground.directory.path().join("resolv.conf"),
            node_addresses: vec!["192.0.2.1".parse().unwrap()],
            event_delay: Duration::ZERO,
            ending_delay: ENDING_DELAY,
            ..AgentConfig::new("edge", self.base.join("data"), self.base.join("logs"))
        };
        // However full and however busy the machine is that this runs on.
        config.eviction.thresholds.clear();
        config.image_gc.high_percent = 100;
        config.housekeeping_interval = Duration::from_hours(24 * 365);
        config.lease_interval = Duration::from_hours(24 * 365);
        config
    }

    /// Starts a daemon; another one if that one dies while it starts, or finds the disk full.
    async fn start_agent(&mut self) {
        loop {
            mutants::note_daemon();
            let runtime = Arc::new(self.runtime.clone());
            let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
            let start = Agent::start(self.config(), self.store.clone(), self.ground.images.clone(), runtime, clock);
            let started = tokio::select! {
                biased;
                () = self.runtime.halted() => None,
                started = start => Some(started),
            };
            match started {
                Some(Ok(agent)) => {
                    self.agent = Some(agent);
                    return;
                }
                Some(Err(_)) => tokio::time::sleep(START_AGAIN).await,
                None => {
                    self.runtime.resume();
                    tokio::time::sleep(self.away).await;
                }
            }
        }
    }

    async fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.shutdown().await;
        }
        self.runtime.resume();
    }

    /// Time passes, and everybody does what they do meanwhile, also a daemon that starts at the end of it.
    pub async fn pass(&mut self, time: Duration) {
        let mut until = Instant::now() + time;
        loop {
            let died = tokio::select! {
                biased;
                () = self.runtime.halted() => true,
                () = tokio::time::sleep_until(until) => false,
            };
            if !died {
                return;
            }
            self.line(|| "** the daemon dies here".to_owned());
            self.kill_agent().await;
            if self.watcher.lock().broken().is_some() {
                return;
            }
            tokio::time::sleep(self.away).await;
            self.start_agent().await;
            // What has ended of a Pod that is ending is told a little after it was seen.
            until = until.max(Instant::now() + ENDING_DELAY + MOMENT);
        }
    }

    /// Everybody comes to rest.
    pub async fn settle(&mut self) {
        self.pass(MOMENT).await;
    }

    /// To be called often: a pass in which a verb failed is tried again after a while.
    pub fn note_failures(&mut self) {
        let left = VERBS.iter().map(|verb| self.runtime.failures_left(*verb)).sum();
        if left < self.failures {
            self.troubled_until = self.troubled_until.max(Instant::now() + Duration::from_secs(3));
        }
        self.failures = left;
    }

    /// Whether no worker is in a pass, and nothing keeps the status from being written.
    pub fn is_quiet(&self) -> bool {
        let in_pass = self.agent.as_ref().is_none_or(|agent| Arc::strong_count(&agent.shared.passes) > 1);
        !in_pass && Instant::now() >= self.troubled_until
    }

    /// What is left on the machine of any Pod.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for directory in ["data/pods", "logs"] {
            let entries = crate::directories::entries(&self.base.join(directory)).unwrap();
            left.extend(entries.into_iter().map(|entry| format!("{directory}/{entry}")));
        }
        let records: Vec<(String, Value)> = self.store.records("agent-pods").unwrap();
        left.extend(records.into_iter().map(|(uid, _)| format!("the record of {uid}")));
        let held: Vec<(String, Value)> = self.ground.image_store.records("image-hold").unwrap();
        left.extend(held.into_iter().map(|(_, held)| format!("an image for {}", held["holder"])));
        if !self.runtime.is_empty() {
            left.push("a sandbox or a container".to_owned());
        }
        left
    }

    pub fn pod(&self) -> Option<Value> {
        self.store.get(&ObjectKey::namespaced("pods", "default", "web")).map(|stored| (*stored.value).clone())
    }

    /// UID of the Pod that was created last.
    pub fn uid(&self) -> String {
        format!("u-{}", self.pods)
    }

    pub fn line(&self, line: impl FnOnce() -> String) {
        let mut state = self.watcher.lock();
        let now = state.now();
        state.trace.line(now, line);
    }

    /// A user writes: the daemon's troubles are none of theirs.
    fn write(&self, resource: &str, name: &str, decide: impl FnOnce(Option<Value>) -> Change + Send + 'static) {
        self.disk.change(|state| state.is_user = true);
        let write = self.store.write(ObjectKey::namespaced(resource, "default", name), move |present| {
            let present = present.map(|present| (*present.value).clone());
            Ok::<_, std::convert::Infallible>((decide(present), ()))
        });
        write.now_or_never().unwrap().unwrap();
        self.disk.change(|state| state.is_user = false);
    }

    fn edit(&self, edit: impl FnOnce(&mut Value) -> bool + Send + 'static) {
        self.write("pods", "web", move |present| {
            let Some(mut pod) = present else { return Change::Keep };
            if !edit(&mut pod) {
                return Change::Keep;
            }
            let generation = pod["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
            pod["metadata"]["generation"] = generation.into();
            Change::Put(pod)
        });
    }

    pub fn create(&mut self) {
        if self.pod().is_some() {
            return;
        }
        self.pods += 1;
        let uid = self.uid();
        self.watcher.lock().pods.insert(uid.clone(), PodModel::new(self.plan.clone()));
        let object = self.plan.object(&uid);
        self.write("pods", "web", move |_| Change::Put(object));
    }

    /// A Pod with the spec that another one has come to.
    pub fn create_as(&mut self, other: &Value) {
        self.pods += 1;
        let uid = self.uid();
        self.watcher.lock().pods.insert(uid.clone(), PodModel::new(self.plan.clone()));
        let mut object = self.plan.object(&uid);
        object["spec"] = other["spec"].clone();
        self.write("pods", "web", move |_| Change::Put(object));
    }

    pub fn ground(&self) -> &'a Ground {
        self.ground
    }

    /// As the API deletes a Pod.
    pub fn delete(&self, grace: Option<u64>) {
        let wall = self.clock.wall();
        self.edit(move |pod| {
            let own = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            let grace = grace.unwrap_or(own).max(1);
            let before = pod["metadata"]["deletionGracePeriodSeconds"].as_u64();
            if before.is_some_and(|before| before <= grace) {
                return false;
            }
            let at = wall + Duration::from_secs(grace);
            pod["metadata"]["deletionTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            true
        });
    }

    fn force_delete(&self) {
        if let Some(uid) = self.pod().and_then(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)) {
            let mut state = self.watcher.lock();
            state.pods.entry(uid).and_modify(|pod| (pod.forced, pod.deleted) = (true, true));
            drop(state);
            self.write("pods", "web", |_| Change::Delete);
        }
    }

    /// As the node's eviction does it. A daemon that dies before it is durable has forgotten it, and decides anew.
    fn evict(&self) {
        let (uid, pod) = (self.uid(), self.pod());
        let is_here = pod.is_some_and(|pod| pod["metadata"]["uid"] == *uid && pod["status"]["startTime"].is_string());
        let Some(agent) = self.agent.as_ref().filter(|_| is_here) else { return };
        self.watcher.lock().pods.entry(uid.clone()).and_modify(|pod| pod.evicted = true);
        let ending = crate::ending::Ending {
            reason: EVICTED.to_owned(),
            message: "The node was low on resource: memory. ".to_owned(),
            grace_seconds: Some(1),
            disruption: Some(crate::endings::BY_THE_NODE.to_owned()),
            disruption_message: None,
        };
        agent.shared.endings.decide(&PodUid::new(&uid), ending);
        agent.shared.wake(&PodUid::new(&uid));
    }

    fn set_config(&self, value: Option<u64>) {
        self.write("configmaps", "settings", move |present| match (value, present) {
            (None, None) => Change::Keep,
            (None, Some(_)) => Change::Delete,
            (Some(value), _) => Change::Put(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "settings", "namespace": "default", "uid": "u-settings" },
                "data": { "value": value.to_string() },
            })),
        });
    }

    fn edit_container(&self, which: usize, edit: impl Fn(&mut Value) + Send + 'static) {
        let name = self.plan.containers[which].name.clone();
        self.edit(move |pod| {
            let mut changed = false;
            for list in ["initContainers", "containers"] {
                let containers = pod["spec"][list].as_array_mut().into_iter().flatten();
                for container in containers.filter(|container| container["name"] == *name) {
                    let before = container.clone();
                    edit(container);
                    changed |= *container != before;
                }
            }
            changed
        });
    }

    /// Nothing is wrong from now on.
    pub fn heal(&mut self) {
        self.ground.registry.heal();
        for verb in VERBS {
            self.runtime.fail(verb, 0);
            self.runtime.slow_down(verb, 0, Duration::ZERO);
        }
        for container in &self.plan.containers {
            for what in [STARTUP, READINESS, LIVENESS, POST_START, PRE_STOP] {
                self.runtime.on_exec(&format!("{what}-{}", container.name), OnExec::Exits(0));
            }
            self.runtime.on_signal(&container.name, OnSignal::Exits(143));
            self.runtime.lives(&container.name, container.life.map(|life| (life, 0)));
        }
        let troubled = self.disk.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_troubled = troubled.full_until.is_some() || troubled.slow.is_some();
        drop(troubled);
        if was_troubled {
            self.disk.change(|state| (state.full_until, state.slow) = (None, None));
            self.ground.image_disk.change(|state| (state.full_until, state.slow) = (None, None));
        }
        self.set_config(Some(0));
        self.edit(|pod| pod["spec"].as_object_mut().is_some_and(|spec| spec.remove("schedulingGates").is_some()));
    }

    fn trouble_disks(&mut self, lasts: u64, change: impl Fn(&mut DiskState)) {
        self.disk.change(&change);
        self.ground.image_disk.change(&change);
        self.troubled_until = self.troubled_until.max(Instant::now() + Duration::from_secs(lasts + 3));
    }

    pub async fn suffer(&mut self, fault: &Fault) {
        self.line(|| format!("-> {fault:?}"));
        let name = |which: usize| self.plan.containers[which].name.as_str();
        match *fault {
            Fault::Exits(which, code) => drop(self.runtime.exit(name(which), code)),
            Fault::OutOfMemory(which) => drop(self.runtime.kill_for_memory(name(which))),
            Fault::Crashes(which, code) => self.runtime.lives(name(which), Some((Duration::from_secs(1), code))),
            Fault::Signal(which, what) => self.runtime.on_signal(name(which), what),
            Fault::Command(which, what, ends) => self.runtime.on_exec(&format!("{what}-{}", name(which)), ends),
            Fault::Pulls { fail, seconds } => {
                let takes = Duration::from_secs(seconds);
                let how = if fail { FakePull::Fails(takes) } else { FakePull::Succeeds(takes) };
                for image in ["app:1", "app:2"] {
                    self.ground.registry.answer(image, how);
                }
            }
            Fault::SandboxDies => self.runtime.kill_sandboxes(&PodUid::new(self.uid())),
            Fault::DaemonDies(seconds) => self.restart(seconds).await,
            Fault::DaemonDiesAfter(steps, seconds) => {
                self.away = Duration::from_secs(seconds);
                self.runtime.halt_after_steps(steps);
            }
            Fault::VerbFails(verb, times) => self.runtime.fail(verb, times),
            Fault::VerbIsSlow(verb, seconds) => self.runtime.slow_down(verb, 1, Duration::from_secs(seconds)),
            Fault::StoreIsSlow { takes, lasts } => {
                let until = Instant::now() + Duration::from_secs(lasts);
                self.trouble_disks(lasts, |state| state.slow = Some((Duration::from_secs(takes), until)));
            }
            Fault::DiskIsFull(lasts) => {
                let until = Instant::now() + Duration::from_secs(lasts);
                self.trouble_disks(lasts, |state| state.full_until = Some(until));
            }
            Fault::ClockJumps(seconds) => {
                // An end that nobody has seen yet is told in wall time alone: how long ago it was is then not to be known.
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.clock.jump(seconds);
            }
            Fault::Reboot { forgets, seconds } => {
                self.kill_agent().await;
                if forgets {
                    self.runtime.forget_everything();
                    self.watcher.lock().pods.values_mut().for_each(PodModel::forget);
                } else {
                    self.runtime.reboot();
                }
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                self.clock.boot_anew();
                self.start_agent().await;
            }
            Fault::Image(which, image) => self.edit_container(which, move |container| {
                container["image"] = image.into();
            }),
            Fault::Resize(which, cpu) => {
                self.edit_container(which, move |container| container["resources"]["requests"]["cpu"] = cpu.into());
            }
            Fault::Debug => self.edit(|pod| {
                let debug = json!({ "name": "debug", "image": "app:1", "imagePullPolicy": "IfNotPresent" });
                let is_new = pod["spec"]["ephemeralContainers"].is_null();
                pod["spec"]["ephemeralContainers"] = json!([debug]);
                is_new
            }),
            Fault::Config(value) => self.set_config(value),
            Fault::Deadline(seconds) => self.edit(move |pod| {
                let lowers = pod["spec"]["activeDeadlineSeconds"].as_u64().is_none_or(|present| seconds < present);
                if lowers {
                    pod["spec"]["activeDeadlineSeconds"] = seconds.into();
                }
                lowers
            }),
            Fault::Evict => self.evict(),
            Fault::Ungate => {
                self.edit(|pod| {
                    pod["spec"].as_object_mut().is_some_and(|spec| spec.remove("schedulingGates").is_some())
                });
            }
            Fault::Delete(grace) => self.delete(grace),
            Fault::ForceDelete => self.force_delete(),
            Fault::Create => self.create(),
            Fault::Nothing => {}
        }
    }

    async fn restart(&mut self, seconds: u64) {
        self.kill_agent().await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.start_agent().await;
    }

    /// A daemon that was to die later does not.
    pub fn spare_daemon(&self) {
        self.runtime.resume();
    }
}
