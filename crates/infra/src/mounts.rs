//! File systems as detached mounts, and attaching them beneath a root without following anything out of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, openat, openat2};
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
    let names: PathBuf = path.components().filter(|component| matches!(component, Component::Normal(_))).collect();
    if names != path.strip_prefix("/").unwrap_or(path)
        && let Ok(found) = resolve(root, &names)
    {
        return Ok(found);
    }
    make_below(root, &names, kind)
}

/// What is there of the path is found by its longest part that is.
fn make_below(root: BorrowedFd<'_>, path: &Path, kind: MountPoint) -> rustix::io::Result<OwnedFd> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return resolve(root, Path::new(".")) };
    let parent = match resolve(root, &Path::new(".").join(above)) {
        Err(Errno::NOENT) => make_below(root, above, MountPoint::Directory)?,
        found => found?,
    };
    // A link that leads nowhere is EEXIST.
    let name = Path::new(name);
    match kind {
        MountPoint::File => make_file(parent.as_fd(), name)?,
        MountPoint::Directory => mkdirat(&parent, name, Mode::from_raw_mode(0o755))?,
    }
    resolve_in(parent.as_fd(), name)
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
    mknodat(directory, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
}

fn resolve_in(parent: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(parent, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("there/deep")).unwrap();
            symlink("/there", root.path().join("link")).unwrap();
            symlink("/nowhere", root.path().join("dangling")).unwrap();
            Self(root)
        }

        fn point(&self, path: &str, kind: MountPoint) -> rustix::io::Result<u64> {
            let root = fs::File::open(self.0.path()).unwrap();
            let found = open_mount_point(root.as_fd(), Path::new(path), kind)?;
            Ok(rustix::fs::fstat(&found).unwrap().st_ino)
        }
    }

    #[test]
    fn what_is_missing_of_a_mount_point_is_made_where_links_lead() {
        let root = Root::new();
        for (path, kind, there) in [
            ("/there/deep", MountPoint::Directory, "there/deep"),
            ("/link/deep/a/b/c", MountPoint::Directory, "there/deep/a/b/c"),
            ("/link/file", MountPoint::File, "there/file"),
            ("/new/file", MountPoint::File, "new/file"),
            ("/../outside", MountPoint::Directory, "outside"),
            ("/gone/../there/deep", MountPoint::Directory, "gone/there/deep"),
            ("/gone/../there/deep", MountPoint::Directory, "there/deep"),
            ("/", MountPoint::Directory, ""),
        ] {
            let inode = root.point(path, kind).unwrap();
            let metadata = fs::metadata(root.0.path().join(there)).unwrap();
            assert_eq!((inode, metadata.is_dir()), (metadata.ino(), kind == MountPoint::Directory), "{path}");
        }
        for path in ["/dangling", "/dangling/below"] {
            assert_eq!(root.point(path, MountPoint::Directory).unwrap_err(), Errno::EXIST, "{path}");
        }
        assert!(!root.0.path().join("nowhere").exists());
    }
}
