//! Blocks of the machine's user and group ids, one for each Pod with a user namespace; never one for two of them.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use infra::protocol::UserNamespacePlan;
use serde::{Deserialize, Serialize};
use spec::PodUid;

use super::records::SandboxRecord;

/// Ids of one Pod, as with the kubelet.
const IDS: u32 = 65_536;
/// The range that systemd leaves to nobody (uid-gid.org; "Users, Groups, UIDs and GIDs on systemd Systems").
const FIRST: u32 = 0x7000_0000;
const BLOCKS: u32 = 0x1000_0000 / IDS;

/// A block, by its place in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct IdBlock(u32);

/// The user namespace of a living sandbox.
#[derive(Debug, Clone)]
pub(super) struct PodIds {
    pub(super) user_namespace: Arc<OwnedFd>,
    /// The machine's id of its root.
    pub(super) first_id: u32,
}

/// Every block is taken.
#[derive(Debug, thiserror::Error)]
#[error("all {BLOCKS} blocks of user ids are taken by pods with hostUsers: false")]
pub(super) struct NoBlockLeft;

impl IdBlock {
    pub(super) fn plan(self) -> UserNamespacePlan {
        UserNamespacePlan { first_id: self.first_id(), count: IDS }
    }

    /// The machine's id of the Pod's root.
    pub(super) fn first_id(self) -> u32 {
        FIRST.saturating_add(self.0.saturating_mul(IDS))
    }

    /// Whether an id of the Pod is one of its block.
    pub(super) fn holds(id: u32) -> bool {
        id < IDS
    }

    /// A Pod keeps its block over its sandboxes. `start`: where to look first; daemons side by side start far apart.
    pub(super) fn choose<'a>(
        pod: &PodUid,
        recorded: impl Iterator<Item = &'a SandboxRecord> + Clone,
        start: u32,
    ) -> Result<Self, NoBlockLeft> {
        let blocks = recorded.filter_map(|record| Some((&record.config.uid, record.ids?)));
        if let Some((_, own)) = blocks.clone().find(|(uid, _)| *uid == pod) {
            return Ok(own);
        }
        let taken: HashSet<Self> = blocks.map(|(_, block)| block).collect();
        let all = (0..BLOCKS).map(|offset| Self((start.wrapping_add(offset)) % BLOCKS));
        all.into_iter().find(|block| !taken.contains(block)).ok_or(NoBlockLeft)
    }
}

/// Where a daemon starts to look, by the name that sets it apart from others on the machine.
pub(super) fn start_of(cgroup_parent: &str) -> u32 {
    if cgroup_parent == "monopod" {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    cgroup_parent.hash(&mut hasher);
    u32::try_from(hasher.finish() % u64::from(BLOCKS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use spec::{PodRef, Timestamp};

    use super::*;
    use crate::config::{LinuxResources, NetworkMode, PodNamespaces, PodSandboxConfig, QosClass};

    fn record(uid: &str, block: Option<u32>) -> SandboxRecord {
        let config = PodSandboxConfig {
            pod: PodRef::new("default", "web"),
            uid: PodUid::new(uid),
            attempt: 0,
            hostname: String::new(),
            network: NetworkMode::Pod,
            qos: QosClass::BestEffort,
            resources: LinuxResources::default(),
            log_directory: std::path::PathBuf::new(),
            tmpfs: Vec::new(),
            shm_size: 0,
            namespaces: PodNamespaces::default(),
            ports: Vec::new(),
        };
        SandboxRecord { config, created_at: Timestamp::UNIX_EPOCH, stopped: true, ids: block.map(IdBlock) }
    }

    #[test]
    fn no_two_pods_have_one_block_and_a_pod_keeps_its_own() {
        let records = [record("a", Some(0)), record("b", None), record("c", Some(1)), record("d", Some(3))];
        for (uid, start, expected) in
            [("a", 0, 0), ("d", 0, 3), ("e", 0, 2), ("e", 3, 4), ("e", BLOCKS - 1, BLOCKS - 1)]
        {
            let block = IdBlock::choose(&PodUid::new(uid), records.iter(), start).unwrap();
            assert_eq!(block, IdBlock(expected), "{uid} from {start}");
        }
        let all: Vec<SandboxRecord> = (0..BLOCKS).map(|block| record(&format!("pod{block}"), Some(block))).collect();
        assert!(IdBlock::choose(&PodUid::new("late"), all.iter(), 7).is_err());
        assert_eq!(IdBlock::choose(&PodUid::new("late"), all[1..].iter(), 7).unwrap(), IdBlock(0));
    }

    #[test]
    fn blocks_lie_side_by_side_in_the_range() {
        assert_eq!(IdBlock(0).first_id(), 1_879_048_192);
        assert_eq!(IdBlock(1).first_id(), 1_879_048_192 + 65_536);
        assert_eq!(IdBlock(BLOCKS - 1).first_id().checked_add(IDS), Some(1 << 31));
        assert!(IdBlock::holds(65_535) && !IdBlock::holds(65_536));
    }
}
