//! Static Pods: the files of a directory are Pods of this node, whatever the API says.
//!
//! Each look compares all files with all mirrors in the store: a file without its mirror gets one, a mirror without its
//! file is deleted gracefully, and a changed file is both, one after the other. Nothing is remembered that the next
//! start could not find out again, but what a file said before it became invalid: its Pod then stays as it is.

mod files;
mod manifest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use spec::mirror;
use store::{Change, ObjectKey, Store, StoreError, StoredObject, WriteError};

use crate::agent::{PODS, Shared};
use crate::endings::gracefully_deleted;
use crate::on_disk::on_disk;
use crate::static_pods::files::{Changes, texts};
use crate::static_pods::manifest::StaticPod;

/// Looks at least so often, as the kubelet does it (`fileCheckFrequency`).
const LOOK: Duration = Duration::from_secs(20);

/// What is known of the files.
#[derive(Default)]
struct Known {
    /// What each file says, or said when it was valid.
    pods: BTreeMap<PathBuf, StaticPod>,
    /// Complaints, so that each is made once.
    complaints: BTreeMap<PathBuf, String>,
    /// A file is invalid and nobody knows what it said before: no mirror may be taken for an orphan.
    uncertain: bool,
}

/// Whether an earlier start had static Pods.
pub(crate) fn any_mirror(store: &Store) -> bool {
    store
        .list(PODS, None)
        .objects
        .iter()
        .any(|stored| stored.mentions(mirror::MIRROR) && mirror::hash(&stored.value).is_some())
}

/// Keeps the Pods of this directory; without one, those that an earlier start had end.
pub(crate) async fn keep_static_pods(shared: Arc<Shared>, directory: Option<PathBuf>) {
    let mut changes = directory.as_deref().and_then(|directory| match Changes::of(directory) {
        Ok(changes) => Some(changes),
        Err(error) => {
            tracing::warn!(%error, directory = %directory.display(), "changes of static pods are seen late");
            None
        }
    });
    let mut known = Known::default();
    loop {
        if let Some(directory) = &directory {
            known.read(directory, &shared.config.node_name).await;
        }
        if let Err(error) = reconcile(&shared, &known).await {
            tracing::error!(error = %crate::volumes::chain(&error), "cannot keep the static pods");
        }
        if directory.is_none() {
            return;
        }
        let told = async {
            match &mut changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = shared.static_pods.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

impl Known {
    async fn read(&mut self, directory: &Path, node_name: &str) {
        let path = directory.to_owned();
        let texts = match on_disk(move || texts(&path)).await {
            Ok(Ok(texts)) => texts,
            // As with an invalid file: nothing is ended for it.
            Ok(Err(error)) => {
                self.uncertain = true;
                return self.complain(directory, &error.to_string());
            }
            Err(_stopped) => return,
        };
        self.pods.retain(|path, _| texts.contains_key(path));
        self.complaints.retain(|path, _| texts.contains_key(path));
        self.uncertain = false;
        for (path, text) in texts {
            match text
                .map_err(|error| error.to_string())
                .and_then(|text| StaticPod::read(&text, node_name).map_err(|error| error.to_string()))
            {
                Ok(pod) => {
                    self.complaints.remove(&path);
                    self.pods.insert(path, pod);
                }
                Err(error) => {
                    self.uncertain |= !self.pods.contains_key(&path);
                    self.complain(&path, &error);
                }
            }
        }
    }

    fn complain(&mut self, path: &Path, error: &str) {
        if self.complaints.insert(path.to_owned(), error.to_owned()).as_deref() != Some(error) {
            tracing::error!(file = %path.display(), error, "a static pod cannot be read");
        }
    }

    /// The first file in order of names wins where two define one Pod.
    fn wanted(&self) -> BTreeMap<&ObjectKey, &StaticPod> {
        let mut wanted = BTreeMap::new();
        for (path, pod) in &self.pods {
            if wanted.insert(&pod.key, pod).is_some_and(|other| other.hash != pod.hash) {
                tracing::error!(file = %path.display(), pod = pod.key.name, "two files define the same static pod");
            }
        }
        wanted
    }
}

async fn reconcile(shared: &Shared, known: &Known) -> Result<(), StoreError> {
    let wanted = known.wanted();
    for stored in shared.store.list(PODS, None).objects {
        if !stored.mentions(mirror::MIRROR) {
            continue;
        }
        let Some(hash) = mirror::hash(&stored.value) else { continue };
        let is_wanted = wanted.get(&*stored.key).is_some_and(|pod| pod.hash == hash);
        // A file that became another Pod replaces the one it was, also while another file is unclear.
        let replaced = wanted.contains_key(&*stored.key);
        if !is_wanted && (replaced || !known.uncertain) && !is_going(&stored.value) {
            tracing::info!(pod = stored.key.name, "a static pod's file is gone or has changed, it ends");
            end(shared, &stored).await?;
        }
    }
    let now = shared.clock.wall();
    for (key, pod) in wanted {
        if shared.store.get(key).is_some() {
            // Its own mirror, the one before that still ends, or a Pod of somebody, which must go first.
            continue;
        }
        let pod_namespace = key.namespace.clone().unwrap_or_default();
        if shared.store.get(&ObjectKey::cluster("namespaces", &pod_namespace)).is_none() {
            tracing::error!(pod = key.name, pod_namespace, "a static pod's namespace does not exist");
            continue;
        }
        let object = pod.mirror(now);
        write(shared, key.clone(), move |present| match present {
            None => Change::Put(object),
            Some(_) => Change::Keep,
        })
        .await?;
    }
    Ok(())
}

fn is_going(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// A graceful delete, as the API makes it of one that may be deleted.
async fn end(shared: &Shared, stored: &StoredObject) -> Result<(), StoreError> {
    let (now, hash) = (shared.clock.wall(), mirror::hash(&stored.value).map(str::to_owned));
    write(shared, stored.key.clone(), move |present| match present {
        Some(present) if mirror::hash(&present.value) == hash.as_deref() => {
            gracefully_deleted(&present.value, now).map_or(Change::Keep, Change::Put)
        }
        Some(_) | None => Change::Keep,
    })
    .await
}

async fn write(
    shared: &Shared,
    key: impl Into<Arc<ObjectKey>>,
    change: impl FnOnce(Option<&StoredObject>) -> Change + Send + 'static,
) -> Result<(), StoreError> {
    let written = shared.store.write(key, move |present| Ok::<_, std::convert::Infallible>((change(present), ())));
    match written.await {
        Ok(_) => Ok(()),
        Err(WriteError::Refused(never)) => match never {},
        Err(WriteError::Store(error)) => Err(error),
    }
}
