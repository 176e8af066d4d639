//! Starting a program from a process with threads: everything is prepared before, and the child makes only raw calls.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::process::{Child, Cloned, clone3, null_terminated};

/// A program to start, with exactly these descriptors.
#[derive(Debug)]
pub struct SpawnOptions<'fd> {
    /// The program, as a descriptor of its file (`O_PATH` is enough).
    pub program: BorrowedFd<'fd>,
    /// Its arguments, its name first.
    pub argv: Vec<CString>,
    /// Its environment.
    pub envp: Vec<CString>,
    /// Descriptors that it gets as 0, 1, 2, 3, …; all others are closed.
    pub descriptors: Vec<BorrowedFd<'fd>>,
    /// cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// Open `tasks` files of cgroup v1 directories to join.
    pub cgroup_v1_tasks: Vec<BorrowedFd<'fd>>,
}

/// Starts the program in a session of its own, with default signals. A failure after the clone shows as exit code 127.
pub fn spawn(options: &SpawnOptions<'_>) -> io::Result<Child> {
    let argv = null_terminated(&options.argv);
    let envp = null_terminated(&options.envp);
    let sources: Vec<RawFd> = options.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let tasks: Vec<RawFd> = options.cgroup_v1_tasks.iter().map(AsRawFd::as_raw_fd).collect();
    // Room to move sources out of the way of the target numbers, allocated here since the child must not.
    let mut moved: Vec<RawFd> = vec![-1; sources.len()];
    let program = options.program.as_raw_fd();
    match clone3(0, options.cgroup)? {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child => {
            // SAFETY: only async-signal-safe calls follow; all memory was allocated before the clone.
            unsafe { exec_in_child(program, &argv, &envp, &sources, &mut moved, &tasks) }
        }
    }
}

/// # Safety
/// Runs in a freshly cloned child only; `argv` and `envp` are null-terminated arrays of C strings.
unsafe fn exec_in_child(
    program: RawFd,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
    sources: &[RawFd],
    moved: &mut [RawFd],
    tasks: &[RawFd],
) -> ! {
    // SAFETY: each call below is async-signal-safe and takes numbers or memory that outlives it.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of raw calls between clone and exec")]
    unsafe {
        for &fd in tasks {
            if libc::write(fd, c"0".as_ptr().cast(), 1) != 1 {
                libc::_exit(127);
            }
        }
        for signal in 1..=64 {
            crate::signal::set_default(signal);
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::setsid();
        let count = libc::c_int::try_from(sources.len()).unwrap_or(libc::c_int::MAX);
        let program = libc::fcntl(program, libc::F_DUPFD_CLOEXEC, count);
        for (slot, &source) in moved.iter_mut().zip(sources) {
            *slot = libc::fcntl(source, libc::F_DUPFD_CLOEXEC, count);
        }
        for (target, &source) in (0..count).zip(moved.iter()) {
            if libc::dup2(source, target) < 0 {
                libc::_exit(127);
            }
        }
        // The program's own descriptor stays until exec closes it.
        libc::close_range(count.cast_unsigned(), libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
        libc::syscall(libc::SYS_execveat, program, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH);
        libc::_exit(127)
    }
}
