//! What wakes a pass, and who does it: one task for all controllers, with a few passes at the same time.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use crate::client::{ApiFailure, Client};
use crate::queue::Queue;
use crate::triggers::Triggers;
use crate::{deployment, job, replica_set};

/// At most as many passes at the same time: they wait for the disk most of the time.
const PASSES: usize = 16;

/// A kind that has a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `batch/v1` Job.
    Job,
}

/// An object that a controller looks after.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkKey {
    /// Its kind.
    pub workload: Workload,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// When an object is to be looked at again, if nothing happens to it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again(pub Option<Duration>);

impl Again {
    /// Only when something happens.
    pub fn never() -> Self {
        Self(None)
    }
}

/// Looks after all objects for ever.
pub async fn work(client: Client) {
    let mut triggers = Triggers::start(client.clone());
    let mut queue = Queue::default();
    let mut passes = FuturesUnordered::new();
    loop {
        while passes.len() < PASSES
            && let Some(key) = queue.take(Instant::now())
        {
            passes.push(pass(&client, key));
        }
        let due = queue.next().filter(|_| passes.len() < PASSES);
        tokio::select! {
            key = triggers.next() => queue.add(key, Instant::now()),
            Some((key, outcome)) = passes.next() => settle(&mut queue, &key, outcome),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

async fn pass(client: &Client, key: WorkKey) -> (WorkKey, Result<Again, ApiFailure>) {
    let (namespace, name) = (key.namespace.as_str(), key.name.as_str());
    let outcome = match key.workload {
        Workload::Deployment => deployment::reconcile(client, namespace, name).await,
        Workload::ReplicaSet => replica_set::reconcile(client, namespace, name).await,
        Workload::Job => job::reconcile(client, namespace, name).await,
    };
    (key, outcome)
}

fn settle(queue: &mut Queue<WorkKey>, key: &WorkKey, outcome: Result<Again, ApiFailure>) {
    match outcome {
        Ok(Again(after)) => queue.done(key, after, Instant::now()),
        Err(failure) => {
            // Somebody else's write came between, or the API says no: its word is in an Event where it is of use.
            if failure.is_trouble() {
                let cause = std::error::Error::source(&failure).map(ToString::to_string);
                tracing::warn!(error = failure.to_string(), cause, "a controller's pass has failed");
            }
            queue.failed(key, Instant::now());
        }
    }
}
