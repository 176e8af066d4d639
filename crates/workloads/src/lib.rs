//! The kinds that make Pods: Deployment, ReplicaSet and Job.
//!
//! They speak to nobody but the API, as any client could. Each is level-triggered: a pass reads an object and what it
//! owns, a pure function decides (`replica_set::plan()`, `deployment::plan()`, `job::plan()`), and the pass carries it out.
//! Nothing is remembered between passes but what is to be looked at when, so a restart costs time, never truth.
//!
//! They start no container and read no store. Start reading at `work.rs` (what wakes a pass), then `job/plan.rs`.
#![forbid(unsafe_code)]

mod claim;
mod client;
mod deployment;
mod events;
mod job;
mod making;
mod pods;
mod queue;
mod replica_set;
mod triggers;
mod work;

use spec::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The controllers at work.
#[derive(Debug)]
pub struct Workloads {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Workloads {
    /// Starts all of them. They speak to the API through `kube`; `now` is the wall clock.
    pub fn start(kube: kube::Client, now: fn() -> Timestamp) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(work::work(client::Client::new(kube, now))));
        Self { tasks, stop }
    }

    /// Ends them, wherever they are: the next start finishes what was begun.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
