//! Root file systems and volumes as detached mounts, made by the daemon and sent to infra as descriptors.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use infra::sub_path::open_sub_path;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use sys::mount::{MountAttributes, mount_setattr};

use crate::config::{Mount, Propagation};

/// fsconfig(2) takes strings below this many bytes.
const OPTION_LIMIT: usize = 256;

/// An overlay of an image's layers with a fresh writable layer, mounted nowhere. `layers` lowest first.
///
/// `volatile`: no sync of the upper layer, ever; a container's writable layer does not outlive the machine's power. The
/// kernel refuses a second mount of the same upper and work, so each start gets directories of its own.
pub(super) fn mount_overlay(layers: &[PathBuf], directory: &Path) -> io::Result<OwnedFd> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    std::fs::create_dir(directory)?;
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(&work)?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    set_layers(&context, layers)?;
    fsconfig_set_string(&context, "upperdir", upper.as_path())?;
    fsconfig_set_string(&context, "workdir", work.as_path())?;
    fsconfig_set_flag(&context, "volatile")?;
    // Distributions differ in their defaults, and metacopy would trust attributes of layers that others made.
    for (option, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")] {
        fsconfig_set_string(&context, option, value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The layers of an image merged, read-only, mounted nowhere. `layers` lowest first; `empty` is a directory with nothing
/// in it, since overlay takes no single layer without a writable one.
pub(super) fn mount_image(layers: &[PathBuf], empty: &Path) -> io::Result<DetachedMount> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    match layers {
        [layer] => set_layers(&context, &[empty.to_owned(), layer.clone()])?,
        layers => set_layers(&context, layers)?,
    }
    for (option, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")] {
        fsconfig_set_string(&context, option, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(DetachedMount { tree: fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?, directory: true })
}

/// One by one where the kernel can (Linux 6.8), else all in one string as far as it fits.
fn set_layers(context: &OwnedFd, layers: &[PathBuf]) -> io::Result<()> {
    let mut top_down = layers.iter().rev();
    if let Some(top) = top_down.next() {
        match fsconfig_set_string(context, "lowerdir+", top.as_path()) {
            Ok(()) => {
                for layer in top_down {
                    fsconfig_set_string(context, "lowerdir+", layer.as_path())?;
                }
                return Ok(());
            }
            Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Descriptors make short names whatever the data directory is called.
    let open: Vec<std::fs::File> = layers.iter().rev().map(std::fs::File::open).collect::<Result<_, _>>()?;
    let names: Vec<String> =
        open.iter().map(|file| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).collect();
    let joined = names.join(":");
    if joined.len() >= OPTION_LIMIT {
        let message = format!(
            "this kernel takes about 13 image layers at once and the image has {}; Linux 6.8 takes 500",
            layers.len()
        );
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, message));
    }
    Ok(fsconfig_set_string(context, "lowerdir", joined)?)
}

/// A volume as a detached mount: attributes and propagation are set before anybody else sees it.
pub(super) struct DetachedMount {
    pub(super) tree: OwnedFd,
    pub(super) directory: bool,
}

/// Clones the mount tree at a path of the machine, or at the mount's path in it.
pub(super) fn clone_host_path(path: &Path, mount: &Mount) -> io::Result<DetachedMount> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = match &mount.sub_path {
        None => open_tree(CWD, path, flags)?,
        Some(sub_path) => {
            let volume = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let found = open_sub_path(volume.as_fd(), sub_path)?;
            open_tree(&found, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?
        }
    };
    let directory = FileType::from_raw_mode(fstat(&tree)?.st_mode) == FileType::Directory;
    let propagation = match mount.propagation {
        Propagation::Private => sys::mount::Propagation::Private,
        Propagation::HostToContainer => sys::mount::Propagation::Slave,
        Propagation::Bidirectional => sys::mount::Propagation::Shared,
    };
    let spread = MountAttributes { propagation: Some(propagation), ..MountAttributes::default() };
    mount_setattr(&tree, spread, true)?;
    if mount.read_only {
        // The top mount alone: recursiveReadOnly is a field of its own.
        mount_setattr(&tree, MountAttributes { read_only: true, ..MountAttributes::default() }, false)?;
    }
    Ok(DetachedMount { tree, directory })
}

/// A read-only detached bind of our own binary: what infra is started from cannot be overwritten through
/// `/proc/PID/exe` (CVE-2019-5736).
pub(super) fn bind_own_binary() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, "/proc/self/exe", flags)?;
    mount_setattr(&tree, MountAttributes { read_only: true, no_suid: true, ..MountAttributes::default() }, false)?;
    Ok(tree)
}
