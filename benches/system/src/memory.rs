//! What a process costs in memory, processor time and writes (proc_pid_smaps(5), proc_pid_status(5)).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Proportional set size in kB: its own pages, and its share of those that others map too. One that has just ended has none.
pub fn proportional(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_or(0, |text| field(&text, "Pss:"))
}

/// Resident set size in kB.
pub fn resident(pid: u32) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmRSS:")
}

/// The most that was ever resident, in kB. One that has just ended has none.
pub fn resident_at_most(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(0, |text| field(&text, "VmHWM:"))
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

/// What the threads of a process have done since each began.
pub struct Activity(BTreeMap<String, Thread>);

/// One that has just ended has done nothing.
#[derive(Default, Clone, Copy)]
struct Thread {
    on_processor: Duration,
    /// How often it went to sleep, and so was woken.
    sleeps: u64,
}

impl Activity {
    /// Until now.
    pub fn of(pid: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        Self(
            threads
                .map(|thread| (thread.file_name().to_string_lossy().into_owned(), Thread::at(&thread.path())))
                .collect(),
        )
    }

    /// The processor time and the wake-ups since `before`; threads that have ended meanwhile are not in it.
    pub fn since(&self, before: &Self) -> (Duration, u64) {
        let (mut on_processor, mut sleeps) = (Duration::ZERO, 0);
        for (id, thread) in &self.0 {
            let before = before.0.get(id).copied().unwrap_or_default();
            on_processor += thread.on_processor.saturating_sub(before.on_processor);
            sleeps += thread.sleeps.saturating_sub(before.sleeps);
        }
        (on_processor, sleeps)
    }
}

impl Thread {
    /// `schedstat` begins with nanoseconds on a processor (sched-stats.rst); a tick of proc_pid_stat(5) would be too coarse.
    fn at(directory: &std::path::Path) -> Self {
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        let nanoseconds = read("schedstat").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0);
        let sleeps = read("status").map_or(0, |text| field(&text, "voluntary_ctxt_switches:"));
        Self { on_processor: Duration::from_nanos(nanoseconds), sleeps }
    }
}
