//! The sandbox itself: infra's namespaces, and the small mount namespace that its containers are cloned from.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{DumpableBehavior, PidfdFlags, fchdir, getpid, pidfd_open, pivot_root, set_dumpable_behavior};
use sys::mount::{MountAttributes, mount_setattr};
use sys::process::{Child, SingleThreaded, Unshare};

use crate::failure::At;
use crate::kernel_files::{self, EMPTY, make_nodes};
use crate::mounts::{attach, clone_mount, filesystem, open_path};
use crate::pod_init;
use crate::protocol::{AssignPlan, BootPlan, CgroupMount, Failure, TmpfsPlan};
use crate::sysctls;
use crate::title::Title;
use crate::user_namespace::{self, UserNamespace};

/// Where a container's root file system is attached while it is assembled.
pub(crate) const ROOTFS: &str = "/rootfs";
/// Where the Pod's memory file systems are.
pub(crate) const VOLUMES: &str = "/volumes";
/// The Pod's `/dev/shm`.
pub(crate) const SHM: &str = "/shm";

/// What infra holds for as long as it lives.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// `/proc/self/ns/net`.
    pub(crate) network_namespace: OwnedFd,
    /// A netlink route socket that was opened in that namespace.
    pub(crate) route_socket: OwnedFd,
    /// infra's own PID namespace, to come back to after an exec has left it.
    pub(crate) pid_namespace: OwnedFd,
    /// Directory of exit records.
    pub(crate) records: OwnedFd,
    /// What containers get to see of cgroups.
    pub(crate) cgroup_mounts: Vec<CgroupMount>,
    /// PID 1 of the containers that share their processes.
    pub(crate) pod_init: Option<Child>,
    /// Where the Pod's processes are root of nothing but themselves.
    pub(crate) user_namespace: Option<UserNamespace>,
    /// It is nobody's yet.
    pub(crate) spare: bool,
    /// Where ps(1) finds the name that one that was nobody's gets.
    pub(crate) title: Option<Title>,
    /// A memory file system that is attached nowhere yet, as nearly every Pod has one for its token: of one that is nobody's.
    pub(crate) memory_ahead: Option<OwnedFd>,
    /// Kernel file systems of the next container.
    pub(crate) ahead: Ahead,
}

/// What infra has assembled for a container that has not come yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// `/dev` and `/sys` are in their places.
    Assembled,
    /// A container has moved its copy of them; infra's own is still there.
    Taken,
    /// Nothing.
    Nothing,
}

/// Device nodes for containers in a user namespace, where nobody may make any.
pub(crate) const DEVICES: &str = "/devices";

/// Where the tmpfs of a volume is mounted, with the owners that it has on the machine.
pub(crate) fn tmpfs_path(volume: &str) -> PathBuf {
    Path::new(VOLUMES).join(volume)
}

/// Where it is mounted for containers in the Pod's user namespace.
pub(crate) fn mapped_tmpfs_path(volume: &str) -> PathBuf {
    Path::new("/mapped").join(volume)
}

/// A pidfd of this process, for the daemon to hold.
pub(crate) fn own_pidfd() -> rustix::io::Result<OwnedFd> {
    pidfd_open(getpid(), PidfdFlags::empty())
}

/// Makes the sandbox. The order matters:
/// 1. Not dumpable, before any container exists that could look (CVE-2016-9962).
/// 2. Namespaces, while this process has one thread and no child.
/// 3. A new root of tmpfs with little in it: clone(CLONE_NEWNS) copies every mount of its parent. A child in a user namespace may
///    mount procfs and sysfs only where full ones are visible.
/// 4. The Pod's memory file systems, attached: before Linux 6.15 a mount that never was cannot be cloned.
/// 5. The old root is detached: infra keeps no mount of the machine busy.
/// 6. PID 1 of shared processes, whose own root is attached beneath the new one. `infra`: a pidfd of this process.
/// 7. `/dev` and `/sys` of the first container; PID 1 would only have had a copy of them.
pub(crate) fn boot(
    proof: SingleThreaded,
    plan: &BootPlan,
    records: OwnedFd,
    infra: &OwnedFd,
) -> Result<Sandbox, Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("become undumpable")?;
    let pid_namespace = open("/proc/self/ns/pid")?;
    let user_namespace = plan.user_namespace.map(|users| user_namespace::make(proof, users)).transpose()?;
    let outside = user_namespace.is_none();
    sys::process::unshare(Unshare {
        network: outside && plan.own_network,
        ipc: outside && !plan.host_ipc,
        uts: outside && plan.own_network,
        mount: true,
        cgroup: false,
    })
    .at("make namespaces")?;
    if plan.own_network {
        rustix::system::sethostname(plan.hostname.as_bytes()).at("set the host name")?;
    }
    let network_namespace = open("/proc/self/ns/net")?;
    let route_socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).at("open a netlink socket")?;
    make_root(plan, user_namespace.as_ref())?;
    if plan.own_network {
        disable_ipv6()?;
    }
    sysctls::write(&plan.sysctls)?;
    let users = user_namespace.as_ref();
    let pod_init = if plan.shared_pid { Some(pod_init::start(proof, users, infra)?) } else { None };
    let assembled = users.is_none() && kernel_files::assemble_ahead(&plan.cgroup_mounts);
    Ok(Sandbox {
        network_namespace,
        route_socket,
        pid_namespace,
        records,
        cgroup_mounts: plan.cgroup_mounts.clone(),
        pod_init,
        user_namespace,
        spare: plan.spare,
        title: plan.spare.then(Title::find).flatten(),
        // Where it cannot be made, the Pod's start says why.
        memory_ahead: plan.spare.then(|| tmpfs_filesystem(&usual_memory()).ok()).flatten(),
        ahead: if assembled { Ahead::Assembled } else { Ahead::Nothing },
    })
}

/// Gives a spare sandbox what is its Pod's own; nothing runs in it yet. Takes the memory made ahead if the Pod has such a volume.
pub(crate) fn assign(plan: &AssignPlan, memory_ahead: &mut Option<OwnedFd>) -> Result<(), Failure> {
    rustix::system::sethostname(plan.hostname.as_bytes()).at("set the host name")?;
    let root = open_path("/").at_path("open", "/")?;
    for tmpfs in &plan.tmpfs {
        let ahead = if is_usual(tmpfs) { memory_ahead.take() } else { None };
        make_tmpfs(&root, tmpfs, ahead, None)?;
    }
    protect_root(&root)
}

/// What a volume of files has that nobody but root may write, such as that of a Pod's token.
fn usual_memory() -> TmpfsPlan {
    TmpfsPlan { volume: String::new(), size: None, mode: 0o755, group: None, page_size: None }
}

fn is_usual(plan: &TmpfsPlan) -> bool {
    *plan == TmpfsPlan { volume: plan.volume.clone(), ..usual_memory() }
}

fn protect_root(root: &OwnedFd) -> Result<(), Failure> {
    let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
    mount_setattr(root, read_only, false).at_path("make read-only", "/")
}

/// Pods have no IPv6 address: without this every new interface solicits routers and detects duplicates of a link-local
/// one. Interfaces made from now on; `lo` keeps `::1`, which programs expect. A kernel without IPv6 has no such file.
fn disable_ipv6() -> Result<(), Failure> {
    let path = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    match openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        opened => {
            rustix::io::write(opened.at_path("open", path)?, b"1").at_path("write", path)?;
            Ok(())
        }
    }
}

fn open(path: &str) -> Result<OwnedFd, Failure> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at_path("open", path)
}

fn make_root(plan: &BootPlan, users: Option<&UserNamespace>) -> Result<(), Failure> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .at_path("make mounts private below", "/")?;
    let restricted = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = filesystem("tmpfs", &[("mode", Some("0755")), ("size", Some("1m"))], restricted)
        .at_path("mount tmpfs at", "/")?;
    let own = ["proc", "sys", "shm", "volumes", "mapped", "devices", "rootfs", "empty"];
    for directory in own.into_iter().chain(kernel_files::PLACES) {
        mkdirat(&root, directory, Mode::from_raw_mode(0o755)).at_path("make directory", directory)?;
    }
    // Attached over /proc, which every machine has; the old root goes away below.
    attach(&root, open_path("/proc").at_path("open", "/proc")?).at_path("attach", "/")?;
    fchdir(&root).at("enter the new root")?;
    mount_at("proc", &[], restricted | MountAttrFlags::MOUNT_ATTR_NOEXEC, &root, "proc")?;
    if users.is_some() {
        mount_at("sysfs", &[], restricted | MountAttrFlags::MOUNT_ATTR_NOEXEC, &root, "sys")?;
    }
    if plan.host_ipc {
        let shm = clone_mount(CWD, "/dev/shm", false).at_path("clone the machine's", "/dev/shm")?;
        attach_at(&shm, &root, "shm")?;
    } else {
        let shm_size = plan.shm_size.to_string();
        let owner = users.map_or(0, |users| users.first_id).to_string();
        let owner = Some(owner.as_str());
        let shm = [("mode", Some("1777")), ("size", Some(shm_size.as_str())), ("uid", owner), ("gid", owner)];
        mount_at("tmpfs", &shm, restricted | MountAttrFlags::MOUNT_ATTR_NOEXEC, &root, "shm")?;
    }
    for tmpfs in &plan.tmpfs {
        make_tmpfs(&root, tmpfs, None, users)?;
    }
    let empty = [("mode", Some("0755")), ("size", Some("4k")), ("nr_inodes", Some("1"))];
    mount_at("tmpfs", &empty, restricted | MountAttrFlags::MOUNT_ATTR_RDONLY, &root, EMPTY.trim_start_matches('/'))?;
    if users.is_some() {
        let options = [("mode", Some("0755")), ("size", Some("64k"))];
        let devices =
            filesystem("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID).at_path("mount tmpfs at", "devices")?;
        make_nodes(&devices)?;
        attach_at(&devices, &root, "devices")?;
    }
    pivot_root(".", ".").at("change the root")?;
    unmount(".", UnmountFlags::DETACH).at("detach the old root")?;
    rustix::process::chdir("/").at_path("enter", "/")?;
    // A spare one still gets its Pod's memory file systems.
    if plan.spare { Ok(()) } else { protect_root(&root) }
}

/// Once as it is, to be written by the daemon, made or the one that was made ahead; for a user namespace once more with the owners that its
/// ids stand for.
fn make_tmpfs(
    root: &OwnedFd,
    tmpfs: &TmpfsPlan,
    ahead: Option<OwnedFd>,
    users: Option<&UserNamespace>,
) -> Result<(), Failure> {
    let target = format!("volumes/{}", tmpfs.volume);
    mkdirat(root, &target, Mode::from_raw_mode(0o755)).at_path("make directory", &target)?;
    let mount = match (ahead, tmpfs.page_size) {
        (Some(ahead), _) => Ok(ahead),
        (None, None) => tmpfs_filesystem(tmpfs),
        (None, Some(page_size)) => hugetlbfs(tmpfs, page_size),
    };
    let mount = mount.at_path(&format!("mount the memory of volume {:?} at", tmpfs.volume), &target)?;
    attach_at(&mount, root, &target)?;
    let Some(users) = users else { return Ok(()) };
    // Attached first: before Linux 6.15 a mount that never was cannot be cloned.
    let mapped = clone_mount(root, &target, false).at_path("clone", &target)?;
    sys::mount::map_ids(&mapped, &users.fd)
        .at_path("map the user ids of memory, which Linux can since 6.3, for volume", &tmpfs.volume)?;
    let target = format!("mapped/{}", tmpfs.volume);
    mkdirat(root, &target, Mode::from_raw_mode(0o755)).at_path("make directory", &target)?;
    attach_at(&mapped, root, &target)
}

fn tmpfs_filesystem(tmpfs: &TmpfsPlan) -> rustix::io::Result<OwnedFd> {
    let (mode, size) = (format!("{:o}", tmpfs.mode), tmpfs.size.map(|size| size.to_string()));
    let group = tmpfs.group.unwrap_or(0).to_string();
    let mut options = vec![("mode", Some(mode.as_str())), ("gid", Some(group.as_str()))];
    if let Some(size) = &size {
        options.push(("size", Some(size)));
    }
    // Secrets stay out of swap where the kernel can do that (tmpfs(5), noswap, Linux 6.4).
    let mut with_noswap = options.clone();
    with_noswap.push(("noswap", None));
    match filesystem("tmpfs", &with_noswap, MountAttrFlags::empty()) {
        Err(Errno::INVAL) => filesystem("tmpfs", &options, MountAttrFlags::empty()),
        mounted => mounted,
    }
}

/// hugetlbpage.rst, "Using Huge Pages". Without a size it is bounded by the cgroups of who fills it.
fn hugetlbfs(plan: &TmpfsPlan, page_size: u64) -> rustix::io::Result<OwnedFd> {
    let (mode, page_size) = (format!("{:o}", plan.mode), page_size.to_string());
    let (group, size) = (plan.group.unwrap_or(0).to_string(), plan.size.map(|size| size.to_string()));
    let mut options =
        vec![("pagesize", Some(page_size.as_str())), ("mode", Some(mode.as_str())), ("gid", Some(group.as_str()))];
    if let Some(size) = &size {
        options.push(("size", Some(size)));
    }
    filesystem("hugetlbfs", &options, MountAttrFlags::empty())
}

fn mount_at(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
    root: &OwnedFd,
    target: &str,
) -> Result<(), Failure> {
    let mount = filesystem(kind, options, attributes).at_path(&format!("mount {kind} at"), target)?;
    attach_at(&mount, root, target)
}

fn attach_at(mount: &OwnedFd, root: &OwnedFd, target: &str) -> Result<(), Failure> {
    let point = openat(root, target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at_path("open", target)?;
    attach(mount, point).at_path("attach", target)
}
