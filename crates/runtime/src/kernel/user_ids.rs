//! Blocks of the machine's user and group ids, one for each Pod with a user namespace; never one for two of them, also not
//! for Pods of daemons side by side: who has a block holds a lock of the machine's on it (see `id_range`).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use infra::protocol::UserNamespacePlan;
use serde::{Deserialize, Serialize};
use spec::PodUid;

use super::id_range::{IDS, IdRange};
use super::records::SandboxRecord;

/// A block, by the first of its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "RecordedBlock")]
pub(super) struct IdBlock {
    first_id: u32,
}

/// As it stands in records; those of earlier builds have its place in the default range.
#[derive(Deserialize)]
#[serde(untagged)]
enum RecordedBlock {
    Place(u32),
    First { first_id: u32 },
}

impl From<RecordedBlock> for IdBlock {
    fn from(recorded: RecordedBlock) -> Self {
        match recorded {
            RecordedBlock::Place(place) => Self { first_id: IdRange::DEFAULT.first_id(place) },
            RecordedBlock::First { first_id } => Self { first_id },
        }
    }
}

/// The user namespace of a living sandbox.
#[derive(Debug, Clone)]
pub(super) struct PodIds {
    pub(super) user_namespace: Arc<OwnedFd>,
    /// The machine's id of its root.
    pub(super) first_id: u32,
}

/// No Pod can have ids of its own now.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoBlock {
    #[error(
        "all {0} blocks of user ids are taken by pods with hostUsers: false, of this daemon or of others on this machine"
    )]
    Left(u32),
    #[error("cannot lock a block of user ids in {}", super::id_range::LOCKS)]
    Lock(#[source] io::Error),
}

impl IdBlock {
    pub(super) fn plan(self) -> UserNamespacePlan {
        UserNamespacePlan { first_id: self.first_id, count: IDS }
    }

    /// The machine's id of the Pod's root.
    pub(super) fn first_id(self) -> u32 {
        self.first_id
    }

    /// Whether an id of the Pod is one of its block.
    pub(super) fn holds(id: u32) -> bool {
        id < IDS
    }

    /// A Pod keeps its block over its sandboxes, if it can. `start`: where to look first; daemons side by side start far
    /// apart. `lock` takes the machine's lock on a block, unless another daemon has it.
    pub(super) fn choose<'a, Lock>(
        pod: &PodUid,
        recorded: impl Iterator<Item = &'a SandboxRecord> + Clone,
        range: IdRange,
        start: u32,
        mut lock: impl FnMut(Self) -> io::Result<Option<Lock>>,
    ) -> Result<(Self, Lock), NoBlock> {
        let blocks = recorded.filter_map(|record| Some((&record.config.uid, record.ids?)));
        let own = blocks.clone().find(|(uid, block)| *uid == pod && range.contains(block.first_id));
        let taken: HashSet<Self> = blocks.filter(|(uid, _)| *uid != pod).map(|(_, block)| block).collect();
        let all = (0..range.blocks).map(|offset| Self { first_id: range.first_id(start.wrapping_add(offset)) });
        for block in own.map(|(_, block)| block).into_iter().chain(all) {
            if taken.contains(&block) {
                continue;
            }
            if let Some(locked) = lock(block).map_err(NoBlock::Lock)? {
                return Ok((block, locked));
            }
        }
        Err(NoBlock::Left(range.blocks))
    }
}

/// Where a daemon starts to look, by the name that sets it apart from others on the machine.
pub(super) fn start_of(cgroup_parent: &str, range: IdRange) -> u32 {
    if cgroup_parent == "monopod" {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    cgroup_parent.hash(&mut hasher);
    u32::try_from(hasher.finish() % u64::from(range.blocks.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use spec::{PodRef, Timestamp};

    use super::*;
    use crate::config::{LinuxResources, NetworkMode, PodNamespaces, PodSandboxConfig, QosClass};

    fn block(place: u32) -> IdBlock {
        IdBlock { first_id: RANGE.first_id(place) }
    }

    fn record(uid: &str, place: Option<u32>) -> SandboxRecord {
        let config = PodSandboxConfig {
            pod: PodRef::new("default", "web"),
            uid: PodUid::new(uid),
            attempt: 0,
            hostname: String::new(),
            network: NetworkMode::Pod,
            qos: QosClass::BestEffort,
            resources: LinuxResources::default(),
            cgroup: None,
            labels: std::collections::BTreeMap::new(),
            log_directory: std::path::PathBuf::new(),
            tmpfs: Vec::new(),
            shm_size: 0,
            namespaces: PodNamespaces::default(),
            ports: Vec::new(),
        };
        SandboxRecord { config, created_at: Timestamp::UNIX_EPOCH, stopped: true, ids: place.map(block), spare: false }
    }

    const RANGE: IdRange = IdRange::DEFAULT;

    #[test]
    fn no_two_pods_have_one_block_and_a_pod_keeps_its_own() {
        let free = |_: IdBlock| Ok(Some(()));
        let records = [record("a", Some(0)), record("b", None), record("c", Some(1)), record("d", Some(3))];
        let last = RANGE.blocks - 1;
        for (uid, start, expected) in [("a", 0, 0), ("d", 0, 3), ("e", 0, 2), ("e", 3, 4), ("e", last, last)] {
            let (found, ()) = IdBlock::choose(&PodUid::new(uid), records.iter(), RANGE, start, free).unwrap();
            assert_eq!(found, block(expected), "{uid} from {start}");
        }
        let all: Vec<SandboxRecord> = (0..=last).map(|place| record(&format!("pod{place}"), Some(place))).collect();
        assert!(IdBlock::choose(&PodUid::new("late"), all.iter(), RANGE, 7, free).is_err());
        let (found, ()) = IdBlock::choose(&PodUid::new("late"), all[1..].iter(), RANGE, 7, free).unwrap();
        assert_eq!(found, block(0));
    }

    #[test]
    fn daemons_side_by_side_share_no_block() {
        let directory = tempfile::tempdir().unwrap();
        let locks = directory.path().join("locks");
        let range = IdRange { first_block: 3, blocks: 2 };
        let choose = |uid: &str, records: &[SandboxRecord]| {
            let lock = |block: IdBlock| super::super::id_range::lock_in(&locks, block.first_id());
            IdBlock::choose(&PodUid::new(uid), records.iter(), range, 0, lock)
        };
        // Neither knows of the other's records.
        let (first, held) = choose("a", &[]).unwrap();
        let (second, _held) = choose("b", &[]).unwrap();
        assert_eq!((first.first_id(), second.first_id()), (3 * IDS, 4 * IDS));
        assert!(matches!(choose("c", &[]), Err(NoBlock::Left(2))));
        // Whoever has a copy of the descriptor holds it: infra, when the daemon is gone.
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(choose("c", &[]).is_err());
        drop(copy);
        let (again, _held) = choose("c", &[]).unwrap();
        assert_eq!(again, first);
        // Its old block has gone to another meanwhile: a Pod that comes back gets another one, or none.
        let mut old = record("a", None);
        old.ids = Some(first);
        assert!(choose("a", &[old]).is_err());
    }

    #[test]
    fn blocks_of_all_records_are_read() {
        let read = |text: &str| serde_json::from_str::<IdBlock>(text).unwrap().first_id();
        assert_eq!(read("0"), 1_879_048_192);
        assert_eq!(read("1"), 1_879_048_192 + 65_536);
        let block = block(4095);
        assert_eq!(read(&serde_json::to_string(&block).unwrap()), block.first_id());
        assert_eq!(block.first_id().checked_add(IDS), Some(1 << 31));
        assert!(IdBlock::holds(65_535) && !IdBlock::holds(65_536));
    }
}
