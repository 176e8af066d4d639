//! Limits of huge pages: hugetlb of both cgroup versions (cgroup-v1/hugetlb.rst; cgroup-v2.rst, "HugeTLB").

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::cgroups::{CgroupError, write_if_present};

/// Where the kernel lists its pools of huge pages (hugetlbpage.rst).
const POOLS: &str = "/sys/kernel/mm/hugepages";

/// The sizes of huge pages that this machine has, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageSizes(Vec<u64>);

impl PageSizes {
    pub(super) fn of_machine() -> Self {
        Self::listed(Path::new(POOLS))
    }

    fn listed(pools: &Path) -> Self {
        let size = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?.checked_mul(1024)
        };
        let mut sizes: Vec<u64> =
            fs::read_dir(pools).into_iter().flatten().filter_map(Result::ok).filter_map(size).collect();
        sizes.sort_unstable();
        Self(sizes)
    }

    /// As the kubelet has it: of each size what was asked for, and nothing of those that were not. Both limits are set:
    /// the one of reservations refuses mmap(2), before the other would kill by SIGBUS at the first touch.
    pub(super) fn limit_v2(&self, directory: &Path, limits: &BTreeMap<u64, u64>) -> Result<(), CgroupError> {
        self.write(directory, limits, &["rsvd.max", "max"])
    }

    pub(super) fn limit_v1(&self, directory: &Path, limits: &BTreeMap<u64, u64>) -> Result<(), CgroupError> {
        self.write(directory, limits, &["rsvd.limit_in_bytes", "limit_in_bytes"])
    }

    fn write(&self, directory: &Path, limits: &BTreeMap<u64, u64>, files: &[&str]) -> Result<(), CgroupError> {
        for size in &self.0 {
            let limit = limits.get(size).copied().unwrap_or(0).to_string();
            for file in files {
                write_if_present(&directory.join(format!("hugetlb.{}.{file}", name_of(*size))), &limit)?;
            }
        }
        Ok(())
    }
}

/// As the kernel names its files: `2MB`, `1GB`, `64KB`.
fn name_of(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        bytes => format!("{}KB", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_limited_also_those_that_nobody_asked_for() {
        let machine = tempfile::tempdir().unwrap();
        for pool in ["hugepages-1048576kB", "hugepages-2048kB", "hugepages-64kB", "other"] {
            fs::create_dir(machine.path().join(pool)).unwrap();
        }
        let sizes = PageSizes::listed(machine.path());
        let cgroup = tempfile::tempdir().unwrap();
        let files = ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max", "hugetlb.64KB.max"];
        for file in files {
            fs::write(cgroup.path().join(file), "max").unwrap();
        }
        sizes.limit_v2(cgroup.path(), &[(2 << 20, 6 << 20)].into()).unwrap();
        let written = files.map(|file| fs::read_to_string(cgroup.path().join(file)).unwrap());
        // What an older kernel has not is passed over; the files are written over, so that the rest of a longer word stays.
        assert_eq!(written, ["6291456", "6291456", "0ax", "0ax"]);
    }
}
