//! The directory that a layer is unpacked into: every name is resolved by descriptors, never outside of it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, mkdirat, mknodat, openat, openat2, readlinkat, statat,
    unlinkat,
};
use rustix::io::Errno;

use crate::attributes::set_opaque;
use crate::directory::READ;
use crate::limits::PATH_DEPTH;
use crate::trash::Trash;

/// Symlinks followed in one path, as the kernel does it (path_resolution(7)).
const SYMLINKS: usize = 40;
/// Descriptors of directories kept open, since the entries of an archive come directory by directory.
const OPEN_DIRECTORIES: usize = 64;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory tree that is being filled. Nobody else writes to it: it lies in a private directory.
pub(crate) struct LayerTree<'a> {
    root: OwnedFd,
    /// Parents by their path as archives spell it.
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Takes what a later entry replaces.
    trash: &'a Trash,
}

impl<'a> LayerTree<'a> {
    pub(crate) fn new(root: OwnedFd, trash: &'a Trash) -> Self {
        Self { root, open: HashMap::new(), trash }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory of the given names, made where it is missing. Symlinks are followed inside the tree, as if it were
    /// the root: `bin -> usr/bin`, then `bin/sh` is legal in one layer.
    pub(crate) fn parent(&mut self, names: &[&[u8]]) -> Result<Rc<OwnedFd>, Errno> {
        let path = names.join(&b'/');
        if let Some(open) = self.open.get(&path) {
            return Ok(Rc::clone(open));
        }
        let directory = match self.open_existing(&path) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_path(names),
            opened => opened,
        }?;
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        let directory = Rc::new(directory);
        self.open.insert(path, Rc::clone(&directory));
        Ok(directory)
    }

    /// An existing directory; symlinks are followed inside the tree.
    pub(crate) fn open_existing(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        openat2(&self.root, path, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Makes room for an entry: whatever has its name goes away.
    pub(crate) fn remove(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        // A path that led through the removed entry leads elsewhere from now on.
        self.open.clear();
        match unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => self.trash.take(directory, name),
            removed => removed,
        }
    }

    /// Makes a directory, or keeps one that is there, and opens it. One that stands where the same layer has a whiteout
    /// hides what lower layers have in it: whiteouts apply to lower layers only (OCI image-spec, layer.md).
    pub(crate) fn make_directory(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
        let mut hides_lower = false;
        match mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {
                let there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if kind(&there) != FileType::Directory {
                    hides_lower = is_whiteout(&there);
                    self.remove(directory, name)?;
                    mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
                }
            }
            made => made?,
        }
        let made = openat(directory, name, READ, Mode::empty())?;
        if hides_lower {
            set_opaque(&made)?;
        }
        Ok(made)
    }

    /// Hides `name` of lower layers, but not what this layer itself has of that name.
    pub(crate) fn whiteout(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if kind(&there) == FileType::Directory => set_opaque(self.make_directory(directory, name)?),
            // A file of this layer hides it already.
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0),
            Err(error) => Err(error),
        }
    }

    /// Walks name by name, follows symlinks by hand, also those that lead nowhere yet, and makes what is missing.
    fn make_path(&mut self, names: &[&[u8]]) -> Result<OwnedFd, Errno> {
        let mut here = vec![reopen(self.root.as_fd())?];
        let mut ahead: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
        let mut symlinks = 0;
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                // At the root, `..` is the root.
                b".." => {
                    here.truncate((here.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let last = here.last().ok_or(Errno::NOENT)?.as_fd();
            match statat(last, &name, AtFlags::SYMLINK_NOFOLLOW).map(|there| (kind(&there), is_whiteout(&there))) {
                Ok((FileType::Directory, _)) => {}
                Ok((FileType::Symlink, _)) => {
                    symlinks += 1;
                    if symlinks > SYMLINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = readlinkat(last, &name, Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        here.truncate(1);
                    }
                    ahead.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
                    if ahead.len() > crate::limits::PATH_BYTES {
                        return Err(Errno::NAMETOOLONG);
                    }
                    continue;
                }
                Ok((_, true)) | Err(Errno::NOENT) => {
                    let last = reopen(last)?;
                    drop(self.make_directory(last.as_fd(), &name)?);
                }
                Ok(_) => return Err(Errno::NOTDIR),
                Err(error) => return Err(error),
            }
            let last = here.last().ok_or(Errno::NOENT)?;
            let next = openat(last, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            here.push(next);
            // Each level is an open descriptor.
            if here.len() > 2 * PATH_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
        }
        here.pop().ok_or(Errno::NOENT)
    }
}

fn reopen(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    openat(directory, ".", DIRECTORY, Mode::empty())
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}
