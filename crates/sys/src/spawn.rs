//! Starting a program from a process with threads: everything is prepared before, and the child makes only raw calls, in the
//! memory of its parent. A copy of a large process costs milliseconds, and each page that it writes afterwards a fault.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::process::{Child, ProgramStrings, clone3_in_memory};
use crate::signal;

/// A program to start, with exactly these descriptors.
#[derive(Debug)]
pub struct SpawnOptions<'fd> {
    /// The program, as a descriptor of its file (`O_PATH` is enough).
    pub program: BorrowedFd<'fd>,
    /// Its arguments, its name first.
    pub argv: ProgramStrings,
    /// Its environment.
    pub envp: ProgramStrings,
    /// Descriptors that it gets as 0, 1, 2, 3, …; all others are closed.
    pub descriptors: Vec<BorrowedFd<'fd>>,
    /// cgroup v2 directory to be born in.
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// Open `tasks` files of cgroup v1 directories to join.
    pub cgroup_v1_tasks: Vec<BorrowedFd<'fd>>,
}

/// Starts the program in a session of its own, with default signals. A failure after the clone shows as exit code 127.
pub fn spawn(options: &SpawnOptions<'_>) -> io::Result<Child> {
    let sources: Vec<RawFd> = options.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let tasks: Vec<RawFd> = options.cgroup_v1_tasks.iter().map(AsRawFd::as_raw_fd).collect();
    // Room to move sources out of the way of the target numbers, allocated here since the child must not.
    let mut moved: Vec<RawFd> = vec![-1; sources.len()];
    let program = options.program.as_raw_fd();
    let mut work =
        Work { program, argv: &options.argv, envp: &options.envp, sources: &sources, moved: &mut moved, tasks: &tasks };
    let blocked = signal::block_all()?;
    // SAFETY: the child makes raw calls only and ends with another program or none; signals are blocked, which it undoes when it
    // has set them all to their defaults.
    let child = unsafe { clone3_in_memory(options.cgroup, exec_in_child, (&raw mut work).cast()) };
    drop(blocked);
    child
}

/// What the child does its work with.
struct Work<'a> {
    program: RawFd,
    argv: &'a ProgramStrings,
    envp: &'a ProgramStrings,
    sources: &'a [RawFd],
    moved: &'a mut [RawFd],
    tasks: &'a [RawFd],
}

/// # Safety
/// Runs in a freshly cloned child only, with a [`Work`] that nobody else uses meanwhile.
unsafe extern "C" fn exec_in_child(work: *mut libc::c_void) -> ! {
    // SAFETY: the caller's promise.
    let Work { program, argv, envp, sources, moved, tasks } = unsafe { &mut *work.cast::<Work<'_>>() };
    // SAFETY: each call below is async-signal-safe and takes numbers or memory that outlives it.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one sequence of raw calls between clone and exec")]
    unsafe {
        for &fd in *tasks {
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
        let program = libc::fcntl(*program, libc::F_DUPFD_CLOEXEC, count);
        for (slot, &source) in moved.iter_mut().zip(*sources) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::ffi::CString;
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::fd::{AsFd as _, OwnedFd};

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    /// Starts a program with one line as its input; gives its exit code and its output.
    fn run(program: &str, script: &str, line: &str) -> (Option<i32>, String) {
        let program = File::open(program).unwrap();
        let (input, mut to_input) = std::io::pipe().unwrap();
        let (mut from_output, output) = std::io::pipe().unwrap();
        let c_string = |text: &str| CString::new(text).unwrap();
        let child = spawn(&SpawnOptions {
            program: program.as_fd(),
            argv: vec![c_string("sh"), c_string("-c"), c_string(script)].into(),
            envp: vec![c_string("WORD=hello")].into(),
            descriptors: vec![input.as_fd(), output.as_fd(), output.as_fd()],
            cgroup: None,
            cgroup_v1_tasks: Vec::new(),
        });
        let child = child.unwrap();
        drop((input, output));
        to_input.write_all(line.as_bytes()).unwrap();
        drop(to_input);
        let mut said = String::new();
        from_output.read_to_string(&mut said).unwrap();
        (code(&child.pidfd), said)
    }

    fn code(pidfd: &OwnedFd) -> Option<i32> {
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap().exit_status()
    }

    #[test]
    fn programs_start_from_many_threads_with_what_they_were_given_and_nothing_else() {
        // The shell opens /proc/self/fd itself, as 3.
        let script = "read line; echo $WORD $line; echo /proc/self/fd/*; trap; exit 7";
        let one = |thread: usize| {
            for round in 0..20 {
                let line = format!("{thread}-{round}");
                let (code, said) = run("/bin/sh", script, &format!("{line}\n"));
                let expected =
                    format!("hello {line}\n/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n");
                assert_eq!((code, said), (Some(7), expected));
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || one(thread)))));
    }

    #[test]
    fn what_is_no_program_ends_with_127_and_does_no_harm() {
        for _ in 0..3 {
            assert_eq!(run("/etc/passwd", "", ""), (Some(127), String::new()));
        }
        assert_eq!(run("/bin/sh", "kill -l > /dev/null && echo alive", ""), (Some(0), "alive\n".to_owned()));
    }
}
