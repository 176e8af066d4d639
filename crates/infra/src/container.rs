//! A container's birth: its streams, its first process and what that process does until it becomes the program.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use sys::process::{Child, CloneOptions, SingleThreaded, Unshare, clone_process};

use crate::apparmor::Confinement;
use crate::failure::At;
use crate::kernel_files::{KernelFiles, Surroundings, View};
use crate::process::{ChildMessage, Report, become_program, join_cgroups, make_working_dir, set_oom_score, tell};
use crate::program::Program;
use crate::protocol::{ContainerPlan, ExecPlan, Failure, ProcessPlan};
use crate::rootfs::Rootfs;
use crate::sandbox::{Ahead, Sandbox};
use crate::server::now;
use crate::user_namespace::{Birthplace, UserNamespace, clone_inside};

/// A container writes this much before it waits for a slow log writer.
const PIPE_SIZE: usize = 1024 * 1024;

/// A process that was cloned and has not yet executed its program.
#[derive(Debug)]
pub(crate) struct Born {
    pub(crate) child: Child,
    /// Where it reports.
    pub(crate) channel: OwnedFd,
    /// infra's ends of its pipes; empty with a terminal, whose master comes over the channel.
    pub(crate) pipes: Pipes,
}

/// infra's ends of a container's pipes.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// The descriptors that come with a [`ContainerPlan`].
#[derive(Debug)]
pub(crate) struct ContainerDescriptors {
    pub(crate) rootfs: OwnedFd,
    pub(crate) logs: OwnedFd,
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) tasks: Vec<OwnedFd>,
    pub(crate) cgroup_trees: Vec<OwnedFd>,
    pub(crate) mounts: Vec<OwnedFd>,
}

impl ContainerDescriptors {
    /// Sorts them as the protocol says.
    pub(crate) fn take(plan: &ContainerPlan, descriptors: Vec<OwnedFd>) -> Result<Self, Failure> {
        let mut all = descriptors.into_iter();
        let mut next = || all.next().ok_or(Errno::BADF).at("receive a descriptor");
        let (rootfs, logs) = (next()?, next()?);
        let (cgroup, tasks) = take_cgroups(&mut next, plan.cgroup_v2, plan.cgroup_v1)?;
        let cgroup_trees = plan.cgroup_trees.iter().map(|_| next()).collect::<Result<_, _>>()?;
        Ok(Self { rootfs, logs, cgroup, tasks, cgroup_trees, mounts: all.collect() })
    }
}

/// The v2 directory and the v1 `tasks` files of a process' cgroups, as its plan counts them.
pub(crate) fn take_cgroups(
    next: &mut impl FnMut() -> Result<OwnedFd, Failure>,
    v2: bool,
    v1: u32,
) -> Result<(Option<OwnedFd>, Vec<OwnedFd>), Failure> {
    let cgroup = if v2 { Some(next()?) } else { None };
    Ok((cgroup, (0..v1).map(|_| next()).collect::<Result<_, _>>()?))
}

/// The PID namespace that a container's first process is born in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Processes<'a> {
    /// A new one, as its PID 1.
    Own,
    /// infra's, which is the machine's.
    Host,
    /// That of the process of this pidfd.
    Of(&'a OwnedFd),
}

/// Clones the first process of a container.
pub(crate) fn start_container(
    proof: SingleThreaded,
    plan: &ContainerPlan,
    descriptors: &mut ContainerDescriptors,
    sandbox: &Sandbox,
    processes: Processes<'_>,
    null: &OwnedFd,
) -> Result<Born, Failure> {
    let (channel, child_channel) = report_channel()?;
    let users = sandbox.user_namespace.as_ref();
    let owner = Owner::of(&plan.process, users);
    let mut streams = if plan.process.tty { Streams::default() } else { Streams::open(owner, plan.stdin)? };
    let program = Program::of(&plan.process)?;
    let mounts = std::mem::take(&mut descriptors.mounts);
    let descriptors = &*descriptors;
    let body = || {
        let stdio = Stdio { pipes: &streams.theirs, null };
        let failure = match run_container(plan, &program, descriptors, mounts, sandbox, stdio, &child_channel) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        // If even this cannot be said, the exit code is what is left.
        drop(tell(&child_channel, &ChildMessage::Failed(failure)));
        Err::<Infallible, i32>(127)
    };
    let child = clone_first(proof, plan, descriptors, sandbox, processes, body)?;
    Ok(Born { child, channel, pipes: std::mem::take(&mut streams.ours) })
}

fn clone_first(
    proof: SingleThreaded,
    plan: &ContainerPlan,
    descriptors: &ContainerDescriptors,
    sandbox: &Sandbox,
    processes: Processes<'_>,
    body: impl FnOnce() -> Result<Infallible, i32>,
) -> Result<Child, Failure> {
    let cgroup = descriptors.cgroup.as_ref().map(AsFd::as_fd);
    if let Some(user_namespace) = &sandbox.user_namespace {
        let processes_of = match processes {
            Processes::Own => None,
            // Validation lets nobody ask for it; the kernel would say EPERM.
            Processes::Host => return Err(Errno::INVAL).at("share the machine's processes from a user namespace"),
            Processes::Of(pidfd) => Some(pidfd),
        };
        let place = Birthplace { user_namespace, cgroup, processes_of };
        return clone_inside(proof, place, || enter_cgroups(plan, descriptors), body);
    }
    let options = CloneOptions {
        new_pid_namespace: matches!(processes, Processes::Own),
        new_mount_namespace: true,
        cgroup,
        ..CloneOptions::default()
    };
    match processes {
        Processes::Own | Processes::Host => clone_process(proof, &options, body).at("clone"),
        Processes::Of(pidfd) => {
            in_pid_namespace_of(pidfd, &sandbox.pid_namespace, || clone_process(proof, &options, body).at("clone"))
        }
    }
}

/// What takes the machine's root, and infra's own procfs.
fn enter_cgroups(plan: &ContainerPlan, descriptors: &ContainerDescriptors) -> Result<(), Failure> {
    join_cgroups(&descriptors.tasks)?;
    set_oom_score(plan.oom_score_adj)
}

/// Runs in the new process.
fn run_container(
    plan: &ContainerPlan,
    program: &Program<'_>,
    descriptors: &ContainerDescriptors,
    mounts: Vec<OwnedFd>,
    sandbox: &Sandbox,
    stdio: Stdio<'_>,
    channel: &OwnedFd,
) -> Result<Infallible, Failure> {
    let in_user_namespace = sandbox.user_namespace.is_some();
    if !in_user_namespace {
        enter_cgroups(plan, descriptors)?;
    }
    begin_session()?;
    let surroundings = Surroundings {
        in_user_namespace,
        cgroup_mounts: &sandbox.cgroup_mounts,
        cgroup_trees: (&plan.cgroup_trees, &descriptors.cgroup_trees),
        ahead: sandbox.ahead == Ahead::Assembled,
    };
    let kernel_files = KernelFiles::assemble(surroundings, View::of(plan))?;
    let confinement = Confinement::open(&plan.process)?;
    let rootfs = Rootfs::attach(&descriptors.rootfs, kernel_files, in_user_namespace)?;
    become_container(plan, program, rootfs, mounts, (stdio, confinement.as_ref()), channel)
}

/// A cgroup namespace's root is where the process is when it is made, so it comes after joining them.
pub(crate) fn begin_session() -> Result<(), Failure> {
    sys::process::unshare(Unshare { cgroup: true, ..Unshare::default() }).at("make a cgroup namespace")?;
    setsid().at("make a session").map(drop)
}

/// The rest of a container's birth, once its kernel file systems are in its root.
pub(crate) fn become_container(
    plan: &ContainerPlan,
    program: &Program<'_>,
    mut rootfs: Rootfs,
    mounts: Vec<OwnedFd>,
    (stdio, confinement): (Stdio<'_>, Option<&Confinement<'_>>),
    channel: &OwnedFd,
) -> Result<Infallible, Failure> {
    rootfs.mount_volumes(&plan.mounts, mounts)?;
    let assembled_at = now();
    let terminal =
        if plan.process.tty { Some(Terminal::open(rootfs.devpts(), Owner::of(&plan.process, None))?) } else { None };
    if let Some(terminal) = &terminal {
        rootfs.mount_console(&terminal.number)?;
    }
    if !plan.privileged && !plan.unmasked {
        rootfs.mask(plan)?;
    }
    rootfs.enter(plan)?;
    make_working_dir(Path::new(&plan.process.working_dir))?;
    match &terminal {
        Some(terminal) => terminal.become_stdio()?,
        None => stdio.connect()?,
    }
    let mut descriptors = vec![rootfs.devpts()];
    descriptors.extend(terminal.as_ref().map(|terminal| terminal.master.as_fd()));
    let report = Report { channel, takes_leave: true, assembled_at: Some(assembled_at), descriptors: &descriptors };
    become_program(&plan.process, program, confinement, report)
}

/// The descriptors that come with an [`ExecPlan`].
#[derive(Debug)]
pub(crate) struct ExecDescriptors {
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) tasks: Vec<OwnedFd>,
    pub(crate) streams: Pipes,
}

impl ExecDescriptors {
    /// Sorts them as the protocol says.
    pub(crate) fn take(plan: &ExecPlan, descriptors: Vec<OwnedFd>) -> Result<Self, Failure> {
        let mut all = descriptors.into_iter();
        let mut next = || all.next().ok_or(Errno::BADF).at("receive a descriptor");
        let (cgroup, tasks) = take_cgroups(&mut next, plan.cgroup_v2, plan.cgroup_v1)?;
        let mut stream = |wanted: bool| if wanted && !plan.process.tty { next().map(Some) } else { Ok(None) };
        let streams = Pipes { stdin: stream(plan.stdin)?, stdout: stream(plan.stdout)?, stderr: stream(plan.stderr)? };
        Ok(Self { cgroup, tasks, streams })
    }
}

/// A container as a new process joins it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joined<'a> {
    /// Its first process.
    pub(crate) pidfd: &'a OwnedFd,
    /// Its own devpts.
    pub(crate) devpts: &'a OwnedFd,
    /// infra's PID namespace, to return to.
    pub(crate) own_pid_namespace: &'a OwnedFd,
    /// That of its Pod.
    pub(crate) user_namespace: Option<&'a UserNamespace>,
}

/// Clones a process into a running container; gives the terminal's master if one was asked for.
pub(crate) fn start_exec(
    proof: SingleThreaded,
    plan: &ExecPlan,
    descriptors: &ExecDescriptors,
    container: Joined<'_>,
    null: &OwnedFd,
) -> Result<(Born, Option<OwnedFd>), Failure> {
    let (channel, child_channel) = report_channel()?;
    let terminal = if plan.process.tty {
        Some(Terminal::open(container.devpts.as_fd(), Owner::of(&plan.process, container.user_namespace))?)
    } else {
        None
    };
    let program = Program::of(&plan.process)?;
    let options = CloneOptions { cgroup: descriptors.cgroup.as_ref().map(AsFd::as_fd), ..CloneOptions::default() };
    let body = || {
        let stdio = Stdio { pipes: &descriptors.streams, null };
        let failure = match run_exec(plan, &program, descriptors, container, terminal.as_ref(), stdio, &child_channel) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        drop(tell(&child_channel, &ChildMessage::Failed(failure)));
        Err::<Infallible, i32>(127)
    };
    let child = in_pid_namespace_of(container.pidfd, container.own_pid_namespace, || {
        clone_process(proof, &options, body).at("clone")
    })?;
    let born = Born { child, channel, pipes: Pipes::default() };
    Ok((born, terminal.map(|terminal| terminal.master)))
}

/// Clones where the process of `pidfd` is.
///
/// infra itself enters that PID namespace for its next child, since setns(2) never moves the caller's own PID; it goes
/// back at once, or the next container would be refused with EINVAL.
fn in_pid_namespace_of(
    pidfd: &OwnedFd,
    own: &OwnedFd,
    clone: impl FnOnce() -> Result<Child, Failure>,
) -> Result<Child, Failure> {
    use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .at("enter the container's PID namespace")?;
    let child = clone();
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))
        .at("return to infra's PID namespace")?;
    child
}

/// Runs in the new process.
fn run_exec(
    plan: &ExecPlan,
    program: &Program<'_>,
    descriptors: &ExecDescriptors,
    container: Joined<'_>,
    terminal: Option<&Terminal>,
    stdio: Stdio<'_>,
    channel: &OwnedFd,
) -> Result<Infallible, Failure> {
    use rustix::thread::{ThreadNameSpaceType as Kind, move_into_thread_name_spaces};
    join_cgroups(&descriptors.tasks)?;
    set_oom_score(plan.oom_score_adj)?;
    let confinement = Confinement::open(&plan.process)?;
    setsid().at("make a session")?;
    let users = if container.user_namespace.is_some() { Kind::USER } else { Kind::empty() };
    move_into_thread_name_spaces(container.pidfd.as_fd(), users | Kind::MOUNT | Kind::CONTROL_GROUP)
        .at("enter the container's namespaces")?;
    rustix::process::chdir("/").at_path("enter", "/")?;
    match terminal {
        Some(terminal) => terminal.become_stdio()?,
        None => stdio.connect()?,
    }
    let report = Report { channel, takes_leave: false, assembled_at: None, descriptors: &[] };
    become_program(&plan.process, program, confinement.as_ref(), report)
}

pub(crate) fn report_channel() -> Result<(OwnedFd, OwnedFd), Failure> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at("make a socket pair")
}

/// Whose its streams are, in the ids of the process that gives them away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    user: Uid,
    group: Gid,
    /// The group of terminals, 5 on every distribution.
    terminals: Gid,
}

impl Owner {
    /// From outside of a user namespace its ids have other numbers.
    pub(crate) fn of(process: &ProcessPlan, from_outside: Option<&UserNamespace>) -> Self {
        let first = from_outside.map_or(0, |users| users.first_id);
        let id = |id: u32| id.saturating_add(first);
        Self {
            user: Uid::from_raw(id(process.uid)),
            group: Gid::from_raw(id(process.gid)),
            terminals: Gid::from_raw(id(5)),
        }
    }
}

/// Both ends of a container's pipes.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) ours: Pipes,
    pub(crate) theirs: Pipes,
}

impl Streams {
    /// The output pipes belong to the container's user: else a program that is not root cannot open `/dev/stdout`.
    pub(crate) fn open(owner: Owner, stdin: bool) -> Result<Self, Failure> {
        let mut streams = Self::default();
        let owner = (Some(owner.user), Some(owner.group));
        for (ours, theirs) in [
            (&mut streams.ours.stdout, &mut streams.theirs.stdout),
            (&mut streams.ours.stderr, &mut streams.theirs.stderr),
        ] {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
            // Beyond pipe-user-pages-soft (pipe(7)) the size stays what it is, which only costs speed.
            let _size = fcntl_setpipe_size(&write, PIPE_SIZE).ok();
            fchown(&write, owner.0, owner.1).at("give away a pipe")?;
            rustix::io::ioctl_fionbio(&read, true).at("make a pipe non-blocking")?;
            (*ours, *theirs) = (Some(read), Some(write));
        }
        if stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
            fchown(&read, owner.0, owner.1).at("give away a pipe")?;
            rustix::io::ioctl_fionbio(&write, true).at("make a pipe non-blocking")?;
            (streams.ours.stdin, streams.theirs.stdin) = (Some(write), Some(read));
        }
        Ok(streams)
    }
}

/// A pseudo-terminal of a container's own devpts.
#[derive(Debug)]
struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    /// Its name below `/dev/pts`.
    number: String,
}

impl Terminal {
    /// By descriptor and TIOCGPTPEER (ioctl_tty(2)), never by a path that the container could have changed.
    fn open(devpts: BorrowedFd<'_>, owner: Owner) -> Result<Self, Failure> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = openat(devpts, "ptmx", flags, Mode::empty()).at_path("open", "/dev/pts/ptmx")?;
        unlockpt(&master).at("unlock a terminal")?;
        let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, peer).at("open a terminal")?;
        fchown(&slave, Some(owner.user), Some(owner.terminals)).at("give away a terminal")?;
        let name = ptsname(&master, Vec::new()).at("name a terminal")?;
        let number = name.to_string_lossy().trim_start_matches("/dev/pts/").to_owned();
        Ok(Self { master, slave, number })
    }

    fn become_stdio(&self) -> Result<(), Failure> {
        rustix::stdio::dup2_stdin(&self.slave).at("connect stdin")?;
        rustix::stdio::dup2_stdout(&self.slave).at("connect stdout")?;
        rustix::stdio::dup2_stderr(&self.slave).at("connect stderr")?;
        ioctl_tiocsctty(&self.slave).at("take the terminal")
    }
}

/// A process' ends of its pipes, and what stands in for those that it has not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stdio<'a> {
    pub(crate) pipes: &'a Pipes,
    pub(crate) null: &'a OwnedFd,
}

impl Stdio<'_> {
    fn connect(self) -> Result<(), Failure> {
        let Self { pipes, null } = self;
        rustix::stdio::dup2_stdin(pipes.stdin.as_ref().unwrap_or(null)).at("connect stdin")?;
        rustix::stdio::dup2_stdout(pipes.stdout.as_ref().unwrap_or(null)).at("connect stdout")?;
        rustix::stdio::dup2_stderr(pipes.stderr.as_ref().unwrap_or(null)).at("connect stderr")
    }
}
