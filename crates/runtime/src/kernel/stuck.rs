//! Processes that were killed and do not end: in uninterruptible sleep, mostly in a file system whose server is gone.

use std::fmt;
use std::fs;

use spec::ordered::set_of;

/// More are counted only.
const NAMED: usize = 3;

/// What a cgroup still holds though it was killed, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StuckProcesses(Vec<StuckProcess>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct StuckProcess {
    pid: i32,
    name: String,
    /// Where in the kernel it waits (proc_pid_wchan(5)); none where the kernel does not say.
    waits_in: Option<String>,
}

impl StuckProcesses {
    pub(super) fn look(pids: impl Iterator<Item = i32>) -> Self {
        Self(set_of(pids).into_iter().filter_map(StuckProcess::look).collect())
    }
}

impl StuckProcess {
    /// None of one that has ended meanwhile. One whose threads have ended but its first is told by those.
    fn look(pid: i32) -> Option<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned();
        let symbol = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        let waits_in = Some(symbol).filter(|symbol| !symbol.is_empty() && symbol != "0");
        Some(Self { pid, name, waits_in })
    }
}

impl std::error::Error for StuckProcesses {}

impl fmt::Display for StuckProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("its processes have only just ended");
        }
        for (index, process) in self.0.iter().take(NAMED).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}process {} ({})", process.pid, process.name.escape_default())?;
            if let Some(symbol) = &process.waits_in {
                write!(f, " waits in the kernel's {}", symbol.escape_default())?;
            }
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        f.write_str(
            ": it was killed and cannot end before its wait does, as on a file system whose server does not answer",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_named_and_the_rest_is_counted() {
        let process = |pid: i32, waits_in: Option<&str>| StuckProcess {
            pid,
            name: "cat".to_owned(),
            waits_in: waits_in.map(str::to_owned),
        };
        let told = StuckProcesses(vec![process(7, Some("request_wait_answer"))]).to_string();
        assert!(told.starts_with("process 7 (cat) waits in the kernel's request_wait_answer: it was killed"), "{told}");
        let told = StuckProcesses((1..6).map(|pid| process(pid, None)).collect()).to_string();
        assert!(told.starts_with("process 1 (cat), process 2 (cat), process 3 (cat) and 2 more: "), "{told}");
    }

    #[test]
    fn a_process_is_found_by_its_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let StuckProcesses(found) = StuckProcesses::look([own, i32::MAX, own].into_iter());
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [own]);
        assert!(!found[0].name.is_empty());
    }
}
