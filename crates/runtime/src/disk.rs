//! How much of the disk a tree takes: blocks and inodes, each file once however many names it has; and where on it trees go.
//!
//! Containers change these trees meanwhile: nothing is followed, and what is gone counts as nothing.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::ops::{Add, Sub};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags, Stat, fstat, ioctl_getflags, ioctl_setflags,
    openat, openat2, statat,
};
use rustix::io::Errno;

/// What is deeper is not counted: each level holds a descriptor.
const DEEPEST: usize = 1024;
/// stat(2) counts blocks of this size, whatever the file system has.
const BLOCK: u64 = 512;

/// Tells the file system that what lies in a directory are trees that have nothing to do with each other, so that each may have a
/// place of its own (`FS_TOPDIR_FL`, chattr(1) `+T`).
///
/// An ext4 without a journal gives no inode away again for some minutes after its file was deleted, and looks over all of these
/// for each new one (`recently_deleted()` of fs/ext4/ialloc.c), as far as they lie in the same part of the disk. Where that makes
/// no difference, or the file system has no such thing, nothing is lost.
pub fn keep_apart(directory: &Path) {
    let set = || {
        let directory =
            rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = ioctl_getflags(&directory)?;
        if flags.contains(IFlags::TOPDIR) { Ok(()) } else { ioctl_setflags(&directory, flags | IFlags::TOPDIR) }
    };
    let done: rustix::io::Result<()> = set();
    if let Err(error) = done {
        tracing::debug!(directory = %directory.display(), %error, "the file system is not told how trees are to lie");
    }
}

/// A part of a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// As allocated, so that a sparse file counts for what it has.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Add for DiskUsage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

impl Sub for DiskUsage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), inodes: self.inodes.saturating_sub(other.inodes) }
    }
}

/// Measures a directory with all that is in it and on the same file system; nothing if it is not there.
pub fn measure_tree(path: &Path) -> io::Result<DiskUsage> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match openat(CWD, path, flags, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(DiskUsage::default()),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&root)?;
    let mut walk = Walk { device: stat.st_dev, total: usage_of(&stat), linked: HashSet::new() };
    let mut levels = vec![walk.list(root)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.directories.pop() else {
            levels.pop();
            continue;
        };
        let opened = open_below(level.directory.as_fd(), &name);
        if let Ok(directory) = opened
            && levels.len() < DEEPEST
        {
            levels.push(walk.list(directory)?);
        }
    }
    Ok(walk.total)
}

struct Level {
    directory: OwnedFd,
    /// That are still to be looked into.
    directories: Vec<CString>,
}

struct Walk {
    device: u64,
    total: DiskUsage,
    /// Files with several names that were counted.
    linked: HashSet<u64>,
}

impl Walk {
    /// Counts what is in a directory.
    fn list(&mut self, directory: OwnedFd) -> io::Result<Level> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if stat.st_dev != self.device || (!is_directory && stat.st_nlink > 1 && !self.linked.insert(stat.st_ino)) {
                continue;
            }
            self.total = self.total + usage_of(&stat);
            if is_directory {
                directories.push(name.to_owned());
            }
        }
        Ok(Level { directory, directories })
    }
}

fn open_below(parent: BorrowedFd<'_>, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, flags, Mode::empty(), resolve)
}

fn usage_of(stat: &Stat) -> DiskUsage {
    DiskUsage { bytes: u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(BLOCK), inodes: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_count_once_and_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("big"), vec![b'x'; 1 << 20]).unwrap();
        fs::write(tree.join("a/b/file"), vec![b'x'; 64 << 10]).unwrap();
        fs::hard_link(tree.join("a/b/file"), tree.join("a/again")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        let sparse = fs::File::create(tree.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let usage = measure_tree(&tree).unwrap();
        // tree, a, b, file, link, sparse
        assert_eq!(usage.inodes, 6);
        assert!((64 << 10..128 << 10).contains(&usage.bytes), "{usage:?}");
        assert_eq!(measure_tree(&tree.join("none")).unwrap(), DiskUsage::default());
        assert!(measure_tree(&tree.join("link")).is_err());
    }

    #[test]
    fn trees_are_kept_apart_where_the_file_system_knows_how() {
        let directory = tempfile::tempdir().unwrap();
        keep_apart(directory.path());
        keep_apart(&directory.path().join("none"));
        let opened = fs::File::open(directory.path()).unwrap();
        let is_ext4 = rustix::fs::fstatfs(&opened).unwrap().f_type == 0xEF53;
        assert!(!is_ext4 || ioctl_getflags(&opened).unwrap().contains(IFlags::TOPDIR));
    }

    #[test]
    fn a_very_deep_tree_ends_the_walk_and_not_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let mut at = openat(CWD, directory.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for _ in 0..DEEPEST + 10 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        let usage = measure_tree(directory.path()).unwrap();
        assert!((DEEPEST as u64..DEEPEST as u64 + 2).contains(&usage.inodes), "{usage:?}");
        // Flattened step by step: its removal would hold a descriptor for each level.
        let [deep, deeper, aside] = ["d", "d/d", "e"].map(|name| directory.path().join(name));
        while fs::rename(&deeper, &aside).is_ok() {
            fs::remove_dir(&deep).unwrap();
            fs::rename(&aside, &deep).unwrap();
        }
    }
}
