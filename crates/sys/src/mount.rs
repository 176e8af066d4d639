//! Attributes of mounts: mount_setattr(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Attributes to set on a mount, as of mount_setattr(2). What is false or `None` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttributes {
    /// `MOUNT_ATTR_RDONLY`.
    pub read_only: bool,
    /// `MOUNT_ATTR_NOSUID`.
    pub no_suid: bool,
    /// `MOUNT_ATTR_NODEV`.
    pub no_dev: bool,
    /// `MOUNT_ATTR_NOEXEC`.
    pub no_exec: bool,
    /// How mount events travel between this mount and its peers.
    pub propagation: Option<Propagation>,
}

/// Propagation types of mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_PRIVATE`.
    Private,
    /// `MS_SLAVE`.
    Slave,
    /// `MS_SHARED`.
    Shared,
}

/// Shows files on a detached mount as their owners are called in a user namespace (`MOUNT_ATTR_IDMAP`): what belongs to
/// 0 on the disk belongs to the namespace's root here, and what that root makes belongs to 0 on the disk.
///
/// # Errors
/// `EINVAL` where the file system cannot do it, or the mount is attached; `EPERM` if it is mapped already.
pub fn map_ids(mount: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    let userns_fd = u64::from(user_namespace.as_fd().as_raw_fd().cast_unsigned());
    set(mount, libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd }, false)
}

/// Sets attributes of the mount whose root (or, if `recursive`, of the mount tree at) `mount` names.
pub fn mount_setattr(mount: impl AsFd, attributes: MountAttributes, recursive: bool) -> io::Result<()> {
    let mut set = 0;
    for (wanted, flag) in [
        (attributes.read_only, libc::MOUNT_ATTR_RDONLY),
        (attributes.no_suid, libc::MOUNT_ATTR_NOSUID),
        (attributes.no_dev, libc::MOUNT_ATTR_NODEV),
        (attributes.no_exec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if wanted {
            set |= flag;
        }
    }
    let propagation = match attributes.propagation {
        None => 0,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Shared) => libc::MS_SHARED,
    };
    self::set(mount, libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 }, recursive)
}

fn set(mount: impl AsFd, attr: libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is borrowed for the call, the path is an empty C string, and the kernel reads exactly
    // the given size from `attr`, which lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
