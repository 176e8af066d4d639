//! A container's root file system, assembled in its own mount namespace by its own first process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, PROC_SUPER_MAGIC, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{fchdir, pivot_root};
use sys::mount::{MountAttributes, mount_setattr};

use crate::failure::At;
use crate::kernel_files::{Devices, KernelFiles};
use crate::masks::{Masks, may_uncover};
use crate::mounts::{MountPoint, attach, clone_mount, open_mount_point, open_path, open_plain_file, resolve};
use crate::protocol::{ContainerPlan, Failure, MountPlan, MountSource};
use crate::sandbox::{ROOTFS, VOLUMES, mapped_tmpfs_path, tmpfs_path};
use crate::sub_path::{self, find_sub_path, open_sub_path};

/// A root file system under assembly.
#[derive(Debug)]
pub(crate) struct Rootfs {
    root: OwnedFd,
    devices: Devices,
    in_user_namespace: bool,
    /// What of `/proc` and `/sys` is the machine's is hidden already.
    is_masked: bool,
}

impl Rootfs {
    /// Attaches the container's root, and its kernel file systems and devices in it.
    pub(crate) fn attach(tree: &OwnedFd, kernel_files: KernelFiles, in_user_namespace: bool) -> Result<Self, Failure> {
        attach(tree, open_path(ROOTFS).at_path("open", ROOTFS)?).at_path("attach the root file system at", "/")?;
        let root = open_path(ROOTFS).at_path("open", "/")?;
        let (devices, is_masked) = kernel_files.move_into(&root)?;
        Ok(Self { root, devices, in_user_namespace, is_masked })
    }

    /// The container's own devpts.
    pub(crate) fn devpts(&self) -> BorrowedFd<'_> {
        self.devices.devpts.as_fd()
    }

    /// Mounts what the plan says, parents before children.
    pub(crate) fn mount_volumes(&mut self, mounts: &[MountPlan], detached: Vec<OwnedFd>) -> Result<(), Failure> {
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

    fn mount_volume(&mut self, mount: &MountPlan, tree: Option<OwnedFd>) -> Result<(), Failure> {
        let step = step_of(mount);
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
                part_of_memory(mount, &path)?
            }
        };
        let target =
            open_mount_point(self.root.as_fd(), Path::new(&mount.target), kind).at_path(&step, &mount.target)?;
        // Wherever links and `..` have led: what the engine writes to procfs must reach the kernel (CVE-2019-16884).
        let file_system = fstatfs(&target).at_path(&step, &mount.target)?.f_type;
        if file_system == PROC_SUPER_MAGIC {
            let step = format!("mount volume {:?} over a part of /proc, which no volume may cover, at", mount.volume);
            return Err(Errno::PERM).at_path(&step, &mount.target);
        }
        if self.is_masked {
            self.is_masked = !may_uncover(&target, file_system).at_path(&step, &mount.target)?;
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
        if self.is_masked {
            return Ok(());
        }
        let masks = Masks { hidden: plan.masked_paths.as_deref(), read_only: plan.read_only_paths.as_deref() };
        masks.apply(self.root.as_fd(), &self.devices.null)
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

/// What is mounted of a Pod's memory, which is at `path`: a part of it, with the plan's attributes.
pub(crate) fn part_of_memory(mount: &MountPlan, path: &Path) -> Result<(OwnedFd, MountPoint), Failure> {
    let step = step_of(mount);
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
    Ok((tree, kind))
}

fn step_of(mount: &MountPlan) -> String {
    format!("mount volume {:?} at", mount.volume)
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
