//! The reserve for a full disk: a file that gives its space to the store when there is no other.
//!
//! A copy-on-write file needs space even to delete, so without a reserve a full disk could not be emptied through the
//! API. The space is given away in small doses, only as much as a write needs at that moment, because whoever filled
//! the disk takes everything else that becomes free.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatvfs};
use rustix::io::Errno;

use crate::directory::open_private;

/// Size of the reserve. One batch writes at most 2.5 MiB of values (`writer.rs`), redb rounds a large value up to a
/// power of two and keeps the old version until the commit: twice that is still below this.
pub const BALLAST_BYTES: u64 = 8 << 20;

/// A dose is what the write needs, rounded up to a multiple of this.
const DOSE_BYTES: u64 = 64 << 10;

/// Room that must remain after the reserve has been made again, so that a disk at its limit does not make and
/// release it all the time.
const SLACK_BYTES: u64 = 1 << 20;

/// The reserve file.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    bytes: u64,
    /// False on a file system that cannot reserve space (fallocate(2): EOPNOTSUPP); then there is no reserve.
    possible: bool,
}

/// How much of the reserve there is, and so what may still be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Anything.
    Ample,
    /// No new objects; what is there may change (a Pod that is being deleted is updated several times).
    Scarce,
    /// Deletes only.
    Last,
}

impl Ballast {
    /// Takes over the reserve file, or makes it; a disk too full for it is no error.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = open_private(path, OFlags::empty())?;
        let metadata = file.metadata()?;
        // A sparse file (restored from a copy) holds nothing back.
        let real = metadata.blocks().saturating_mul(512) >= metadata.len();
        let bytes = if real { metadata.len().min(BALLAST_BYTES) } else { 0 };
        file.set_len(bytes)?;
        let ballast = Self { path: path.to_owned(), held: Mutex::new(Held { file, bytes, possible: true }) };
        ballast.room();
        Ok(ballast)
    }

    /// Says what may be written now. Makes the reserve again if there is space for it.
    pub(crate) fn room(&self) -> Room {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.possible && held.bytes < BALLAST_BYTES {
            self.refill(&mut held);
        }
        match held.bytes {
            BALLAST_BYTES => Room::Ample,
            _ if !held.possible => Room::Ample,
            bytes if bytes >= BALLAST_BYTES / 2 => Room::Scarce,
            _ => Room::Last,
        }
    }

    /// Frees a dose of at least `wanted` bytes; false when nothing is left.
    fn release(&self, wanted: u64) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.bytes == 0 {
            return false;
        }
        if held.bytes == BALLAST_BYTES {
            tracing::warn!(reserve = %self.path.display(), "disk full: writing from the reserve, only deletes go on");
        }
        let left = held.bytes.saturating_sub(wanted.next_multiple_of(DOSE_BYTES));
        match held.file.set_len(left) {
            Ok(()) => held.bytes = left,
            Err(error) => tracing::error!(reserve = %self.path.display(), %error, "cannot free the reserve"),
        }
        held.bytes == left
    }

    /// Does a write again with a dose of the reserve for as long as the disk is full.
    pub(crate) fn with_reserve(&self, wanted: u64, mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            match write() {
                Err(error) if is_full(&error) && self.release(wanted) => {}
                result => return result,
            }
        }
    }

    fn refill(&self, held: &mut Held) {
        let missing = BALLAST_BYTES - held.bytes;
        // Asked first: a failing fallocate(2) takes all the space there is for a moment.
        if fstatvfs(&held.file).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < missing + SLACK_BYTES) {
            return;
        }
        match fallocate(&held.file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
            Ok(()) => {
                held.bytes = BALLAST_BYTES;
                tracing::debug!(reserve = %self.path.display(), "reserve for a full disk is in place");
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                held.possible = false;
                tracing::warn!(reserve = %self.path.display(), "no reserve for a full disk: not possible on this file system");
            }
            Err(error) => {
                tracing::warn!(reserve = %self.path.display(), %error, "cannot make the reserve for a full disk");
                if let Err(error) = held.file.set_len(held.bytes) {
                    tracing::error!(reserve = %self.path.display(), %error, "cannot shorten the reserve");
                }
            }
        }
    }
}

/// A database file that takes from the reserve when the disk is full, so that redb never sees that: it would refuse
/// every later write.
#[derive(Debug)]
pub(crate) struct ReservedFile {
    pub(crate) file: FileBackend,
    pub(crate) ballast: Arc<Ballast>,
}

impl StorageBackend for ReservedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ballast.with_reserve(DOSE_BYTES, || self.file.set_len(len))
    }

    // Not tried again: after a failed fsync nobody knows what is on the disk (fsync(2), "NOTES").
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ballast.with_reserve(data.len() as u64, || self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// Whether a write failed for want of space.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
