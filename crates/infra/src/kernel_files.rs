//! A container's `/dev` and `/sys`: assembled in infra's own mount namespace, or a copy of it, and moved from there.
//!
//! Nothing in the way of them is a container's or an image's, so paths lead where they say. infra assembles those of the
//! first container ahead, off the path of its start. That container's process has a copy of all of infra's mounts
//! (clone(2), `CLONE_NEWNS`) and moves its own; infra then lets go of its. Every other container's process assembles
//! its own, and so does one in a user namespace: mounts that it gets from outside may not be moved (mount_namespaces(7)).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, makedev, mkdir, mkdirat,
    mknodat, openat2, stat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, move_mount, unmount};
use sys::mount::{MountAttributes, mount_setattr};

use crate::failure::{At, tolerate};
use crate::masks::Masks;
use crate::mounts::{MountPoint, attach, clone_mount, open_mount_point, open_path, resolve};
use crate::protocol::{CgroupMount, ContainerPlan, Failure};
use crate::sandbox::{DEVICES as NODES, SHM};

/// Where they are assembled, each below its own name.
pub(crate) const PLACES: [&str; 4] = ["next", "next/dev", "next/proc", "next/sys"];
const NEXT: &str = "/next";
const DEV: &str = "/next/dev";
const PROC: &str = "/next/proc";
const SYS: &str = "/next/sys";
/// An empty directory, read-only for ever: what hides others.
pub(crate) const EMPTY: &str = "/empty";

/// What of `/sys` a container must not see (OCI's usual list; runc, containerd and CRI-O agree on it).
pub(crate) const MASKED: [&str; 2] = ["sys/firmware", "sys/devices/virtual/powercap"];
/// Devices of the OCI runtime specification, "Default Devices".
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Assembles those of the next container, as most have them. Of what could not be made whole nothing stays; the
/// container's own process tries again and says why it cannot.
pub(crate) fn assemble_ahead(cgroup_mounts: &[CgroupMount]) -> bool {
    let assembled = assemble_dev(false).and_then(|()| assemble_sys(false, cgroup_mounts)).and_then(|()| mask_sys());
    if assembled.is_err() {
        let_go();
    }
    assembled.is_ok()
}

/// infra's own copy goes.
pub(crate) fn let_go() {
    for place in [DEV, SYS] {
        // EINVAL where nothing is mounted.
        tolerate(unmount(place, UnmountFlags::DETACH));
    }
}

/// What a container's kernel file systems depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) in_user_namespace: bool,
    pub(crate) cgroup_mounts: &'a [CgroupMount],
    /// Those that came with the container, and their names.
    pub(crate) cgroup_trees: (&'a [String], &'a [OwnedFd]),
    /// infra has assembled `/dev` and `/sys`, as most containers have them.
    pub(crate) ahead: bool,
}

/// A container's `/dev`, by descriptors that keep their meaning whatever is mounted over it.
#[derive(Debug)]
pub(crate) struct Devices {
    /// The container's own devpts.
    pub(crate) devpts: OwnedFd,
    /// `/dev/null` as it was made here: a volume over `/dev` may bring something else of that name.
    pub(crate) null: OwnedFd,
}

/// A container's `/proc`, `/dev` and `/sys` at their places, in the mount namespace of its own first process.
#[derive(Debug)]
pub(crate) struct KernelFiles {
    devices: Devices,
    /// What of them is the machine's is hidden.
    is_masked: bool,
}

impl KernelFiles {
    /// Assembles what [`assemble_ahead`] has not, for this process' PID and cgroup namespace.
    pub(crate) fn assemble(surroundings: Surroundings<'_>, view: View) -> Result<Self, Failure> {
        let Surroundings { in_user_namespace, cgroup_mounts, cgroup_trees: (names, trees), ahead } = surroundings;
        mount_at("proc", PROC, PLAIN, None)?;
        if !ahead {
            assemble_dev(in_user_namespace)?;
        }
        let dev = open_path(DEV).at_path("open", "/dev")?;
        let null = own_null(dev.as_fd()).at_path("open", "/dev/null")?;
        let devpts = resolve(dev.as_fd(), Path::new("pts")).at_path("open", "/dev/pts")?;
        let trees: Vec<(&str, &OwnedFd)> = names.iter().map(String::as_str).zip(trees).collect();
        complete_sys(ahead && view == View::Usual, view, cgroup_mounts, &trees)?;
        Ok(Self { devices: Devices { devpts, null }, is_masked: false })
    }

    /// Hides what is hidden from most containers, before their volumes are there.
    pub(crate) fn mask(&mut self) -> Result<(), Failure> {
        let places = open_path(NEXT).at_path("open", "/")?;
        Masks::default().apply(places.as_fd(), &self.devices.null)?;
        self.is_masked = true;
        Ok(())
    }

    /// Moves them to a container's root. Gives its devices, and whether all is masked.
    pub(crate) fn move_into(self, root: &OwnedFd) -> Result<(Devices, bool), Failure> {
        [PROC, DEV, SYS].iter().try_for_each(|place| move_into(root, place))?;
        Ok((self.devices, self.is_masked))
    }
}

/// How much a container sees of the kernel's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// As most do.
    Usual,
    /// Of `/sys` all, or what is hidden is not the usual.
    Whole,
    /// All, writable.
    Privileged,
}

impl View {
    pub(crate) fn of(plan: &ContainerPlan) -> Self {
        match plan {
            plan if plan.privileged => Self::Privileged,
            plan if plan.unmasked || plan.masked_paths.is_some() => Self::Whole,
            _ => Self::Usual,
        }
    }
}

/// Assembles `/sys` if it is not, with cgroup file systems: those of `trees` by name, the others as this process' cgroup namespace
/// shows them (cgroup_namespaces(7)).
fn complete_sys(
    ahead: bool,
    view: View,
    cgroup_mounts: &[CgroupMount],
    trees: &[(&str, &OwnedFd)],
) -> Result<(), Failure> {
    if !ahead {
        assemble_sys(view == View::Privileged, cgroup_mounts)?;
    }
    for cgroups in cgroup_mounts {
        let (directory, kind, options) = match cgroups {
            CgroupMount::V2 { directory } => (directory, "cgroup2", None),
            CgroupMount::V1 { directory, options } => (directory, "cgroup", Some(options.join(","))),
        };
        let place = cgroup_place(directory);
        if let Some((_, tree)) = trees.iter().find(|(name, _)| name == directory) {
            move_mount(tree, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .at_path("attach", shown(&place))?;
            continue;
        }
        let options = options.map(CString::new).transpose().map_err(|_nul| Errno::INVAL).at("read cgroup options")?;
        mount_at(kind, place, PLAIN, options.as_deref())?;
    }
    if view != View::Privileged {
        let sys = open_path(SYS).at_path("open", "/sys")?;
        let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
        mount_setattr(&sys, read_only, true).at_path("make read-only", "/sys")?;
    }
    Ok(())
}

/// The device number of [`EMPTY`]: who is on it is hidden already.
pub(crate) fn empty_device() -> rustix::io::Result<Dev> {
    Ok(stat(EMPTY)?.st_dev)
}

fn assemble_dev(in_user_namespace: bool) -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::STRICTATIME;
    mount_at("tmpfs", DEV, flags, Some(c"mode=0755,size=65536k"))?;
    let dev = open_path(DEV).at_path("open", "/dev")?;
    for directory in ["pts", "mqueue", "shm"] {
        let shown = Path::new("/dev").join(directory);
        mkdirat(&dev, directory, Mode::from_raw_mode(0o755)).at_path("make the mount point", shown)?;
    }
    if in_user_namespace {
        bind_devices(&dev)?;
    } else {
        make_nodes(&dev)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).at_path("link", Path::new("/dev").join(name))?;
    }
    let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount_at("devpts", "/next/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, Some(pts))?;
    mount_at("mqueue", "/next/dev/mqueue", PLAIN, None)?;
    mount_bind(SHM, "/next/dev/shm").at_path("mount the pod's memory at", "/dev/shm")
}

/// The directories of cgroup file systems too; these themselves belong to a container's cgroup namespace.
fn assemble_sys(writable: bool, cgroup_mounts: &[CgroupMount]) -> Result<(), Failure> {
    mount_sysfs(writable)?;
    let directories = cgroup_mounts.iter().map(|mount| match mount {
        CgroupMount::V2 { directory } | CgroupMount::V1 { directory, .. } => directory,
    });
    let directories: Vec<&String> = directories.filter(|directory| !directory.is_empty()).collect();
    if directories.is_empty() {
        return Ok(());
    }
    let holder = cgroup_place("");
    mount_at("tmpfs", &holder, PLAIN, Some(c"mode=0755,size=1m"))?;
    for directory in directories {
        mkdir(cgroup_place(directory), Mode::from_raw_mode(0o755)).at_path("make directory", directory)?;
    }
    Ok(())
}

/// Not by mount(2), whose read-only would be the whole file system's, and so that of others who have it mounted.
fn mount_sysfs(writable: bool) -> Result<(), Failure> {
    use rustix::mount::MountAttrFlags as Attributes;
    let plain = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC;
    let attributes = if writable { plain } else { plain | Attributes::MOUNT_ATTR_RDONLY };
    let sysfs = crate::mounts::filesystem("sysfs", &[], attributes).at_path("mount sysfs at", "/sys")?;
    attach(&sysfs, open_path(SYS).at_path("open", "/sys")?).at_path("attach", "/sys")
}

/// Hides the directories of [`MASKED`]; a container's own process does so with what is left.
fn mask_sys() -> Result<(), Failure> {
    let place = open_path(NEXT).at_path("open", "/")?;
    for path in MASKED {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&place, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            found => {
                let found = found.at_path("mask", path)?;
                attach(clone_mount(CWD, EMPTY, false).at_path("mask", path)?, &found).at_path("mask", path)?;
            }
        }
    }
    Ok(())
}

fn cgroup_place(directory: &str) -> PathBuf {
    Path::new(SYS).join("fs/cgroup").join(directory)
}

fn mount_at(kind: &str, place: impl AsRef<Path>, flags: MountFlags, options: Option<&CStr>) -> Result<(), Failure> {
    let place = place.as_ref();
    mount(kind, place, kind, flags, options).at_path(&format!("mount {kind} at"), shown(place))
}

/// Moves what is mounted at a place to where it belongs below the root, together with what is mounted in it.
fn move_into(root: &OwnedFd, place: &str) -> Result<(), Failure> {
    let target = shown(Path::new(place));
    let point =
        open_mount_point(root.as_fd(), &target, MountPoint::Directory).at_path("make the mount point", &target)?;
    move_mount(CWD, place, &point, "", MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH).at_path("attach", &target)
}

/// A place as the container will see it.
fn shown(place: &Path) -> PathBuf {
    Path::new("/").join(place.strip_prefix("/next").unwrap_or(place))
}

/// Makes the default devices.
pub(crate) fn make_nodes(dev: &OwnedFd) -> Result<(), Failure> {
    for (name, major, minor) in DEVICES {
        // The file mode is not subject to the umask: infra's is 0.
        mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
            .at_path("make device", Path::new("/dev").join(name))?;
    }
    chownat(dev, "tty", Some(Uid::ROOT), Some(Gid::from_raw(5)), AtFlags::empty()).at_path("give away", "/dev/tty")
}

/// Binds those that infra made: in a user namespace nobody may make any.
fn bind_devices(dev: &OwnedFd) -> Result<(), Failure> {
    for (name, _, _) in DEVICES {
        let shown = Path::new("/dev").join(name);
        let device = clone_mount(CWD, Path::new(NODES).join(name), false).at_path("clone device", &shown)?;
        let point =
            open_mount_point(dev.as_fd(), Path::new(name), MountPoint::File).at_path("make the mount point", &shown)?;
        attach(&device, &point).at_path("attach", &shown)?;
    }
    Ok(())
}

/// The device that hides files, checked to be it and nothing put in its place (CVE-2025-31133).
fn own_null(dev: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let null = resolve(dev, Path::new("null"))?;
    let stat = fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    if is_null { Ok(null) } else { Err(Errno::NXIO) }
}
