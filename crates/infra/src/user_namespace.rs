//! The user namespace of a Pod with `hostUsers: false`: how it is made, and how processes are born in it.
//!
//! infra itself stays outside, as root of the machine: it joins processes to cgroups and lowers what only the machine's
//! root may. It cannot enter and come back, so others go in for it.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{Gid, LinkNameSpaceType, ThreadNameSpaceType, Uid};
use rustix::thread::{move_into_link_name_space, move_into_thread_name_spaces};
use sys::process::{Child, CloneOptions, SingleThreaded, Unshare, clone_process, unshare};

use crate::failure::{At, tolerate};
use crate::process::{ChildMessage, tell};
use crate::protocol::{Failure, UserNamespacePlan};
use crate::wire;

/// A user namespace and its place among the machine's ids.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    pub(crate) fd: OwnedFd,
    pub(crate) first_id: u32,
}

/// Makes the namespace, and enters a network, an IPC and a UTS namespace that belong to it. The order matters:
/// 1. A helper is cloned into the user namespace.
/// 2. infra gives the namespace its ids, which takes the machine's root.
/// 3. The helper, now privileged in there, makes the others inside: root in them is then root of the namespace.
/// 4. infra takes them by descriptor, and the helper ends.
pub(crate) fn make(proof: SingleThreaded, plan: UserNamespacePlan) -> Result<UserNamespace, Failure> {
    let (channel, helpers) = pair()?;
    let options = CloneOptions { new_user_namespace: true, ..CloneOptions::default() };
    let helper = clone_process(proof, &options, || {
        if let Err(failure) = make_inside(&helpers) {
            drop(tell(&helpers, &ChildMessage::Failed(failure)));
        }
        Err::<Infallible, i32>(0)
    })
    .at("make a user namespace (the sysctl user.max_user_namespaces limits them)")?;
    drop(helpers);
    let made = write_maps(helper.pid, plan).and_then(|()| {
        tell(&channel, &ChildMessage::GoOn)?;
        take_namespaces(&channel)
    });
    drop(channel);
    wait_for(&helper);
    Ok(UserNamespace { fd: made?, first_id: plan.first_id })
}

/// Runs in the helper; ends when infra is gone.
fn make_inside(channel: &OwnedFd) -> Result<(), Failure> {
    if wire::receive(channel).at("hear from infra")?.is_none() {
        return Ok(());
    }
    become_root()?;
    unshare(Unshare { network: true, ipc: true, uts: true, ..Unshare::default() }).at("make namespaces")?;
    let open = |kind: &str| {
        let path = format!("/proc/self/ns/{kind}");
        openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at_path("open", &path)
    };
    let made = [open("user")?, open("net")?, open("ipc")?, open("uts")?];
    let descriptors: Vec<BorrowedFd<'_>> = made.iter().map(AsFd::as_fd).collect();
    wire::send(channel, &wire::encode(0, &ChildMessage::MadeNamespaces), &descriptors).at("report to infra")
}

fn write_maps(helper: i32, plan: UserNamespacePlan) -> Result<(), Failure> {
    let map = format!("0 {} {}", plan.first_id, plan.count);
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{helper}/{file}");
        let file = openat(CWD, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at_path("open", &path)?;
        rustix::io::write(&file, map.as_bytes()).at_path("write", &path)?;
    }
    Ok(())
}

fn take_namespaces(channel: &OwnedFd) -> Result<OwnedFd, Failure> {
    let frame = wire::receive(channel).at("hear of the user namespace")?;
    let Some(frame) = frame else { return Err(Errno::CHILD).at("make a user namespace") };
    match frame.body::<ChildMessage>() {
        Some(ChildMessage::MadeNamespaces) => {}
        Some(ChildMessage::Failed(failure)) => return Err(failure),
        _ => return Err(Errno::PROTO).at("make a user namespace"),
    }
    let [user, network, ipc, uts] =
        <[OwnedFd; 4]>::try_from(frame.descriptors).map_err(|_wrong_count| Errno::BADF).at("receive namespaces")?;
    for (namespace, kind) in [
        (network, LinkNameSpaceType::Network),
        (ipc, LinkNameSpaceType::InterProcessCommunication),
        (uts, LinkNameSpaceType::HostNameAndNISDomainName),
    ] {
        move_into_link_name_space(namespace.as_fd(), Some(kind)).at("enter the pod's namespaces")?;
    }
    Ok(user)
}

/// A process that has just come in is nobody there, with every capability.
fn become_root() -> Result<(), Failure> {
    rustix::thread::set_thread_groups(&[]).at("leave groups")?;
    rustix::thread::set_thread_res_gid(Some(Gid::ROOT), Some(Gid::ROOT), Some(Gid::ROOT)).at("become root's group")?;
    rustix::thread::set_thread_res_uid(Some(Uid::ROOT), Some(Uid::ROOT), Some(Uid::ROOT)).at("become root")
}

/// Where a process is born.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Birthplace<'a> {
    pub(crate) user_namespace: &'a UserNamespace,
    /// cgroup v2 directory.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// The PID namespace of this process; none for a new one.
    pub(crate) processes_of: Option<&'a OwnedFd>,
}

/// Clones a process with a mount namespace of its own into a user namespace, as infra's child. `outside` runs before it
/// is in there, as root of the machine.
///
/// A PID namespace belongs to the user namespace that it was made in, and entering that one is for good: so a process
/// between goes in and clones once more, beside itself, and ends.
pub(crate) fn clone_inside(
    proof: SingleThreaded,
    place: Birthplace<'_>,
    outside: impl FnOnce() -> Result<(), Failure>,
    inside: impl FnOnce() -> Result<Infallible, i32>,
) -> Result<Child, Failure> {
    let (channel, betweens) = pair()?;
    let options = CloneOptions { cgroup: place.cgroup, ..CloneOptions::default() };
    let between = clone_process(proof, &options, || {
        let cloned = outside().and_then(|()| clone_sibling(proof, place, inside));
        let told = match cloned {
            Ok(Child { pid, pidfd }) => {
                let message = wire::encode(0, &ChildMessage::Cloned { pid });
                wire::send(&betweens, &message, &[pidfd.as_fd()]).at("report to infra")
            }
            Err(failure) => tell(&betweens, &ChildMessage::Failed(failure)),
        };
        Err::<Infallible, i32>(i32::from(told.is_err()))
    })
    .at("clone")?;
    drop(betweens);
    let frame = wire::receive(&channel).at("hear of the new process");
    wait_for(&between);
    let Some(frame) = frame? else { return Err(Errno::CHILD).at("clone into the user namespace") };
    match (frame.body::<ChildMessage>(), frame.descriptors) {
        (Some(ChildMessage::Cloned { pid }), descriptors) => {
            let pidfd = descriptors.into_iter().next().ok_or(Errno::BADF).at("receive a descriptor")?;
            Ok(Child { pid, pidfd })
        }
        (Some(ChildMessage::Failed(failure)), _) => Err(failure),
        _ => Err(Errno::PROTO).at("clone into the user namespace"),
    }
}

fn clone_sibling(
    proof: SingleThreaded,
    place: Birthplace<'_>,
    inside: impl FnOnce() -> Result<Infallible, i32>,
) -> Result<Child, Failure> {
    // From outside: a process that is not dumpable opens itself to nobody inside (setns(2), ptrace(2)).
    if let Some(process) = place.processes_of {
        move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .at("enter the container's PID namespace")?;
    }
    move_into_link_name_space(place.user_namespace.fd.as_fd(), Some(LinkNameSpaceType::User))
        .at("enter the user namespace")?;
    become_root()?;
    let options = CloneOptions {
        new_pid_namespace: place.processes_of.is_none(),
        new_mount_namespace: true,
        sibling: true,
        ..CloneOptions::default()
    };
    clone_process(proof, &options, inside).at("clone")
}

/// A helper ends by itself; nobody else may reap it meanwhile.
fn wait_for(helper: &Child) {
    tolerate(waitid(WaitId::PidFd(helper.pidfd.as_fd()), WaitIdOptions::EXITED));
}

fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at("make a socket pair")
}
