//! Where the daemon would keep its things: file system and free space.

use std::path::Path;

use rustix::fs::{statfs, statvfs};

use super::Finding;
use crate::daemon::Place;

/// Overlayfs cannot write above itself, nor above these network file systems (statfs(2) has the numbers).
const UNFIT: [(u64, &str); 3] = [(0x794c_7630, "overlayfs"), (0x6969, "NFS"), (0xff53_4d42, "CIFS")];
/// Less is not enough for a few images.
const ENOUGH: u64 = 2 << 30;

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
    if let Ok(stat) = statvfs(existing) {
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
