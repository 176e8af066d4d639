//! Directories of the image store, by descriptor.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, mkdirat, openat};
use rustix::io::Errno;

/// Flags to read a directory without following a symlink in its place.
pub const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes a directory that only its owner enters, or takes the one that is there. Others must not reach the setuid files
/// of image layers (CVE-2021-41103).
pub fn make_private(path: &Path) -> io::Result<OwnedFd> {
    match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = open(path)?;
    fchmod(&directory, Mode::RWXU)?;
    Ok(directory)
}

/// Opens a directory.
pub fn open(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, READ, Mode::empty())
}

/// Names and kinds of what is in a directory.
pub fn names(directory: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, FileType)>, Errno> {
    let mut all = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not tell it (readdir(3)).
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        all.push((name.to_vec(), kind));
    }
    Ok(all)
}
