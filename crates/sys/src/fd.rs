//! Descriptors that a process finds open when it starts.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes ownership of a descriptor that was open when the process began, such as one passed by its parent.
///
/// # Errors
/// `EBADF` if the descriptor is not open, `EBUSY` if it was taken before.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    let mut taken = TAKEN.lock().map_err(|_poisoned| io::Error::from_raw_os_error(libc::EBUSY))?;
    if taken.contains(&fd) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: F_GETFD reads the flags of a descriptor number and has no memory arguments; a closed number gives EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.push(fd);
    // SAFETY: the number is open, and TAKEN makes sure that it is handed out once; the caller names a descriptor that
    // no other part of the process opened itself.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Marks every descriptor from `first` on as close-on-exec (close_range(2)).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: with this flag nothing is closed now; numbers that are not open are passed over.
    if unsafe { libc::close_range(first, libc::c_uint::MAX, flags) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
