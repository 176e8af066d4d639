//! The store's directory: one daemon per directory, and the names of the files in it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::error::OpenStoreError;

/// What the lock file says once the objects file has been made: from then on a missing one is a loss, not a start.
const IN_USE: &[u8] = b"in use\n";

/// How long the lock of a daemon that was just killed may outlive it: a child that it had cloned and that has not yet
/// executed its program shares the descriptor.
const RELEASE: Duration = Duration::from_secs(1);

/// The directory, locked as long as this lives (flock(2)).
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    lock: File,
    in_use: bool,
}

impl Directory {
    /// Makes the directory if need be (mode 0700) and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, OpenStoreError> {
        let access = |cause| OpenStoreError::CreateDirectory { directory: path.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(access)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(access)?;

        let lock_path = path.join("lock");
        let failed = |cause| OpenStoreError::Lock { path: lock_path.clone(), cause };
        let mut lock = open_private(&lock_path, OFlags::empty()).map_err(failed)?;
        let patience = Instant::now() + RELEASE;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < patience => std::thread::sleep(RELEASE / 100),
                Err(Errno::WOULDBLOCK) => return Err(OpenStoreError::Locked { directory: path.to_owned() }),
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        let mut mark = Vec::new();
        lock.read_to_end(&mut mark).map_err(failed)?;
        Ok(Self { path: path.to_owned(), lock, in_use: mark == IN_USE })
    }

    /// Whether a store has been made here before.
    pub(crate) fn in_use(&self) -> bool {
        self.in_use
    }

    /// Remembers that a store has been made here.
    pub(crate) fn mark_in_use(&mut self) -> io::Result<()> {
        if !self.in_use {
            self.lock.rewind()?;
            self.lock.write_all(IN_USE)?;
            self.lock.sync_all()?;
            self.sync()?;
            self.in_use = true;
        }
        Ok(())
    }

    /// Makes new names in the directory durable (fsync(2): a file's own fsync does not).
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// The number of the newest commit that was acknowledged, as far as the disk knows.
    pub(crate) fn acknowledged(&self) -> PathBuf {
        self.path.join("acknowledged")
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.path.join("objects.redb")
    }

    /// The objects file while it is made for the first time.
    pub(crate) fn objects_unfinished(&self) -> PathBuf {
        self.path.join("objects.redb.new")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.path.join("events.redb")
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

/// The number of the newest acknowledged commit, beside the objects file and the journal.
///
/// A file whose newest commit is spoilt after a crash looks as if that commit had never been finished, and is read as it was
/// before. This number, written after the commit is durable and without an fsync of its own, tells the two apart: what is
/// behind it has lost what was acknowledged. An earlier version, which knows no journal, refuses what is in there alone by it.
#[derive(Debug)]
pub(crate) struct Acknowledged(File);

impl Acknowledged {
    /// Opens or makes the file; gives the number in it, 0 where there is none.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let mut file = open_private(path, OFlags::empty())?;
        let mut text = String::new();
        // What cannot be read says nothing.
        let read = file.read_to_string(&mut text).ok();
        let number = read.and_then(|_bytes| text.trim_end().parse().ok()).unwrap_or(0);
        Ok((Self(file), number))
    }

    /// Notes a commit.
    pub(crate) fn note(&self, number: u64) -> io::Result<()> {
        self.0.write_all_at(format!("{number:020}\n").as_bytes(), 0)
    }
}

/// Opens or makes a file that only we may read, whatever its mode was (it may hold Secrets).
pub(crate) fn open_private(path: &Path, flags: OFlags) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}
