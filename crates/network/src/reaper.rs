//! Deletes links in batches: those that are asked for while a deletion runs are deleted together after it.
//!
//! Deleting a link waits for RCU grace periods, some 20 ms; a hundred at once take 5 times as long, not 100 times.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::link;
use crate::netlink::{NetlinkError, NetlinkSocket};

/// Links to delete.
#[derive(Debug, Clone)]
pub struct LinkReaper {
    queue: Arc<Mutex<Queue>>,
    /// The interface group that links wait in for their common end.
    doomed_group: u32,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Doomed>,
    /// Somebody deletes; they look for new links before they stop.
    busy: bool,
}

#[derive(Debug)]
struct Doomed {
    name: String,
    answer: oneshot::Sender<Result<(), NetlinkError>>,
}

impl LinkReaper {
    /// A reaper that uses this interface group.
    pub fn new(doomed_group: u32) -> Self {
        Self { queue: Arc::default(), doomed_group }
    }

    /// Deletes this link, and is back when it is gone.
    pub async fn delete(&self, name: String) -> Result<(), NetlinkError> {
        let (answer, gone) = oneshot::channel();
        let idle = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(Doomed { name, answer });
            !std::mem::replace(&mut queue.busy, true)
        };
        if idle {
            let reaper = self.clone();
            // It outlives a caller that gives up: others wait for it too.
            drop(tokio::task::spawn_blocking(move || reaper.work_off()));
        }
        gone.await.unwrap_or_else(|_dropped| Err(interrupted()))
    }

    fn work_off(&self) {
        loop {
            let batch = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.busy = !queue.waiting.is_empty();
                std::mem::take(&mut queue.waiting)
            };
            if batch.is_empty() {
                return;
            }
            let (names, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|doomed| (doomed.name, doomed.answer)).unzip();
            let outcome =
                NetlinkSocket::open_route().and_then(|host| link::delete_all(&host, &names, self.doomed_group));
            for answer in answers {
                // A caller that gave up does not want to know.
                let _unheard = answer.send(outcome.as_ref().copied().map_err(same));
            }
        }
    }
}

fn same(error: &NetlinkError) -> NetlinkError {
    let cause = error.cause.raw_os_error().map_or_else(|| error.cause.kind().into(), io::Error::from_raw_os_error);
    NetlinkError { what: error.what, cause }
}

fn interrupted() -> NetlinkError {
    NetlinkError { what: "delete the link", cause: io::ErrorKind::Interrupted.into() }
}
