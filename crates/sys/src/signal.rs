//! Signal dispositions and masks of the calling process (signal(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets one signal to its default by the kernel's own call: the C library keeps 32 and 33 for itself and would leave
/// them ignored when a parent did that. Async-signal-safe. SIGKILL and SIGSTOP answer EINVAL and need nothing.
pub(crate) fn set_default(signal: libc::c_int) {
    #[repr(C)]
    struct KernelSigaction {
        handler: usize,
        flags: libc::c_ulong,
        restorer: usize,
        mask: u64,
    }
    let default = KernelSigaction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: rt_sigaction(2) reads one such struct and a mask of eight bytes; no old action is asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const default,
            std::ptr::null::<KernelSigaction>(),
            size_of::<u64>(),
        )
    };
}

/// Signals that [`ignore_termination`] and [`ignore_children`] ignore, and Rust's start, which ignores SIGPIPE.
const IGNORED: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGCHLD];

/// Sets the signals that this process may have ignored to their defaults and unblocks all: exec keeps ignored and blocked
/// signals. Whoever was started by [`crate::spawn::spawn`] has inherited no others.
pub fn reset_ignored() -> io::Result<()> {
    for signal in IGNORED {
        set_default(signal);
    }
    let mut empty = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set that it is given.
    unsafe { libc::sigemptyset(empty.as_mut_ptr()) };
    // SAFETY: the set was initialised above and lives until the call returns; no old mask is asked for.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), std::ptr::null_mut()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Blocks every signal of this thread until this is dropped.
#[derive(Debug)]
pub(crate) struct Blocked(u64);

/// By the kernel's own call: the C library keeps 32 and 33 for itself.
pub(crate) fn block_all() -> io::Result<Blocked> {
    set_mask(u64::MAX).map(Blocked)
}

/// Gives the mask that was there before.
fn set_mask(mask: u64) -> io::Result<u64> {
    let mut before = 0_u64;
    // SAFETY: rt_sigprocmask(2) reads and writes a mask of eight bytes each.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, size_of::<u64>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(before) }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // It has set another mask before, and this one was there.
        let _cannot_fail = set_mask(self.0);
    }
}

/// Ignores the signals that end a process politely (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE).
pub fn ignore_termination() -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
        // SAFETY: SIG_IGN is a valid disposition for these signals.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ignores SIGCHLD: children, adopted ones too, are reaped by the kernel as they end (wait(2)).
pub fn ignore_children() -> io::Result<()> {
    // SAFETY: SIG_IGN is a valid disposition for this signal.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends a signal by number, real-time ones too (pidfd_send_signal(2)).
pub fn pidfd_send(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is borrowed for the call; a null siginfo asks for the one that kill(2) makes.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, no_info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Names of the classic signals; of two names of one signal the usual one stands first.
const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("CLD", libc::SIGCHLD),
    ("IOT", libc::SIGABRT),
    ("POLL", libc::SIGIO),
    ("STKFLT", libc::SIGSTKFLT),
];

/// Number of a signal by its name, with or without `SIG`, or by its number, as in an image's `STOPSIGNAL`.
pub fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |text: &str| text.parse::<i32>().ok();
    let real_time = match name.strip_prefix("RTMIN") {
        Some("") => Some(libc::SIGRTMIN()),
        Some(rest) => rest.strip_prefix('+').and_then(offset).map(|n| libc::SIGRTMIN() + n),
        None => match name.strip_prefix("RTMAX") {
            Some("") => Some(libc::SIGRTMAX()),
            Some(rest) => rest.strip_prefix('-').and_then(offset).map(|n| libc::SIGRTMAX() - n),
            None => None,
        },
    };
    real_time.filter(|n| (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(n))
}

/// Name of a signal as Kubernetes writes it (`SIGTERM`, `SIGRTMIN+3`, `SIGRTMAX-1`), or its number if it has none.
pub fn name(number: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|(_, known)| *known == number) {
        return format!("SIG{name}");
    }
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    match number {
        _ if number == first => "SIGRTMIN".to_owned(),
        _ if number == last => "SIGRTMAX".to_owned(),
        _ if (first..=first + 15).contains(&number) => format!("SIGRTMIN+{}", number - first),
        _ if (first..last).contains(&number) => format!("SIGRTMAX-{}", last - number),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{name, number};

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("QUIT", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("SIGNOTHING", None),
            ("RTMIN+99", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
    }

    #[test]
    fn every_signal_is_found_by_its_name() {
        for signal in (1..=31).chain(34..=64) {
            assert_eq!(number(&name(signal)), Some(signal), "{}", name(signal));
        }
        assert_eq!(
            [6, 15, 17, 29, 34, 49, 50, 64].map(name),
            ["SIGABRT", "SIGTERM", "SIGCHLD", "SIGIO", "SIGRTMIN", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX"]
        );
    }
}
