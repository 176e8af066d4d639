//! File systems as detached mounts, and attaching them beneath a root without following anything out of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// A new file system, mounted nowhere yet. An option without a value is a flag.
pub(crate) fn filesystem(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *name, *value)?,
            None => fsconfig_set_flag(&context, *name)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A detached copy of the mount at `path`, and of those below it if `recursive`.
pub(crate) fn clone_mount(
    directory: impl AsFd,
    path: impl AsRef<Path>,
    recursive: bool,
) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_ref().as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(directory, path.as_ref(), flags)
}

/// Attaches a detached mount at what `target` refers to.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    move_mount(mount, "", target, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

/// Refers to an absolute path of this process' own root.
pub(crate) fn open_path(path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// The kind of mount point to make where none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountPoint {
    Directory,
    File,
}

/// Refers to `path` beneath `root`, taking `root` for `/` as a container would, and makes it if it is missing.
///
/// Each component is resolved by openat2(2) from a descriptor that is then held, and never again by its path: a
/// neighbour that shares a volume cannot swap in a symbolic link in between (CVE-2021-30465).
pub(crate) fn open_mount_point(root: BorrowedFd<'_>, path: &Path, kind: MountPoint) -> rustix::io::Result<OwnedFd> {
    match resolve(root, path) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let mut names = path.components().filter(|component| matches!(component, Component::Normal(_))).peekable();
    let mut below = PathBuf::from(".");
    let mut parent = resolve(root, &below)?;
    while let Some(name) = names.next() {
        below.push(name);
        parent = match resolve(root, &below) {
            Ok(found) => found,
            Err(Errno::NOENT) if kind == MountPoint::File && names.peek().is_none() => {
                make_file(parent.as_fd(), name.as_os_str().as_ref())?;
                resolve_in(parent.as_fd(), name.as_os_str().as_ref())?
            }
            Err(Errno::NOENT) => {
                mkdirat(&parent, Path::new(name.as_os_str()), Mode::from_raw_mode(0o755))?;
                resolve_in(parent.as_fd(), name.as_os_str().as_ref())?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(parent)
}

/// Refers to `path` with `root` as `/`; symbolic links are followed inside, magic links of procfs are not.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
}

/// Refers to a file in a directory, and makes it if it is missing; a symbolic link of that name is ELOOP.
pub(crate) fn open_plain_file(directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    match resolve_in(directory, Path::new(name)) {
        Err(Errno::NOENT) => {
            make_file(directory, Path::new(name))?;
            resolve_in(directory, Path::new(name))
        }
        found => found,
    }
}

fn make_file(directory: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}

fn resolve_in(parent: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(parent, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
}
