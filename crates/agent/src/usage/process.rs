//! What the daemon itself uses, as proc_pid_stat(5) and its neighbours tell it.

use std::fs;
use std::time::Duration;

use super::meter::TICK;

/// Of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Processor time since it started.
    pub cpu: Duration,
    /// Bytes of memory that are in RAM.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

/// Looks at this process. What cannot be read is zero.
pub fn own_process() -> ProcessUsage {
    let ticks = fs::read_to_string("/proc/self/stat").map(|text| ticks(&text)).unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let resident: u64 = resident.and_then(|kib| kib.parse().ok()).unwrap_or_default();
    ProcessUsage {
        cpu: Duration::from_nanos(ticks.saturating_mul(TICK)),
        resident_bytes: resident.saturating_mul(1024),
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}

/// `utime` and `stime`. The second field is a name in brackets, in which anything may stand.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = own_process();
        assert!(usage.resident_bytes > 1 << 20 && usage.descriptors > 2, "{usage:?}");
        assert_eq!(ticks("1 (a) b) S 0 1 1 0 -1 0 0 0 0 0 7 8 9 9"), 15);
    }
}
