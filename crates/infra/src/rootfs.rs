//! A container's root file system, assembled in its own mount namespace by its own first process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{fchdir, pivot_root};
use sys::mount::{MountAttributes, mount_setattr};

use crate::failure::At;
use crate::kernel_files::{self, Devices, EMPTY};
use crate::mounts::{MountPoint, attach, clone_mount, open_mount_point, open_path, open_plain_file, resolve};
use crate::protocol::{CgroupMount, ContainerPlan, Failure, MountPlan, MountSource};
use crate::sandbox::{ROOTFS, VOLUMES, mapped_tmpfs_path, tmpfs_path};
use crate::sub_path::{self, find_sub_path, open_sub_path};

/// What of `/proc` a container must not see, beside what of `/sys` (OCI's usual list; runc, containerd and CRI-O agree on it).
const MASKED: [&str; 9] = [
    "proc/asound",
    "proc/acpi",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
];
/// What of `/proc` it may only read.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];
/// A root file system under assembly.
#[derive(Debug)]
pub(crate) struct Rootfs {
    root: OwnedFd,
    devices: Devices,
    in_user_namespace: bool,
}

/// What a container's kernel file systems depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) in_user_namespace: bool,
    pub(crate) cgroup_mounts: &'a [CgroupMount],
    /// Those that came with the container, in the order of its plan.
    pub(crate) cgroup_trees: &'a [OwnedFd],
    /// infra has assembled `/dev` and `/sys`, as most containers have them.
    pub(crate) ahead: bool,
}

impl Rootfs {
    /// Attaches the container's root and gives it its kernel file systems and devices.
    pub(crate) fn assemble(
        tree: &OwnedFd,
        plan: &ContainerPlan,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, Failure> {
        let Surroundings { in_user_namespace, cgroup_mounts, cgroup_trees, ahead } = surroundings;
        attach(tree, open_path(ROOTFS).at_path("open", ROOTFS)?).at_path("attach the root file system at", "/")?;
        let root = open_path(ROOTFS).at_path("open", "/")?;
        kernel_files::mount_proc(&root)?;
        let devices = kernel_files::mount_dev(&root, ahead, in_user_namespace)?;
        let usual = !plan.privileged && !plan.unmasked && plan.masked_paths.is_none();
        let trees: Vec<(&str, &OwnedFd)> = plan.cgroup_trees.iter().map(String::as_str).zip(cgroup_trees).collect();
        kernel_files::mount_sys(&root, ahead && usual, plan.privileged, cgroup_mounts, &trees)?;
        Ok(Self { root, devices, in_user_namespace })
    }

    /// The container's own devpts.
    pub(crate) fn devpts(&self) -> BorrowedFd<'_> {
        self.devices.devpts.as_fd()
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
        let slave = clone_mount(&self.devices.devpts, number, false).at_path("clone the terminal for", path)?;
        let dev = resolve(self.root.as_fd(), Path::new("dev")).at_path("open", "/dev")?;
        let console = open_plain_file(dev.as_fd(), "console").at_path("make the mount point", path)?;
        attach(&slave, &console).at_path("attach", path)
    }

    /// Hides and write-protects the parts of `/proc` and `/sys` that belong to the machine, or what the plan names.
    pub(crate) fn mask(&self, plan: &ContainerPlan) -> Result<(), Failure> {
        let usual = MASKED.iter().chain(&kernel_files::MASKED).copied();
        let hidden = kernel_files::empty_device().at_path("open", EMPTY)?;
        for path in paths(plan.masked_paths.as_deref(), usual) {
            self.mask_path(path, hidden)?;
        }
        for path in paths(plan.read_only_paths.as_deref(), READ_ONLY.iter().copied()) {
            let target = match self.hidden_path(path) {
                Err(Errno::NOENT) => continue,
                found => found.at_path("open", path)?,
            };
            let tree = clone_mount(&target, "", true).at_path("clone", path)?;
            // What the file system was mounted with besides stays: programs may lie below a path of the image.
            let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
            mount_setattr(&tree, read_only, true).at_path("make read-only", path)?;
            attach(&tree, &target).at_path("attach", path)?;
        }
        Ok(())
    }

    /// What lies on the device `hidden` was masked ahead.
    fn mask_path(&self, path: &str, hidden: Dev) -> Result<(), Failure> {
        let target = match self.hidden_path(path) {
            Err(Errno::NOENT) => return Ok(()),
            found => found.at_path("mask", path)?,
        };
        let stat = fstat(&target).at_path("mask", path)?;
        if stat.st_dev == hidden {
            return Ok(());
        }
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            clone_mount(CWD, EMPTY, false).at_path("mask", path)?
        } else {
            clone_mount(&self.devices.null, "", false).at_path("mask", path)?
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
/// moment: over the sandbox's volumes, in this container's own mount namespace. It is an image's, in which nothing is made.
fn part_of(tree: &OwnedFd, path: &Path) -> std::io::Result<(OwnedFd, MountPoint)> {
    attach(tree, open_path(VOLUMES)?)?;
    let found = find_sub_path(open_path(VOLUMES)?.as_fd(), path)
        .and_then(|part| Ok((clone_mount(&part, "", false)?, kind_of(&part)?)));
    unmount(VOLUMES, UnmountFlags::DETACH)?;
    found
}

fn kind_of(file: &OwnedFd) -> rustix::io::Result<MountPoint> {
    let is_directory = FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory;
    Ok(if is_directory { MountPoint::Directory } else { MountPoint::File })
}

/// The plan's paths below the root, or the usual ones.
fn paths<'a>(planned: Option<&'a [String]>, usual: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    match planned {
        Some(planned) => planned.iter().map(|path| path.trim_start_matches('/')).collect(),
        None => usual.collect(),
    }
}
