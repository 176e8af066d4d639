//! The machine's ids that Pods may have, and the locks by which daemons on one machine keep out of each other's way.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Ids of one Pod, as with the kubelet.
pub(super) const IDS: u32 = 65_536;
/// Whose subordinate ids are the Pods'; the kubelet goes by those of `kubelet` in the same way.
const USER: &str = "monopod";
/// One byte for each block of the machine's ids, whatever daemon it belongs to. In the directory that every machine has
/// and every reboot empties: the locks are gone then, too.
pub(super) const LOCKS: &str = "/run/monopod-ids.lock";

/// Blocks of ids side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    /// The number of the first, counted from the machine's id 0.
    pub(super) first_block: u32,
    /// How many there are.
    pub(super) blocks: u32,
}

/// The machine's files say something that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum SubordinateIdsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The two files differ.
    #[error("/etc/subuid and /etc/subgid give the user monopod different ids, but pods need the same of both kinds")]
    Differ,
    /// There is more than one entry.
    #[error("{} has more than one entry of the user monopod", path.display())]
    Several {
        /// The file.
        path: PathBuf,
    },
    /// The entry is no range of whole blocks.
    #[error(
        "{}: {entry:?}: the ids of the user monopod must begin at a multiple of 65536, not at 0, and be a multiple of 65536, \
         since each pod gets 65536 of them",
        path.display()
    )]
    NoBlocks {
        /// The file.
        path: PathBuf,
        /// Its line.
        entry: String,
    },
}

impl IdRange {
    /// The range that systemd leaves to nobody (uid-gid.org; "Users, Groups, UIDs and GIDs on systemd Systems").
    pub(super) const DEFAULT: Self = Self { first_block: 0x7000_0000 / IDS, blocks: 0x1000_0000 / IDS };

    /// What subuid(5) and subgid(5) give to the user `monopod`, if they do.
    pub(super) fn of_machine() -> Result<Self, SubordinateIdsError> {
        Self::read(Path::new("/etc/subuid"), Path::new("/etc/subgid"))
    }

    fn read(users: &Path, groups: &Path) -> Result<Self, SubordinateIdsError> {
        match (entry(users)?, entry(groups)?) {
            (None, None) => Ok(Self::DEFAULT),
            (Some(of_users), Some(of_groups)) if of_users == of_groups => Ok(of_users),
            _ => Err(SubordinateIdsError::Differ),
        }
    }

    /// The first id of a block by its place, counted on from the start again beyond the end.
    pub(super) fn first_id(self, place: u32) -> u32 {
        self.first_block.saturating_add(place.checked_rem(self.blocks).unwrap_or(0)).saturating_mul(IDS)
    }

    /// Whether an id is in one of its blocks.
    pub(super) fn contains(self, id: u32) -> bool {
        (id / IDS).checked_sub(self.first_block).is_some_and(|place| place < self.blocks)
    }
}

/// The first of the machine's ids that Pods with user namespaces get, and their number.
pub fn subordinate_ids() -> Result<(u32, u32), SubordinateIdsError> {
    let range = IdRange::of_machine()?;
    Ok((range.first_id(0), range.blocks.saturating_mul(IDS)))
}

/// The one entry of our user: `name:first:count`.
fn entry(path: &Path) -> Result<Option<IdRange>, SubordinateIdsError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|source| SubordinateIdsError::Unreadable { path: path.to_owned(), source })?,
    };
    let mut entries = text.lines().filter_map(|line| Some((line, line.strip_prefix(USER)?.strip_prefix(':')?)));
    let Some((line, numbers)) = entries.next() else { return Ok(None) };
    if entries.next().is_some() {
        return Err(SubordinateIdsError::Several { path: path.to_owned() });
    }
    let no_blocks = || SubordinateIdsError::NoBlocks { path: path.to_owned(), entry: line.to_owned() };
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|id| *id != 0 && id % IDS == 0);
    let (first, count) = numbers.split_once(':').ok_or_else(no_blocks)?;
    let (first, count) = number(first).zip(number(count)).ok_or_else(no_blocks)?;
    // The last id is that of nobody at all (setuid(2): -1).
    if first.checked_add(count).is_none() {
        return Err(no_blocks());
    }
    Ok(Some(IdRange { first_block: first / IDS, blocks: count / IDS }))
}

/// Takes the lock on a block; none if somebody has it. It is held for as long as a copy of the descriptor is open.
pub(super) fn lock(first_id: u32) -> io::Result<Option<File>> {
    lock_in(Path::new(LOCKS), first_id)
}

/// The same with another file than the machine's, for tests.
pub(super) fn lock_in(path: &Path, first_id: u32) -> io::Result<Option<File>> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).map_err(io::Error::other)?;
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
    Ok(sys::fd::try_lock_byte(&file, first_id / IDS)?.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_followed_or_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let (users, groups) = (directory.path().join("subuid"), directory.path().join("subgid"));
        assert_eq!(IdRange::read(&users, &groups).unwrap(), IdRange::DEFAULT);
        let other = "alice:100000:65536\nmonopody:65536:65536\n";
        let good = format!("{other}monopod:131072:196608\n");
        for (of_users, of_groups, expected) in [
            (other, other, Ok(IdRange::DEFAULT)),
            (&good, &good, Ok(IdRange { first_block: 2, blocks: 3 })),
            (&good, other, Err("different ids")),
            ("monopod:65536:65536\n", "monopod:65536:131072\n", Err("different ids")),
            ("monopod:100000:65536\n", &good, Err("subuid: \"monopod:100000:65536\": the ids")),
            ("monopod:0:65536\n", &good, Err("not at 0")),
            ("monopod:65536:0\n", &good, Err("multiple of 65536")),
            ("monopod:65536\n", &good, Err("multiple of 65536")),
            ("monopod:4294901760:65536\n", &good, Err("multiple of 65536")),
            ("monopod:65536:65536\nmonopod:131072:65536\n", &good, Err("more than one entry")),
        ] {
            fs::write(&users, of_users).unwrap();
            fs::write(&groups, of_groups).unwrap();
            match (IdRange::read(&users, &groups), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, expected) => panic!("{of_users:?}: {found:?}, not {expected:?}"),
            }
        }
        let range = IdRange { first_block: 2, blocks: 3 };
        assert_eq!([0, 2, 3].map(|place| range.first_id(place)), [131_072, 262_144, 131_072]);
        assert!(range.contains(131_072) && range.contains(327_679));
        assert!(!range.contains(131_071) && !range.contains(327_680));
    }
}
