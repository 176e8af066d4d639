//! Directories of the agent on the disk: made and removed by descriptor, never through a symbolic link.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Gid, Mode, OFlags, RawMode, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Names are read in portions, so that a directory with millions of files takes no memory.
const NAMES_AT_ONCE: usize = 4096;

/// Opens a directory of the machine's own; its path may lead over links, since the machine's owner made them.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory below another; no step of `path` may be a symbolic link.
pub fn open_below(parent: BorrowedFd<'_>, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(parent, path, flags, Mode::empty(), resolve)?)
}

/// Makes a directory below another unless it is there, gives it `mode` if it is new, and opens it.
pub fn make_below(parent: BorrowedFd<'_>, name: &str, mode: RawMode) -> io::Result<OwnedFd> {
    let is_new = match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let directory = open_below(parent, name)?;
    if is_new {
        // The umask does not count here.
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
    }
    Ok(directory)
}

/// Makes a directory below another unless it is there, and opens it. A new one has its mode and group before it has
/// its name: one that is there is never half made, also after a crash.
pub fn make_whole_below(parent: BorrowedFd<'_>, name: &str, mode: RawMode, group: Option<u32>) -> io::Result<OwnedFd> {
    match open_below(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let unfinished = format!("..{name}");
    let directory = make_below(parent, &unfinished, mode)?;
    set_mode_and_group(&directory, mode, group)?;
    rustix::fs::renameat(parent, &*unfinished, parent, name)?;
    Ok(directory)
}

/// Gives a file or directory its group, if there is one, and then its mode: chown(2) clears bits of it.
pub fn set_mode_and_group(file: impl AsFd, mode: RawMode, group: Option<u32>) -> io::Result<()> {
    if let Some(group) = group {
        rustix::fs::fchown(&file, None, Some(Gid::from_raw(group)))?;
    }
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
}

/// Makes a directory of the agent and its missing parents, all with `mode` where they are new.
pub fn make_path(path: &Path, mode: RawMode) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Removes a directory with all that is in it; succeeds if it is not there. Follows no symbolic link and leaves what
/// is mounted below it alone (and fails then).
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match rustix::fs::openat(CWD, parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    remove_below(parent.as_fd(), &CString::new(name.as_encoded_bytes())?)
}

/// Removes one entry of a directory, with all that is in it.
pub fn remove_below(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    if removed(parent, name)? {
        return Ok(());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?;
    empty_directory(&tree)?;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Empties a tree of any depth with two descriptors: a directory that is not empty gives its own directories to the
/// root of the tree and is then removed, so that each step makes the tree flatter.
fn empty_directory(root: &OwnedFd) -> io::Result<()> {
    let mut moved: u64 = 0;
    loop {
        let names = names_in(root)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if removed(root.as_fd(), &name)? {
                continue;
            }
            let child = open_same_device(root, &name)?;
            while let names @ [_, ..] = names_in(&child)?.as_slice() {
                for name in names {
                    if !removed(child.as_fd(), name)? {
                        move_up(&child, name, root, &mut moved)?;
                    }
                }
            }
            rustix::fs::unlinkat(root, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Opens a directory of another on the same file system; it may not be a symbolic link.
pub fn open_same_device(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?)
}

fn move_up(from: &OwnedFd, name: &CStr, root: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let target = format!("..removing-{moved}");
        match rustix::fs::renameat_with(from, name, root, &*target, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the entry is gone now; a directory that is not empty is not.
fn removed(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn names_in(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
        if names.len() >= NAMES_AT_ONCE {
            break;
        }
    }
    Ok(names)
}

/// Names of the entries of a directory; none if it is not there.
pub fn entries(path: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn a_tree_is_removed_and_what_its_links_point_to_stays() {
        let base = tempfile::tempdir().unwrap();
        let (tree, outside) = (base.path().join("tree"), base.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("keep"), "x").unwrap();
        let mut deep = tree.clone();
        for level in 0..300 {
            deep.push(format!("d{level}"));
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        fs::create_dir(tree.join("..removing-1")).unwrap();
        fs::write(tree.join("..removing-1/file"), "x").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        symlink(&outside, deep.join("link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("keep").exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn a_directory_is_there_as_a_whole_or_not_at_all() {
        let base = tempfile::tempdir().unwrap();
        let root = open_directory(base.path()).unwrap();
        // As a crash left it.
        fs::create_dir(base.path().join("..volume")).unwrap();
        for _ in 0..2 {
            make_whole_below(root.as_fd(), "volume", 0o2777, Some(4242)).unwrap();
            let metadata = fs::metadata(base.path().join("volume")).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o2777, 4242));
            assert!(!base.path().join("..volume").exists());
        }
        symlink("volume", base.path().join("link")).unwrap();
        assert!(make_whole_below(root.as_fd(), "link", 0o755, None).is_err());
    }

    #[test]
    fn a_link_in_place_of_a_tree_is_removed_itself() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("outside")).unwrap();
        fs::write(base.path().join("outside/keep"), "x").unwrap();
        symlink(base.path().join("outside"), base.path().join("tree")).unwrap();
        remove_tree(&base.path().join("tree")).unwrap();
        assert!(base.path().join("outside/keep").exists());
        assert!(!base.path().join("tree").is_symlink());
    }

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("outside/inner")).unwrap();
        symlink("outside", base.path().join("link")).unwrap();
        let root = open_directory(base.path()).unwrap();
        assert!(open_below(root.as_fd(), "outside/inner").is_ok());
        assert!(open_below(root.as_fd(), "link/inner").is_err());
        assert!(make_below(root.as_fd(), "link", 0o755).is_err());
    }
}
