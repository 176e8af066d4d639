//! The machine's cgroup file systems, and what containers are shown of them below `/sys/fs/cgroup`: each with their own cgroup as
//! its root (cgroup_namespaces(7)).
//!
//! They come to a container as clones of the machine's mounts. mount(2) would do, and does where something cannot be cloned. But on a
//! hybrid machine it walks over all cgroups of the v2 hierarchy for each of some ten v1 ones (`cgroup_lock_and_drain_offline()` of
//! kernel/cgroup/cgroup.c), so that each start would take longer than the one before.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use infra::protocol::CgroupMount;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use sys::mount::{MountAttributes, Propagation, mount_setattr};

use super::cgroups::CgroupError;

/// The mounts that this process sees.
#[derive(Debug)]
pub(super) struct Mounts {
    pub(super) v2: Option<PathBuf>,
    /// With their controllers.
    pub(super) v1: Vec<(PathBuf, Vec<String>)>,
    pub(super) shown: Vec<ShownMount>,
}

/// A cgroup file system that containers are shown.
#[derive(Debug)]
pub(super) struct ShownMount {
    pub(super) mount: CgroupMount,
    /// Where it is mounted on the machine.
    pub(super) point: PathBuf,
    /// Where this process is in it, and so whatever it starts that is not placed elsewhere; `None` where that is not below the mount.
    pub(super) inherited: Option<PathBuf>,
}

impl ShownMount {
    /// Below `/sys/fs/cgroup`.
    pub(super) fn name(&self) -> &str {
        match &self.mount {
            CgroupMount::V2 { directory } | CgroupMount::V1 { directory, .. } => directory,
        }
    }
}

/// What of a cgroup's directory a container sees: its mount, attached nowhere.
pub(super) fn shown_tree(directory: &Path) -> std::io::Result<OwnedFd> {
    let tree = open_tree(CWD, directory, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attributes = MountAttributes {
        no_suid: true,
        no_dev: true,
        no_exec: true,
        propagation: Some(Propagation::Private),
        ..MountAttributes::default()
    };
    mount_setattr(&tree, attributes, false)?;
    Ok(tree)
}

impl Mounts {
    /// Reads them, and where this process is.
    pub(super) fn read() -> Result<Self, CgroupError> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|source| CgroupError { path: PathBuf::from(path), source });
        Ok(Self::find(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// From the texts of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) and `/proc/self/cgroup` (cgroups(7)).
    fn find(mountinfo: &str, membership: &str) -> Self {
        let mut mounts = Self { v2: None, v1: Vec::new(), shown: Vec::new() };
        let mut points = HashSet::new();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut before = before.split(' ').skip(3);
            let (Some(root), Some(point)) = (before.next(), before.next()) else { continue };
            // A hierarchy that is mounted over itself stands there twice.
            if !points.insert(point) {
                continue;
            }
            let mut after = after.split(' ');
            let (kind, options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
            let point = PathBuf::from(point);
            let below = point.strip_prefix("/sys/fs/cgroup").ok().and_then(Path::to_str).unwrap_or_default().to_owned();
            let shown = |mount, controllers: &[String]| {
                let inherited = own_cgroup(membership, controllers)
                    .and_then(|cgroup| Some(point.join(Path::new(cgroup).strip_prefix(root).ok()?)));
                ShownMount { mount, point: point.clone(), inherited }
            };
            match kind {
                "cgroup2" if mounts.v2.is_none() => {
                    mounts.shown.push(shown(CgroupMount::V2 { directory: below }, &[]));
                    mounts.v2 = Some(point);
                }
                "cgroup" => {
                    let options: Vec<String> = options
                        .split(',')
                        .filter(|option| !["rw", "ro", "xattr", "none", "clone_children", "noprefix"].contains(option))
                        .filter(|option| !option.starts_with("release_agent="))
                        .map(str::to_owned)
                        .collect();
                    if !below.is_empty() && !below.contains('/') {
                        let mount = CgroupMount::V1 { directory: below, options: options.clone() };
                        mounts.shown.push(shown(mount, &options));
                    }
                    mounts.v1.push((point, options));
                }
                _ => {}
            }
        }
        // A cgroup v1 mount that only carries a name (systemd's) makes no hybrid machine of a v2 one.
        if mounts.v1.iter().all(|(_, controllers)| controllers.iter().all(|name| name.starts_with("name="))) {
            mounts.v1.clear();
        }
        mounts
    }
}

/// The path in the hierarchy with these controllers; without any in the v2 one.
fn own_cgroup<'a>(membership: &'a str, controllers: &[String]) -> Option<&'a str> {
    membership.lines().find_map(|line| {
        let (listed, path) = line.split_once(':')?.1.split_once(':')?;
        let listed: HashSet<&str> = listed.split(',').filter(|name| !name.is_empty()).collect();
        (listed == controllers.iter().map(String::as_str).collect()).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let v2 = Mounts::find(v2, "0::/user.slice\n");
        assert_eq!((v2.v2.as_deref(), v2.v1.len()), (Some(Path::new("/sys/fs/cgroup")), 0));
        assert_eq!(v2.shown[0].mount, CgroupMount::V2 { directory: String::new() });
        let hybrid = "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      32 30 0:28 /box /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      34 30 0:30 /.. /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n";
        let hybrid = Mounts::find(hybrid, "4:blkio:/\n3:cpuacct,cpu:/box\n2:name=systemd:/box/unit\n0::/\n");
        assert_eq!(hybrid.v1.len(), 3);
        let cpu = &hybrid.shown[2];
        let options = vec!["cpu".into(), "cpuacct".into()];
        assert_eq!(cpu.mount, CgroupMount::V1 { directory: "cpu,cpuacct".into(), options });
        let inherited: Vec<Option<&Path>> = hybrid.shown.iter().map(|shown| shown.inherited.as_deref()).collect();
        let below = ["unified", "systemd/unit", "cpu,cpuacct/box"].map(|it| Path::new("/sys/fs/cgroup").join(it));
        let [unified, systemd, cpu] = below.each_ref().map(|path| Some(path.as_path()));
        assert_eq!(inherited, [unified, systemd, cpu, None]);
    }
}
