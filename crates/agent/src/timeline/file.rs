//! The file of one Pod's timeline: a moment a line, JSON, bounded in size.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat, renameat};

use super::Moment;
use crate::directories::open_directory;

const NAME: &str = "timeline";
const NEW_NAME: &str = "timeline.new";
/// A longer file loses its middle: how a Pod began and what it did last is what people ask for.
const MAX_BYTES: u64 = 128 << 10;
const KEPT_HEAD: usize = 16 << 10;
const KEPT_TAIL: usize = 48 << 10;

/// Adds moments. Without the Pod's directory nothing is written, and `false` says so.
pub(crate) fn append(directory: &Path, moments: &[Moment]) -> io::Result<bool> {
    let directory = match open_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&directory, NAME, flags, Mode::from_raw_mode(0o600))?);
    let mut lines = Vec::new();
    for moment in moments {
        serde_json::to_writer(&mut lines, moment)?;
        lines.push(b'\n');
    }
    file.write_all(&lines)?;
    if file.metadata()?.len() > MAX_BYTES {
        let mut text = Vec::new();
        open(&directory)?.read_to_end(&mut text)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut new = File::from(openat(&directory, NEW_NAME, flags, Mode::from_raw_mode(0o600))?);
        new.write_all(&without_middle(&text))?;
        renameat(&directory, NEW_NAME, &directory, NAME)?;
    }
    Ok(true)
}

/// All moments in the order in which they were written. A line that was cut off by a crash is passed over.
pub(super) fn read(directory: &Path) -> io::Result<Vec<Moment>> {
    let mut text = Vec::new();
    match open_directory(directory).and_then(|directory| open(&directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?.read_to_end(&mut text)?,
    };
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

fn open(directory: &std::os::fd::OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(directory, NAME, flags, Mode::empty())?))
}

/// Whole lines of the beginning and of the end.
fn without_middle(text: &[u8]) -> Vec<u8> {
    let is_end = |byte: &u8| *byte == b'\n';
    let head = text.get(..KEPT_HEAD).and_then(|head| text.get(..=head.iter().rposition(is_end)?));
    let tail = text.len().checked_sub(KEPT_TAIL).and_then(|start| {
        let tail = text.get(start..)?;
        tail.get(tail.iter().position(is_end)? + 1..)
    });
    match (head, tail) {
        (Some(head), Some(tail)) => [head, tail].concat(),
        _ => text.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(number: i64) -> Moment {
        Moment::event(spec::Timestamp::from_second(number).unwrap(), Some("spec.containers{app}"), "BackOff", "again")
    }

    #[test]
    fn a_file_grows_by_lines_and_a_torn_one_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        assert!(append(directory.path(), &[moment(1), moment(2)]).unwrap());
        std::fs::OpenOptions::new()
            .append(true)
            .open(directory.path().join(NAME))
            .and_then(|mut file| file.write_all(b"{\"at\":\"20\n"))
            .unwrap();
        assert!(append(directory.path(), &[moment(3)]).unwrap());
        assert_eq!(read(directory.path()).unwrap(), [moment(1), moment(2), moment(3)]);
    }

    #[test]
    fn a_pod_without_its_directory_gets_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert!(!append(&missing, &[moment(1)]).unwrap());
        assert_eq!(read(&missing).unwrap(), []);
        assert!(!missing.exists());
    }

    #[test]
    fn a_long_life_keeps_its_beginning_and_its_end() {
        let directory = tempfile::tempdir().unwrap();
        for from in (0..5000).step_by(50) {
            let moments: Vec<_> = (from..from + 50).map(moment).collect();
            assert!(append(directory.path(), &moments).unwrap());
        }
        assert!(std::fs::metadata(directory.path().join(NAME)).unwrap().len() <= MAX_BYTES);
        let kept = read(directory.path()).unwrap();
        assert_eq!((kept.first(), kept.last()), (Some(&moment(0)), Some(&moment(4999))));
        assert!(kept.windows(2).all(|pair| pair[0].at < pair[1].at));
    }
}
