//! Root file systems and volumes as detached mounts, made by the daemon and sent to infra as descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use infra::sub_path::open_sub_path;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
};
use spec::ordered::set_of;
use sys::mount::{MountAttributes, mount_setattr};
use sys::process::Unshare;

use super::user_ids::PodIds;
use crate::config::{Mount, MountSource, Propagation};

/// fsconfig(2) takes strings below this many bytes.
const OPTION_LIMIT: usize = 256;
/// How a mount tree is cloned.
const CLONE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_RECURSIVE);

/// An overlay of an image's layers with a fresh writable layer, mounted nowhere. `layers` lowest first.
///
/// `volatile`: no sync of the upper layer, ever; a container's writable layer does not outlive the machine's power. The
/// kernel refuses a second mount of the same upper and work, so each start gets directories of its own.
///
/// With ids of a Pod's own the layers show their owners in these, and what is written belongs to them.
pub(super) fn mount_overlay(layers: &[PathBuf], directory: &Path, ids: Option<&PodIds>) -> io::Result<OwnedFd> {
    let upper = directory.join("upper");
    std::fs::create_dir(directory)?;
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(directory.join("work"))?;
    if let Some(ids) = ids {
        // The upper layer is never mapped: overlayfs would be read-only without a word.
        std::os::unix::fs::chown(&upper, Some(ids.first_id), Some(ids.first_id))?;
    }
    with_owners(layers, ids, || overlay(layers, directory))
}

/// Mounts what shows the owners of files in a Pod's ids, if it has ids of its own.
fn with_owners<T: Send>(
    layers: &[PathBuf],
    ids: Option<&PodIds>,
    mount: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let Some(ids) = ids else { return mount() };
    std::thread::scope(|scope| {
        // A thread of its own: it changes its mount namespace, which ends with it.
        let mapped = scope.spawn(|| {
            map_layers(layers, &ids.user_namespace)?;
            mount()
        });
        mapped.join().map_err(|_panic| io::Error::other("the thread that mounts was lost"))?
    })
}

/// Mounts layers over themselves with other owners, for this thread alone: an overlay takes layers only from its mount
/// namespace, and before Linux 6.15 only attached ones. It keeps them when the namespace ends.
fn map_layers(layers: &[PathBuf], user_namespace: &OwnedFd) -> io::Result<()> {
    sys::process::unshare(Unshare { mount: true, ..Unshare::default() })?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for layer in set_of(layers) {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mapped = open_tree(CWD, layer.as_path(), flags)?;
        map_ids(&mapped, user_namespace, layer)?;
        move_mount(&mapped, "", CWD, layer.as_path(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    Ok(())
}

fn map_ids(mount: &OwnedFd, user_namespace: &OwnedFd, path: &Path) -> io::Result<()> {
    sys::mount::map_ids(mount, user_namespace).map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INVAL) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the file system of {} cannot map user ids on this kernel, which hostUsers: false needs (ext4, xfs and \
                 btrfs can, tmpfs since Linux 6.3)",
                path.display()
            ),
        ),
        _ => error,
    })
}

fn overlay(layers: &[PathBuf], directory: &Path) -> io::Result<OwnedFd> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let _open_until_created = set_layers(&context, layers)?;
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
pub(super) fn mount_image(layers: &[PathBuf], empty: &Path, ids: Option<&PodIds>) -> io::Result<DetachedMount> {
    let tree = with_owners(layers, ids, || merge(layers, empty))?;
    Ok(DetachedMount { tree, directory: true })
}

fn merge(layers: &[PathBuf], empty: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let _open_until_created = match layers {
        [layer] => set_layers(&context, &[empty.to_owned(), layer.clone()])?,
        layers => set_layers(&context, layers)?,
    };
    for (option, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")] {
        fsconfig_set_string(&context, option, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Whether one more layer is certain to fit, by what [`set_layers`] may use.
pub(super) fn has_room_for_another(layers: &[PathBuf]) -> bool {
    const OF_MANY: usize = 490;
    const OF_ONE_STRING: usize = 10;
    let most = if layers.first().is_some_and(|layer| takes_one_by_one(layer)) { OF_MANY } else { OF_ONE_STRING };
    layers.len() < most
}

/// One by one where the kernel can (Linux 6.8), else all in one string as far as it fits. Before Linux 6.5 that is read when
/// the mount is created: what is returned must be open until then.
fn set_layers(context: &OwnedFd, layers: &[PathBuf]) -> io::Result<Vec<File>> {
    if layers.first().is_some_and(|layer| takes_one_by_one(layer)) {
        for layer in layers.iter().rev() {
            fsconfig_set_string(context, "lowerdir+", layer.as_path())?;
        }
        return Ok(Vec::new());
    }
    // Descriptors make short names whatever the data directory is called.
    let open: Vec<File> = layers.iter().rev().map(File::open).collect::<Result<_, _>>()?;
    let names: Vec<String> = open.iter().map(|file| format!("/proc/self/fd/{}", file.as_raw_fd())).collect();
    let joined = names.join(":");
    if joined.len() >= OPTION_LIMIT {
        let message = format!(
            "this kernel takes about 13 image layers at once and the image has {}; Linux 6.8 takes 500",
            layers.len()
        );
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, message));
    }
    fsconfig_set_string(context, "lowerdir", joined)?;
    Ok(open)
}

/// Asked once. Before Linux 6.5 overlayfs takes any option, and complains when the mount is created: who takes nonsense has
/// not understood the question.
fn takes_one_by_one(layer: &Path) -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
        let takes_nonsense = fsconfig_set_string(&context, "monopod", "asks").is_ok();
        !takes_nonsense && fsconfig_set_string(&context, "lowerdir+", layer).is_ok()
    })
}

/// A volume as a detached mount: attributes and propagation are set before anybody else sees it.
pub(super) struct DetachedMount {
    pub(super) tree: OwnedFd,
    pub(super) directory: bool,
}

/// Clones the mount tree at a path of the machine, or at the mount's path in it. With ids of a Pod's own the top mount
/// shows its files' owners in these, as the kubelet has it for volumes of every kind.
pub(super) fn clone_host_path(path: &Path, mount: &Mount, ids: Option<&PodIds>) -> io::Result<DetachedMount> {
    let tree = match &mount.sub_path {
        None => open_tree(CWD, path, CLONE)?,
        Some(sub_path) => clone_at(&open_part(path, sub_path)?)?,
    };
    finish_clone(tree, path, mount, ids)
}

/// Refers to the part of a volume, and makes what is missing of it.
pub(super) fn open_part(volume: &Path, sub_path: &Path) -> io::Result<OwnedFd> {
    let volume = rustix::fs::open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    open_sub_path(volume.as_fd(), sub_path)
}

/// The same for all mounts of a container at once where that waits for nobody, as with the Pod's own files, which were just written: they
/// are below `own`, on its file system, and the kernel knows each path without asking that (openat2(2), `RESOLVE_CACHED`, Linux 5.12).
/// `None` where it is not so.
pub(super) fn clone_known_paths(
    own: &Path,
    mounts: &[Mount],
    ids: Option<&PodIds>,
) -> Option<Vec<Option<DetachedMount>>> {
    let root = rustix::fs::open(own, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let clone = |mount: &Mount| match &mount.source {
        MountSource::HostPath(path) if mount.sub_path.is_none() => {
            let known = open_known(&root, path.strip_prefix(own).ok()?)?;
            // What is wrong with it is said by who asks for it again.
            finish_clone(clone_at(&known).ok()?, path, mount, ids).ok().map(Some)
        }
        MountSource::PodTmpfs(_) => Some(None),
        MountSource::HostPath(_) | MountSource::Image(_) => None,
    };
    mounts.iter().map(clone).collect()
}

fn open_known(root: &OwnedFd, path: &Path) -> Option<OwnedFd> {
    let how = ResolveFlags::CACHED | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how).ok()
}

fn clone_at(found: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    open_tree(found, "", CLONE | OpenTreeFlags::AT_EMPTY_PATH)
}

fn finish_clone(tree: OwnedFd, path: &Path, mount: &Mount, ids: Option<&PodIds>) -> io::Result<DetachedMount> {
    if let Some(ids) = ids {
        map_ids(&tree, &ids.user_namespace, path)?;
    }
    // What it is does not change, so nobody asks a server.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let mode = statx(&tree, "", flags, StatxFlags::TYPE)?.stx_mode;
    let directory = FileType::from_raw_mode(mode.into()) == FileType::Directory;
    let propagation = match mount.propagation {
        Propagation::Private => sys::mount::Propagation::Private,
        Propagation::HostToContainer => sys::mount::Propagation::Slave,
        Propagation::Bidirectional => sys::mount::Propagation::Shared,
    };
    let spread = MountAttributes { propagation: Some(propagation), ..MountAttributes::default() };
    mount_setattr(&tree, spread, true)?;
    if mount.read_only {
        let read_only = MountAttributes { read_only: true, ..MountAttributes::default() };
        mount_setattr(&tree, read_only, mount.recursive_read_only)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_was_just_written_is_known_and_no_link_leads_out() {
        // Whatever the file system of other files would ask of somebody.
        let base = tempfile::tempdir_in("/dev/shm").unwrap();
        let own = base.path().join("own");
        std::fs::create_dir_all(own.join("pod")).unwrap();
        for file in ["own/pod/hosts", "other"] {
            std::fs::write(base.path().join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(base.path().join("other"), own.join("pod/link")).unwrap();
        let root = rustix::fs::open(&own, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let known = |path: &str| open_known(&root, Path::new(path)).is_some();
        assert!(known("pod/hosts"));
        assert!(!known("pod/nothing"));
        assert!(!known("pod/link"));
        assert!(!known("../other"));
        let proc = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(open_known(&proc, Path::new("proc/self/status")).is_none(), "it is on another file system");
    }
}
