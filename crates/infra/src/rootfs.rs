//! A container's root file system, assembled in its own mount namespace by its own first process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, Uid, chownat, fstat, fstatfs, makedev, mkdirat, mknodat,
    openat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{fchdir, pivot_root};
use sys::mount::{MountAttributes, mount_setattr};

use crate::failure::At;
use crate::mounts::{
    MountPoint, attach, clone_mount, filesystem, open_mount_point, open_path, open_plain_file, resolve,
};
use crate::protocol::{CgroupMount, ContainerPlan, Failure, MountPlan, MountSource};
use crate::sandbox::{DEVICES as NODES, ROOTFS, SHM, VOLUMES, mapped_tmpfs_path, tmpfs_path};
use crate::sub_path::{self, open_sub_path};

/// What of `/proc` and `/sys` a container must not see (OCI's usual list; runc, containerd and CRI-O agree on it).
const MASKED: [&str; 11] = [
    "proc/asound",
    "proc/acpi",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
    "sys/firmware",
    "sys/devices/virtual/powercap",
];
/// What of `/proc` it may only read.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];
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

/// A root file system under assembly.
#[derive(Debug)]
pub(crate) struct Rootfs {
    root: OwnedFd,
    devpts: OwnedFd,
    /// `/dev/null` as it was made here: a volume over `/dev` may bring something else of that name.
    null: OwnedFd,
    in_user_namespace: bool,
}

impl Rootfs {
    /// Attaches the container's root and gives it its kernel file systems and devices.
    pub(crate) fn assemble(
        tree: &OwnedFd,
        privileged: bool,
        in_user_namespace: bool,
        cgroup_mounts: &[CgroupMount],
    ) -> Result<Self, Failure> {
        attach(tree, open_path(ROOTFS).at_path("open", ROOTFS)?).at_path("attach the root file system at", "/")?;
        let root = open_path(ROOTFS).at_path("open", "/")?;
        let plain =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let sys_attributes = if privileged { plain } else { plain | MountAttrFlags::MOUNT_ATTR_RDONLY };
        mount_at(&root, "proc", &[], plain, "proc")?;
        let dev = [("mode", Some("0755")), ("size", Some("65536k"))];
        let dev = mount_at(
            &root,
            "tmpfs",
            &dev,
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            "dev",
        )?;
        if in_user_namespace {
            bind_devices(&dev)?;
        } else {
            make_nodes(&dev)?;
        }
        make_links(&dev)?;
        let null = own_null(&dev).at_path("open", "/dev/null")?;
        let pts = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
        let no_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let devpts = mount_at(&root, "devpts", &pts, no_exec, "dev/pts")?;
        mount_at(&root, "mqueue", &[], plain, "dev/mqueue")?;
        let shm = clone_mount(CWD, SHM, false).at_path("clone", "/dev/shm")?;
        attach_at(&root, &shm, Path::new("dev/shm"), MountPoint::Directory)?;
        mount_at(&root, "sysfs", &[], sys_attributes, "sys")?;
        mount_cgroups(&root, cgroup_mounts, sys_attributes)?;
        Ok(Self { root, devpts, null, in_user_namespace })
    }

    /// The container's own devpts.
    pub(crate) fn devpts(&self) -> BorrowedFd<'_> {
        self.devpts.as_fd()
    }

    /// Mounts what the plan says, parents before children.
    pub(crate) fn mount_volumes(&self, mounts: &[MountPlan], detached: Vec<OwnedFd>) -> Result<(), Failure> {
        let mut detached = detached.into_iter();
        let mut pairs: Vec<(&MountPlan, Option<OwnedFd>)> = mounts
            .iter()
            .map(|mount| match mount.source {
                MountSource::Detached { .. } | MountSource::Image => (mount, detached.next()),
                MountSource::Tmpfs { .. } => (mount, None),
            })
            .collect();
        pairs.sort_by_key(|(mount, _)| Path::new(&mount.target).components().count());
        for (mount, tree) in pairs {
            self.mount_volume(mount, tree)?;
        }
        Ok(())
    }

    fn mount_volume(&self, mount: &MountPlan, tree: Option<OwnedFd>) -> Result<(), Failure> {
        let step = format!("mount volume {:?} at", mount.volume);
        let (tree, kind) = match &mount.source {
            MountSource::Detached { directory } => {
                let tree = tree.ok_or(Errno::BADF).at_path(&step, &mount.target)?;
                (tree, if *directory { MountPoint::Directory } else { MountPoint::File })
            }
            MountSource::Image => {
                let tree = tree.ok_or(Errno::BADF).at_path(&step, &mount.target)?;
                match &mount.sub_path {
                    None => (tree, MountPoint::Directory),
                    Some(path) => part_of(&tree, Path::new(path)).at_path(&sub_path::step(&mount.volume), path)?,
                }
            }
            MountSource::Tmpfs { volume } => {
                let path = if self.in_user_namespace { mapped_tmpfs_path(volume) } else { tmpfs_path(volume) };
                let mut source = open_path(path).at_path(&step, &mount.target)?;
                if let Some(path) = &mount.sub_path {
                    let step = sub_path::step(&mount.volume);
                    source = open_sub_path(source.as_fd(), Path::new(path)).at_path(&step, path)?;
                }
                let kind = kind_of(&source).at_path(&step, &mount.target)?;
                let tree = clone_mount(&source, "", false).at_path(&step, &mount.target)?;
                if mount.read_only {
                    let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
                    mount_setattr(&tree, read_only, false).at_path(&step, &mount.target)?;
                }
                (tree, kind)
            }
        };
        let target =
            open_mount_point(self.root.as_fd(), Path::new(&mount.target), kind).at_path(&step, &mount.target)?;
        // Wherever links and `..` have led: what the engine writes to procfs must reach the kernel (CVE-2019-16884).
        if fstatfs(&target).at_path(&step, &mount.target)?.f_type == PROC_SUPER_MAGIC {
            let step = format!("mount volume {:?} over a part of /proc, which no volume may cover, at", mount.volume);
            return Err(Errno::PERM).at_path(&step, &mount.target);
        }
        attach(&tree, &target).at_path(&step, &mount.target)
    }

    /// Binds a terminal's slave side over `/dev/console`. Where a volume lies over `/dev`, no link in it leads the terminal
    /// elsewhere (CVE-2025-52565).
    pub(crate) fn mount_console(&self, number: &str) -> Result<(), Failure> {
        let path = "/dev/console";
        let slave = clone_mount(&self.devpts, number, false).at_path("clone the terminal for", path)?;
        let dev = resolve(self.root.as_fd(), Path::new("dev")).at_path("open", "/dev")?;
        let console = open_plain_file(dev.as_fd(), "console").at_path("make the mount point", path)?;
        attach(&slave, &console).at_path("attach", path)
    }

    /// Hides and write-protects the parts of `/proc` and `/sys` that belong to the machine, or what the plan names.
    pub(crate) fn mask(&self, plan: &ContainerPlan) -> Result<(), Failure> {
        for path in paths(plan.masked_paths.as_deref(), &MASKED) {
            self.mask_path(path)?;
        }
        for path in paths(plan.read_only_paths.as_deref(), &READ_ONLY) {
            let tree = match self.hidden_path(path) {
                Err(Errno::NOENT) => continue,
                found => found.at_path("open", path)?,
            };
            let tree = clone_mount(&tree, "", true).at_path("clone", path)?;
            // What the file system was mounted with besides stays: programs may lie below a path of the image.
            let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
            mount_setattr(&tree, read_only, true).at_path("make read-only", path)?;
            attach(&tree, self.hidden_path(path).at_path("open", path)?).at_path("attach", path)?;
        }
        Ok(())
    }

    fn mask_path(&self, path: &str) -> Result<(), Failure> {
        let target = match self.hidden_path(path) {
            Err(Errno::NOENT) => return Ok(()),
            found => found.at_path("mask", path)?,
        };
        let stat = fstat(&target).at_path("mask", path)?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let nothing = [("size", Some("0")), ("nr_inodes", Some("2")), ("mode", Some("0755"))];
            filesystem("tmpfs", &nothing, MountAttrFlags::MOUNT_ATTR_RDONLY).at_path("mask", path)?
        } else {
            clone_mount(&self.null, "", false).at_path("mask", path)?
        };
        attach(&cover, &target).at_path("mask", path)
    }

    /// The kernel's files are where they are named; a path of the image may lead over its links, inside.
    fn hidden_path(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        if !path.starts_with("proc/") && !path.starts_with("sys/") {
            return resolve(self.root.as_fd(), Path::new(path));
        }
        let how = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
    }

    /// Makes it this process' root, with nothing else in sight.
    pub(crate) fn enter(&self, plan: &ContainerPlan) -> Result<(), Failure> {
        if plan.read_only_rootfs {
            let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
            mount_setattr(&self.root, read_only, false).at_path("make read-only", "/")?;
        }
        fchdir(&self.root).at_path("enter", "/")?;
        pivot_root(".", ".").at("change the root")?;
        unmount(".", UnmountFlags::DETACH).at("detach the sandbox's root")?;
        rustix::process::chdir("/").at_path("enter", "/")
    }
}

/// A part of a mount that is attached nowhere. Before Linux 6.15 such a mount cannot be cloned, so it is attached for a
/// moment: over the sandbox's volumes, in this container's own mount namespace.
fn part_of(tree: &OwnedFd, path: &Path) -> std::io::Result<(OwnedFd, MountPoint)> {
    attach(tree, open_path(VOLUMES)?)?;
    let found = open_sub_path(open_path(VOLUMES)?.as_fd(), path)
        .and_then(|part| Ok((clone_mount(&part, "", false)?, kind_of(&part)?)));
    unmount(VOLUMES, UnmountFlags::DETACH)?;
    found
}

fn kind_of(file: &OwnedFd) -> rustix::io::Result<MountPoint> {
    let is_directory = FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory;
    Ok(if is_directory { MountPoint::Directory } else { MountPoint::File })
}

fn mount_at(
    root: &OwnedFd,
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
    target: &str,
) -> Result<OwnedFd, Failure> {
    let mount =
        filesystem(kind, options, attributes).at_path(&format!("mount {kind} at"), Path::new("/").join(target))?;
    attach_at(root, &mount, Path::new(target), MountPoint::Directory)?;
    Ok(mount)
}

fn attach_at(root: &OwnedFd, mount: &OwnedFd, target: &Path, kind: MountPoint) -> Result<(), Failure> {
    let shown = Path::new("/").join(target);
    let point = open_mount_point(root.as_fd(), target, kind).at_path("make the mount point", &shown)?;
    attach(mount, &point).at_path("attach", &shown)
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
        attach_at(dev, &device, Path::new(name), MountPoint::File)?;
    }
    Ok(())
}

/// The device that hides files, checked to be it and nothing put in its place (CVE-2025-31133).
fn own_null(dev: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let null = resolve(dev.as_fd(), Path::new("null"))?;
    let stat = fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    if is_null { Ok(null) } else { Err(Errno::NXIO) }
}

fn make_links(dev: &OwnedFd) -> Result<(), Failure> {
    for (name, target) in LINKS {
        symlinkat(target, dev, name).at_path("link", Path::new("/dev").join(name))?;
    }
    Ok(())
}

/// cgroup file systems as this container's cgroup namespace shows them (cgroup_namespaces(7)).
fn mount_cgroups(root: &OwnedFd, mounts: &[CgroupMount], attributes: MountAttrFlags) -> Result<(), Failure> {
    let base = "sys/fs/cgroup";
    if let [CgroupMount::V2 { directory }] = mounts
        && directory.is_empty()
    {
        return mount_at(root, "cgroup2", &[], attributes, base).map(drop);
    }
    if mounts.is_empty() {
        return Ok(());
    }
    let writable = attributes.difference(MountAttrFlags::MOUNT_ATTR_RDONLY);
    let holder = mount_at(root, "tmpfs", &[("mode", Some("0755")), ("size", Some("1m"))], writable, base)?;
    for mount in mounts {
        let (directory, kind, options) = match mount {
            CgroupMount::V2 { directory } => (directory, "cgroup2", &[][..]),
            CgroupMount::V1 { directory, options } => (directory, "cgroup", options.as_slice()),
        };
        mkdirat(&holder, directory.as_str(), Mode::from_raw_mode(0o755)).at_path("make directory", directory)?;
        let options: Vec<(&str, Option<&str>)> = options
            .iter()
            .map(|option| match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option.as_str(), None),
            })
            .collect();
        let tree = filesystem(kind, &options, attributes).at_path(&format!("mount {kind} at"), directory)?;
        let point = openat(&holder, directory.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .at_path("open", directory)?;
        attach(&tree, &point).at_path("attach", directory)?;
    }
    if attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
        mount_setattr(&holder, read_only, false).at_path("make read-only", Path::new("/").join(base))?;
    }
    Ok(())
}

/// The plan's paths below the root, or the usual ones.
fn paths<'a>(planned: Option<&'a [String]>, usual: &'a [&'a str]) -> Vec<&'a str> {
    match planned {
        Some(planned) => planned.iter().map(|path| path.trim_start_matches('/')).collect(),
        None => usual.to_vec(),
    }
}
