//! Writes the entries of a layer's archive into a directory tree.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps, ftruncate, linkat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use crate::attributes::{self, Dropped};
use crate::limits::{LayerLimits, SpaceCheck, SpaceError};
use crate::path::{LayerPath, NameMeaning};
use crate::tar_stream::{Entry, EntryKind, Segment, Skip, TarError, TarReader};
use crate::trash::Trash;
use crate::tree::LayerTree;

/// What was unpacked, and what was left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct UnpackCounts {
    /// Files, directories, links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Device nodes: a layer that brings the disk's node would hand out the disk.
    pub dropped_devices: u64,
    /// See [`attributes`].
    pub dropped_xattrs: u64,
}

/// Why an archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is no good tar archive.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// One entry is refused or cannot be written.
    #[error("entry {entry:?}")]
    Entry {
        /// Its path in the archive.
        entry: String,
        /// Why.
        #[source]
        cause: EntryError,
    },
    /// The archive holds more than any image needs.
    #[error("it has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The disk is too full.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The root of the layer itself failed.
    #[error("cannot write the layer's root directory")]
    Root(#[source] std::io::Error),
}

/// Why an entry of a layer is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Its name is not one that we unpack.
    #[error("{0}")]
    Path(String),
    /// Its hard link's target is not one that we link to.
    #[error("its link target {target:?}: {why}")]
    LinkTarget {
        /// As it stands in the archive.
        target: String,
        /// Which rule it breaks.
        why: String,
    },
    /// A system call failed.
    #[error("cannot {step}")]
    Write {
        /// What was tried.
        step: &'static str,
        /// The kernel's word.
        #[source]
        source: std::io::Error,
    },
}

/// Unpacks all entries of `archive` into the empty directory `root`. What a later entry replaces goes to `trash`.
pub(super) fn unpack<R: Skip>(
    archive: &mut TarReader<R>,
    root: OwnedFd,
    limits: &LayerLimits,
    trash: &Trash,
) -> Result<UnpackCounts, UnpackError> {
    let tree = LayerTree::new(root, trash);
    let mut unpacking = Unpacking {
        tree,
        limits,
        counts: UnpackCounts::default(),
        space: SpaceCheck::default(),
        directories: Vec::new(),
        directory_name_bytes: 0,
    };
    while let Some(entry) = archive.next_entry()? {
        unpacking.count(&entry)?;
        unpacking.unpack_entry(archive, &entry).map_err(|failed| failed.at(&entry))?;
    }
    unpacking.set_directory_times();
    Ok(unpacking.counts)
}

struct Unpacking<'a> {
    tree: LayerTree<'a>,
    limits: &'a LayerLimits,
    counts: UnpackCounts,
    space: SpaceCheck,
    /// Times of directories: set when all is in them.
    directories: Vec<(Vec<u8>, Timestamps)>,
    directory_name_bytes: usize,
}

/// A failure inside one entry, before its name is put to it.
enum Failed {
    Archive(TarError),
    Space(SpaceError),
    Entry(EntryError),
}

impl Failed {
    fn at(self, entry: &Entry) -> UnpackError {
        match self {
            Self::Archive(error) => UnpackError::Archive(error),
            Self::Space(error) => UnpackError::Space(error),
            Self::Entry(cause) => UnpackError::Entry { entry: lossy(&entry.path), cause },
        }
    }
}

impl Unpacking<'_> {
    fn count(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        self.counts.entries += 1;
        if self.counts.entries > self.limits.entries {
            return Err(UnpackError::Limit { what: "entries", limit: self.limits.entries });
        }
        self.counts.bytes = self.counts.bytes.saturating_add(entry.size);
        if self.counts.bytes > self.limits.bytes {
            return Err(UnpackError::Limit { what: "bytes in its files", limit: self.limits.bytes });
        }
        let limit = self.limits.directory_name_bytes;
        if entry.kind == EntryKind::Directory {
            self.directory_name_bytes += entry.path.len();
        }
        if self.directory_name_bytes > limit {
            return Err(UnpackError::Limit { what: "bytes in its directories' names", limit: limit as u64 });
        }
        Ok(())
    }

    fn unpack_entry<R: Skip>(&mut self, archive: &mut TarReader<R>, entry: &Entry) -> Result<(), Failed> {
        let path = LayerPath::parse(&entry.path).map_err(refused_path)?;
        let Some((parents, name)) = path.split_last() else { return self.root(entry) };
        let space =
            self.space.before_write(self.tree.root(), entry.size).map_err(|error| failed("measure the disk", error))?;
        space.map_err(Failed::Space)?;
        match NameMeaning::of(name).map_err(refused_path)? {
            NameMeaning::Entry => {}
            NameMeaning::Aufs => return Ok(()),
            NameMeaning::Opaque => {
                let directory = self.parent(parents)?;
                // The parent is held as a path descriptor, on which xattrs cannot be set (open(2), O_PATH).
                let directory = openat(&*directory, ".", crate::directory::READ, Mode::empty())
                    .map_err(step("open its directory"))?;
                return attributes::set_opaque(directory).map_err(step("mark its directory as opaque"));
            }
            NameMeaning::Whiteout(hidden) => {
                let directory = self.parent(parents)?;
                return self.tree.whiteout(directory.as_fd(), hidden).map_err(step("make a whiteout"));
            }
        }
        if matches!(entry.kind, EntryKind::CharacterDevice | EntryKind::BlockDevice) {
            self.counts.dropped_devices += 1;
            return Ok(());
        }
        let directory = self.parent(parents)?;
        let directory = directory.as_fd();
        match entry.kind {
            EntryKind::Directory => self.directory(directory, name, entry, &path),
            EntryKind::File => self.file(archive, directory, name, entry),
            EntryKind::HardLink => self.hard_link(directory, name, entry),
            EntryKind::Symlink => {
                let target = entry.link.as_slice();
                self.make(directory, name, || symlinkat(target, directory, name)).map_err(step("make a symlink"))?;
                self.set_on_name(directory, name, entry, None)
            }
            EntryKind::Fifo => {
                let make = || mknodat(directory, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
                self.make(directory, name, make).map_err(step("make a FIFO"))?;
                self.set_on_name(directory, name, entry, Some(entry.mode))
            }
            EntryKind::CharacterDevice | EntryKind::BlockDevice => Ok(()),
        }
    }

    /// The root's own attributes; an entry that would replace the root is refused.
    fn root(&mut self, entry: &Entry) -> Result<(), Failed> {
        if entry.kind != EntryKind::Directory {
            return Err(Failed::Entry(EntryError::Path("it would replace the root directory".to_owned())));
        }
        let dropped = attributes::set_on_open(self.tree.root(), entry).map_err(step("set its attributes"))?;
        self.count_dropped(dropped);
        self.directories.push((Vec::new(), attributes::times(entry)));
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        path: &LayerPath<'_>,
    ) -> Result<(), Failed> {
        let made = self.tree.make_directory(parent, name).map_err(step("make a directory"))?;
        let dropped = attributes::set_on_open(made.as_fd(), entry).map_err(step("set its attributes"))?;
        self.count_dropped(dropped);
        self.directories.push((path.joined(), attributes::times(entry)));
        Ok(())
    }

    fn file<R: Skip>(
        &mut self,
        archive: &mut TarReader<R>,
        directory: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), Failed> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(directory, name, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(self.make(directory, name, open).map_err(step("create a file"))?);
        if let Some(segments) = &entry.segments {
            for segment in segments {
                write_segment(archive, &file, *segment)?;
            }
            ftruncate(&file, entry.size).map_err(step("set its size"))?;
        } else {
            write_segment(archive, &file, Segment { offset: 0, length: entry.size })?;
        }
        let dropped = attributes::set_on_open(file.as_fd(), entry).map_err(step("set its attributes"))?;
        self.count_dropped(dropped);
        attributes::set_time(file.as_fd(), &attributes::times(entry)).map_err(step("set its time"))
    }

    /// A second name for a file of this layer; the target is resolved as every other path, beneath the root.
    fn hard_link(&mut self, directory: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<(), Failed> {
        let refused = |why: String| Failed::Entry(EntryError::LinkTarget { target: lossy(&entry.link), why });
        let target = LayerPath::parse(&entry.link).map_err(|why| refused(why.to_string()))?;
        let Some((parents, target_name)) = target.split_last() else {
            return Err(refused("it is the root directory".to_owned()));
        };
        let from = self.tree.open_existing(&parents.join(&b'/')).map_err(|error| refused(said(error)))?;
        // Linking a name to itself would delete it first.
        let there =
            rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| refused(said(error)))?;
        if !matches!(FileType::from_raw_mode(there.st_mode), FileType::RegularFile | FileType::Symlink | FileType::Fifo)
        {
            return Err(refused("it is no file".to_owned()));
        }
        if let Ok(same) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            && (same.st_dev, same.st_ino) == (there.st_dev, there.st_ino)
        {
            return Ok(());
        }
        self.make(directory, name, || linkat(&from, target_name, directory, name, AtFlags::empty()))
            .map_err(step("make a hard link"))
    }

    /// Makes something new under a name; what a former entry put there goes away.
    fn make<T>(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make() {
            Err(Errno::EXIST) => {
                self.tree.remove(directory, name)?;
                make()
            }
            result => result,
        }
    }

    fn parent(&mut self, names: &[&[u8]]) -> Result<Rc<OwnedFd>, Failed> {
        self.tree.parent(names).map_err(step("make or open its directory"))
    }

    fn set_on_name(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        mode: Option<u32>,
    ) -> Result<(), Failed> {
        let dropped = attributes::set_on_name(directory, name, entry, mode).map_err(step("set its attributes"))?;
        self.count_dropped(dropped);
        Ok(())
    }

    fn count_dropped(&mut self, dropped: Dropped) {
        self.counts.dropped_xattrs += dropped.0;
    }

    /// A directory that a later entry replaced has no time to be set any more.
    fn set_directory_times(&self) {
        for (path, times) in &self.directories {
            if let Ok(directory) = self.tree.open_existing(path)
                && let Ok(directory) = openat(directory, ".", crate::directory::READ, Mode::empty())
                && let Err(error) = attributes::set_time(directory.as_fd(), times)
            {
                tracing::debug!(path = lossy(path), %error, "cannot set the time of a directory");
            }
        }
    }
}

fn write_segment<R: Skip>(archive: &mut TarReader<R>, file: &File, segment: Segment) -> Result<(), Failed> {
    let mut written = 0;
    while written < segment.length {
        let body = archive.body().map_err(Failed::Archive)?;
        let wanted = usize::try_from(segment.length - written).unwrap_or(usize::MAX).min(body.len());
        let bytes = body.get(..wanted).unwrap_or_default();
        if bytes.is_empty() {
            let position = archive.position();
            return Err(Failed::Archive(TarError::Truncated { position }));
        }
        file.write_all_at(bytes, segment.offset + written).map_err(|error| failed("write it", error))?;
        archive.consume(wanted);
        written += wanted as u64;
    }
    Ok(())
}

fn refused_path(why: crate::path::BadPath) -> Failed {
    Failed::Entry(EntryError::Path(why.to_string()))
}

fn step(step: &'static str) -> impl Fn(Errno) -> Failed {
    move |error| failed(step, error.into())
}

fn failed(step: &'static str, source: std::io::Error) -> Failed {
    Failed::Entry(EntryError::Write { step, source })
}

fn said(error: Errno) -> String {
    std::io::Error::from(error).to_string()
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
