//! Where the daemon would keep its things: file system and free space.

use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

use super::Finding;
use crate::daemon::Place;

/// Overlayfs cannot write above itself, nor above these network file systems (statfs(2) has the numbers).
const UNFIT: [(u64, &str); 3] = [(0x794c_7630, "overlayfs"), (0x6969, "NFS"), (0xff53_4d42, "CIFS")];
/// Less is not enough for a few images.
const ENOUGH: u64 = 2 << 30;
/// An image has some ten thousand files.
const ENOUGH_FILES: u64 = 100_000;

/// Looks at the data directory, or at where it would be made.
pub fn look(place: &Place) -> Vec<Finding> {
    let existing = place.data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let shown = place.data_dir.display();
    let mut findings = Vec::new();
    let kind = statfs(existing).map(|stat| u64::from_ne_bytes(stat.f_type.to_ne_bytes())).unwrap_or_default();
    findings.push(match UNFIT.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => Finding::fail(
            format!("{shown} is on {name}, above which containers can't have their files"),
            "name a directory on ext4, xfs or btrfs with --data-dir",
        ),
        None => Finding::ok(format!("{shown} can hold containers")),
    });
    findings.extend(statvfs(existing).ok().and_then(|stat| mounted_badly(stat.f_flag, &shown.to_string())));
    if let Ok(stat) = statvfs(existing) {
        findings.extend(few_files(stat.f_files, stat.f_favail));
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let text = format!("{} free for images and containers", indicatif::BinaryBytes(free));
        findings.push(if free >= ENOUGH {
            Finding::ok(text)
        } else {
            Finding::warn(format!("only {text}"), "free some space, or name a larger disk with --data-dir")
        });
    }
    findings
}

/// How the file system is mounted goes for the containers' files, too.
fn mounted_badly(flags: StatVfsMountFlags, shown: &str) -> Option<Finding> {
    let elsewhere = "mount it without that, or name another directory with --data-dir";
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Some(Finding::fail(format!("{shown} is mounted read-only"), elsewhere));
    }
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        return Some(Finding::fail(format!("{shown} is mounted noexec: containers could run no program"), elsewhere));
    }
    flags.contains(StatVfsMountFlags::NOSUID).then(|| {
        Finding::warn(format!("{shown} is mounted nosuid: su, sudo and ping may not work in containers"), elsewhere)
    })
}

/// File systems without such a table say 0 of 0.
fn few_files(all: u64, free: u64) -> Option<Finding> {
    (all > 0 && free < ENOUGH_FILES).then(|| {
        Finding::warn(
            format!("only {free} more files fit into the file system: an image has some ten thousand"),
            "remove some, or name another file system with --data-dir; ext4's number is set by mkfs alone (-N, -i)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn file_systems_that_containers_could_not_use_are_refused() {
        use StatVfsMountFlags as Flags;
        let level = |flags| mounted_badly(flags, "/data").map(|finding| finding.level);
        assert_eq!(level(Flags::NODEV), None);
        assert_eq!(level(Flags::NOSUID | Flags::NODEV), Some(Level::Warn));
        assert_eq!(level(Flags::NOEXEC | Flags::NOSUID), Some(Level::Fail));
        assert_eq!(level(Flags::RDONLY), Some(Level::Fail));
        assert_eq!(
            [(0, 0), (1 << 20, 1 << 20), (1 << 20, 500)].map(|(all, free)| few_files(all, free).is_some()),
            [false, false, true]
        );
    }
}
