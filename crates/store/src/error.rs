//! Why the store could not be opened, read or written.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::object::ObjectKey;

/// An error below ours, shared because one failed commit answers many writes.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why [`crate::Store::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("cannot make the store directory {}", directory.display())]
    CreateDirectory {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("another monopod daemon holds the store directory {}", directory.display())]
    Locked { directory: PathBuf },
    #[error("cannot lock {}", path.display())]
    Lock {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("cannot open {}", path.display())]
    Access {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("the store file {} is missing though the store was in use; bring back a copy with `monopod restore`, or remove its directory to start empty", path.display())]
    Missing { path: PathBuf },
    #[error("the store file {} is damaged; move its directory away, then bring back a copy with `monopod restore`, or start empty", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    #[error("the store file {} has schema version {found}, but this monopod knows only up to {supported}; use a newer monopod", path.display())]
    Newer { path: PathBuf, found: u64, supported: u64 },
    #[error("cannot start the thread of the store at {}", directory.display())]
    Thread {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
}

impl OpenStoreError {
    pub(crate) fn damaged(path: PathBuf, why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Damaged { path, cause: Cause::from(why.into()) }
    }
}

/// Why [`crate::Restoring`] made no store.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("there is a store already: {}; move its directory away first", path.display())]
    Exists { path: PathBuf },
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    #[error("the copy holds what no store takes")]
    Content(#[source] StoreError),
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
}

/// Why something could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written. Deletes still work, and the store takes writes again once there is room.
    #[error("no space left on the disk of {}: only deletes are possible until there is room", directory.display())]
    DiskFull { directory: PathBuf },
    /// A commit failed, so nobody knows what is on the disk (the kernel drops pages that it could not write, see
    /// fsync(2)). Final: every later write gets this too.
    #[error("writing {} failed; the daemon must restart", path.display())]
    Failed {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: Cause,
    },
    #[error("{key}: {why}")]
    InvalidObject { key: ObjectKey, why: &'static str },
    #[error("{what} has {bytes} bytes; at most {limit} are possible")]
    TooLarge { what: String, bytes: usize, limit: usize },
    #[error("record {key:?} of {table:?} cannot be encoded")]
    Encode {
        table: &'static str,
        key: String,
        #[source]
        cause: Cause,
    },
    #[error("record {key:?} of {table:?} cannot be read")]
    Decode {
        table: &'static str,
        key: String,
        #[source]
        cause: Cause,
    },
    #[error("the store at {} is closed", directory.display())]
    Closed { directory: PathBuf },
}

impl StoreError {
    /// What is said, and logged, of a file that could not be written.
    pub(crate) fn failed(path: &Path, cause: Cause) -> Self {
        let error = Self::Failed { path: path.to_owned(), cause };
        tracing::error!(%error, cause = Error::source(&error), "the store takes no more writes");
        error
    }
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The closure said no.
    #[error(transparent)]
    Refused(E),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A watch asks for changes that are no longer kept: list again, then watch from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: the oldest that can be watched from is {oldest}")]
pub struct Expired {
    /// A watch may start after this revision or a later one.
    pub oldest: u64,
}
