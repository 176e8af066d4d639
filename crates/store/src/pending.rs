//! What is in the journal and not yet in the objects file, and the thread that brings it there.
//!
//! It is brought there once nothing has been written for a while, or when there is much of it: many commits at once, of
//! which only the last word about each thing is written. When all is there, nothing is done any more.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::database::DatabaseFile;
use crate::directory::Directory;
use crate::error::StoreError;
use crate::journal::{Frame, JOURNAL_BYTES, Kept};

/// So long after the last commit all goes to the objects file.
const QUIET: Duration = Duration::from_secs(1);
/// At once if the journal has so many blocks of it, or so many changes wait. Each may alter a page of its own, and on a disk
/// that has become full all pages come from the reserve (`ballast.rs`).
const MANY_BLOCKS: usize = JOURNAL_BYTES / 4096 / 2;
const MANY_CHANGES: usize = 512;

/// Commits that the objects file lacks, shared by the writer, the thread that moves them, and readers of records.
#[derive(Debug)]
pub(crate) struct Pending {
    file: Arc<DatabaseFile>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Newer than `moving`.
    waiting: Group,
    /// On its way to the objects file.
    moving: Option<Arc<Group>>,
    /// When the last commit came.
    written: Instant,
    /// The newest commit, the newest that the objects file has, and the newest that somebody wants to be there.
    newest: u64,
    moved: u64,
    wanted: u64,
    /// No more will come.
    closing: bool,
    failed: Option<StoreError>,
}

/// Some commits, one after the other.
#[derive(Debug, Default)]
struct Group {
    kept: Kept,
    newest: u64,
    /// Where its first frame begins; `None` if there is no commit.
    begin: Option<usize>,
    blocks: usize,
    changes: usize,
}

impl Group {
    fn add(&mut self, frame: Frame) {
        self.begin.get_or_insert(frame.begin);
        self.blocks += frame.end - frame.begin;
        self.changes += frame.changes.len();
        self.newest = frame.number;
        self.kept.add(frame.changes);
    }

    fn is_much(&self) -> bool {
        self.blocks >= MANY_BLOCKS || self.changes >= MANY_CHANGES
    }
}

impl State {
    fn tail(&self) -> Option<usize> {
        self.moving.as_ref().and_then(|group| group.begin).or(self.waiting.begin)
    }

    /// When the waiting commits are to be moved, if there are any.
    fn due(&self) -> Option<Instant> {
        self.waiting.begin?;
        let at_once = self.closing || self.wanted > self.moved || self.waiting.is_much();
        Some(if at_once { self.written } else { self.written + QUIET })
    }
}

impl Pending {
    /// Of a file, and what the journal has beyond it.
    pub(crate) fn new(file: Arc<DatabaseFile>, frames: Vec<Frame>) -> Self {
        let moved = file.newest();
        let mut waiting = Group::default();
        for frame in frames {
            waiting.add(frame);
        }
        let newest = waiting.newest.max(moved);
        let state = State {
            waiting,
            moving: None,
            written: Instant::now(),
            newest,
            moved,
            wanted: 0,
            closing: false,
            failed: None,
        };
        Self { file, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Starts the thread; it ends after [`Pending::close`], when all is moved.
    pub(crate) fn spawn(self: &Arc<Self>, directory: Arc<Directory>) -> io::Result<JoinHandle<()>> {
        let pending = Arc::clone(self);
        Builder::new().name("store-pending".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| pending.run())).is_err() {
                let why: Box<dyn Error + Send + Sync> = "the thread that writes it panicked".into();
                pending.lock().failed = Some(StoreError::failed(&pending.file.path, why.into()));
                pending.changed.notify_all();
            }
            // Locked until the file is closed.
            drop(pending);
            drop(directory);
        })
    }

    /// No more commits will come.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// The number of the newest commit.
    pub(crate) fn newest(&self) -> u64 {
        self.lock().newest
    }

    /// Why nothing can be moved any more.
    pub(crate) fn failed(&self) -> Option<StoreError> {
        self.lock().failed.clone()
    }

    /// What `place` says of the first block that must stay; waits for the objects file while it says nothing.
    pub(crate) fn wait_for_place(&self, place: impl Fn(Option<usize>) -> Option<usize>) -> Result<usize, StoreError> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.waiting.changes < MANY_CHANGES
                && let Some(block) = place(state.tail())
            {
                return Ok(block);
            }
            state.wanted = state.newest;
            self.changed.notify_all();
            state = self.wait(state);
        }
    }

    /// Takes over a commit that is in the journal.
    pub(crate) fn add(&self, frame: Frame) {
        let mut state = self.lock();
        let (had_any, had_much) = (state.waiting.begin.is_some(), state.waiting.is_much());
        state.written = Instant::now();
        state.newest = frame.number;
        state.waiting.add(frame);
        let wake = !had_any || (!had_much && state.waiting.is_much());
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// Notes a commit that went to the objects file itself, when all others were there.
    pub(crate) fn passed(&self, number: u64) {
        let mut state = self.lock();
        state.newest = number;
        state.moved = number;
    }

    /// Waits until the objects file has all commits of now.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        let newest = state.newest;
        while state.moved < newest {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.wanted < newest {
                state.wanted = newest;
                self.changed.notify_all();
            }
            state = self.wait(state);
        }
        Ok(())
    }

    /// One record.
    pub(crate) fn record(&self, table: &str, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let of = |group: &Group| group.kept.records.get(table).and_then(|records| records.get(key)).cloned();
        let state = self.lock();
        let pending = of(&state.waiting).or_else(|| of(state.moving.as_ref()?));
        drop(state);
        // What is no longer pending now is in the file now.
        pending.map_or_else(|| self.file.record(table, key), Ok)
    }

    /// The records of one table, sorted by key.
    pub(crate) fn records(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let state = self.lock();
        let groups = [state.moving.as_deref(), Some(&state.waiting)];
        let pending: Vec<_> =
            groups.into_iter().flatten().filter_map(|group| group.kept.records.get(table).cloned()).collect();
        // At the same moment: nothing can leave the pending ones meanwhile.
        let file = self.file.now()?;
        drop(state);
        let found = file.records(table)?;
        if pending.is_empty() {
            return Ok(found);
        }
        let mut records: BTreeMap<_, _> = found.into_iter().map(|(key, v)| (key, Some(v))).collect();
        records.extend(pending.into_iter().flatten());
        Ok(records.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            match state.due() {
                None if state.closing => return,
                None => state = self.wait(state),
                Some(due) if due > now => state = self.wait_until(state, due - now),
                Some(_) => {
                    let group = Arc::new(std::mem::take(&mut state.waiting));
                    state.moving = Some(Arc::clone(&group));
                    drop(state);
                    let moved = self.file.commit_up_to(group.newest, &group.kept.changes());
                    state = self.lock();
                    if let Err(error) = moved {
                        // It can still be read, and the journal has it.
                        state.failed = Some(self.file.failed(error));
                        self.changed.notify_all();
                        return;
                    }
                    state.moving = None;
                    state.moved = group.newest;
                    self.changed.notify_all();
                    // Taken apart while nobody waits.
                    drop(state);
                    drop(group);
                    state = self.lock();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }
}
