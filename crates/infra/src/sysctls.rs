//! Parameters of the kernel that belong to the sandbox's namespaces, written through infra's own procfs.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, open, openat2};
use rustix::io::Errno;

use crate::failure::At;
use crate::protocol::{Failure, SysctlPlan};

/// Writes them. No path leads off that procfs, whatever was mounted or linked (CVE-2025-52881), and no value is more
/// than one line (CVE-2022-0811).
pub(crate) fn write(sysctls: &[SysctlPlan]) -> Result<(), Failure> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let root = open_root().at_path("open", "/proc/sys")?;
    for sysctl in sysctls {
        write_one(&root, sysctl).at_path("set the sysctl", &sysctl.path)?;
    }
    Ok(())
}

fn open_root() -> rustix::io::Result<OwnedFd> {
    let root = open("/proc/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if fstatfs(&root)?.f_type == PROC_SUPER_MAGIC { Ok(root) } else { Err(Errno::NXIO) }
}

fn write_one(root: &OwnedFd, sysctl: &SysctlPlan) -> rustix::io::Result<()> {
    if sysctl.value.contains('\n') {
        return Err(Errno::INVAL);
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = openat2(root, sysctl.path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)?;
    // sysctl files take a value in one write or not at all.
    rustix::io::write(&file, sysctl.value.as_bytes()).map(drop)
}
