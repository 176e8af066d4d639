//! Descriptors that a process finds open when it starts.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};
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

/// Locks one byte of a file for its open file description (fcntl(2), `F_OFD_SETLK`): the lock goes with the last descriptor
/// of it, in whatever process that is. `false` when another description has it.
pub fn try_lock_byte(file: impl AsFd, offset: u32) -> io::Result<bool> {
    let short = |number: libc::c_int| libc::c_short::try_from(number).map_err(io::Error::other);
    let lock = libc::flock {
        l_type: short(libc::F_WRLCK)?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: libc::off_t::from(offset),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is borrowed, so it is open; the kernel only reads the structure, which outlives the call.
    if unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) { Ok(false) } else { Err(error) }
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

/// Closes every descriptor from `first` on but those given, runs `last`, and ends the process with the code that it returns: whoever
/// has opened what is closed here does not run any more. `last` may use those given, those below `first` and what it opens itself.
pub fn end_with_only(first: u32, kept: &[BorrowedFd<'_>], last: impl FnOnce() -> i32) -> ! {
    let mut numbers: Vec<u32> =
        kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).filter(|fd| *fd >= first).collect();
    numbers.sort_unstable();
    let mut next = first;
    for number in numbers {
        if number > next {
            close_range(next, number - 1);
        }
        next = next.max(number.saturating_add(1));
    }
    close_range(next, libc::c_uint::MAX);
    crate::process::exit_now(last())
}

fn close_range(first: u32, last: u32) {
    // SAFETY: only called by `end_with_only`, after which nothing of this process but `last` runs, and that may use no other
    // descriptors than those that its caller keeps open for it.
    unsafe { libc::close_range(first, last, 0) };
}
