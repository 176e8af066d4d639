//! The last steps of a container's process: who it is, what it may do, and its program. Start and exec share them.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getcwd, getrlimit, set_parent_process_death_signal, setrlimit, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

use crate::apparmor::Confinement;
use crate::failure::At;
use crate::program::Program;
use crate::protocol::{ContainerPlan, Failure, ProcessPlan};
use crate::wire;

/// Programs select(2) and loop over descriptors up to the soft limit; more is theirs to ask for.
const SOFT_NOFILE: u64 = 1024;

/// What a child tells infra before it becomes its program.
#[derive(Debug, Clone, minicbor::Encode, minicbor::Decode)]
pub(crate) enum ChildMessage {
    /// The other side may go on.
    #[n(0)]
    GoOn,
    /// All is done but execve(2): the socket's end after this means success. Descriptors: a new container's devpts and, with
    /// a terminal, its master.
    #[n(1)]
    Executing {
        /// When its file systems were mounted, in nanoseconds since 1970.
        #[n(0)]
        assembled_at: Option<i64>,
    },
    /// It could not go on.
    #[n(2)]
    Failed(#[n(0)] Failure),
    /// Descriptors: the user, network, IPC and UTS namespaces that it made.
    #[n(3)]
    MadeNamespaces,
    /// Descriptor: a pidfd of the sibling that it cloned.
    #[n(4)]
    Cloned {
        /// The sibling's number.
        #[n(0)]
        pid: i32,
    },
    /// To a process that waits for it: what container it becomes. Descriptors: its root file system, its ends of the streams that
    /// it has, and its mounts.
    #[n(5)]
    Become(#[n(0)] Box<ContainerPlan>),
}

/// Tells infra something.
pub(crate) fn tell(channel: impl AsFd, message: &ChildMessage) -> Result<(), Failure> {
    wire::send(channel, &wire::encode(0, message), &[]).at("report to infra")
}

/// The last word to infra.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report<'a> {
    pub(crate) channel: &'a OwnedFd,
    /// infra says before when it may come to that.
    pub(crate) takes_leave: bool,
    pub(crate) assembled_at: Option<i64>,
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
}

/// Joins v1 cgroups: a process with one thread that writes `0` into `tasks` waits for no RCU grace period.
pub(crate) fn join_cgroups(tasks: &[OwnedFd]) -> Result<(), Failure> {
    for file in tasks {
        rustix::io::write(file, b"0").at("join a cgroup")?;
    }
    Ok(())
}

/// Sets proc_pid_oom_score_adj(5) through infra's own procfs. Lowering it needs CAP_SYS_RESOURCE, which some machines
/// lack: the process then keeps the value it has.
pub(crate) fn set_oom_score(score: Option<i32>) -> Result<(), Failure> {
    let Some(score) = score else { return Ok(()) };
    let path = "/proc/self/oom_score_adj";
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at_path("open", path)?;
    match rustix::io::write(&file, score.to_string().as_bytes()) {
        Err(Errno::ACCESS | Errno::PERM) | Ok(_) => Ok(()),
        Err(error) => Err(error).at_path("write", path),
    }
}

/// Makes the working directory if it is missing, as runtimes do, while this process still may.
pub(crate) fn make_working_dir(path: &Path) -> Result<(), Failure> {
    if path == Path::new("/") {
        return Ok(());
    }
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at_path("open", "/")?;
    let kind = crate::mounts::MountPoint::Directory;
    crate::mounts::open_mount_point(root.as_fd(), path, kind).at_path("make the working directory", path).map(drop)
}

/// Becomes the plan's user and program. Returns only with why it could not.
///
/// The order matters:
/// 1. Inherited state goes: umask, signals (infra ignores some, and exec keeps that), session keyring, limits.
/// 2. Groups, then group, then user (each needs privilege that the next one gives up); capabilities last.
/// 3. The working directory is entered as the user, and must lie inside the root (CVE-2024-21626).
/// 4. The death signal after the user: setuid clears it. It is a hint; the cgroup is the truth.
/// 5. All descriptors but the standard ones close on exec.
/// 6. The AppArmor profile is named just before the filter, which need not allow to write, and holds from execve on.
/// 7. A container's first process waits for leave to go on.
/// 8. The filter of system calls comes last: a strict one need not allow any of the above, only execve. Without
///    no_new_privs it needs CAP_SYS_ADMIN, which is kept until then; execve takes it away (see `become_user`).
pub(crate) fn become_program(
    plan: &ProcessPlan,
    program: &Program<'_>,
    confinement: Option<&Confinement<'_>>,
    report: Report<'_>,
) -> Result<Infallible, Failure> {
    umask(Mode::from_raw_mode(0o022));
    sys::signal::reset_ignored().at("reset signals")?;
    // Kernels without keyrings, and sandboxes that forbid them, have nothing to leak.
    drop(sys::keyring::join_new_session_keyring());
    limit_descriptors()?;
    become_user(plan, &program.groups)?;
    enter_working_dir(Path::new(&plan.working_dir))?;
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at("set no_new_privs")?;
    }
    set_parent_process_death_signal(Some(Signal::KILL)).at("set the death signal")?;
    if let Some(confinement) = confinement {
        confinement.begin_at_exec()?;
    }
    close_on_exec();
    if report.takes_leave {
        wait_for_leave(report.channel)?;
    }
    let executing = ChildMessage::Executing { assembled_at: report.assembled_at };
    wire::send(report.channel, &wire::encode(0, &executing), report.descriptors).at("report to infra")?;
    if let Some(filter) = &plan.seccomp {
        sys::seccomp::add_filter(filter).at("load the seccomp profile")?;
    }
    Err(program.execute())
}

/// A container has a log and durable records before it has a program: infra says when.
fn wait_for_leave(channel: &OwnedFd) -> Result<(), Failure> {
    let word = wire::receive(channel).at("hear from infra")?;
    match word.as_ref().and_then(wire::Frame::body) {
        Some(ChildMessage::GoOn) => Ok(()),
        _ => Err(Errno::PROTO).at("hear from infra"),
    }
}

fn limit_descriptors() -> Result<(), Failure> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let soft = hard.map_or(SOFT_NOFILE, |hard| hard.min(SOFT_NOFILE));
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: hard }).at("set the limit of open files")
}

/// Changes user, groups and capabilities. CAP_SYS_ADMIN stays for loading a filter where that needs it, whatever the
/// container gets: execve computes the program's capabilities anew, from the bounding set for root, and none for
/// others (capabilities(7), "Transformation of capabilities during execve"), and nothing of the container runs before.
fn become_user(plan: &ProcessPlan, groups: &[Gid]) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    // What this machine's root lacks cannot be given; capset of more would fail.
    let have = capabilities(None).at("read capabilities")?.permitted;
    let wanted = CapabilitySet::from_bits_retain(plan.capabilities) & have;
    for capability in have.iter().filter(|capability| !wanted.contains(*capability)) {
        remove_capability_from_bounding_set(capability).at("drop a capability")?;
    }
    let for_filter = if plan.seccomp.is_some() && !plan.no_new_privileges {
        rustix::thread::set_keep_capabilities(true).at("keep a capability")?;
        CapabilitySet::SYS_ADMIN & have
    } else {
        CapabilitySet::empty()
    };
    rustix::thread::set_thread_groups(groups).at("set groups")?;
    rustix::thread::set_thread_res_gid(Some(gid), Some(gid), Some(gid)).at("set the group")?;
    rustix::thread::set_thread_res_uid(Some(uid), Some(uid), Some(uid)).at("set the user")?;
    // Inheritable and ambient sets stay empty (CVE-2022-29162). setuid has taken them all from other users than root.
    let kept = for_filter | if uid.is_root() { wanted } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).at("set capabilities")
}

fn enter_working_dir(path: &Path) -> Result<(), Failure> {
    rustix::process::chdir(path).at_path("enter the working directory", path)?;
    // getcwd of a directory outside the root starts with "(unreachable)".
    let current = getcwd(Vec::new()).at_path("enter the working directory", path)?;
    if current.as_bytes().first() == Some(&b'/') {
        Ok(())
    } else {
        Err(Errno::PERM).at_path("enter the working directory", path)
    }
}

/// The report channel too: its closing is the news of success.
fn close_on_exec() {
    // An error means a kernel without close_range(2), which is older than any that we support; ours are all opened
    // with close-on-exec, so this is the second lock on the door.
    drop(sys::fd::close_on_exec_from(3));
}
