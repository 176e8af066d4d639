//! What of `/proc` and `/sys` is hidden from a container, or may only be read by it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dev, FileType, FsWord, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use sys::mount::{MountAttributes, mount_setattr};

use crate::failure::At;
use crate::kernel_files::{self, EMPTY};
use crate::mounts::{attach, clone_mount, resolve};
use crate::protocol::Failure;

/// What of `/proc` a container must not see, beside what of `/sys` (OCI's usual list; runc, containerd and CRI-O agree on it).
const HIDDEN: [&str; 9] = [
    "proc/asound",
    "proc/acpi",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
];
/// What of `/proc` it may only read.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];
/// statfs(2).
const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// Paths in place of the usual ones, absolute.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Masks<'a> {
    pub(crate) hidden: Option<&'a [String]>,
    pub(crate) read_only: Option<&'a [String]>,
}

impl Masks<'_> {
    /// Hides and write-protects them below `base`, a root or what will be moved to one. `null` hides files.
    pub(crate) fn apply(self, base: BorrowedFd<'_>, null: &OwnedFd) -> Result<(), Failure> {
        let usual = HIDDEN.iter().chain(&kernel_files::MASKED).copied();
        let empty = kernel_files::empty_device().at_path("open", EMPTY)?;
        for path in paths(self.hidden, usual) {
            hide(base, path, empty, null)?;
        }
        for path in paths(self.read_only, READ_ONLY.iter().copied()) {
            let target = match find(base, path) {
                Err(Errno::NOENT) => continue,
                found => found.at_path("open", path)?,
            };
            let tree = clone_mount(&target, "", true).at_path("clone", path)?;
            // What the file system was mounted with besides stays: programs may lie below a path of the image.
            let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
            mount_setattr(&tree, read_only, true).at_path("make read-only", path)?;
            attach(&tree, &target).at_path("attach", path)?;
        }
        Ok(())
    }
}

/// What lies on the device `empty` was hidden ahead.
fn hide(base: BorrowedFd<'_>, path: &str, empty: Dev, null: &OwnedFd) -> Result<(), Failure> {
    let target = match find(base, path) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.at_path("mask", path)?,
    };
    let stat = fstat(&target).at_path("mask", path)?;
    if stat.st_dev == empty {
        return Ok(());
    }
    let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        clone_mount(CWD, EMPTY, false).at_path("mask", path)?
    } else {
        clone_mount(null, "", false).at_path("mask", path)?
    };
    attach(&cover, &target).at_path("mask", path)
}

/// The kernel's files are where they are named; a path of the image may lead over its links, inside.
fn find(base: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    if !path.starts_with("proc/") && !path.starts_with("sys/") {
        return resolve(base, Path::new(path));
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(base, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
}

/// Whether a mount over `target`, in a file system of this kind, may bring to sight what is hidden: in sysfs by a directory above it,
/// or over what hides it.
pub(crate) fn may_uncover(target: &OwnedFd, kind: FsWord) -> rustix::io::Result<bool> {
    Ok(kind == SYSFS_MAGIC || fstat(target)?.st_dev == kernel_files::empty_device()?)
}

/// The plan's paths below the root, or the usual ones.
fn paths<'a>(planned: Option<&'a [String]>, usual: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    match planned {
        Some(planned) => planned.iter().map(|path| path.trim_start_matches('/')).collect(),
        None => usual.collect(),
    }
}
