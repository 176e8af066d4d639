//! Services at work: the kernel forwards to their endpoints.
//!
//! It reads Services and EndpointSlices, whoever wrote them, and writes nothing: which Pods are endpoints is decided by
//! `controllers`. How the kernel forwards is `network`'s.
//!
//! Start reading at [`Services::start`]; `catalog` is what is known, `forwards` is what follows from it, without IO.
#![forbid(unsafe_code)]

mod catalog;
mod follow;
mod forwards;

use follow::Follower;
use network::Network;
use store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Services at work.
#[derive(Debug)]
pub struct Services {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Services {
    /// Forwards to all Services of the store from now on; those that there are now are forwarded to when this is back.
    pub async fn start(store: Store, network: Network, node_name: String) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let follower = Follower::start(store, network, node_name).await;
        tasks.spawn(stop.clone().run_until_cancelled_owned(follower.run()));
        Self { tasks, stop }
    }

    /// Stops to follow. The kernel goes on forwarding.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
