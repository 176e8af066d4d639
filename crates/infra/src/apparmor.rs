//! The AppArmor profile that a process' program is confined by.
//!
//! The kernel takes it from the attribute `exec` of the process itself and applies it at its next execve(2), so nothing
//! of the engine's own last steps needs to be allowed by the profile. The file is opened while infra's own procfs is in
//! sight: what is mounted at `/proc` in the container may be anything (CVE-2019-16884, CVE-2025-52881).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, open, openat2};
use rustix::io::Errno;

use crate::failure::At;
use crate::protocol::{Failure, ProcessPlan};

/// The process' attribute of AppArmor alone: `attr/exec` beside it may belong to another security module.
const ATTRIBUTE: &str = "thread-self/attr/apparmor/exec";

/// A profile, and where to name it.
#[derive(Debug)]
pub(crate) struct Confinement<'a> {
    attribute: OwnedFd,
    profile: &'a str,
}

impl<'a> Confinement<'a> {
    /// Opens this process' own attribute; none if the plan names no profile. Only the process that has opened it may
    /// write to it.
    pub(crate) fn open(plan: &'a ProcessPlan) -> Result<Option<Self>, Failure> {
        let Some(profile) = plan.apparmor.as_deref() else { return Ok(None) };
        let attribute = open_attribute().at_path(&step(profile), Path::new("/proc").join(ATTRIBUTE))?;
        Ok(Some(Self { attribute, profile }))
    }

    /// From the next execve(2) on. no_new_privs does not stand against it: infra is unconfined, so the profile can only
    /// take away (`aa_change_profile` in the kernel's security/apparmor/domain.c).
    pub(crate) fn begin_at_exec(&self) -> Result<(), Failure> {
        let line = format!("exec {}", self.profile);
        let written = rustix::io::write(&self.attribute, line.as_bytes()).at(&step(self.profile))?;
        if written == line.len() { Ok(()) } else { Err(Errno::IO).at(&step(self.profile)) }
    }
}

fn open_attribute() -> rustix::io::Result<OwnedFd> {
    let proc = open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if fstatfs(&proc)?.f_type != PROC_SUPER_MAGIC {
        return Err(Errno::NXIO);
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(&proc, ATTRIBUTE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), how)
}

fn step(profile: &str) -> String {
    format!("apply AppArmor profile {profile:?}")
}
