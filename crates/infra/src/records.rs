//! Exit records: the word of how a container ended, for a daemon that was not there.
//!
//! It is synced, so that it outlives the machine, which costs its container's end a millisecond or more: so it is written only
//! where no daemon has heard of that end, who would store it itself.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fdatasync, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::protocol::{ContainerReport, exit_record_name};

/// Writes a record so that it is there whole or not at all, also after a power loss (rename(2), fsync(2)).
pub(crate) fn write(directory: &OwnedFd, report: &ContainerReport) -> rustix::io::Result<()> {
    let name = exit_record_name(&report.id);
    let draft = format!("{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, &draft, flags, Mode::from_raw_mode(0o600))?;
    let bytes = minicbor::to_vec(report).map_err(|_never| Errno::INVAL)?;
    if rustix::io::write(&file, &bytes)? != bytes.len() {
        return Err(Errno::NOSPC);
    }
    fdatasync(&file)?;
    renameat(directory, &draft, directory, &name)?;
    fsync(directory)
}

/// Removes a record; one that is not there is removed already.
pub(crate) fn remove(directory: &OwnedFd, container: &str) -> rustix::io::Result<()> {
    match unlinkat(directory, exit_record_name(container), AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}
