//! A container's log in CRI's format: `<RFC 3339 time> <stream> <F|P> <text>`, one file at a time, rotated by size.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, RenameFlags, fstat, ftruncate, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::failure::{At, tolerate};
use crate::protocol::Failure;

/// A longer line is split into parts tagged `P`, the last one `F`, as containerd and CRI-O do it.
const LINE_LIMIT: usize = 16 * 1024;

/// `2026-01-02T03:04:05.000000006Z stdout F `.
const PREFIX: usize = 40;
/// Lines are written when they are so many bytes.
pub(crate) const BATCH: usize = 1024 * 1024;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Bytes that could not be written, to be told to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) bytes: u64,
    pub(crate) errno: i32,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    directory: OwnedFd,
    name: String,
    file: OwnedFd,
    size: u64,
    max_size: u64,
    max_files: u32,
    stdout: Pending,
    stderr: Pending,
    lost: u64,
    /// What of it the daemon was told.
    told: u64,
    /// It was rotated, and the daemon was not told yet.
    rotated: bool,
}

/// The begun line of a stream.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// A part of this line is in the file already, tagged `P`.
    split: bool,
}

impl Log {
    /// Opens the log file, going on where an earlier infra stopped.
    pub(crate) fn open(directory: OwnedFd, name: &str, max_size: u64, max_files: u32) -> Result<Self, Failure> {
        let (file, size) = open_file(&directory, name).at_path("open the log", name)?;
        let name = name.to_owned();
        let (stdout, stderr) = (Pending::default(), Pending::default());
        Ok(Self {
            directory,
            name,
            file,
            size,
            max_size,
            max_files: max_files.max(1),
            stdout,
            stderr,
            lost: 0,
            told: 0,
            rotated: false,
        })
    }

    /// Goes on in a new file of the same name.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        (self.file, self.size) = open_file(&self.directory, &self.name).at_path("open the log", &self.name)?;
        Ok(())
    }

    /// Writes the whole lines of `data`, keeping a begun one. Never fails and never waits for a disk to have room:
    /// what cannot be written is counted. `lines` is room to work in, and comes back empty.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8], now: Timestamp, lines: &mut Vec<u8>) -> Option<Lost> {
        let prefixes = Prefixes::new(stream, now);
        let (mut rest, mut lost) = (data, None);
        while !rest.is_empty() {
            let pending = match stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            rest = format_lines(pending, &prefixes, rest, lines);
            lost = self.append(lines).or(lost);
            lines.clear();
        }
        lost
    }

    /// Writes a begun line that will not be finished, tagged `P` as containerd does.
    pub(crate) fn finish(&mut self, now: Timestamp) -> Option<Lost> {
        let mut lines = Vec::new();
        for (stream, pending) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            if !pending.bytes.is_empty() {
                pending.end_part(&Prefixes::new(stream, now).part, &mut lines);
                pending.bytes = Vec::new();
            }
        }
        self.append(&lines)
    }

    /// One write for a batch, so that a reader finds whole lines; it may overrun the size at which the log is rotated.
    fn append(&mut self, lines: &[u8]) -> Option<Lost> {
        if lines.is_empty() {
            return None;
        }
        match write_all(&self.file, lines) {
            Ok(()) => {
                self.size += lines.len() as u64;
                self.rotate_if_due();
                None
            }
            Err(error) => {
                // Readers never see half a line.
                tolerate(ftruncate(&self.file, self.size));
                self.lost += lines.len() as u64;
                // A full disk loses line after line: telling of each would flood the daemon's socket.
                if self.lost < self.told.saturating_mul(2) {
                    return None;
                }
                self.told = self.lost;
                Some(Lost { bytes: self.lost, errno: error.raw_os_error() })
            }
        }
    }

    /// Whether it was rotated since this was asked last.
    pub(crate) fn take_rotated(&mut self) -> bool {
        std::mem::take(&mut self.rotated)
    }

    /// Rotates between lines; a stream that never ends its line may delay that up to twice the size.
    fn rotate_if_due(&mut self) {
        let mid_line = self.stdout.split || self.stderr.split;
        if self.size < self.max_size || (mid_line && self.size < self.max_size.saturating_mul(2)) {
            return;
        }
        // A failed rotation is tried again at the next write; until then the file grows.
        if rename_away(&self.directory, &self.name).is_ok()
            && let Ok((file, size)) = open_file(&self.directory, &self.name)
        {
            (self.file, self.size) = (file, size);
            self.rotated = true;
            remove_old(&self.directory, &self.name, self.max_files as usize - 1);
        }
    }
}

/// A Pod with a hostPath on the log directory may have put a symbolic link, a FIFO or a device there.
fn open_file(directory: &OwnedFd, name: &str) -> rustix::io::Result<(OwnedFd, u64)> {
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_raw_mode(0o640))?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
}

/// The name has the moment of the rotation; it replaces no other file.
fn rename_away(directory: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S-%9f");
    renameat_with(directory, name, directory, format!("{name}.{stamp}"), RenameFlags::NOREPLACE)
}

/// Keeps the newest rotations. The daemon packs them meanwhile: one may be there as `STAMP`, `STAMP.gz` and `STAMP.tmp`.
fn remove_old(directory: &OwnedFd, name: &str, keep: usize) {
    let Ok(entries) = rustix::fs::Dir::read_from(directory) else { return };
    let start = format!("{name}.");
    let mut rotated: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for entry in entries.filter_map(|entry| Some(entry.ok()?.file_name().to_bytes().to_vec())) {
        let Some(stamp) = entry.strip_prefix(start.as_bytes()).and_then(|rest| rest.split(|&byte| byte == b'.').next())
        else {
            continue;
        };
        rotated.entry(stamp.to_vec()).or_default().push(entry);
    }
    let surplus = rotated.len().saturating_sub(keep);
    for old in rotated.into_values().take(surplus).flatten() {
        // Whatever cannot be removed now is tried again at the next rotation.
        tolerate(unlinkat(directory, old.as_slice(), rustix::fs::AtFlags::empty()));
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = match rustix::io::write(file, bytes) {
            Err(Errno::INTR) => continue,
            Ok(0) => return Err(Errno::IO),
            written => written?,
        };
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// What each line begins with. As an array it is copied without a call.
struct Prefixes {
    full: [u8; PREFIX],
    part: [u8; PREFIX],
}

impl Prefixes {
    fn new(stream: Stream, now: Timestamp) -> Self {
        let prefix = |tag| {
            // Of this length in any year from 0 to 9999.
            let mut bytes = [b' '; PREFIX];
            for (to, from) in bytes.iter_mut().zip(format!("{now:.9} {} {tag} ", stream.name()).bytes()) {
                *to = from;
            }
            bytes
        };
        Self { full: prefix('F'), part: prefix('P') }
    }
}

impl Pending {
    /// Takes what follows of a line, and moves all parts but the last to `lines`.
    fn take(&mut self, mut text: &[u8], prefixes: &Prefixes, lines: &mut Vec<u8>) {
        while let Some((now, later)) = text.split_at_checked(LINE_LIMIT - self.bytes.len())
            && !later.is_empty()
        {
            self.bytes.extend_from_slice(now);
            self.end_part(&prefixes.part, lines);
            self.split = true;
            text = later;
        }
        self.bytes.extend_from_slice(text);
    }

    fn end_part(&mut self, prefix: &[u8; PREFIX], lines: &mut Vec<u8>) {
        lines.extend_from_slice(prefix);
        lines.append(&mut self.bytes);
        lines.push(b'\n');
    }
}

/// Appends finished lines of `pending` and `data` to `lines`, and gives what is left to do when they are a batch; else
/// `pending` keeps the begun line.
fn format_lines<'a>(pending: &mut Pending, prefixes: &Prefixes, data: &'a [u8], lines: &mut Vec<u8>) -> &'a [u8] {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', data) {
        let line = data.get(start..=end).unwrap_or_default();
        start = end + 1;
        if pending.bytes.is_empty() && line.len() <= LINE_LIMIT + 1 {
            lines.extend_from_slice(&prefixes.full);
            lines.extend_from_slice(line);
        } else {
            pending.take(line.strip_suffix(b"\n").unwrap_or(line), prefixes, lines);
            pending.end_part(&prefixes.full, lines);
        }
        pending.split = false;
        if lines.len() >= BATCH {
            break;
        }
    }
    let rest = data.get(start..).unwrap_or_default();
    if lines.len() >= BATCH {
        return rest;
    }
    pending.take(rest, prefixes, lines);
    if pending.bytes.is_empty() {
        pending.bytes = Vec::new();
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn log(directory: &Path, max_size: u64, max_files: u32) -> Log {
        Log::open(fs::File::open(directory).unwrap().into(), "0.log", max_size, max_files).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.000000006Z".parse().unwrap()
    }

    #[test]
    fn lines_are_stamped_and_begun_ones_wait() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 1 << 20, 5);
        let lines = &mut Vec::new();
        log.write(Stream::Stdout, b"one\ntwo\nthr", now(), lines);
        log.write(Stream::Stderr, b"oops\n", now(), lines);
        log.write(Stream::Stdout, b"ee\n\nrest", now(), lines);
        log.finish(now());
        let stamp = "2026-01-02T03:04:05.000000006Z";
        let expected =
            ["stdout F one", "stdout F two", "stderr F oops", "stdout F three", "stdout F ", "stdout P rest"]
                .map(|line| format!("{stamp} {line}\n"))
                .concat();
        assert_eq!(fs::read_to_string(directory.path().join("0.log")).unwrap(), expected);
    }

    #[test]
    fn a_long_line_is_split_at_16_kib() {
        for (length, parts) in [
            (LINE_LIMIT, vec![LINE_LIMIT]),
            (LINE_LIMIT + 1, vec![LINE_LIMIT, 1]),
            (40_000, vec![LINE_LIMIT, LINE_LIMIT, 7232]),
        ] {
            for chunk in [1000, 16 * 1024, 100_000] {
                let mut pending = Pending::default();
                let mut lines = Vec::new();
                let mut data = vec![b'x'; length];
                data.push(b'\n');
                for piece in data.chunks(chunk) {
                    let prefixes = Prefixes::new(Stream::Stdout, now());
                    assert!(format_lines(&mut pending, &prefixes, piece, &mut lines).is_empty());
                }
                let text = String::from_utf8(lines).unwrap();
                let found: Vec<(char, usize)> =
                    text.lines().map(|line| (line.as_bytes()[38] as char, line.len() - 40)).collect();
                let mut expected: Vec<(char, usize)> = parts.iter().map(|&part| ('P', part)).collect();
                expected.last_mut().unwrap().0 = 'F';
                assert_eq!(found, expected, "length {length} in chunks of {chunk}");
            }
        }
    }

    /// What comes out does not depend on how the output was cut into reads, or the log into batches.
    #[test]
    fn lines_are_the_same_however_they_come() {
        let mut data = Vec::new();
        // Lengths around all limits, lines of one byte that make more than a batch, and a begun one.
        for length in [0, 1, LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 2 * LINE_LIMIT, 2 * LINE_LIMIT + 1, 7] {
            data.extend(std::iter::repeat_n(b'a', length).chain([b'\n']));
        }
        data.extend(b"b\n".repeat(BATCH / PREFIX * 2));
        data.extend(b"begun");
        let mut expected = Vec::new();
        let stamp = "2026-01-02T03:04:05.000000006Z stdout";
        for line in data.split(|&byte| byte == b'\n') {
            let parts: Vec<&[u8]> = line.chunks(LINE_LIMIT).collect();
            let (&last, parts) = parts.split_last().unwrap_or((&&b""[..], &[]));
            for part in parts {
                expected.extend([format!("{stamp} P ").as_bytes(), part, b"\n"].concat());
            }
            let tag = if last == b"begun" { 'P' } else { 'F' };
            expected.extend([format!("{stamp} {tag} ").as_bytes(), last, b"\n"].concat());
        }
        for chunk in [1000, LINE_LIMIT, LINE_LIMIT + 1, 65_537, data.len()] {
            let directory = tempfile::tempdir().unwrap();
            let mut log = log(directory.path(), u64::MAX, 1);
            let mut lines = Vec::new();
            for piece in data.chunks(chunk) {
                assert_eq!(log.write(Stream::Stdout, piece, now(), &mut lines), None);
                assert!(lines.is_empty());
            }
            assert!(lines.capacity() < 3 * BATCH, "{}", lines.capacity());
            log.finish(now());
            assert!(fs::read(directory.path().join("0.log")).unwrap() == expected, "in pieces of {chunk}");
        }
    }

    #[test]
    fn rotation_keeps_whole_lines_and_so_many_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(directory.path(), 1000, 3);
        for second in 0..100 {
            let at = Timestamp::from_second(1_800_000_000 + second).unwrap();
            log.write(Stream::Stdout, format!("line {second} {}\n", "y".repeat(100)).as_bytes(), at, &mut Vec::new());
        }
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        let mut numbers = Vec::new();
        for name in names.iter().skip(1).chain(names.first()) {
            for line in fs::read_to_string(directory.path().join(name)).unwrap().lines() {
                numbers.push(line.split(' ').nth(4).unwrap().parse::<u64>().unwrap());
            }
        }
        assert_eq!(*numbers.last().unwrap(), 99);
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost or doubled in what is kept");
    }

    #[test]
    fn a_rotation_counts_once_however_many_files_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let stamps = ["20260101-000000-000000001", "20260101-000000-000000002", "20260101-000000-000000003"];
        for (stamp, ends) in stamps.iter().zip([&[".gz"][..], &["", ".gz", ".tmp"], &[""]]) {
            for end in ends {
                fs::write(directory.path().join(format!("0.log.{stamp}{end}")), "").unwrap();
            }
        }
        fs::write(directory.path().join("10.log.1"), "").unwrap();
        let fd: OwnedFd = fs::File::open(directory.path()).unwrap().into();
        let count = || fs::read_dir(directory.path()).unwrap().count();
        remove_old(&fd, "0.log", 3);
        assert_eq!(count(), 6);
        remove_old(&fd, "0.log", 2);
        assert!(!directory.path().join(format!("0.log.{}.gz", stamps[0])).exists());
        assert_eq!(count(), 5);
        remove_old(&fd, "0.log", 1);
        assert_eq!(count(), 2);
    }

    #[test]
    fn a_link_in_place_of_the_log_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/shadow", directory.path().join("0.log")).unwrap();
        let refused = Log::open(fs::File::open(directory.path()).unwrap().into(), "0.log", 1000, 3).unwrap_err();
        assert_eq!(refused.errno, Errno::LOOP.raw_os_error());
    }
}
