//! Looks at the machine: how much memory, disk and how many processes are left.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, statvfs};
use spec::ordered::map_of;

use super::thresholds::{Observation, Observations, Signal};

/// The directories whose file systems are watched.
#[derive(Debug, Clone)]
pub struct Places {
    /// Volumes and writable layers.
    pub data: PathBuf,
    /// Logs.
    pub logs: PathBuf,
    /// Images.
    pub images: PathBuf,
}

/// Looks once. What cannot be read is left out, so that no threshold of it is met.
pub fn observe(places: &Places) -> Observations {
    let nodes: Vec<StatVfs> = [&places.data, &places.logs].iter().filter_map(|path| statvfs(*path).ok()).collect();
    let images: Vec<StatVfs> = statvfs(&places.images).into_iter().collect();
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text));
    map_of([
        (Signal::MemoryAvailable, memory.into_iter().collect()),
        (Signal::NodeFsAvailable, nodes.iter().map(bytes).collect()),
        (Signal::NodeFsInodesFree, nodes.iter().filter_map(inodes).collect()),
        (Signal::ImageFsAvailable, images.iter().map(bytes).collect()),
        (Signal::ImageFsInodesFree, images.iter().filter_map(inodes).collect()),
        (Signal::PidAvailable, processes().into_iter().collect()),
    ])
}

/// What of the file systems under `places` changes whenever anything is written there.
pub fn fingerprint(places: &Places) -> Vec<(u64, u64)> {
    let systems = [&places.data, &places.logs].map(|path| statvfs(path).ok());
    systems.into_iter().flatten().map(|system| (system.f_bfree, system.f_ffree)).collect()
}

/// Bytes of the machine's memory that would not simply be given up; none where that cannot be read.
pub fn memory_in_use() -> u64 {
    let seen = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text));
    seen.and_then(|seen| u64::try_from(seen.capacity.saturating_sub(seen.available)).ok()).unwrap_or_default()
}

/// As the kubelet counts: everything but what is free and what the kernel would give up first is in use.
fn memory(meminfo: &str) -> Option<Observation> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kib| kib.saturating_mul(1024))
    };
    let available = bytes("MemFree")?.saturating_add(bytes("Inactive(file)")?);
    Some(Observation { available, capacity: bytes("MemTotal")? })
}

fn bytes(system: &StatVfs) -> Observation {
    let bytes = |blocks: u64| i64::try_from(u128::from(blocks) * u128::from(system.f_frsize)).unwrap_or(i64::MAX);
    Observation { available: bytes(system.f_bavail), capacity: bytes(system.f_blocks) }
}

/// Some file systems (btrfs) make inodes as they need them, and say 0.
fn inodes(system: &StatVfs) -> Option<Observation> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let seen = Observation { available: number(system.f_favail), capacity: number(system.f_files) };
    (seen.capacity > 0).then_some(seen)
}

/// proc_loadavg(5) tells how many threads there are, proc_sys_kernel(5) how many there may be.
fn processes() -> Option<Observation> {
    let most: i64 = fs::read_to_string(Path::new("/proc/sys/kernel/pid_max")).ok()?.trim().parse().ok()?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let present: i64 = load.split(' ').nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Observation { available: most.saturating_sub(present), capacity: most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_files_no_longer_need_is_available() {
        let text =
            "MemTotal:        8000 kB\nMemFree:         1000 kB\nMemAvailable:    6000 kB\nInactive(file):   500 kB\n";
        assert_eq!(memory(text), Some(Observation { available: 1500 << 10, capacity: 8000 << 10 }));
        assert_eq!(memory("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let root = || PathBuf::from("/");
        let seen = observe(&Places { data: root(), logs: root(), images: PathBuf::from("/none") });
        for signal in [Signal::MemoryAvailable, Signal::NodeFsAvailable, Signal::PidAvailable] {
            let one = seen[&signal][0];
            assert!(one.available >= 0 && one.available <= one.capacity, "{signal}: {one:?}");
        }
        assert_eq!(seen[&Signal::ImageFsAvailable], []);
    }
}
