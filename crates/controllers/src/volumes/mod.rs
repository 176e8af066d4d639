//! Claims get their volumes here, and volumes that nobody claims any more go or stay, as their policy says.
//!
//! As Kubernetes' persistentvolume-binder and its protection controllers do it, with one provisioner of its own
//! ([`LOCAL_PROVISIONER`](spec::claims::LOCAL_PROVISIONER)): a volume of it is a directory of this machine. What is to be done follows from all claims,
//! volumes and classes by `plan::steps()`, without IO; each step changes one object, and its change brings the next one.

mod event;
mod plan;
mod world;

use std::path::{Path, PathBuf};

use spec::claims::{CLAIM_SOURCE, DEFAULT_CLASS, LOCAL_PROVISIONER};
use spec::decode::{Writable as _, read};
use spec::ids::random_uuid;
use spec::k8s_openapi::api::core::v1::PersistentVolume;
use spec::k8s_openapi::api::storage::v1::StorageClass;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use spec::ordered::map_of;
use store::{ObjectKey, StoreError, WatchEvent, WatchKind};

use crate::Context;
use crate::metadata::seconds;
use crate::work::{self, Controller, Subject, Unfinished};
use event::Said;
use plan::{Next, Step};
use world::World;

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const CLASSES: &str = "storageclasses";
const PODS: &str = "pods";

/// The class of claims that name none, unless somebody has made another one the default.
const STANDARD: &str = "standard";

/// Where volumes of [`LOCAL_PROVISIONER`] lie.
#[derive(Debug, Clone)]
pub struct LocalVolumes {
    /// A directory for each.
    pub directory: PathBuf,
    /// The name of this machine's node.
    pub node_name: String,
    /// Makes the directory of one. One that is there is well, too.
    pub make: fn(&Path) -> std::io::Result<()>,
    /// Removes it with all that is in it. One that is gone is well, too.
    pub remove: fn(&Path) -> std::io::Result<()>,
}

/// Keeps all claims and volumes true.
pub async fn run(context: Context, local: LocalVolumes) {
    let store = context.store.clone();
    let volumes = Volumes { context, local };
    if let Err(error) = volumes.keep_standard_class().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "there is no class {STANDARD:?} of volumes");
    }
    work::run(&store, volumes).await;
}

/// What is done on the disk.
struct Work {
    verb: &'static str,
    /// Of the event if it fails.
    reason: &'static str,
    doing: fn(&Path) -> std::io::Result<()>,
}

impl Work {
    fn make(local: &LocalVolumes) -> Self {
        Self { verb: "make", reason: "ProvisioningFailed", doing: local.make }
    }

    fn remove(local: &LocalVolumes) -> Self {
        Self { verb: "remove", reason: "VolumeFailedDelete", doing: local.remove }
    }
}

struct Volumes {
    context: Context,
    local: LocalVolumes,
}

/// All are looked at together: which volume a claim gets depends on all others.
fn everything() -> Vec<Subject> {
    vec![Subject { pod_namespace: String::new(), name: String::new() }]
}

impl Controller for Volumes {
    const RESOURCES: &'static [&'static str] = &[CLAIMS, VOLUMES, CLASSES, PODS];

    fn concerned(&self, event: &WatchEvent) -> Vec<Subject> {
        let is_pod = event.object.key.resource == PODS;
        // A claim that is to go waits for the last Pod that has it.
        let matters = !is_pod || event.kind == WatchKind::Deleted && event.object.mentions(CLAIM_SOURCE);
        if matters { everything() } else { Vec::new() }
    }

    fn all(&self) -> Vec<Subject> {
        everything()
    }

    async fn reconcile(&self, _everything: &Subject) -> Result<(), Unfinished> {
        let steps = {
            let world = World::read(&self.context.store, &self.local);
            plan::steps(&world, (self.context.now)())
        };
        for step in steps {
            self.take(step).await?;
        }
        Ok(())
    }
}

impl Volumes {
    async fn take(&self, step: Step) -> Result<(), Unfinished> {
        let (directory, next) = match step {
            Step::Say(said) => return event::say(&self.context, said).await,
            Step::Write(next) => (None, next),
            Step::MakeDirectory { path, next } => (Some((Work::make(&self.local), path)), next),
            Step::RemoveDirectory { path, next } => (Some((Work::remove(&self.local), path)), next),
        };
        if let Some((work, path)) = directory {
            self.work_at(work, path, &next.key).await?;
        }
        let Next { key, seen, object } = next;
        Ok(self.context.write_as_seen(key, seen, object).await?)
    }

    /// What fails is tried again; until then the volume's events tell of it.
    async fn work_at(&self, work: Work, path: PathBuf, volume: &ObjectKey) -> Result<(), Unfinished> {
        let (place, doing) = (path.clone(), work.doing);
        let outcome = tokio::task::spawn_blocking(move || doing(&place)).await;
        let Err(source) = outcome.unwrap_or_else(|ended| Err(std::io::Error::other(ended))) else { return Ok(()) };
        if let Some(volume) =
            self.context.store.get(volume).and_then(|stored| read::<PersistentVolume>(&stored.value).ok())
        {
            let message = format!("cannot {} {}: {source}", work.verb, path.display());
            event::say(&self.context, Said::warning(&volume, work.reason, message)).await?;
        }
        Err(Unfinished::Directory { verb: work.verb, path, source })
    }

    /// The class is there whenever the daemon starts; who wants another default says so on it, or on theirs.
    async fn keep_standard_class(&self) -> Result<(), StoreError> {
        let class = StorageClass {
            metadata: ObjectMeta {
                name: Some(STANDARD.to_owned()),
                uid: Some(random_uuid()),
                creation_timestamp: Some(seconds((self.context.now)())),
                annotations: Some(map_of([(DEFAULT_CLASS.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            provisioner: LOCAL_PROVISIONER.to_owned(),
            reclaim_policy: Some("Delete".to_owned()),
            volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
            allow_volume_expansion: Some(true),
            ..StorageClass::default()
        };
        let Ok(class) = class.write() else { return Ok(()) };
        self.context.write_as_seen(ObjectKey::cluster(CLASSES, STANDARD), None, Some(class)).await
    }
}

#[cfg(test)]
mod tests;
