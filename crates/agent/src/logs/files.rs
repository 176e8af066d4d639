//! The log files of one run of a container: `N.log` and what rotation made of it, opened without following links.
//!
//! What was rotated has the moment in its name, `N.log.20060102-150405-NANOSECONDS`; all but the newest of these are packed
//! after a while, and have `.gz` after it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use spec::Timestamp;

use super::format::{LogLine, StreamFilter};
use super::packed::{PACKED, PackedLog};
use crate::directories::{open_below, open_directory};

const BLOCK: usize = 64 << 10;
/// How often a file may get shorter while its last lines are looked for.
const SHRINKING_TRIES: u32 = 100;

/// Where the logs of one run of a container are.
#[derive(Debug, Clone)]
pub struct RunLog {
    /// Root of all logs.
    pub log_dir: PathBuf,
    /// `<namespace>_<name>_<uid>/<container>`.
    pub directory: PathBuf,
    /// Number of the run.
    pub attempt: u32,
}

/// A log file that is being read.
#[derive(Debug)]
pub struct OpenLog {
    content: Content,
    /// Where to read on.
    pub offset: u64,
    inode: u64,
    /// When something was written last; a packed one keeps the time of what it was made from.
    modified: SystemTime,
}

#[derive(Debug)]
enum Content {
    Plain(File),
    Packed(PackedLog),
}

impl RunLog {
    /// Whether the directory of the logs is there.
    pub fn open_directory(&self) -> io::Result<OwnedFd> {
        open_below(open_directory(&self.log_dir)?.as_fd(), &self.directory)
    }

    /// The path of the directory, to be watched.
    pub fn directory_path(&self) -> PathBuf {
        self.log_dir.join(&self.directory)
    }

    /// All files of the run, oldest first; those that rotation ended before `since` are left out.
    pub fn open_all(&self, since: Option<Timestamp>) -> io::Result<Vec<OpenLog>> {
        let directory = self.open_directory()?;
        // The present file first: what is rotated from now on is found by its inode.
        let present = self.open_present_in(&directory)?;
        let since = since.map(SystemTime::from);
        let mut files = Vec::new();
        for stamp in self.rotations(&directory)? {
            let Some(file) = open_rotated(&directory, &format!("{}.log.{stamp}", self.attempt))? else { continue };
            let ended_before = since.is_some_and(|since| file.modified < since);
            if present.as_ref().is_none_or(|present| present.inode != file.inode) && !ended_before {
                files.push(file);
            }
        }
        files.extend(present);
        Ok(files)
    }

    /// The moments of the run's rotations, oldest first.
    fn rotations(&self, directory: &OwnedFd) -> io::Result<BTreeSet<String>> {
        let prefix = format!("{}.log.", self.attempt);
        let mut stamps = BTreeSet::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let Some(stamp) = entry.file_name().to_str().ok().and_then(|name| name.strip_prefix(&prefix)) else {
                continue;
            };
            // One that is being packed is still there under its own name; what has another ending is not ours.
            let stamp = stamp.strip_suffix(PACKED).unwrap_or(stamp);
            if !stamp.is_empty() && !stamp.contains('.') {
                stamps.insert(stamp.to_owned());
            }
        }
        Ok(stamps)
    }

    /// The file that is being written now.
    pub fn open_present(&self) -> io::Result<Option<OpenLog>> {
        self.open_present_in(&self.open_directory()?)
    }

    fn open_present_in(&self, directory: &OwnedFd) -> io::Result<Option<OpenLog>> {
        open(directory, format!("{}.log", self.attempt))
    }
}

/// It may be packed between being listed and being opened.
fn open_rotated(directory: &OwnedFd, name: &str) -> io::Result<Option<OpenLog>> {
    let packed = |mut log: OpenLog| {
        if let Content::Plain(file) = log.content {
            log.content = Content::Packed(PackedLog::new(file, directory)?);
        }
        Ok(log)
    };
    match open(directory, name)? {
        Some(plain) => Ok(Some(plain)),
        None => open(directory, format!("{name}{PACKED}"))?.map(packed).transpose(),
    }
}

fn open(directory: &OwnedFd, name: impl rustix::path::Arg) -> io::Result<Option<OpenLog>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the log is not a regular file"));
    }
    let (inode, modified) = (metadata.ino(), metadata.modified()?);
    Ok(Some(OpenLog { content: Content::Plain(file), offset: 0, inode, modified }))
}

impl OpenLog {
    /// Reads on; 0 at the present end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = self.offset;
        let count = self.file()?.read_at(buffer, offset)?;
        self.offset += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }

    /// What was written, unpacked when it is needed first.
    fn file(&mut self) -> io::Result<&File> {
        if let Content::Packed(packed) = &self.content {
            self.content = Content::Plain(packed.unpack()?);
        }
        match &self.content {
            Content::Plain(file) => Ok(file),
            Content::Packed(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Whether both are the same file.
    pub fn is(&self, other: &Self) -> bool {
        self.inode == other.inode
    }

    /// Whether all of the other was written after this, which is rotated. Packed meanwhile, it has another inode and
    /// the same time.
    pub fn is_before(&self, other: &Self) -> io::Result<bool> {
        let Content::Plain(file) = &self.content else { return Ok(self.modified < other.modified) };
        Ok(file.metadata()?.modified()? < other.modified)
    }

    /// Moves to the start of the last `wanted` lines and returns how many there are.
    fn seek_to_last_lines(&mut self, wanted: u64, lines: &mut LineEnds) -> io::Result<u64> {
        // On a full disk infra takes back each begun line that found no room: the file is shorter than it just was.
        let mut tries = SHRINKING_TRIES;
        loop {
            let mut ends = lines.clone();
            match self.try_to_seek(wanted, &mut ends) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && tries > 0 => tries -= 1,
                found => {
                    *lines = ends;
                    return found;
                }
            }
        }
    }

    fn try_to_seek(&mut self, wanted: u64, lines: &mut LineEnds) -> io::Result<u64> {
        let end = self.file()?.metadata()?.len();
        let mut found = 0;
        let mut tail: Vec<u8> = Vec::new();
        let mut start = end;
        // `tail` holds what is read of the line that begins before `start`.
        while start > 0 {
            let length = usize::try_from(start).unwrap_or(BLOCK).min(BLOCK);
            let mut block = vec![0; length];
            let from = start - u64::try_from(length).unwrap_or_default();
            self.file()?.read_exact_at(&mut block, from)?;
            block.append(&mut tail);
            let mut line_end = block.len();
            while let Some(newline) = block.get(..line_end).and_then(|head| head.iter().rposition(|&b| b == b'\n')) {
                let line = block.get(newline + 1..line_end).unwrap_or_default();
                let position = from + u64::try_from(newline + 1).unwrap_or_default();
                if lines.is_end(line) {
                    if found == wanted {
                        // `line` is the last one before those that are wanted: start behind it.
                        self.offset = position + u64::try_from(line.len() + 1).unwrap_or_default();
                        return Ok(found);
                    }
                    found += 1;
                }
                line_end = newline;
            }
            block.truncate(line_end);
            tail = block;
            start = from;
        }
        self.offset = 0;
        if lines.is_end(&tail) {
            if found == wanted {
                self.offset = u64::try_from(tail.len() + 1).unwrap_or_default();
                return Ok(found);
            }
            found += 1;
        }
        Ok(found)
    }
}

/// Tells line ends from parts, reading backwards: parts of a long line count once, by their last part, and so does a
/// line that its container has begun and not ended.
#[derive(Clone)]
struct LineEnds {
    stream: StreamFilter,
    /// Of which stream something later was seen: stdout, stderr.
    seen: [bool; 2],
}

impl LineEnds {
    fn is_end(&mut self, raw: &[u8]) -> bool {
        let Some(line) = LogLine::parse(raw).filter(|line| self.stream.takes(line.stream)) else { return false };
        let [stdout, stderr] = &mut self.seen;
        let seen = if line.stream == b"stderr" { stderr } else { stdout };
        !std::mem::replace(seen, true) || !line.partial
    }
}

/// Drops what comes before the last `wanted` lines.
pub fn keep_last_lines(files: Vec<OpenLog>, wanted: u64, stream: StreamFilter) -> io::Result<Vec<OpenLog>> {
    let mut kept = Vec::new();
    let mut missing = wanted;
    let mut lines = LineEnds { stream, seen: [false; 2] };
    for (age, mut file) in files.into_iter().rev().enumerate() {
        if age > 0 && missing == 0 {
            break;
        }
        missing -= file.seek_to_last_lines(missing, &mut lines)?;
        kept.push(file);
    }
    kept.reverse();
    Ok(kept)
}

/// Removes the logs of runs before `attempt`.
pub fn remove_older_runs(directory: &Path, attempt: u32) -> io::Result<()> {
    let directory = match open_directory(directory) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_owned();
        let number = name.to_str().ok().and_then(|name| name.split_once(".log")?.0.parse::<u32>().ok());
        if number.is_some_and(|number| number < attempt) {
            crate::directories::remove_below(directory.as_fd(), &name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn run_log(base: &Path) -> RunLog {
        fs::create_dir_all(base.join("ns_pod_uid/app")).unwrap();
        RunLog { log_dir: base.to_owned(), directory: "ns_pod_uid/app".into(), attempt: 0 }
    }

    fn texts(files: Vec<OpenLog>) -> Vec<String> {
        files
            .into_iter()
            .map(|mut file| {
                let mut text = vec![0; 1 << 20];
                let count = file.read(&mut text).unwrap();
                String::from_utf8_lossy(&text[..count]).into_owned()
            })
            .collect()
    }

    #[test]
    fn the_last_lines_are_found_over_blocks_and_rotated_files() {
        let base = tempfile::tempdir().unwrap();
        let log = run_log(base.path());
        let directory = log.directory_path();
        let line = |n: usize| format!("2026-01-01T00:00:00Z stdout F {n} {}\n", "x".repeat(n % 50 * 100));
        let part = "2026-01-01T00:00:00Z stdout P part\n";
        let write = |name: &str, from, to| {
            let text = (from..to).map(|n| [part, &line(n)].concat()).collect::<Vec<_>>().concat();
            fs::write(directory.join(name), text).unwrap();
        };
        write("0.log.20260101-000000", 0, 100);
        write("0.log.20260102-000000", 100, 200);
        write("0.log", 200, 300);
        write("1.log", 900, 901);
        let all: Vec<String> = (0..300).map(|n| format!("{part}{}", line(n))).collect();
        for wanted in [0_usize, 1, 2, 50, 99, 100, 101, 150, 250, 299, 300, 301, 1000] {
            let files = log.open_all(None).unwrap();
            assert_eq!(files.len(), 3);
            let kept = keep_last_lines(files, wanted as u64, StreamFilter::All).unwrap();
            let expected = all[300_usize.saturating_sub(wanted)..].concat();
            assert!(texts(kept).concat() == expected, "the last {wanted} lines");
        }
    }

    #[test]
    fn packed_files_are_read_as_the_others() {
        let base = tempfile::tempdir().unwrap();
        let log = run_log(base.path());
        let directory = log.directory_path();
        let line = |n: usize| format!("2026-01-01T00:00:00Z stdout F {n} {}\n", "x".repeat(n % 70 * 40));
        let text = |from, to| (from..to).map(line).collect::<String>();
        let pack = |name: &str, text: &str| {
            let file = fs::File::create(directory.join(name)).unwrap();
            let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
            encoder.finish().unwrap();
        };
        pack("0.log.20260101-000000-000000001.gz", &text(0, 100));
        pack("0.log.20260101-000000-000000002.gz", &text(100, 200));
        // Caught while it was packed: the two are one.
        fs::write(directory.join("0.log.20260101-000000-000000002"), text(100, 200)).unwrap();
        fs::write(directory.join("0.log.20260101-000000-000000003"), text(200, 300)).unwrap();
        fs::write(directory.join("0.log.20260101-000000-000000002.tmp"), "half").unwrap();
        fs::write(directory.join("0.log"), text(300, 400)).unwrap();
        for wanted in [1, 100, 150, 250, 350, 400, 500] {
            let files = log.open_all(None).unwrap();
            assert_eq!(files.len(), 4);
            let kept = keep_last_lines(files, wanted, StreamFilter::All).unwrap();
            let first = 400_usize.saturating_sub(usize::try_from(wanted).unwrap());
            assert!(texts(kept).concat() == text(first, 400), "the last {wanted} lines");
        }
        fs::write(directory.join("0.log.20260101-000000-000000001.gz"), "not packed").unwrap();
        let mut damaged = log.open_all(None).unwrap();
        assert!(damaged[0].read(&mut [0; 10]).is_err());
    }

    #[test]
    fn a_begun_line_counts_as_one() {
        let base = tempfile::tempdir().unwrap();
        let log = run_log(base.path());
        let record = |stream: &str, tag: &str, text: &str| format!("2026-01-01T00:00:00Z {stream} {tag} {text}\n");
        let records = [
            record("stdout", "F", "four"),
            record("stdout", "P", "fi"),
            record("stdout", "F", "ve"),
            record("stderr", "F", "oops"),
            record("stdout", "P", "begun"),
            record("stderr", "P", "too"),
        ];
        fs::write(log.directory_path().join("0.log"), records.concat()).unwrap();
        for (wanted, first) in [(0, 6), (1, 5), (2, 4), (3, 3), (4, 1), (5, 0), (6, 0)] {
            let kept = keep_last_lines(log.open_all(None).unwrap(), wanted, StreamFilter::All).unwrap();
            assert_eq!(texts(kept).concat(), records[first..].concat(), "the last {wanted} lines");
        }
    }

    #[test]
    fn half_a_line_that_is_taken_back_disturbs_no_reader() {
        let base = tempfile::tempdir().unwrap();
        let log = run_log(base.path());
        let whole = "2026-01-01T00:00:00Z stdout F one\n".repeat(3000);
        let path = log.directory_path().join("0.log");
        fs::write(&path, &whole).unwrap();
        let reading = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::options().write(true).open(&path).unwrap();
                let end = whole.len() as u64;
                while reading.load(std::sync::atomic::Ordering::Relaxed) {
                    file.write_all_at(b"2026-01-01T00:00:00Z stdout F half", end).unwrap();
                    file.set_len(end).unwrap();
                }
            });
            for _ in 0..500 {
                keep_last_lines(log.open_all(None).unwrap(), 1, StreamFilter::All).unwrap();
            }
            reading.store(false, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_link_or_a_pipe_in_place_of_a_log_is_not_read() {
        let base = tempfile::tempdir().unwrap();
        let log = run_log(base.path());
        fs::write(base.path().join("shadow"), "secret").unwrap();
        symlink(base.path().join("shadow"), log.directory_path().join("0.log")).unwrap();
        assert!(log.open_present().is_err());
        fs::remove_file(log.directory_path().join("0.log")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            log.directory_path().join("0.log"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(log.open_present().is_err());
    }

    #[test]
    fn logs_of_older_runs_go() {
        let base = tempfile::tempdir().unwrap();
        let log = run_log(base.path());
        for name in ["0.log", "0.log.20260101-000000", "1.log", "2.log", "other"] {
            fs::write(log.directory_path().join(name), "").unwrap();
        }
        remove_older_runs(&log.directory_path(), 1).unwrap();
        let mut names = crate::directories::entries(&log.directory_path()).unwrap();
        names.sort();
        assert_eq!(names, ["1.log", "2.log", "other"]);
    }
}
