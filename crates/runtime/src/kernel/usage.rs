//! Reads what cgroups count (cgroup-v2.rst; v1: memory.rst, cpuacct.rst, pids.rst).

use std::fs;
use std::path::Path;

use spec::{PodUid, SandboxId};

use super::cgroups::{CgroupPath, Cgroups};
use super::{Kernel, KernelRuntimeConfig};
use crate::usage::{CgroupUsage, ContainerUsage, PodUsage};

impl Kernel {
    /// What the newest run of each of a Pod's containers, and all of them together, use.
    pub(super) fn pod_usage(&self, uid: &PodUid) -> PodUsage {
        let (sandboxes, mut containers) = self.state.list_pod(uid);
        spec::ordered::sort_by_key(&mut containers, |container| {
            std::cmp::Reverse((container.attempt, container.created_at))
        });
        let mut seen = Vec::new();
        containers.retain(|container| {
            let is_new = !seen.contains(&container.name);
            seen.push(container.name.clone());
            is_new
        });
        let path_of = |sandbox: &SandboxId| {
            let record = self.state.sandbox_record(sandbox).ok()?;
            Some(CgroupPath::of(&record.config))
        };
        let read = |path: Option<CgroupPath>| path.map(|path| self.cgroups.usage(&path)).unwrap_or_default();
        let containers = containers.into_iter().map(|container| ContainerUsage {
            cgroup: read(path_of(&container.sandbox_id).map(|pod| pod.container(&container.id))),
            writable_layer: KernelRuntimeConfig::container_directory(&self.config, &container.id)
                .join("rootfs")
                .join("upper"),
            id: container.id,
            name: container.name,
        });
        let newest = sandboxes.iter().max_by_key(|sandbox| sandbox.attempt);
        PodUsage { containers: containers.collect(), cgroup: read(newest.and_then(|sandbox| path_of(&sandbox.id))) }
    }
}

impl Cgroups {
    /// What the kernel counted in a cgroup; zeros if there is none.
    pub(super) fn usage(&self, path: &CgroupPath) -> CgroupUsage {
        if let Some(directory) = self.v2_directory(path) {
            return usage_v2(&directory);
        }
        let of = |controller| self.v1_directory(controller, path);
        let memory = of("memory");
        let (bytes, idle) = memory.map_or((0, 0), |memory| {
            (number(&memory.join("memory.usage_in_bytes")), field(&memory.join("memory.stat"), "total_inactive_file"))
        });
        CgroupUsage {
            memory: bytes,
            working_set: bytes.saturating_sub(idle),
            cpu_nanos: of("cpuacct").map_or(0, |cpu| number(&cpu.join("cpuacct.usage"))),
            processes: of("pids").map_or(0, |pids| number(&pids.join("pids.current"))),
        }
    }
}

fn usage_v2(directory: &Path) -> CgroupUsage {
    let memory = number(&directory.join("memory.current"));
    CgroupUsage {
        memory,
        working_set: memory.saturating_sub(field(&directory.join("memory.stat"), "inactive_file")),
        cpu_nanos: field(&directory.join("cpu.stat"), "usage_usec").saturating_mul(1000),
        processes: number(&directory.join("pids.current")),
    }
}

fn number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

/// A line `name number` of a flat-keyed file.
fn field(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut fields = text.lines().filter_map(|line| line.split_once(' '));
    fields.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or_default()
}
