//! What the agent itself remembers of a pod on this node, beside the object: what must be cleaned up, and crash loops.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::{ContainerId, ContainerName, PodRef, PodUid};
use store::{Store, StoreError};

use crate::backoff::RestartBackOff;
use crate::ending::Ending;
use crate::resize::Allocation;

/// Table of the store.
const TABLE: &str = "agent-pods";

/// Written before anything of a pod is made on this machine, and deleted when all of it is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Whose: its log directory has these names in it.
    pub pod: PodRef,
    /// Crash loops.
    #[serde(default)]
    pub back_offs: BTreeMap<ContainerName, RestartBackOff>,
    /// Runs that were stopped in order to start the container anew.
    #[serde(default)]
    pub replaced: BTreeSet<ContainerId>,
    /// Runs that were stopped because a probe or hook condemned them.
    #[serde(default)]
    pub condemned: BTreeSet<ContainerId>,
    /// Why the pod ends before its containers do.
    #[serde(default)]
    pub ending: Option<Ending>,
    /// Resources that the pod was granted; `None` of records that an earlier version wrote.
    #[serde(default)]
    pub allocated: Option<Allocation>,
    /// Runs whose postStart hook has not returned yet. Stored before the start, so that each hook is run to its end at
    /// least once, whatever becomes of the daemon.
    #[serde(default)]
    pub post_start: BTreeSet<ContainerId>,
}

impl PodRecord {
    /// Nothing has happened yet.
    pub fn new(pod: PodRef) -> Self {
        Self {
            pod,
            back_offs: BTreeMap::new(),
            replaced: BTreeSet::new(),
            condemned: BTreeSet::new(),
            ending: None,
            allocated: None,
            post_start: BTreeSet::new(),
        }
    }

    /// What is known of runs that nobody remembers any more says nothing to anyone.
    pub fn forget_all_but(&mut self, known: &BTreeSet<ContainerId>) {
        for runs in [&mut self.replaced, &mut self.condemned, &mut self.post_start] {
            runs.retain(|id| known.contains(id));
        }
    }

    /// The record of one pod.
    pub fn load(store: &Store, uid: &PodUid) -> Result<Option<Self>, StoreError> {
        store.record(TABLE, uid.as_str())
    }

    /// The records of all pods.
    pub fn load_all(store: &Store) -> Result<Vec<(PodUid, Self)>, StoreError> {
        Ok(store.records(TABLE)?.into_iter().map(|(uid, record)| (PodUid::new(uid), record)).collect())
    }

    /// Makes it durable; what is written after this call is not durable before it.
    pub fn save(&self, store: &Store, uid: &PodUid) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        store.put_record(TABLE, uid.as_str(), self)
    }

    /// The same where other writes follow at once: it is taken along by them.
    pub fn save_with_next(
        &self,
        store: &Store,
        uid: &PodUid,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        store.put_record_with_next(TABLE, uid.as_str(), self)
    }

    /// All of the pod is gone. Where a crash brings the record back, the next daemon finds nothing of the pod, and removes
    /// it again.
    pub fn delete(store: &Store, uid: &PodUid) {
        store.delete_record_soon(TABLE, uid.as_str());
    }
}

/// Where the files of a pod are.
#[derive(Debug, Clone)]
pub struct PodPaths {
    /// `pods/<uid>` in the data directory.
    pub directory: PathBuf,
    /// `<namespace>_<name>_<uid>` in the log directory.
    pub logs: PathBuf,
}

impl PodPaths {
    /// Of the pod with that name and UID.
    pub fn new(data_dir: &Path, log_dir: &Path, pod: &PodRef, uid: &PodUid) -> Self {
        Self { directory: pods_directory(data_dir).join(uid.as_str()), logs: log_dir.join(log_directory(pod, uid)) }
    }
}

/// Where all pods' directories are.
pub fn pods_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("pods")
}

/// Name of a pod's log directory, as the kubelet forms it.
pub fn log_directory(pod: &PodRef, uid: &PodUid) -> String {
    format!("{}_{}_{uid}", pod.pod_namespace, pod.name)
}

/// Who holds the image of a container, as image removal names it.
pub fn image_holder(pod: &PodRef, uid: &PodUid, container: &ContainerName) -> String {
    format!("{}{container}", image_holders(pod, uid))
}

/// With what the holders of a pod's images begin.
pub fn image_holders(pod: &PodRef, uid: &PodUid) -> String {
    format!("pod {pod} ({uid}), container ")
}
