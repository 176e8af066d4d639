//! The writer thread: takes all writes that wait, commits them together, makes them visible, answers each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::ballast::{Ballast, Room};
use crate::batch::{Batch, Encoder};
use crate::database::DatabaseFile;
use crate::directory::{Acknowledged, Directory};
use crate::error::StoreError;
use crate::events::{ChangedEvents, EVENTS, EventAges};
use crate::jobs::{Jobs, Wake};
use crate::journal::{Frame, Journal, Kept};
use crate::memory::Memory;
use crate::object::WatchKind;
use crate::pending::Pending;
use crate::watch::{Forgotten, OLD_AFTER};

/// A batch takes no further write once it has this many bytes of values, so that it fits into the journal and the reserve.
const BATCH_BYTES: usize = 512 << 10;
/// How many writes a batch takes at most, so that the first one does not wait too long.
const BATCH_WRITES: usize = 1024;
/// Revisions are reserved in blocks of this size, so that one whose event was never written to the disk is not given
/// out again after a crash.
const REVISION_BLOCK: u64 = 4096;

/// A write: runs on the writer thread and leaves its answer, which is sent when the batch is durable. Given an error
/// it does nothing but answer with it.
pub(crate) type Job = Box<dyn FnOnce(Result<&mut Batch<'_>, StoreError>) -> Answer + Send>;
/// Tells the caller how the commit went.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The state of the writer thread.
pub(crate) struct Writer {
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) file: Arc<DatabaseFile>,
    /// `None` where there can be none: then every commit goes to the objects file itself.
    pub(crate) journal: Option<Journal>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) ballast: Arc<Ballast>,
    pub(crate) ages: EventAges,
    pub(crate) encoder: Encoder,
    pub(crate) changed_events: ChangedEvents,
    /// Every revision up to this one is on the disk as possibly given out.
    pub(crate) reserved_revision: u64,
    /// When memory is taken back from what has become old.
    pub(crate) trim_due: Option<Instant>,
    /// Counts durable commits.
    pub(crate) commits: Arc<AtomicU64>,
    /// Why nothing is written any more.
    pub(crate) failed: Option<StoreError>,
    /// Stays locked until the files are closed.
    pub(crate) directory: Arc<Directory>,
}

impl Writer {
    /// Works until no more jobs come.
    pub(crate) fn run(mut self) {
        loop {
            match self.jobs.wait(self.ages.next_surplus().into_iter().chain(self.trim_due).min()) {
                Wake::Time if self.trim_due.is_some_and(|due| due <= Instant::now()) => {
                    let again = self.memory.trim();
                    self.trim_due = again.then(|| Instant::now() + OLD_AFTER);
                }
                Wake::Time | Wake::Jobs => self.write_batch(),
                Wake::Closed => return,
            }
        }
    }

    /// Writes what waits.
    fn write_batch(&mut self) {
        let memory = Arc::clone(&self.memory);
        let directory = Arc::clone(&self.directory);
        let mut encoder = std::mem::take(&mut self.encoder);
        let mut batch = Batch::new(&memory, &directory.path, memory.revision(), self.ballast.room(), &mut encoder);
        let mut answers = Vec::new();
        self.failed = self.failed.take().or_else(|| self.pending.failed());
        while batch.bytes < BATCH_BYTES
            && answers.len() < BATCH_WRITES
            && let Some(job) = self.jobs.next()
        {
            answers.push(job(match &self.failed {
                None => Ok(&mut batch),
                Some(error) => Err(error.clone()),
            }));
        }
        self.remove_surplus_events(&mut batch);
        memory.forthcoming.tell(&batch.events);
        let (result, forgotten) = match self.commit(batch) {
            Ok(forgotten) => (Ok(()), forgotten),
            Err(error) => (Err(error), Forgotten::new()),
        };
        for answer in answers {
            answer(result.clone());
        }
        drop(forgotten);
        encoder.end_batch();
        self.encoder = encoder;
    }

    fn remove_surplus_events(&mut self, batch: &mut Batch<'_>) {
        let now = Instant::now();
        for event in &batch.events {
            if event.object.key.resource == EVENTS {
                let revision = (event.kind != WatchKind::Deleted).then_some(event.object.revision);
                self.ages.note(&event.object.key, revision, now);
            }
        }
        while let Some(key) = self.ages.surplus(now).cloned() {
            self.ages.note(&key, None, now);
            if let Some(event) = batch.get(&key)
                && let Err(error) = batch.delete(event)
            {
                tracing::error!(event = %key, %error, "cannot remove an old event");
            }
        }
    }

    /// Makes a batch durable, then visible.
    fn commit(&mut self, batch: Batch<'_>) -> Result<Forgotten, StoreError> {
        let Batch { objects, unwritten, events, records, revision, room, .. } = batch;
        let mut kept = Kept::default();
        let mut changed_events = Vec::new();
        for (key, object) in objects {
            if key.resource == EVENTS {
                changed_events.push(key);
            } else if !unwritten.contains(&key) {
                kept.objects.insert(key, object);
            }
        }
        for (table, key, value) in records {
            kept.put_record(table.into(), key, value);
        }
        let wanted = !kept.objects.is_empty() || !kept.records.is_empty();
        // A commit that happens anyway takes the next block along; none is made for it before the block is used up.
        if revision > self.reserved_revision || (wanted && revision + REVISION_BLOCK / 2 > self.reserved_revision) {
            kept.reserved_revision = Some(revision + REVISION_BLOCK);
        }
        if wanted || kept.reserved_revision.is_some() {
            let reserved_revision = kept.reserved_revision.unwrap_or(self.reserved_revision);
            let number = self.make_durable(kept, room).inspect_err(|error| self.failed = Some(error.clone()))?;
            if let Err(error) = self.acknowledged.note(number) {
                tracing::warn!(path = %self.directory.acknowledged().display(), %error, "cannot note a commit");
            }
            self.commits.fetch_add(1, Ordering::Relaxed);
            self.reserved_revision = reserved_revision;
        }
        if !events.is_empty() {
            self.trim_due.get_or_insert_with(|| Instant::now() + OLD_AFTER);
        }
        let forgotten = self.memory.publish(events, revision);
        if !changed_events.is_empty() {
            // That thread lives as long as this one; if it died, events stay in memory.
            drop(self.changed_events.send(changed_events));
        }
        Ok(forgotten)
    }

    /// Gives the number of the commit. An error is final.
    fn make_durable(&mut self, kept: Kept, room: Room) -> Result<u64, StoreError> {
        let number = self.pending.newest() + 1;
        let changes = kept.changes();
        // On a full disk each commit shows what it takes of the reserve before the next one is judged.
        if room == Room::Ample
            && let Some(journal) = &mut self.journal
            && let Some(blocks) = journal.encode(number, &changes)
        {
            let begin = self.pending.wait_for_place(|tail| journal.place(blocks, tail))?;
            journal.write(begin).map_err(|error| StoreError::failed(&journal.path, Arc::new(error)))?;
            self.pending.add(Frame { number, begin, end: begin + blocks, changes: kept });
        } else {
            self.pending.settle()?;
            self.file.commit_up_to(number, &changes).map_err(|error| self.file.failed(error))?;
            self.pending.passed(number);
        }
        Ok(number)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs.end();
        self.pending.close();
    }
}
