//! PID 1 of a Pod whose containers share their processes: it adopts orphans, and holds nothing that one could take.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, fchdir, pivot_root, set_parent_process_death_signal, setsid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use rustix::time::Timespec;
use sys::process::{Child, CloneOptions, SingleThreaded, clone_process};

use crate::failure::At;
use crate::mounts::{attach, filesystem, open_path};
use crate::process::{ChildMessage, tell};
use crate::protocol::Failure;
use crate::sandbox::ROOTFS;
use crate::user_namespace::{Birthplace, UserNamespace, clone_inside};
use crate::wire;

/// What ps(1) shows in the containers, as elsewhere.
const NAME: &str = "pause";

/// Starts it in a PID namespace of its own, for containers to join, and waits until it stands. `infra`: a pidfd of this
/// process.
pub(crate) fn start(
    proof: SingleThreaded,
    user_namespace: Option<&UserNamespace>,
    infra: &OwnedFd,
) -> Result<Child, Failure> {
    let (channel, child_channel) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at("make a socket pair")?;
    let body = || {
        let failure = match become_init(infra, &child_channel) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        drop(tell(&child_channel, &ChildMessage::Failed(failure)));
        Err::<Infallible, i32>(127)
    };
    let child = match user_namespace {
        None => {
            let options =
                CloneOptions { new_pid_namespace: true, new_mount_namespace: true, ..CloneOptions::default() };
            clone_process(proof, &options, body).at("clone the pod's PID 1")?
        }
        Some(user_namespace) => {
            let place = Birthplace { user_namespace, cgroup: None, processes_of: None };
            clone_inside(proof, place, || Ok(()), body)?
        }
    };
    drop(child_channel);
    let word = wire::receive(&channel).at("hear of the pod's PID 1")?;
    match word.as_ref().and_then(wire::Frame::body::<ChildMessage>) {
        Some(ChildMessage::Executing { .. }) => Ok(child),
        Some(ChildMessage::Failed(failure)) => Err(failure),
        _ => Err(Errno::CHILD).at("start the pod's PID 1"),
    }
}

/// Runs in the new process; it inherits that infra is not dumpable. The order matters:
/// 1. A root of its own, empty and read-only: `/proc/1/root` shows the containers nothing, whatever they may do.
/// 2. No capability, and none to be had again.
/// 3. The death signal, and only then a look whether infra lives: it may have died before the signal was asked for.
/// 4. No descriptor.
fn become_init(infra: &OwnedFd, channel: &OwnedFd) -> Result<Infallible, Failure> {
    crate::server::set_process_name(NAME.as_ref());
    setsid().at("make a session")?;
    // The kernel reaps what is adopted by a process that ignores this signal (wait(2), "Linux notes").
    sys::signal::ignore_children().at("ignore SIGCHLD")?;
    empty_root()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .at("drop capabilities")?;
    set_no_new_privs(true).at("set no_new_privs")?;
    set_parent_process_death_signal(Some(Signal::KILL)).at("set the death signal")?;
    if has_ended(infra) {
        return Err(Errno::SRCH).at("find infra alive");
    }
    tell(channel, &ChildMessage::Executing { assembled_at: None })?;
    sys::process::wait_without_descriptors()
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn empty_root() -> Result<(), Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("mode", Some("0555")), ("size", Some("4k")), ("nr_inodes", Some("1"))];
    let root = filesystem("tmpfs", &options, attributes).at_path("mount tmpfs at", "/")?;
    attach(&root, open_path(ROOTFS).at_path("open", ROOTFS)?).at_path("attach", "/")?;
    fchdir(&root).at_path("enter", "/")?;
    pivot_root(".", ".").at("change the root")?;
    unmount(".", UnmountFlags::DETACH).at("detach the sandbox's root")?;
    rustix::process::chdir("/").at_path("enter", "/")
}
