//! What is to be deleted: moved aside in one step, then deleted in the background, however deep it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::directory::{self, names};

/// A directory whose content nobody needs. It lies in the same file system as what is thrown into it.
#[derive(Debug, Clone)]
pub struct Trash {
    path: Arc<PathBuf>,
    directory: Arc<OwnedFd>,
    next: Arc<AtomicU64>,
}

impl Trash {
    /// Opens, or makes, the directory. What a dead process left in it is still there, so names go on after it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory = directory::make_private(path)?;
        let last =
            names(directory.as_fd())?.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok()?.parse().ok()).max();
        let next = last.map_or(0, |last: u64| last.saturating_add(1));
        Ok(Self {
            path: Arc::new(path.to_owned()),
            directory: Arc::new(directory),
            next: Arc::new(AtomicU64::new(next)),
        })
    }

    /// Moves `name` of `from` here.
    pub fn take(&self, from: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        renameat(from, name, self.directory.as_fd(), self.fresh_name())
    }

    /// Deletes what is here by now. Without recursion: a subdirectory is first moved up, so that neither the stack nor the
    /// number of descriptors grows with the depth of a tree, which an image chooses.
    pub fn empty(&self) -> io::Result<()> {
        loop {
            let all = names(self.directory.as_fd())?;
            if all.is_empty() {
                return Ok(());
            }
            for (name, kind) in all {
                let deleted = if kind == FileType::Directory {
                    self.empty_directory(&name)
                } else {
                    unlinkat(&*self.directory, name.as_slice(), AtFlags::empty())
                };
                match deleted {
                    // Another thread empties the trash at the same time.
                    Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Starts a thread that empties it; deleting a large layer takes seconds.
    pub fn empty_in_background(&self) {
        let trash = self.clone();
        let started = std::thread::Builder::new().name("image-trash".to_owned()).spawn(move || {
            if let Err(error) = trash.empty() {
                tracing::warn!(directory = %trash.path.display(), %error, "cannot delete what is left of removed images");
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start the thread that deletes removed images; the next one will delete it all");
        }
    }

    fn empty_directory(&self, name: &[u8]) -> Result<(), Errno> {
        let directory = openat(&*self.directory, name, directory::READ, Mode::empty())?;
        for (inner, kind) in names(directory.as_fd())? {
            if kind == FileType::Directory {
                match unlinkat(&directory, inner.as_slice(), AtFlags::REMOVEDIR) {
                    Err(Errno::NOTEMPTY) => self.take(directory.as_fd(), &inner)?,
                    removed => removed?,
                }
            } else {
                unlinkat(&directory, inner.as_slice(), AtFlags::empty())?;
            }
        }
        unlinkat(&*self.directory, name, AtFlags::REMOVEDIR)
    }

    fn fresh_name(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }
}
