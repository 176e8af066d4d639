//! Keeps the node able to work: pods that use more of the disk than they may are ended, and when the machine runs short of
//! memory, disk or processes, the pod that has the least right to them.
//!
//! It looks every few seconds, writes nothing as long as nothing is wrong, and measures only pods that have a limit;
//! all of them only when the disk is short. What it decides is an [`Ending`], which the pod's worker carries out.

pub(crate) mod local_storage;
pub(crate) mod observe;
pub(crate) mod quantity;
mod rank;
pub(crate) mod thresholds;

pub(crate) use observe::memory_in_use;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::PodUsage;
use spec::placement::CRITICAL_PRIORITY;
use spec::requests::{container_requests, pod_requests};
use spec::{ContainerName, PodUid};
use store::StoredObject;

use crate::agent::{PODS, Shared};
use crate::clock::BootTime;
use crate::desired::DesiredPod;
use crate::ending::Ending;
use crate::endings::BY_THE_NODE;
use crate::events::EventSubject;
use crate::on_disk::on_disk;
use crate::usage::{PodDisk, measure_pod};
use observe::{Places, fingerprint, observe};
use rank::{Candidate, Share, message, rank};
use thresholds::{Observations, Pressure, PressureWatch, Signal, Threshold};

/// Time to end for a pod that must go at once.
const AT_ONCE: u64 = 1;
/// How long the next eviction waits for the last one.
const CLEAN_UP: Duration = Duration::from_secs(30);
/// Of its time, a pod's measurement may take one part in so many.
const SHARE_OF_TIME: u32 = 50;
/// A quiet file system is believed for so long.
const BELIEVED: Duration = Duration::from_mins(5);

/// What the node is short of now, as everybody else may know it.
#[derive(Debug, Default)]
pub(crate) struct NodePressure(Mutex<Vec<Pressure>>);

impl NodePressure {
    /// What it is short of.
    pub(crate) fn get(&self) -> Vec<Pressure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether that is news.
    fn set(&self, pressures: Vec<Pressure>) -> bool {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *present != pressures;
        *present = pressures;
        changed
    }
}

pub(crate) struct Evictor {
    shared: Arc<Shared>,
    places: Places,
    watch: PressureWatch,
    measured: HashMap<PodUid, Measured>,
    /// Whom the last eviction was about, and when.
    last: Option<(PodUid, BootTime)>,
    /// What was said to be short, so that it is said once.
    announced: Option<Signal>,
}

#[derive(Debug, Clone)]
struct Measured {
    disk: PodDisk,
    at: BootTime,
    took: Duration,
    /// The file systems then.
    systems: Vec<(u64, u64)>,
}

/// A pod that runs, with all that is known of it.
struct ActivePod {
    desired: DesiredPod,
    usage: PodUsage,
}

impl Evictor {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let places = Places {
            data: shared.config.data_dir.clone(),
            logs: shared.config.log_dir.clone(),
            images: shared.config.data_dir.join("images"),
        };
        Self { shared, places, watch: PressureWatch::default(), measured: HashMap::new(), last: None, announced: None }
    }

    pub(crate) async fn run(mut self) {
        loop {
            tokio::time::sleep(self.shared.config.housekeeping_interval).await;
            if let Err(error) = Box::pin(self.look()).await {
                tracing::error!(%error, "cannot look after the node");
            }
        }
    }

    async fn look(&mut self) -> Result<(), tokio::task::JoinError> {
        if self.enforce_limits().await? {
            return Ok(());
        }
        let observations = self.observe().await?;
        let (config, now) = (&self.shared.config.eviction, self.shared.clock.boot());
        let verdict = self.watch.look(&config.thresholds, &observations, config.transition, now);
        if self.shared.pressure.set(verdict.pressures) {
            self.shared.node_changed.notify_one();
        }
        let Some(threshold) = verdict.thresholds.first().copied() else {
            self.announced = None;
            return Ok(());
        };
        if self.waits_for_the_last(now) {
            return Ok(());
        }
        let is_news = self.announced.replace(threshold.signal) != Some(threshold.signal);
        if is_news {
            let message = format!("Attempting to reclaim {}", threshold.signal.resource());
            let node = EventSubject::node(&self.shared.config.node_name);
            self.shared.events.warning(node, "EvictionThresholdMet", message);
        }
        if threshold.signal.pressure() == Pressure::Disk {
            crate::housekeeping::remove_unused_images(&self.shared).await;
            let observations = self.observe().await?;
            if !config.thresholds.iter().any(|one| one.met_by(&observations).is_some()) {
                return Ok(());
            }
        }
        self.evict_one(&threshold, &observations, is_news).await
    }

    async fn observe(&self) -> Result<Observations, tokio::task::JoinError> {
        let places = self.places.clone();
        on_disk(move || observe(&places)).await
    }

    /// Whether the room that the last eviction makes is still to come.
    fn waits_for_the_last(&self, now: BootTime) -> bool {
        let recent = self.last.as_ref().filter(|(_, at)| now.since(*at) < CLEAN_UP);
        recent.is_some_and(|(uid, _)| self.shared.room.has(uid))
    }

    /// Ends the pods that use more of the disk than they may; whether there was one.
    async fn enforce_limits(&mut self) -> Result<bool, tokio::task::JoinError> {
        let mut evicted = false;
        let may_be = |stored: &StoredObject| local_storage::WORDS.iter().any(|word| stored.mentions(word));
        let pods = self.pods(may_be, |desired| local_storage::is_limited(&desired.object)).await;
        self.measured.retain(|uid, _| pods.iter().any(|pod| pod.desired.uid == *uid));
        for pod in pods {
            let Some(disk) = self.measure(&pod).await? else { continue };
            if let Some(message) = local_storage::excess(&pod.desired.object, &disk) {
                self.evict(&pod.desired, message, AT_ONCE, None);
                evicted = true;
            }
        }
        Ok(evicted)
    }

    /// What the pod has on the disk: as it was measured last if that was a moment ago or nothing was written since.
    async fn measure(&mut self, pod: &ActivePod) -> Result<Option<PodDisk>, tokio::task::JoinError> {
        let (uid, now) = (pod.desired.uid.clone(), self.shared.clock.boot());
        let layers = layers_of(&pod.usage);
        let before = self.measured.get(&uid).cloned();
        let (places, paths) = (self.places.clone(), self.shared.paths(&pod.desired.pod, &uid));
        let measured = on_a_patient_thread(move || {
            let systems = fingerprint(&places);
            if let Some(before) = before.filter(|before| is_good(before, &systems, now)) {
                return Ok(before);
            }
            let start = std::time::Instant::now();
            let disk = measure_pod(&paths, &layers)?;
            Ok(Measured { disk, at: now, took: start.elapsed(), systems })
        });
        match measured.await? {
            Ok(measured) => {
                let disk = measured.disk.clone();
                self.measured.insert(uid, measured);
                Ok(Some(disk))
            }
            Err(error) => {
                tracing::warn!(%error, pod = %pod.desired.pod, "cannot measure what a pod has on the disk");
                Ok(None)
            }
        }
    }

    /// Ends the pod that has the least right to what is scarce.
    async fn evict_one(
        &mut self,
        threshold: &Threshold,
        observations: &Observations,
        is_news: bool,
    ) -> Result<(), tokio::task::JoinError> {
        let pods = self.pods(|_| true, |_| true).await;
        let mut candidates = Vec::new();
        for pod in &pods {
            let disk = match threshold.signal.pressure() {
                Pressure::Disk => self.measure(pod).await?.unwrap_or_default(),
                Pressure::Memory | Pressure::Pid => PodDisk::default(),
            };
            candidates.push(candidate(pod, &disk, threshold.signal));
        }
        rank(&mut candidates, threshold.signal);
        let Some(first) = candidates.first() else {
            if is_news {
                tracing::warn!(signal = %threshold.signal, "the node is short, and there is no pod to end for it");
            }
            return Ok(());
        };
        let grace = if threshold.is_hard() { AT_ONCE } else { self.shared.config.eviction.max_pod_grace_seconds };
        let message = message(first, threshold, observations);
        if let Some(pod) = pods.iter().find(|pod| pod.desired.uid == first.uid) {
            self.evict(&pod.desired, message, grace, Some(BY_THE_NODE));
            self.last = Some((first.uid.clone(), self.shared.clock.boot()));
        }
        Ok(())
    }

    fn evict(&self, desired: &DesiredPod, message: String, grace_seconds: u64, disruption: Option<&str>) {
        self.shared.events.warning(EventSubject::pod(desired), "Evicted", message.clone());
        let (reason, disruption) = ("Evicted".to_owned(), disruption.map(str::to_owned));
        self.shared.endings.decide(
            &desired.uid,
            Ending { reason, message, grace_seconds: Some(grace_seconds), disruption, disruption_message: None },
        );
        self.shared.wake(&desired.uid);
    }

    /// Pods that run and may be ended. Critical ones may not: the node would be worse off without them. Those that `may_be`
    /// wanted are read.
    async fn pods(
        &self,
        may_be: impl Fn(&StoredObject) -> bool,
        wanted: impl Fn(&DesiredPod) -> bool,
    ) -> Vec<ActivePod> {
        let mut pods = Vec::new();
        for stored in self.shared.store.list(PODS, None).objects.into_iter().filter(may_be) {
            let Ok(desired) = DesiredPod::read(&stored) else { continue };
            let ends = desired.is_terminal() || desired.object.metadata.deletion_timestamp.is_some();
            if ends || is_critical(&desired) || !self.shared.room.has(&desired.uid) || !wanted(&desired) {
                continue;
            }
            let usage = self.shared.runtime.pod_usage(&desired.uid).await;
            if !usage.containers.is_empty() {
                pods.push(ActivePod { desired, usage });
            }
        }
        pods
    }
}

/// The kubelet's `IsCriticalPod`.
pub(crate) fn is_critical(desired: &DesiredPod) -> bool {
    let mirrors = |key: &String| key == "kubernetes.io/config.mirror";
    desired.spec.priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY)
        || desired.object.metadata.annotations.iter().flatten().any(|(key, _)| mirrors(key))
}

/// Long walks over disks give way to everything else. The thread's priority cannot be taken back, so it ends with it.
async fn on_a_patient_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<io::Result<T>, tokio::task::JoinError> {
    tokio::task::spawn_blocking(move || {
        let patient = std::thread::Builder::new().name("measure".to_owned()).spawn(move || {
            // On Linux this is the thread's own (setpriority(2), "C library/kernel differences").
            if let Err(error) = rustix::process::setpriority_process(None, 15) {
                tracing::debug!(%error, "a measurement runs with the usual priority");
            }
            work()
        });
        patient?.join().unwrap_or_else(|_panic| Err(io::Error::other("the thread that measures was lost")))
    })
    .await
}

fn is_good(before: &Measured, systems: &[(u64, u64)], now: BootTime) -> bool {
    let age = now.since(before.at);
    age < before.took.saturating_mul(SHARE_OF_TIME) || (before.systems == systems && age < BELIEVED)
}

fn layers_of(usage: &PodUsage) -> Vec<(ContainerName, PathBuf)> {
    usage.containers.iter().map(|one| (one.name.clone(), one.writable_layer.clone())).collect()
}

fn candidate(pod: &ActivePod, disk: &PodDisk, signal: Signal) -> Candidate {
    let resource = signal.resource();
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let used = match signal {
        Signal::MemoryAvailable => pod.usage.cgroup.working_set,
        Signal::PidAvailable => pod.usage.cgroup.processes,
        Signal::NodeFsAvailable | Signal::ImageFsAvailable => disk.total().bytes,
        Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => disk.total().inodes,
    };
    let of_container = |name: &ContainerName| match signal.pressure() {
        Pressure::Memory => {
            let found = pod.usage.containers.iter().find(|one| one.name == *name);
            found.map(|one| one.cgroup.working_set)
        }
        Pressure::Disk => disk.containers.get(name).map(|one| one.total().bytes),
        Pressure::Pid => None,
    };
    let containers = pod.desired.containers().filter_map(|(_, container)| {
        let used = of_container(&ContainerName::new(&container.name))?;
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        Some(Share {
            name: container.name.clone(),
            used: number(used),
            request: requests.and_then(|list| list.get(resource)).map(|text| text.0.clone()).unwrap_or_default(),
            requested: container_requests(container).get(resource).copied().unwrap_or_default(),
        })
    });
    let requests: BTreeMap<String, i64> = pod_requests(&pod.desired.object);
    Candidate {
        uid: pod.desired.uid.clone(),
        priority: pod.desired.spec.priority.unwrap_or_default(),
        used: number(used),
        requested: requests.get(resource).copied().unwrap_or_default(),
        containers: containers.collect(),
    }
}

#[cfg(test)]
mod tests;
