//! Processes from a program with one thread: clone3(2), exec(2); and running a helper program to its end.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};

/// Proof that the calling process has one thread, so that a forked child may run any code (fork(2)).
///
/// It cannot leave its thread, and making threads while one holds it is the holder's mistake.
#[derive(Debug, Clone, Copy)]
pub struct SingleThreaded {
    not_send: PhantomData<*const ()>,
}

impl SingleThreaded {
    /// Counts the threads of this process.
    ///
    /// # Errors
    /// `EBUSY` if there are several, or whatever reading `/proc/self/task` says.
    pub fn prove() -> io::Result<Self> {
        if std::fs::read_dir("/proc/self/task")?.count() == 1 {
            Ok(Self { not_send: PhantomData })
        } else {
            Err(io::Error::from_raw_os_error(libc::EBUSY))
        }
    }
}

/// What a new process does not share with its parent, and where it is born.
#[derive(Debug, Default)]
pub struct CloneOptions<'fd> {
    /// A PID namespace of its own, as its PID 1.
    pub new_pid_namespace: bool,
    /// A mount namespace of its own.
    pub new_mount_namespace: bool,
    /// A user namespace of its own, in which it has every capability, and no id yet (user_namespaces(7)).
    pub new_user_namespace: bool,
    /// A child of this process' parent instead of its own (`CLONE_PARENT`).
    pub sibling: bool,
    /// A cgroup v2 directory to be born in (`CLONE_INTO_CGROUP`): charges start there, and no RCU wait is paid.
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// A child process, held by descriptor.
#[derive(Debug)]
pub struct Child {
    /// Its number in this process' PID namespace. For display; signals go through `pidfd`.
    pub pid: i32,
    /// Refers to it as long as it is open.
    pub pidfd: OwnedFd,
}

/// Starts a copy of this process that runs `body`; the child exits with 127 should `body` return.
///
/// The child's memory is a copy (no `CLONE_VM`): whatever it blocks on does not stop the parent.
pub fn clone_process(
    _proof: SingleThreaded,
    options: &CloneOptions<'_>,
    body: impl FnOnce() -> Result<Infallible, i32>,
) -> io::Result<Child> {
    let mut flags = 0;
    if options.new_pid_namespace {
        flags |= libc::CLONE_NEWPID;
    }
    if options.new_mount_namespace {
        flags |= libc::CLONE_NEWNS;
    }
    if options.new_user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    if options.sibling {
        flags |= libc::CLONE_PARENT;
    }
    match clone3(flags, options.cgroup)? {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child => {
            let code = match body() {
                Ok(never) => match never {},
                Err(code) => code,
            };
            exit_now(code)
        }
    }
}

/// Ends the process at once: no destructors, no exit handlers (_exit(2)).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor and waits until it is killed.
pub fn wait_without_descriptors() -> ! {
    // SAFETY: nothing of this process uses or closes a descriptor any more: what follows makes no other call, for ever.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    loop {
        // SAFETY: pause takes nothing; it returns only when a signal was handled, and none is.
        unsafe { libc::pause() };
    }
}

/// Bytes of the stack that a child in this memory has.
#[cfg(target_arch = "x86_64")]
const CHILD_STACK: usize = 32 << 10;

pub(crate) enum Cloned {
    Parent(Child),
    Child,
}

/// What clone3(2) reads.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// With `CLONE_PIDFD`.
    fn new(flags: libc::c_int, pidfd: &mut libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> Self {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
        let mut args = Self {
            flags: u64::from((flags | libc::CLONE_PIDFD).cast_unsigned()),
            pidfd: std::ptr::from_mut(pidfd) as u64,
            // A sibling takes the signal of its caller (clone(2)).
            exit_signal: if flags & libc::CLONE_PARENT == 0 { u64::from(libc::SIGCHLD.cast_unsigned()) } else { 0 },
            ..Self::default()
        };
        if let Some(cgroup) = cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
        }
        args
    }
}

/// clone3(2) with `CLONE_PIDFD` and copied memory. In a process with threads the child may only make async-signal-safe
/// calls until it executes another program.
pub(crate) fn clone3(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs::new(flags, &mut pidfd, cgroup);
    // SAFETY: without CLONE_VM and with a null stack the child continues on a copy of this stack, as after fork(2);
    // `args` and `pidfd` live until the call returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: CLONE_PIDFD has installed this descriptor for the parent, and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(Child { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd }))
        }
    }
}

/// clone3(2) with `CLONE_PIDFD`, in this memory (`CLONE_VM`, `CLONE_VFORK`): the child runs `entry` while the calling thread
/// waits, until it executes another program or ends. Nothing is copied, and no page has to be copied later.
///
/// # Safety
/// `entry` makes only async-signal-safe calls, keeps to `argument` and its own stack of [`CHILD_STACK`] bytes, and does not
/// return. No handler of a signal may run in the child: all are blocked.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn clone3_in_memory(
    cgroup: Option<BorrowedFd<'_>>,
    entry: unsafe extern "C" fn(*mut libc::c_void) -> !,
    argument: *mut libc::c_void,
) -> io::Result<Child> {
    let mut stack = vec![0_u128; CHILD_STACK / size_of::<u128>()];
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs::new(libc::CLONE_VM | libc::CLONE_VFORK, &mut pidfd, cgroup);
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = CHILD_STACK as u64;
    let result: i64;
    // SAFETY: the child begins on a stack of its own, aligned to 16 bytes, and never comes back from `entry`; this thread goes
    // on when the child has left this memory, so that stack, `args` and `pidfd` live as long as it uses them. syscall changes
    // rax, rcx and r11 only.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {argument}",
            "call {entry}",
            "ud2",
            "2:",
            entry = in(reg) entry,
            argument = in(reg) argument,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut args,
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    drop(stack);
    if result < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EINVAL)));
    }
    // SAFETY: CLONE_PIDFD has installed this descriptor for the parent, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: i32::try_from(result).unwrap_or(i32::MAX), pidfd })
}

/// The same with copied memory, where nobody has written it otherwise.
///
/// # Safety
/// As above.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn clone3_in_memory(
    cgroup: Option<BorrowedFd<'_>>,
    entry: unsafe extern "C" fn(*mut libc::c_void) -> !,
    argument: *mut libc::c_void,
) -> io::Result<Child> {
    match clone3(0, cgroup)? {
        Cloned::Parent(child) => Ok(child),
        // SAFETY: the caller's promise.
        Cloned::Child => unsafe { entry(argument) },
    }
}

/// Moves this process into namespaces of its own (unshare(2)).
#[derive(Debug, Clone, Copy, Default)]
pub struct Unshare {
    /// `CLONE_NEWNET`.
    pub network: bool,
    /// `CLONE_NEWIPC`.
    pub ipc: bool,
    /// `CLONE_NEWUTS`.
    pub uts: bool,
    /// `CLONE_NEWNS`.
    pub mount: bool,
    /// `CLONE_NEWCGROUP`.
    pub cgroup: bool,
}

/// unshare(2) for the namespaces named.
pub fn unshare(what: Unshare) -> io::Result<()> {
    let mut flags = 0;
    for (wanted, flag) in [
        (what.network, libc::CLONE_NEWNET),
        (what.ipc, libc::CLONE_NEWIPC),
        (what.uts, libc::CLONE_NEWUTS),
        (what.mount, libc::CLONE_NEWNS),
        (what.cgroup, libc::CLONE_NEWCGROUP),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    // SAFETY: none of these flags splits the descriptor table or memory; namespaces change for this thread only.
    if unsafe { libc::unshare(flags) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A limit of a process; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What holds.
    pub soft: Option<u64>,
    /// How far the process itself may raise it.
    pub hard: Option<u64>,
}

/// The limit of another process (prlimit(2)). `resource`: a number of getrlimit(2).
pub fn limits_of(pid: i32, resource: u32) -> io::Result<Limits> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: without a new limit the kernel only writes the old one to `limit`, which lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<()>(), &raw mut limit) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let bound = |value: u64| (value != libc::RLIM64_INFINITY).then_some(value);
    Ok(Limits { soft: bound(limit.rlim_cur), hard: bound(limit.rlim_max) })
}

/// Strings as execve(2) takes them.
#[derive(Debug)]
pub struct ProgramStrings {
    /// To the strings, where they stay whatever becomes of the list; then null.
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl ProgramStrings {
    /// The pointer to the pointers.
    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

impl From<Vec<CString>> for ProgramStrings {
    fn from(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
        Self { pointers, _strings: strings }
    }
}

/// Replaces this process by a program (execve(2)); returns only with why it could not.
pub fn execve(path: &CStr, argv: &ProgramStrings, envp: &ProgramStrings) -> io::Error {
    // SAFETY: the path is a C string; both arrays hold pointers to C strings that live as long as they do, and end with null.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Runs a program of the machine to its end with `stdin`, an empty environment but `PATH`, and its output captured.
/// The one place that starts programs that are not containers; none is started for a Pod's start.
pub fn run(program: &OsStr, args: &[&OsStr], stdin: &[u8]) -> io::Result<Output> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input says why on stderr and by its exit status.
        if let Err(error) = pipe.write_all(stdin)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error);
        }
    }
    child.wait_with_output()
}
