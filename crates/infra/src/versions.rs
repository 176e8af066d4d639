//! What each version of the protocol has brought. An older infra process skips what it does not know, so a newer daemon
//! must not send it a plan whose meaning would change by that.

use crate::protocol::{ContainerPlan, ExecPlan, MountPlan, MountSource, ProcessPlan};

/// Something that not every version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The first version that knows it.
    pub since: u32,
    /// In words, as "an infra process that knows no ...".
    pub what: &'static str,
}

const SECCOMP: Need = Need { since: 2, what: "seccomp profiles" };
const SUB_PATH: Need = Need { since: 2, what: "subPath in memory volumes" };
const SHARED_PID: Need = Need { since: 2, what: "processes shared between containers" };
const IMAGE: Need = Need { since: 3, what: "image volumes" };
const UNMASKED: Need = Need { since: 3, what: "procMount: Unmasked" };
const HIDDEN_PATHS: Need = Need { since: 4, what: "paths to hide that are not the usual ones" };
/// cgroup file systems that come with a container.
pub const CGROUP_TREES: Need = Need { since: 9, what: "cgroup file systems that are mounted for it" };
/// Containers that wait for a word before they run.
pub const HELD: Need = Need { since: 10, what: "containers that are held" };
/// AppArmor profiles of processes.
pub const APPARMOR: Need = Need { since: 6, what: "AppArmor profiles" };

/// What a container needs that an infra process of `version` does not know. Every field is named, so that a new one
/// does not compile until it was thought of here.
pub fn container_lacks(plan: &ContainerPlan, version: u32) -> Option<Need> {
    let ContainerPlan {
        id: _,
        process,
        cgroup_v2: _,
        cgroup_v1: _,
        mounts,
        read_only_rootfs: _,
        privileged: _,
        stdin: _,
        stdin_once: _,
        log_file: _,
        log_max_size: _,
        log_max_files: _,
        oom_score_adj: _,
        pid,
        unmasked,
        masked_paths,
        read_only_paths,
        cgroup_trees,
        held,
    } = plan;
    let of_mounts = mounts.iter().flat_map(mount_needs);
    let hides = masked_paths.is_some() || read_only_paths.is_some();
    let own = [
        pid.as_ref().map(|_| SHARED_PID),
        unmasked.then_some(UNMASKED),
        hides.then_some(HIDDEN_PATHS),
        (!cgroup_trees.is_empty()).then_some(CGROUP_TREES),
        held.then_some(HELD),
    ];
    process_needs(process).chain(of_mounts).chain(own.into_iter().flatten()).find(|need| need.since > version)
}

/// The same of a process that is started in a container.
pub fn exec_lacks(plan: &ExecPlan, version: u32) -> Option<Need> {
    process_needs(&plan.process).find(|need| need.since > version)
}

fn process_needs(plan: &ProcessPlan) -> impl Iterator<Item = Need> {
    let ProcessPlan {
        command: _,
        env: _,
        working_dir: _,
        uid: _,
        gid: _,
        groups: _,
        capabilities: _,
        no_new_privileges: _,
        tty: _,
        seccomp,
        apparmor,
    } = plan;
    seccomp.as_ref().map(|_| SECCOMP).into_iter().chain(apparmor.as_ref().map(|_| APPARMOR))
}

fn mount_needs(plan: &MountPlan) -> impl Iterator<Item = Need> {
    let MountPlan { target: _, source, read_only: _, volume: _, sub_path } = plan;
    let source = match source {
        MountSource::Detached { .. } | MountSource::Tmpfs { .. } => None,
        MountSource::Image => Some(IMAGE),
    };
    source.into_iter().chain(sub_path.as_ref().map(|_| SUB_PATH))
}
