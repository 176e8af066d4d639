//! Controllers: each makes some objects follow from others, and speaks to nothing but the store that the API serves.
//!
//! They start no container and know no kernel; how a directory is made they are told. Each is level-triggered: a change only says which object to look at, and
//! what to do about it follows from what is in the store then, by a function without IO. So a restart, or a change that
//! nobody heard of, costs time and never truth.
//!
//! Start reading at [`Controllers::start`], then at `endpoint_slices` or `volumes`.
#![forbid(unsafe_code)]

mod endpoint_slices;
mod metadata;
mod pod;
mod volumes;
mod work;

use std::convert::Infallible;
use std::sync::Arc;

use serde_json::Value;
use spec::Timestamp;
use store::{Change, ObjectKey, Store, StoreError, WriteError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use volumes::LocalVolumes;

/// Reads the wall clock.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all controllers use.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) now: WallClock,
}

impl Context {
    /// Makes `next` of an object, or removes it, unless it has changed since the resource version that was seen (`None`: it was not
    /// there): then that change brings its controller here again.
    pub(crate) async fn write_as_seen(
        &self,
        key: ObjectKey,
        seen: Option<String>,
        next: Option<Value>,
    ) -> Result<(), StoreError> {
        let written = self.store.write(key, move |present| {
            let is_as_seen = present.map(|present| present.revision.to_string()) == seen;
            let change = match next {
                _ if !is_as_seen => Change::Keep,
                Some(object) => Change::Put(object),
                None => Change::Delete,
            };
            Ok::<_, Infallible>((change, ()))
        });
        match written.await {
            Ok(_written) => Ok(()),
            Err(WriteError::Refused(never)) => match never {},
            Err(WriteError::Store(error)) => Err(error),
        }
    }
}

/// The controllers at work.
#[derive(Debug)]
pub struct Controllers {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Controllers {
    /// Starts all of them.
    pub fn start(store: Store, local: LocalVolumes, now: WallClock) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let context = Context { store, now };
        tasks.spawn(stop.clone().run_until_cancelled_owned(endpoint_slices::run(context.clone())));
        tasks.spawn(stop.clone().run_until_cancelled_owned(volumes::run(context, local)));
        Self { tasks, stop }
    }

    /// Ends them, wherever they are: what was begun is seen and finished by the next start.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
