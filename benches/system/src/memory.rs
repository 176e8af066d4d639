//! What a process costs in memory, processor time and writes (proc_pid_smaps(5), proc_pid_status(5)).

use std::fs;

/// Proportional set size in kB: its own pages, and its share of those that others map too. One that has just ended has none.
pub fn proportional(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_or(0, |text| field(&text, "Pss:"))
}

/// Resident set size in kB.
pub fn resident(pid: u32) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmRSS:")
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes that a process has had written to disks (proc_pid_io(5)).
pub fn written(pid: u32) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/io")).unwrap(), "write_bytes:")
}

/// Processor time in clock ticks, all threads (proc_pid_stat(5), fields 14 and 15).
pub fn processor_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(14 - 3).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
