//! Watches: a bounded history of each resource's changes, read by any number of watchers at their own pace.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::Expired;
use crate::object::{ObjectKey, StoredObject, WatchEvent};

/// How many changes of a resource are kept for watchers at most.
pub const HISTORY_EVENTS: usize = 8192;
/// How many bytes of JSON the kept changes of a resource may have: ten changes of each of 500 Pods.
pub const HISTORY_BYTES: usize = 16 << 20;

/// So much is kept however old it is. What is beyond it is kept for a time, so that a burst may be read slowly, and what a
/// daemon at rest does not need can be used for other things.
const LASTING_EVENTS: usize = 2048;
const LASTING_BYTES: usize = 2 << 20;
/// That time, at least; at most it is twice this.
pub(crate) const OLD_AFTER: Duration = Duration::from_mins(1);

/// So many changes of each resource are taken together from watches that are one.
const TOGETHER: usize = 64;

/// Changes that no watch can have any more. Taking them apart is work, so it is done where nobody waits for it.
pub(crate) type Forgotten = Vec<Arc<WatchEvent>>;

/// The newest changes of one resource, in the order of their revisions.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Arc<WatchEvent>>,
    bytes: usize,
    /// Every change of the resource after this revision is in `events`.
    floor: u64,
    /// The newest revision of the whole store that is visible.
    revision: u64,
}

impl History {
    fn push(&mut self, event: WatchEvent, forgotten: &mut Forgotten) {
        self.bytes += event.object.json.len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > HISTORY_EVENTS || self.bytes > HISTORY_BYTES {
            if !self.pop(forgotten) {
                break;
            }
        }
    }

    fn is_long(&self) -> bool {
        self.events.len() > LASTING_EVENTS || self.bytes > LASTING_BYTES
    }

    /// Of what was written up to a revision: drops what is more than lasts.
    fn trim(&mut self, old: u64, forgotten: &mut Forgotten) {
        while self.is_long() && self.events.front().is_some_and(|oldest| oldest.object.revision <= old) {
            self.pop(forgotten);
        }
        self.events.shrink_to(self.events.len() * 2);
    }

    fn pop(&mut self, forgotten: &mut Forgotten) -> bool {
        let Some(oldest) = self.events.pop_front() else { return false };
        self.bytes -= oldest.object.json.len();
        self.floor = oldest.object.revision;
        forgotten.push(oldest);
        true
    }

    fn first_after(&self, revision: u64) -> Result<Option<&Arc<WatchEvent>>, Expired> {
        Ok(self.all_after(revision)?.next())
    }

    fn all_after(&self, revision: u64) -> Result<impl Iterator<Item = &Arc<WatchEvent>>, Expired> {
        if revision < self.floor {
            return Err(Expired { oldest: self.floor });
        }
        let position = self.events.partition_point(|event| event.object.revision <= revision);
        Ok(self.events.range(position..))
    }
}

/// One resource's history, and how its watchers are woken. When it is dropped, the watches end.
#[derive(Debug)]
pub(crate) struct Feed {
    history: Arc<Mutex<History>>,
    /// Since the last time its watchers were woken.
    pub(crate) changed: bool,
    wake: watch::Sender<()>,
}

impl Feed {
    /// Starts at `floor`: nothing before it can be watched. `revision` is the present one.
    pub(crate) fn new(floor: u64, revision: u64) -> Self {
        let history = History { events: VecDeque::new(), bytes: 0, floor, revision };
        Self { history: Arc::new(Mutex::new(history)), changed: false, wake: watch::Sender::new(()) }
    }

    pub(crate) fn push(&self, event: WatchEvent, forgotten: &mut Forgotten) {
        lock(&self.history).push(event, forgotten);
    }

    /// Tells that everything up to `revision` has been pushed, and wakes the watchers if this feed has changed.
    pub(crate) fn advance(&mut self, revision: u64) {
        lock(&self.history).revision = revision;
        if std::mem::take(&mut self.changed) {
            self.wake.send_replace(());
        }
    }

    /// Has only what lasts of what was written up to a revision.
    pub(crate) fn trim(&self, old: u64, forgotten: &mut Forgotten) {
        lock(&self.history).trim(old, forgotten);
    }

    /// Takes the changes after `revision` back: from the objects as they are to what they were.
    pub(crate) fn take_back(
        &self,
        revision: u64,
        objects: &mut BTreeMap<Arc<ObjectKey>, StoredObject>,
    ) -> Result<(), Expired> {
        let history = lock(&self.history);
        if revision < history.floor {
            return Err(Expired { oldest: history.floor });
        }
        let newer = history.events.iter().rev().take_while(|event| event.object.revision > revision);
        for event in newer {
            let WatchEvent { object, previous, .. } = event.as_ref();
            match previous {
                Some(previous) => drop(objects.insert(Arc::clone(&object.key), previous.clone())),
                None => drop(objects.remove(&object.key)),
            }
        }
        Ok(())
    }

    pub(crate) fn watch(&self, after: u64) -> Result<ObjectWatch, Expired> {
        let wake = self.wake.subscribe();
        lock(&self.history).first_after(after)?;
        Ok(ObjectWatch { history: Arc::clone(&self.history), wake, after, expired: None })
    }
}

fn lock(history: &Mutex<History>) -> std::sync::MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The changes of one resource after a revision, one by one. It costs the store nothing but a wake-up: a watcher
/// that is too slow loses its place instead of holding anything up.
#[derive(Debug)]
pub struct ObjectWatch {
    history: Arc<Mutex<History>>,
    wake: watch::Receiver<()>,
    after: u64,
    expired: Option<Expired>,
}

impl ObjectWatch {
    /// Waits for the next change. `None` means that the watch has ended: either this watcher fell behind the history,
    /// then [`ObjectWatch::expired`] says so and the caller must list again, or the store was closed.
    ///
    /// May be dropped while it waits (as in `select!`) without losing a change.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let events = self.next_of(1).await?;
        events.into_iter().next().map(|event| event.as_ref().clone())
    }

    /// The same for several changes at once, at most `limit`, in their order and shared with every other watcher.
    pub async fn next_of(&mut self, limit: usize) -> Option<Vec<Arc<WatchEvent>>> {
        let mut open = self.expired.is_none();
        loop {
            match self.take(limit) {
                Ok(events) if !events.is_empty() => return Some(events),
                Ok(_) if open => open = self.wake.changed().await.is_ok(),
                Ok(_) => return None,
                Err(expired) => {
                    self.expired = Some(expired);
                    return None;
                }
            }
        }
    }

    /// Whether the watch has ended because this watcher fell behind the history.
    pub fn expired(&self) -> Option<Expired> {
        self.expired
    }

    /// Every change up to this revision has been handed out: what a bookmark may say. It never goes back.
    pub fn revision(&mut self) -> u64 {
        let history = lock(&self.history);
        if let Ok(None) = history.first_after(self.after) {
            self.after = self.after.max(history.revision);
        }
        self.after
    }

    fn take(&mut self, limit: usize) -> Result<Vec<Arc<WatchEvent>>, Expired> {
        let events: Vec<_> = lock(&self.history).all_after(self.after)?.take(limit).cloned().collect();
        if let Some(newest) = events.last() {
            self.after = newest.object.revision;
        }
        Ok(events)
    }
}

/// Watches of several resources as one, for whoever follows many of which most are quiet.
#[derive(Debug)]
pub struct ObjectWatches {
    watches: Vec<ObjectWatch>,
    /// What is handed out next: all watches are asked at once, not for each change.
    taken: VecDeque<Arc<WatchEvent>>,
}

impl ObjectWatches {
    pub(crate) fn new(watches: Vec<ObjectWatch>) -> Self {
        Self { watches, taken: VecDeque::new() }
    }

    /// Waits for the next change, as [`ObjectWatch::next`] does. Those of one resource come in their order.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let mut open = true;
        loop {
            if let Some(event) = self.taken.pop_front() {
                // A clone, so that a tree that somebody looks at is not kept with the history.
                return Some(event.as_ref().clone());
            }
            for watch in &mut self.watches {
                match watch.take(TOGETHER) {
                    Ok(events) => self.taken.extend(events),
                    Err(expired) => watch.expired = Some(expired),
                }
            }
            if self.is_expired() || (!open && self.taken.is_empty()) {
                return None;
            }
            if self.taken.is_empty() {
                open = self.changed().await;
            }
        }
    }

    /// Whether one of them has fallen behind the history, so that the caller must list again.
    pub fn is_expired(&self) -> bool {
        self.watches.iter().any(|watch| watch.expired.is_some())
    }

    /// Waits until one of them has changed; whether the store is still open.
    async fn changed(&mut self) -> bool {
        let mut changes: Vec<Pin<Box<_>>> =
            self.watches.iter_mut().map(|watch| Box::pin(watch.wake.changed())).collect();
        poll_fn(|context| {
            let first = changes.iter_mut().map(|change| change.as_mut().poll(context)).find(Poll::is_ready);
            first.map_or(Poll::Pending, |changed| changed.map(|changed| changed.is_ok()))
        })
        .await
    }
}
