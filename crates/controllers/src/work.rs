//! The loop of a controller: which objects are to be looked at, and when.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use spec::ordered::set_of;
use store::{Store, StoreError, StoredObject, WatchEvent};

/// Namespace and name of an object that a controller keeps others true to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub pod_namespace: String,
    pub name: String,
}

impl Subject {
    /// The object itself.
    pub fn of(object: &StoredObject) -> Self {
        Self::named(object, object.key.name.clone())
    }

    /// Another object in the namespace of this one.
    pub fn named(object: &StoredObject, name: impl Into<String>) -> Self {
        Self { pod_namespace: object.key.namespace.clone().unwrap_or_default(), name: name.into() }
    }
}

/// Wait after a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// So many subjects are looked at together: their writes share commits.
const TOGETHER: usize = 32;

/// Why a subject is looked at again.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// A change was not written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk does not do what it should.
    #[error("cannot {verb} {}", path.display())]
    Directory {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One controller.
pub trait Controller: Sync {
    /// The resources of which a change may matter.
    const RESOURCES: &'static [&'static str];

    /// Whom a change concerns.
    fn concerned(&self, event: &WatchEvent) -> Vec<Subject>;

    /// All that there are.
    fn all(&self) -> Vec<Subject>;

    /// Looks at one and does what is missing. It is called again after a failure, and after each change that concerns
    /// the subject, its own included.
    fn reconcile(&self, subject: &Subject) -> impl Future<Output = Result<(), Unfinished>> + Send;
}

/// Runs a controller until the store is closed.
pub async fn run<C: Controller>(store: &Store, controller: C) {
    loop {
        // The watches are there before the list, so that nothing falls between.
        let Ok(mut watches) = store.watch_all(C::RESOURCES.iter().copied()) else { continue };
        let mut due = set_of(controller.all());
        loop {
            let failed = reconcile_all(&controller, std::mem::take(&mut due)).await;
            let Some(failed) = failed else { return };
            let is_retry = !failed.is_empty();
            due.extend(failed);
            let news = watches.next();
            let first = if is_retry {
                match tokio::time::timeout(RETRY, news).await {
                    Ok(event) => event,
                    Err(_elapsed) => continue,
                }
            } else {
                news.await
            };
            let Some(event) = first else { break };
            due.extend(controller.concerned(&event));
            while let Some(Some(event)) = watches.next().now_or_never() {
                due.extend(controller.concerned(&event));
            }
        }
        if !watches.is_expired() {
            return;
        }
    }
}

/// Those that failed; `None` once the store is closed.
async fn reconcile_all(controller: &impl Controller, due: BTreeSet<Subject>) -> Option<Vec<Subject>> {
    let (due, mut failed) = (Vec::from_iter(due), Vec::new());
    for some in due.chunks(TOGETHER) {
        let outcomes = join_all(some.iter().map(|subject| controller.reconcile(subject))).await;
        for (subject, outcome) in some.iter().zip(outcomes) {
            match outcome {
                Ok(()) => {}
                Err(Unfinished::Store(StoreError::Closed { .. })) => return None,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(namespace = subject.pod_namespace, name = subject.name, error, "a controller waits");
                    failed.push(subject.clone());
                }
            }
        }
    }
    Some(failed)
}
