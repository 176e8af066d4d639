//! What ps(1) shows of an infra process that was started before it had a Pod.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of the argument that [`Title::show`] writes over: room for any `namespace/name` (63 + 1 + 253) and its end.
pub const ROOM: usize = 318;

/// Where the last argument of this process is, which the kernel reads for `/proc/PID/cmdline`; prctl(2) could move it
/// elsewhere with CAP_SYS_RESOURCE only, which some machines lack. It is for people alone: nothing depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Title {
    at: u64,
    room: usize,
}

impl Title {
    /// `None` without procfs: then ps shows the old name.
    pub(crate) fn find() -> Option<Self> {
        let (begin, end) = argument_area(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let arguments = fs::read("/proc/self/cmdline").ok()?;
        // The last argument, behind the NUL that ends the one before.
        let text = arguments.strip_suffix(&[0]).unwrap_or(&arguments);
        let offset = text.iter().rposition(|&byte| byte == 0).map_or(0, |nul| nul + 1);
        let room = usize::try_from(end - begin).ok()?.checked_sub(offset)?;
        Some(Self { at: begin + u64::try_from(offset).ok()?, room })
    }

    /// Writes over it. On a kernel that forbids it the old name stays.
    pub(crate) fn show(self, name: &str) {
        drop(self.write(name));
    }

    fn write(self, name: &str) -> io::Result<()> {
        let mut argument = vec![0; self.room];
        for (to, from) in argument.iter_mut().take(self.room.saturating_sub(1)).zip(name.bytes()) {
            *to = from;
        }
        File::options().write(true).open("/proc/self/mem")?.write_all_at(&argument, self.at)
    }
}

/// `arg_start` and `arg_end`, fields 48 and 49 of proc_pid_stat(5); the name in field 2 may hold anything.
fn argument_area(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(48 - 3);
    let (begin, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (end >= begin).then_some((begin, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_this_process_are_where_stat_says() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (begin, end) = argument_area(&stat).unwrap();
        let mut found = vec![0; usize::try_from(end - begin).unwrap()];
        File::open("/proc/self/mem").unwrap().read_exact_at(&mut found, begin).unwrap();
        assert_eq!(found, fs::read("/proc/self/cmdline").unwrap());
    }
}
