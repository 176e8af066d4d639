//! What the kernel must offer, tried and never concluded from its version.

use std::io;
use std::os::fd::AsFd as _;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsOpenFlags, OpenTreeFlags};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use sys::mount::{MountAttributes, mount_setattr};
use sys::process::Unshare;

use super::Finding;
use crate::errors::Failure;

/// The oldest kernel that Monopod is made for.
const OLDEST: &str = "6.1";

/// Tries each feature; all are given back at once.
pub fn look() -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut trials = quick_trials();
    trials.push(("namespaces", namespaces()));
    findings.push(match missing(trials) {
        None => Finding::ok(format!("kernel {}: namespaces, overlayfs, detached mounts, pidfds", release())),
        Some(lacks) => Finding::fail(lacks, remedy()),
    });
    findings.push(look_at_seccomp());
    findings.extend(look_at_devices());
    findings.push(look_at_user_namespaces());
    findings
}

/// Refuses what no Pod could run on, before anything of the machine is touched. Takes a fraction of a millisecond.
pub fn require() -> anyhow::Result<()> {
    match missing(quick_trials()) {
        None => Ok(()),
        Some(lacks) => Err(Failure::new(lacks).hint(remedy()).into()),
    }
}

fn missing(trials: Vec<(&'static str, io::Result<()>)>) -> Option<String> {
    let missing: Vec<String> =
        trials.into_iter().filter_map(|(feature, result)| Some(format!("{feature} ({})", result.err()?))).collect();
    (!missing.is_empty()).then(|| format!("kernel {} lacks {}", release(), missing.join(", ")))
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn remedy() -> String {
    format!("a kernel from {OLDEST} on; in a container or a VM sandbox, give it CAP_SYS_ADMIN")
}

fn quick_trials() -> Vec<(&'static str, io::Result<()>)> {
    let mut trials: Vec<(&'static str, io::Result<()>)> = vec![
        ("pidfd_open", pidfd_open(getpid(), PidfdFlags::empty()).map(drop).map_err(Into::into)),
        (
            "openat2",
            rustix::fs::openat2(CWD, "/", OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT)
                .map(drop)
                .map_err(Into::into),
        ),
        ("detached mounts", detached_mount()),
    ];
    for (kind, label) in
        [("overlay", "overlayfs"), ("tmpfs", "tmpfs"), ("proc", "procfs"), ("sysfs", "sysfs"), ("mqueue", "mqueue")]
    {
        let opened = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC);
        trials.push((label, opened.map(drop).map_err(Into::into)));
    }
    trials
}

/// Clones a mount for us alone and makes the clone read-only; it goes with its descriptor.
fn detached_mount() -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, "/", flags)?;
    mount_setattr(clone.as_fd(), MountAttributes { read_only: true, ..MountAttributes::default() }, false)
}

/// On a thread of its own, which ends after: namespaces belong to threads.
fn namespaces() -> io::Result<()> {
    let all = Unshare { network: true, ipc: true, uts: true, mount: true, cgroup: true };
    let thread = std::thread::spawn(move || sys::process::unshare(all));
    thread.join().unwrap_or_else(|_panicked| Err(io::Error::other("the thread that tried ended early")))
}

fn look_at_seccomp() -> Finding {
    match std::fs::metadata("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(_) => Finding::ok("seccomp"),
        Err(_) => Finding::warn(
            "no seccomp: containers with the profile RuntimeDefault will not start",
            "a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

/// Where no v1 hierarchy does it, a program in each container's cgroup refuses devices.
fn look_at_devices() -> Option<Finding> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let has_controller = |line: &str| line.contains(" - cgroup ") && line.ends_with("devices");
    if mounts.lines().any(has_controller) {
        return None;
    }
    Some(match runtime::try_device_program() {
        Ok(()) => Finding::ok("devices are refused by programs in cgroups"),
        Err(error) => Finding::warn(
            format!("the kernel takes no device programs ({error}): containers can open device nodes that they make"),
            "a kernel with CONFIG_CGROUP_BPF; in a container, give it CAP_BPF",
        ),
    })
}

fn look_at_user_namespaces() -> Finding {
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    match limit.trim().parse::<u64>() {
        Ok(limit) if limit > 0 => Finding::ok("user namespaces"),
        _ => Finding::warn(
            "user namespaces are switched off: Pods with `hostUsers: false` will not start",
            "sysctl user.max_user_namespaces=10000",
        ),
    }
}
