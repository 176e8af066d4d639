//! Events: bounded in number and age, and written to a file of their own behind the callers' backs.
//!
//! They tell people what happened and are worth no fsync: an event is answered and visible at once, and reaches its
//! file within [`WRITE_AFTER`]. Whatever is wrong with that file is logged and ends there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use rustix::fs::OFlags;

use crate::database::{Changes, DatabaseFile};
use crate::directory::{Directory, open_private};
use crate::error::OpenStoreError;
use crate::memory::Memory;
use crate::object::{ObjectKey, StoredObject};

/// The resource that is kept in the events file.
pub const EVENTS: &str = "events";
/// How many events are kept; the oldest go.
pub const EVENTS_KEPT: usize = 2000;
/// How long an event is kept after it was last written, as Kubernetes does it (kube-apiserver `--event-ttl`). The
/// time counts anew when the daemon starts: no wall clock is asked, since it may jump.
pub const EVENTS_KEPT_FOR: Duration = Duration::from_hours(1);

/// Events that came within this time are written together.
const WRITE_AFTER: Duration = Duration::from_secs(1);
/// A file that could not be written is made anew after this time at the earliest.
const RETRY_AFTER: Duration = Duration::from_mins(1);
const CACHE_BYTES: usize = 1 << 20;

/// Which events there are, oldest first. The writer thread's own.
#[derive(Debug, Default)]
pub(crate) struct EventAges {
    oldest_first: BTreeMap<u64, (Arc<ObjectKey>, Instant)>,
    revisions: HashMap<Arc<ObjectKey>, u64>,
}

impl EventAges {
    /// Notes that an event was written at `revision`, or that it is gone.
    pub(crate) fn note(&mut self, key: &Arc<ObjectKey>, revision: Option<u64>, now: Instant) {
        let before = match revision {
            Some(revision) => self.revisions.insert(Arc::clone(key), revision),
            None => self.revisions.remove(key),
        };
        if let Some(before) = before {
            self.oldest_first.remove(&before);
        }
        if let Some(revision) = revision {
            self.oldest_first.insert(revision, (Arc::clone(key), now));
        }
    }

    /// The oldest event, if it has to go: too many, or too old.
    pub(crate) fn surplus(&self, now: Instant) -> Option<&Arc<ObjectKey>> {
        let (_, (key, written)) = self.oldest_first.first_key_value()?;
        let too_old = now.saturating_duration_since(*written) >= EVENTS_KEPT_FOR;
        (too_old || self.oldest_first.len() > EVENTS_KEPT).then_some(key)
    }

    /// When the oldest event will be too old.
    pub(crate) fn next_surplus(&self) -> Option<Instant> {
        self.oldest_first.first_key_value().map(|(_, (_, written))| *written + EVENTS_KEPT_FOR)
    }
}

/// Opens the events file and gives its events. A damaged one is moved aside; one that cannot be had is done without.
pub(crate) fn open_events(path: &Path) -> (Option<DatabaseFile>, Vec<StoredObject>) {
    let opened = open_file(path).or_else(|error| {
        tracing::warn!(%error, cause = std::error::Error::source(&error), "cannot use the events file; making a new one");
        set_aside(path).map_err(|cause| OpenStoreError::Access { path: path.to_owned(), cause })?;
        open_file(path)
    });
    match opened {
        Ok((file, events)) => (Some(file), events),
        Err(error) => {
            tracing::warn!(%error, cause = std::error::Error::source(&error), "events are kept in memory only");
            (None, Vec::new())
        }
    }
}

/// Takes keys of events that have changed.
pub(crate) type ChangedEvents = Sender<Vec<Arc<ObjectKey>>>;

/// Starts the thread that writes events to their file; it ends when the sender is dropped, after writing the rest.
pub(crate) fn spawn_events_writer(
    directory: Arc<Directory>,
    file: Option<DatabaseFile>,
    memory: Arc<Memory>,
) -> io::Result<(ChangedEvents, JoinHandle<()>)> {
    let (sender, changed) = channel();
    let failed = file.is_none().then(Instant::now);
    let writer = EventsWriter { path: directory.events(), _directory: directory, file, memory, failed };
    let thread = Builder::new().name("store-events".into()).spawn(move || writer.run(&changed))?;
    Ok((sender, thread))
}

struct EventsWriter {
    path: PathBuf,
    file: Option<DatabaseFile>,
    memory: Arc<Memory>,
    /// When the file failed last.
    failed: Option<Instant>,
    /// Stays locked until the file is closed.
    _directory: Arc<Directory>,
}

impl EventsWriter {
    fn run(mut self, changed: &Receiver<Vec<Arc<ObjectKey>>>) {
        while let Ok(first) = changed.recv() {
            let (keys, more) = collect(first, changed);
            self.write(keys);
            if !more {
                break;
            }
        }
    }

    fn write(&mut self, mut keys: HashSet<Arc<ObjectKey>>) {
        if self.file.is_none() {
            if self.failed.is_some_and(|failed| failed.elapsed() < RETRY_AFTER) {
                return;
            }
            self.file = self.make_anew();
            keys = self.memory.list(EVENTS, None).objects.into_iter().map(|event| event.key).collect();
        }
        let Some(file) = &self.file else { return };
        let events: Vec<_> = keys.iter().map(|key| (key, self.memory.get(key))).collect();
        let objects = events.iter().map(|(key, event)| (&***key, event.as_ref())).collect();
        if let Err(error) = file.commit(&Changes { objects, ..Changes::default() }) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write events; they are kept in memory only");
            self.file = None;
            self.failed = Some(Instant::now());
        }
    }

    /// Replaces a file that failed, so that no event of before comes back.
    fn make_anew(&mut self) -> Option<DatabaseFile> {
        let made = match std::fs::remove_file(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(OpenStoreError::Access { path: self.path.clone(), cause })
            }
            Ok(()) | Err(_) => open_file(&self.path),
        };
        match made {
            Ok((file, _)) => Some(file),
            Err(error) => {
                tracing::warn!(%error, cause = std::error::Error::source(&error), "events are kept in memory only");
                self.failed = Some(Instant::now());
                None
            }
        }
    }
}

/// Gathers what comes within a while; says whether more may come.
fn collect(first: Vec<Arc<ObjectKey>>, changed: &Receiver<Vec<Arc<ObjectKey>>>) -> (HashSet<Arc<ObjectKey>>, bool) {
    let until = Instant::now() + WRITE_AFTER;
    let mut keys = HashSet::from_iter(first);
    loop {
        match changed.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(more) => keys.extend(more),
            Err(RecvTimeoutError::Timeout) => return (keys, true),
            Err(RecvTimeoutError::Disconnected) => return (keys, false),
        }
    }
}

fn open_file(path: &Path) -> Result<(DatabaseFile, Vec<StoredObject>), OpenStoreError> {
    let access = |cause| OpenStoreError::Access { path: path.to_owned(), cause };
    let file = open_private(path, OFlags::empty()).map_err(access)?;
    let backend = FileBackend::new(file).map_err(|cause| access(io::Error::other(cause)))?;
    let (file, contents) = DatabaseFile::open(path, backend, CACHE_BYTES)?;
    Ok((file, contents.objects))
}

/// Keeps what is damaged for whoever wants to look at it; the one before it goes.
fn set_aside(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_extension("redb.damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_by_number_or_age_whichever_is_first() {
        let key = |number: u64| Arc::new(ObjectKey::namespaced(EVENTS, "default", format!("e-{number}")));
        let start = Instant::now();
        let minute = Duration::from_mins(1);
        let mut ages = EventAges::default();
        assert_eq!((ages.surplus(start), ages.next_surplus()), (None, None));

        ages.note(&key(1), Some(1), start);
        ages.note(&key(2), Some(2), start + minute);
        // Written again: it is young again, and the other one the oldest.
        ages.note(&key(1), Some(3), start + 2 * minute);
        assert_eq!(ages.next_surplus(), Some(start + minute + EVENTS_KEPT_FOR));
        assert_eq!(ages.surplus(start + EVENTS_KEPT_FOR), None);
        assert_eq!(ages.surplus(start + minute + EVENTS_KEPT_FOR), Some(&key(2)));
        ages.note(&key(2), None, start);
        assert_eq!(ages.next_surplus(), Some(start + 2 * minute + EVENTS_KEPT_FOR));

        for number in 4..4 + EVENTS_KEPT as u64 - 1 {
            ages.note(&key(number), Some(number), start + 2 * minute);
        }
        assert_eq!(ages.surplus(start + 2 * minute), None);
        ages.note(&key(0), Some(u64::MAX), start + 2 * minute);
        assert_eq!(ages.surplus(start + 2 * minute), Some(&key(1)));
    }
}
