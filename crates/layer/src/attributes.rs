//! Owner, mode, extended attributes and time of what was unpacked, in the order in which one does not undo another.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr, futimens, lsetxattr,
    utimensat,
};
use rustix::io::Errno;

use crate::tar_stream::Entry;

/// The xattr that makes overlay hide what lower layers have in a directory (overlayfs.rst, "whiteouts and opaque directories").
pub const OPAQUE: &str = "trusted.overlay.opaque";

/// How many attributes were left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped(pub(crate) u64);

/// Sets all attributes of an open file or directory but, for a directory, its time, which comes when it is filled.
pub(crate) fn set_on_open(file: BorrowedFd<'_>, entry: &Entry) -> Result<Dropped, Errno> {
    // chown clears setuid, setgid and capabilities, so it comes first (chown(2)).
    fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    set_xattrs(entry, |name, value| fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()))
}

/// Sets the time of an open file.
pub(crate) fn set_time(file: BorrowedFd<'_>, times: &Timestamps) -> Result<(), Errno> {
    futimens(file, times)
}

/// Sets the attributes of what cannot be opened: a symlink (which has no mode) or a FIFO.
pub(crate) fn set_on_name(
    directory: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    mode: Option<u32>,
) -> Result<Dropped, Errno> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if let Some(mode) = mode {
        rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    let dropped = set_xattrs(entry, |attribute, value| {
        // There is no lsetxattrat before Linux 6.13; `name` is one name, so nothing is followed.
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        lsetxattr(path, OsStr::from_bytes(attribute), value, XattrFlags::empty())
    })?;
    utimensat(directory, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(dropped)
}

/// Makes a directory hide what lower layers have in it.
pub(crate) fn set_opaque(directory: impl AsFd) -> Result<(), Errno> {
    fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
}

/// Access time is not recorded in images; the same value keeps unpacking repeatable.
pub(crate) fn times(entry: &Entry) -> Timestamps {
    let (tv_sec, nanoseconds) = entry.modified;
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn set_xattrs(entry: &Entry, set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>) -> Result<Dropped, Errno> {
    let mut dropped = Dropped::default();
    for (name, value) in &entry.xattrs {
        if !is_kept(name) {
            dropped.0 += 1;
            continue;
        }
        match set(name, value) {
            Ok(()) => {}
            // Not every file system keeps them, nor every kind of file (xattr(7)).
            Err(Errno::NOTSUP | Errno::PERM) => dropped.0 += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(dropped)
}

/// `trusted.*` steers overlay (and metacopy trusts it); labels and ACLs of the builder's machine mean nothing on this one.
pub fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_capabilities_and_user_attributes_are_kept() {
        for kept in ["security.capability", "user.mime_type"] {
            assert!(is_kept(kept.as_bytes()), "{kept}");
        }
        for refused in [
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "user.overlay.opaque",
            "security.selinux",
            "trusted.x",
        ] {
            assert!(!is_kept(refused.as_bytes()), "{refused}");
        }
    }
}
