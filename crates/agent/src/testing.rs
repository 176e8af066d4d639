//! What the tests of this crate share: a machine with a store, images, a fake runtime, and time that stands still.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use image::{ImageStore, ImportConfig};
use runtime::fake::FakeRuntime;
use serde_json::{Value, json};
use spec::PodUid;
use spec::k8s_openapi::api::core::v1::Pod;
use store::{Change, ObjectKey, Store, StoredObject};

use crate::agent::Agent;
use crate::clock::{Clock, TokioClock};
use crate::config::AgentConfig;
use crate::desired::DesiredPod;

/// Reads a pod as if it came from the store.
pub fn desired_pod(pod: &Value) -> DesiredPod {
    DesiredPod::read(&stored_pod(pod, 1)).unwrap()
}

/// A pod as it would be in the store.
pub fn stored_pod(pod: &Value, revision: u64) -> StoredObject {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    StoredObject {
        key: ObjectKey::namespaced("pods", text("/metadata/namespace"), text("/metadata/name")).into(),
        revision,
        value: pod.clone().into(),
        json: serde_json::to_vec(pod).unwrap().into(),
    }
}

/// A pod named `web` in `default`, defaulted as the API does it.
pub fn pod(spec: &Value) -> Value {
    named_pod("web", "u-web", spec)
}

/// A pod in `default`, defaulted as the API does it.
pub fn named_pod(name: &str, uid: &str, spec: &Value) -> Value {
    let value = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": uid, "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    });
    let mut pod: Pod = serde_json::from_value(value).unwrap();
    spec::defaults::default_pod(&mut pod);
    serde_json::to_value(pod).unwrap()
}

/// Looks at the agent before time passes, at most.
const ROUNDS_BEFORE_TIME_PASSES: usize = 2000;

/// One machine; its agent may be dropped and started anew.
pub struct TestNode {
    pub directory: tempfile::TempDir,
    pub store: Store,
    pub images: ImageStore,
    pub runtime: FakeRuntime,
    pub clock: Arc<TokioClock>,
    agent: Option<Agent>,
    adjust: fn(&mut AgentConfig),
    // While a blocking task runs, tokio does not move paused time by itself.
    _hold_time: std::sync::mpsc::Sender<()>,
    _watchdog: std::sync::mpsc::Sender<()>,
}

impl TestNode {
    /// A machine with an image `app:1` and a running agent. Time stands still: the test moves it.
    pub async fn start() -> Self {
        let mut node = Self::without_agent().await;
        node.start_agent().await;
        node
    }

    /// The same with another configuration.
    pub async fn start_with(adjust: fn(&mut AgentConfig)) -> Self {
        let mut node = Self::without_agent().await;
        node.adjust = adjust;
        node.start_agent().await;
        node
    }

    pub async fn without_agent() -> Self {
        let (hold_time, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let images = ImageStore::open(&directory.path().join("images"), store.clone()).unwrap();
        let clock = Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z"));
        let wall = Arc::clone(&clock);
        let runtime = FakeRuntime::new(directory.path().join("tmpfs"), move || wall.wall());
        let node = Self {
            directory,
            store,
            images,
            runtime,
            clock,
            agent: None,
            adjust: |_| (),
            _hold_time: hold_time,
            _watchdog: watchdog(),
        };
        node.load_image("app:1").await;
        node
    }

    pub async fn load_image(&self, reference: &str) {
        let rootfs = self.directory.path().join("rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        fs::write(rootfs.join("program"), reference).unwrap();
        let config = ImportConfig {
            entrypoint: vec!["/program".to_owned()],
            cmd: vec!["--serve".to_owned()],
            env: vec!["FROM_IMAGE=yes".to_owned()],
            ..ImportConfig::default()
        };
        self.images.import_rootfs(&rootfs, reference, config).await.unwrap();
    }

    pub fn config(&self) -> AgentConfig {
        let base = self.directory.path();
        let resolv_conf = base.join("resolv.conf");
        fs::write(&resolv_conf, "nameserver 192.0.2.53\nsearch example.org\n").unwrap();
        let mut config = AgentConfig {
            host_resolv_conf: resolv_conf,
            node_addresses: vec!["192.0.2.1".parse().unwrap()],
            event_delay: Duration::ZERO,
            ending_delay: Duration::ZERO,
            ..AgentConfig::new("edge", base.join("data"), base.join("logs"))
        };
        // However full the disk of the machine is that the tests run on.
        config.eviction.thresholds.clear();
        config.image_gc.high_percent = 100;
        (self.adjust)(&mut config);
        config
    }

    pub async fn start_agent(&mut self) {
        let runtime = Arc::new(self.runtime.clone());
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let agent = Agent::start(self.config(), self.store.clone(), self.images.clone(), runtime, clock).await;
        self.agent = Some(agent.unwrap());
    }

    /// The daemon dies wherever it is.
    pub async fn kill_agent(&mut self) {
        self.agent.take().unwrap().shutdown().await;
    }

    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    pub async fn put(&self, resource: &str, object: Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let name = text("/metadata/name").unwrap();
        let key = match text("/metadata/namespace") {
            Some(namespace) => ObjectKey::namespaced(resource, namespace, name),
            None => ObjectKey::cluster(resource, name),
        };
        let write = self.store.write(key, move |_| Ok::<_, std::convert::Infallible>((Change::Put(object), ())));
        write.await.unwrap();
    }

    pub async fn create(&self, pod: &Value) {
        self.put("pods", pod.clone()).await;
    }

    pub async fn edit(&self, name: &str, edit: impl FnOnce(&mut Value) + Send + 'static) {
        let write = self.store.write(ObjectKey::namespaced("pods", "default", name), move |present| {
            let mut next = (*present.unwrap().value).clone();
            edit(&mut next);
            Ok::<_, std::convert::Infallible>((Change::Put(next), ()))
        });
        write.await.unwrap();
    }

    /// Waits until the Node object is as wanted.
    pub async fn wait_for_node(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut watch = self.store.watch("nodes", None).unwrap();
        loop {
            let stored = self.store.get(&ObjectKey::cluster("nodes", "edge")).unwrap();
            if wanted(&stored.value) {
                return (*stored.value).clone();
            }
            watch.next().await.unwrap();
        }
    }

    pub async fn edit_node(&self, edit: impl FnOnce(&mut Value) + Send + 'static) {
        let write = self.store.write(ObjectKey::cluster("nodes", "edge"), move |present| {
            let mut next = (*present.unwrap().value).clone();
            edit(&mut next);
            Ok::<_, std::convert::Infallible>((Change::Put(next), ()))
        });
        write.await.unwrap();
    }

    /// As the API deletes a pod: it says until when.
    pub async fn delete(&self, name: &str, grace: u32) {
        let at = self.clock.wall() + Duration::from_secs(grace.into());
        let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.edit(name, move |pod| {
            pod["metadata"]["deletionTimestamp"] = at.into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        })
        .await;
    }

    /// As the API forces it: the object is gone at once.
    pub async fn remove(&self, resource: &str, name: &str) {
        let key = ObjectKey::namespaced(resource, "default", name);
        self.store.write(key, |_| Ok::<_, std::convert::Infallible>((Change::Delete, ()))).await.unwrap();
    }

    pub fn get(&self, name: &str) -> Option<Value> {
        self.store.get(&ObjectKey::namespaced("pods", "default", name)).map(|stored| (*stored.value).clone())
    }

    /// Waits until the pod (null once it is gone) is as wanted.
    pub async fn wait_for(&self, name: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut watch = self.store.watch("pods", None).unwrap();
        loop {
            let pod = self.get(name).unwrap_or_default();
            if wanted(&pod) {
                return pod;
            }
            watch.next().await.unwrap();
        }
    }

    pub async fn wait_for_phase(&self, name: &str, phase: &str) -> Value {
        self.wait_for(name, |pod| pod["status"]["phase"] == phase).await
    }

    /// Waits until a container waits for this reason.
    pub async fn wait_for_reason(&self, name: &str, container: &str, reason: &str) -> Value {
        self.wait_for(name, |pod| status_of(pod, container)["state"]["waiting"]["reason"] == reason).await
    }

    /// Waits until a container runs for the `count`th time after its first.
    pub async fn wait_for_restart(&self, name: &str, container: &str, count: u32) -> Value {
        self.wait_for(name, |pod| {
            let status = status_of(pod, container);
            status["restartCount"] == count && status["state"]["running"].is_object()
        })
        .await
    }

    pub async fn wait_until_gone(&self, name: &str) {
        self.wait_for(name, Value::is_null).await;
    }

    /// Time passes, once the agent has done what it can do now: else it might see the new time before the old news.
    pub async fn advance(&self, seconds: u64) {
        if self.agent.is_some() {
            self.settle_within(ROUNDS_BEFORE_TIME_PASSES, 20).await;
        }
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    /// Time passes second by second, and the agent has its turn in each.
    pub async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.settle().await;
            self.advance(1).await;
        }
        self.settle().await;
    }

    /// The message of an event with that reason, of which there is one.
    pub async fn wait_for_event(&self, reason: &str) -> String {
        self.wait_for_message(reason, |_| true).await
    }

    /// The message of an event with that reason that is the wanted one.
    pub async fn wait_for_message(&self, reason: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut watch = self.store.watch("events", None).unwrap();
        loop {
            let events = self.store.list("events", None).objects;
            let found = events.iter().filter(|event| event.value["reason"] == reason);
            let messages = found.map(|event| event.value["message"].as_str().unwrap());
            if let Some(message) = messages.into_iter().find(|message| wanted(message)) {
                return message.to_owned();
            }
            watch.next().await.unwrap();
        }
    }

    /// How often an event with that reason and message has come, as `kubectl describe` counts it.
    pub fn event_count(&self, reason: &str, message: &str) -> u64 {
        let events = self.store.list("events", None).objects;
        let found = events.iter().filter(|event| event.value["reason"] == reason && event.value["message"] == message);
        found.filter_map(|event| event.value["count"].as_u64()).sum()
    }

    /// `<volume-plugin>/<volume>` of a pod on the disk.
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> std::path::PathBuf {
        self.directory.path().join("data/pods").join(uid).join("volumes").join(plugin).join(name)
    }

    /// When each run of a container started and ended, in seconds since the beginning of the test.
    pub fn starts(&self, container: &str) -> Vec<i64> {
        let beginning: spec::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let history = self.runtime.history();
        let starts = history
            .iter()
            .filter(|happened| happened.verb == runtime::fake::Verb::StartContainer && happened.subject == container);
        starts.map(|happened| happened.at.as_second() - beginning.as_second()).collect()
    }

    /// Each verb with its subject and number, such as `StartContainer app 0`.
    pub fn verbs(&self) -> Vec<String> {
        let history = self.runtime.history();
        history
            .iter()
            .map(|happened| format!("{:?} {} {}", happened.verb, happened.subject, happened.attempt))
            .collect()
    }

    /// Everything that the agent left on this machine for no pod.
    pub fn leftovers(&self) -> Vec<String> {
        let base = self.directory.path();
        let mut left = Vec::new();
        for directory in ["data/pods", "logs"] {
            let entries = crate::directories::entries(&base.join(directory)).unwrap();
            left.extend(entries.into_iter().map(|entry| format!("{directory}/{entry}")));
        }
        let records: Vec<(String, Value)> = self.store.records("agent-pods").unwrap();
        left.extend(records.into_iter().map(|(uid, _)| format!("record {uid}")));
        if !self.runtime.is_empty() {
            left.push("sandbox or container".to_owned());
        }
        left
    }
}

/// `status.containerStatuses[]` or `initContainerStatuses[]` of that name, or null.
pub fn status_of(pod: &Value, container: &str) -> Value {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    lists
        .iter()
        .filter_map(|list| pod["status"][list].as_array())
        .flatten()
        .find(|status| status["name"] == container)
        .cloned()
        .unwrap_or_default()
}

/// `status.conditions[]` of that type.
pub fn condition(pod: &Value, type_: &str) -> Value {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready")["status"] == "True"
}

/// Whether the container `app` runs.
pub fn runs(pod: &Value) -> bool {
    status_of(pod, "app")["state"]["running"].is_object()
}

pub fn uid(text: &str) -> PodUid {
    PodUid::new(text)
}

/// An environment as a map, for looking things up.
pub fn env_map(env: &[(String, String)]) -> BTreeMap<&str, &str> {
    env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Paused time has no time-outs, so a test that waits for ever is ended by a thread outside of it.
fn watchdog() -> std::sync::mpsc::Sender<()> {
    let (alive, ended) = std::sync::mpsc::channel::<()>();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_mins(5)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test} waits for something that does not come");
            std::process::abort();
        }
    });
    alive
}

impl TestNode {
    /// Waits until something that no watch tells of has come true. Looks again after each change in the runtime or the
    /// store, and lets the tasks of the agent run in between.
    pub async fn wait_until_clean(&self, mut done: impl FnMut() -> bool) {
        while !done() {
            // A thread of its own lets the blocking work of the agent go on meanwhile.
            tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
        }
    }

    pub async fn wait_for_stop(&self, container: &str) {
        self.wait_until_clean(|| {
            self.runtime
                .history()
                .iter()
                .any(|happened| happened.verb == runtime::fake::Verb::StopContainer && happened.subject == container)
        })
        .await;
    }

    /// Waits until a container of the pod was asked to stop and has its time.
    pub async fn wait_for_stop_request(&self, uid: &str) {
        self.wait_until_clean(|| self.runtime.is_stopping(&PodUid::new(uid))).await;
    }

    /// Where the files of the pod's Secret volume are.
    pub async fn secret_directory(&self, volume: &str) -> std::path::PathBuf {
        use runtime::Runtime as _;
        let sandbox = self.runtime.list_pod_sandboxes().await.into_iter().next().unwrap();
        self.runtime.tmpfs_path(&sandbox.id, &spec::VolumeName::new(volume))
    }
}

impl TestNode {
    /// Waits until the agent has nothing to do before time passes: no worker is in a pass, over many rounds in which
    /// all tasks had their turn.
    pub async fn settle(&self) {
        self.settle_within(usize::MAX, 100).await;
    }

    /// Until nothing happens in `still` rounds; a pass that hangs is waited for only `rounds` rounds.
    async fn settle_within(&self, rounds: usize, still: usize) {
        let (mut quiet, mut seen) = (0, 0);
        for _ in 0..rounds {
            tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
            let busy = Arc::strong_count(&self.agent().shared.passes) > 1;
            let revision = self.store.revision();
            quiet = if busy || revision != seen { 0 } else { quiet + 1 };
            seen = revision;
            if quiet < still {
                continue;
            }
            // On a busy machine the store's thread may not have come to what was written. Beside the event loop: else time passes.
            let (store, handle) = (self.store.clone(), tokio::runtime::Handle::current());
            drop(tokio::task::spawn_blocking(move || handle.block_on(store.flush())).await.unwrap());
            if self.store.revision() == seen {
                return;
            }
            quiet = 0;
        }
    }
}
