//! Changes of objects, and whose passes they wake.
//!
//! Deployments, ReplicaSets and Jobs are always followed. Pods are followed only while there is one of these, so that an
//! engine that only runs Pods pays nothing for controllers. A watch that breaks off begins anew with a list; what was
//! missed is found by the passes that the list wakes.

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use spec::k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use spec::k8s_openapi::api::batch::v1::Job;
use spec::k8s_openapi::api::core::v1::Pod;
use spec::k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use spec::label_selector::matches_labels;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client::{Cause, Client, Object};
use crate::pods::controller_of;
use crate::work::{WorkKey, Workload};

/// Between two attempts to follow a kind.
const PAUSE: Duration = Duration::from_secs(1);

/// Changes that wait to be looked at.
const QUEUE: usize = 1024;

/// Something that happened to an object.
enum News {
    /// An object with a controller is there, with the selector of what it owns.
    Owner(WorkKey, Box<LabelSelector>, ObjectMeta),
    /// It is gone; these were its metadata.
    OwnerGone(WorkKey, ObjectMeta),
    /// A Pod has changed, or is gone.
    Pod(ObjectMeta),
}

/// Follows all kinds and tells which objects are to be looked at.
pub struct Triggers {
    news: mpsc::Receiver<News>,
    owners: HashMap<WorkKey, LabelSelector>,
    needs_pods: watch::Sender<bool>,
    woken: Vec<WorkKey>,
    /// Those who follow; they end with this.
    _followers: JoinSet<()>,
}

impl Triggers {
    /// Begins to follow.
    pub fn start(client: Client) -> Self {
        let (sender, news) = mpsc::channel(QUEUE);
        let (needs_pods, wanted) = watch::channel(false);
        let of_deployment = |one: &Deployment| Some(one.spec.selector.clone());
        let of_set = |one: &ReplicaSet| Some(one.spec.selector.clone());
        let of_job = |one: &Job| one.spec.as_ref()?.selector.clone();
        let mut followers = JoinSet::new();
        followers.spawn(follow_owners(client.clone(), Workload::Deployment, of_deployment, sender.clone()));
        followers.spawn(follow_owners(client.clone(), Workload::ReplicaSet, of_set, sender.clone()));
        followers.spawn(follow_owners(client.clone(), Workload::Job, of_job, sender.clone()));
        followers.spawn(follow_pods(client, wanted, sender));
        Self { news, owners: HashMap::new(), needs_pods, woken: Vec::new(), _followers: followers }
    }

    /// The next object to look at.
    pub async fn next(&mut self) -> WorkKey {
        loop {
            if let Some(key) = self.woken.pop() {
                return key;
            }
            match self.news.recv().await {
                Some(news) => self.take(news),
                // Those who follow end with this.
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Owner(key, selector, meta) => {
                if key.workload == Workload::ReplicaSet {
                    self.wake_owners(&meta, &[("Deployment", Workload::Deployment)]);
                }
                self.owners.insert(key.clone(), *selector);
                self.woken.push(key);
            }
            News::OwnerGone(key, meta) => {
                if key.workload == Workload::ReplicaSet {
                    self.wake_owners(&meta, &[("Deployment", Workload::Deployment)]);
                }
                self.owners.remove(&key);
            }
            News::Pod(meta) => {
                self.wake_owners(&meta, &[("ReplicaSet", Workload::ReplicaSet), ("Job", Workload::Job)]);
            }
        }
        let needed = !self.owners.is_empty();
        self.needs_pods.send_if_modified(|present| std::mem::replace(present, needed) != needed);
    }

    /// Wakes who controls an object, or who might take it.
    fn wake_owners(&mut self, meta: &ObjectMeta, kinds: &[(&str, Workload)]) {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        if let Some(owner) = controller_of(meta) {
            let workload = kinds.iter().find(|(kind, _)| *kind == owner.kind).map(|(_, workload)| *workload);
            self.woken.extend(workload.map(|workload| WorkKey {
                workload,
                namespace: namespace.to_owned(),
                name: owner.name.clone(),
            }));
            return;
        }
        let might = self.owners.iter().filter(|(key, selector)| {
            key.namespace == namespace
                && kinds.iter().any(|(_, workload)| *workload == key.workload)
                && matches_labels(selector, meta.labels.as_ref())
        });
        self.woken.extend(might.map(|(key, _)| key.clone()));
    }
}

async fn follow_owners<K: Object>(
    client: Client,
    workload: Workload,
    selector: impl Fn(&K) -> Option<LabelSelector> + Send + Sync,
    news: mpsc::Sender<News>,
) {
    let mut known: HashMap<WorkKey, ObjectMeta> = HashMap::new();
    let key = |meta: &ObjectMeta| WorkKey {
        workload,
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    };
    loop {
        let (list, changes) = match client.follow::<K>().await {
            Ok(followed) => followed,
            Err(cause) => {
                wait_after(&cause).await;
                continue;
            }
        };
        let present: HashMap<WorkKey, ObjectMeta> =
            list.iter().map(|one| (key(one.meta()), one.meta().clone())).collect();
        for (gone, meta) in known.iter().filter(|(key, _)| !present.contains_key(*key)) {
            if news.send(News::OwnerGone(gone.clone(), meta.clone())).await.is_err() {
                return;
            }
        }
        known = present;
        let listed = futures::stream::iter(list.into_iter().map(|one| Ok(WatchEvent::Added(one))));
        let mut changes = listed.chain(changes.boxed());
        while let Ok(Some(change)) = changes.try_next().await {
            let told = match change {
                WatchEvent::Added(one) | WatchEvent::Modified(one) => {
                    let key = key(one.meta());
                    known.insert(key.clone(), one.meta().clone());
                    News::Owner(key, Box::new(selector(&one).unwrap_or_default()), one.meta().clone())
                }
                WatchEvent::Deleted(one) => {
                    let key = key(one.meta());
                    known.remove(&key);
                    News::OwnerGone(key, one.meta().clone())
                }
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(_) => break,
            };
            if news.send(told).await.is_err() {
                return;
            }
        }
    }
}

/// Follows Pods while they matter. What happened before is found by the passes of those who make them matter.
async fn follow_pods(client: Client, mut wanted: watch::Receiver<bool>, news: mpsc::Sender<News>) {
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let mut unwanted = wanted.clone();
        tokio::select! {
            outcome = follow_pods_once(&client, &news) => match outcome {
                Ok(()) => {}
                Err(_gone) => return,
            },
            ended = unwanted.wait_for(|wanted| !*wanted) => if ended.is_err() { return },
        }
    }
}

async fn follow_pods_once(client: &Client, news: &mpsc::Sender<News>) -> Result<(), mpsc::error::SendError<News>> {
    let api: Api<Pod> = Api::all(client.kube().clone());
    let list = match api.list_metadata(&ListParams::default()).await {
        Ok(list) => list,
        Err(error) => {
            wait_after(&error.into()).await;
            return Ok(());
        }
    };
    let revision = list.metadata.resource_version.unwrap_or_default();
    for one in list.items {
        news.send(News::Pod(one.metadata)).await?;
    }
    let changes = match api.watch_metadata(&WatchParams::default(), &revision).await {
        Ok(changes) => changes,
        Err(error) => {
            wait_after(&error.into()).await;
            return Ok(());
        }
    };
    let mut changes = changes.boxed();
    while let Ok(Some(change)) = changes.try_next().await {
        let change: WatchEvent<PartialObjectMeta<Pod>> = change;
        match change {
            WatchEvent::Added(one) | WatchEvent::Modified(one) | WatchEvent::Deleted(one) => {
                news.send(News::Pod(one.metadata)).await?;
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(_) => break,
        }
    }
    Ok(())
}

/// A request that failed is made again soon, but not at once. A connection breaks off when the daemon itself ends.
async fn wait_after(error: &Cause) {
    let error_text = error.to_string();
    if matches!(error, Cause::Api(kube::Error::Api(_))) {
        tracing::warn!(error = error_text, "cannot follow objects");
    } else {
        tracing::debug!(error = error_text, "cannot follow objects");
    }
    tokio::time::sleep(PAUSE).await;
}
