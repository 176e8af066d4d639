//! Writes the files of a `ConfigMap` or Secret volume so that readers see all of the old or all of the new ones.
//!
//! The layout is the kubelet's (`pkg/volume/util/atomic_writer.go`), which programs know and watch: files lie in
//! `..2026_01_02_03_04_05.123456`, `..data` links to that directory, and each visible name links to `..data/name`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RawMode, ResolveFlags};
use rustix::io::Errno;
use spec::Timestamp;

use crate::directories::{make_below, open_below, remove_below};

const DATA_LINK: &str = "..data";
const NEW_DATA_LINK: &str = "..data_tmp";

/// Files of a volume by their path in it.
pub type Payload = BTreeMap<PathBuf, PayloadFile>;

/// One file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub struct PayloadFile {
    /// Its content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

// The content may be secret.
impl std::fmt::Debug for PayloadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayloadFile").field("bytes", &self.content.len()).field("mode", &self.mode).finish()
    }
}

/// Why a volume could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WritePayloadError {
    /// A path that could lead out of the volume.
    #[error("invalid path {}", .0.display())]
    InvalidPath(PathBuf),
    /// The kernel's word.
    #[error("cannot {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes the volume hold exactly `payload`. Returns whether anything had to change.
///
/// The order matters:
/// 1. the new directory is complete before anything points to it;
/// 2. `..data` is replaced by rename(2), the one step in which readers change over;
/// 3. visible names are added after, and those that lead nowhere removed, so that none ever dangles for long;
/// 4. the old directory goes last.
pub fn write_payload(volume: BorrowedFd<'_>, payload: &Payload, now: Timestamp) -> Result<bool, WritePayloadError> {
    for path in payload.keys() {
        validate(path)?;
    }
    let old = data_target(volume)?;
    if let Some(old) = &old
        && holds(volume, old, payload)
        && visible_names(volume).is_ok_and(|visible| visible == wanted_names(payload))
    {
        return Ok(false);
    }
    let name = write_directory(volume, payload, now)?;
    let link = |step| move |errno: Errno| WritePayloadError::Io { step, source: errno.into() };
    match rustix::fs::unlinkat(volume, NEW_DATA_LINK, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(link("remove an unfinished link")(error)),
    }
    rustix::fs::symlinkat(&*name, volume, NEW_DATA_LINK).map_err(link("link the new data"))?;
    rustix::fs::renameat(volume, NEW_DATA_LINK, volume, DATA_LINK).map_err(link("change over to the new data"))?;
    link_names(volume, payload)?;
    for stale in stale_directories(volume, &name)? {
        remove_below(volume, &stale).map_err(|source| WritePayloadError::Io { step: "remove the old data", source })?;
    }
    Ok(true)
}

fn validate(path: &Path) -> Result<(), WritePayloadError> {
    let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    let hidden = path.as_os_str().as_encoded_bytes().starts_with(b"..");
    if plain && !hidden && path.components().next().is_some() {
        Ok(())
    } else {
        Err(WritePayloadError::InvalidPath(path.to_owned()))
    }
}

/// The directory that `..data` names, if that is one of ours.
fn data_target(volume: BorrowedFd<'_>) -> Result<Option<String>, WritePayloadError> {
    match rustix::fs::readlinkat(volume, DATA_LINK, Vec::new()) {
        Ok(target) => Ok(target.into_string().ok().filter(|target| target.starts_with("..") && !target.contains('/'))),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(WritePayloadError::Io { step: "read the link to the present data", source: error.into() }),
    }
}

/// Whether the present directory has exactly these files. An error means no: then it is written anew.
fn holds(volume: BorrowedFd<'_>, directory: &str, payload: &Payload) -> bool {
    let Ok(root) = open_below(volume, directory) else { return false };
    let mut found = 0;
    let same = |(path, file): (&PathBuf, &PayloadFile)| -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let present = File::from(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?);
        let metadata = rustix::fs::fstat(&present)?;
        let mode = Mode::from_raw_mode(metadata.st_mode).as_raw_mode() & 0o7777;
        if mode != file.mode || u64::try_from(metadata.st_size).ok() != u64::try_from(file.content.len()).ok() {
            return Ok(false);
        }
        let mut content = Vec::with_capacity(file.content.len());
        present.take(metadata.st_size.unsigned_abs()).read_to_end(&mut content)?;
        Ok(content == file.content)
    };
    for entry in payload {
        if !same(entry).unwrap_or(false) {
            return false;
        }
        found += 1;
    }
    count_files(&root).is_ok_and(|count| count == found)
}

fn count_files(root: &OwnedFd) -> io::Result<usize> {
    let mut count = 0;
    let mut directories = vec![root.try_clone()?];
    while let Some(directory) = directories.pop() {
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            match open_below(directory.as_fd(), entry.file_name()) {
                Ok(child) => directories.push(child),
                Err(_not_a_directory) => count += 1,
            }
        }
    }
    Ok(count)
}

fn write_directory(volume: BorrowedFd<'_>, payload: &Payload, now: Timestamp) -> Result<String, WritePayloadError> {
    let failed = |step| move |source: io::Error| WritePayloadError::Io { step, source };
    let mut random = [0_u8; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| failed("get a random number")(errno.into()))?;
    let name = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), u32::from_ne_bytes(random));
    rustix::fs::mkdirat(volume, &*name, Mode::from_raw_mode(0o700))
        .map_err(|errno| failed("make a directory for the new data")(errno.into()))?;
    let root = open_below(volume, &*name).map_err(failed("open the directory of the new data"))?;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))
        .map_err(|errno| failed("open the directory of the new data")(errno.into()))?;
    for (path, file) in payload {
        write_file(&root, path, file).map_err(failed("write a file of the new data"))?;
    }
    Ok(name)
}

fn write_file(root: &OwnedFd, path: &Path, file: &PayloadFile) -> io::Result<()> {
    let mut directory = root.try_clone()?;
    for component in path.parent().into_iter().flat_map(Path::components) {
        let name = component.as_os_str().to_str().ok_or(io::ErrorKind::InvalidInput)?;
        directory = make_below(directory.as_fd(), name, 0o755)?;
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut output = File::from(rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o600))?);
    output.write_all(&file.content)?;
    // Only now: the umask does not count, and the file is complete before others may read it.
    let mode: RawMode = file.mode & 0o7777;
    rustix::fs::fchmod(&output, Mode::from_raw_mode(mode))?;
    Ok(())
}

fn wanted_names(payload: &Payload) -> BTreeSet<CString> {
    payload
        .keys()
        .filter_map(|path| path.components().next())
        .filter_map(|first| CString::new(first.as_os_str().as_encoded_bytes()).ok())
        .collect()
}

fn visible_names(volume: BorrowedFd<'_>) -> io::Result<BTreeSet<CString>> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(volume)? {
        let name = entry?.file_name().to_owned();
        if !name.to_bytes().starts_with(b"..") && name.to_bytes() != b"." {
            names.insert(name);
        }
    }
    Ok(names)
}

fn link_names(volume: BorrowedFd<'_>, payload: &Payload) -> Result<(), WritePayloadError> {
    let failed = |step| move |source: io::Error| WritePayloadError::Io { step, source };
    let present = visible_names(volume).map_err(failed("list the volume"))?;
    let wanted = wanted_names(payload);
    for name in wanted.difference(&present) {
        let target = [DATA_LINK.as_bytes(), b"/", name.to_bytes()].concat();
        rustix::fs::symlinkat(target.as_slice(), volume, name.as_c_str())
            .map_err(|errno| failed("link a file of the volume")(errno.into()))?;
    }
    for name in present.difference(&wanted) {
        remove_below(volume, name).map_err(failed("remove a file of the volume"))?;
    }
    Ok(())
}

fn stale_directories(volume: BorrowedFd<'_>, present: &str) -> Result<Vec<CString>, WritePayloadError> {
    let failed = |source: io::Error| WritePayloadError::Io { step: "list the volume", source };
    let mut stale = Vec::new();
    for entry in Dir::read_from(volume).map_err(|errno| failed(errno.into()))? {
        let name = entry.map_err(|errno| failed(errno.into()))?.file_name().to_owned();
        let bytes = name.to_bytes();
        if bytes.starts_with(b"..") && bytes != b".." && bytes != DATA_LINK.as_bytes() && bytes != present.as_bytes() {
            stale.push(name);
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::directories::open_directory;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        files
            .iter()
            .map(|&(path, content, mode)| (path.into(), PayloadFile { content: content.into(), mode }))
            .collect()
    }

    fn write(volume: &Path, payload: &Payload) -> Result<bool, WritePayloadError> {
        let directory = open_directory(volume).unwrap();
        write_payload(directory.as_fd(), payload, "2026-01-02T03:04:05Z".parse().unwrap())
    }

    fn listing(volume: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_change_over_together_and_old_ones_go() {
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path();
        assert!(write(volume, &payload(&[("a", "1", 0o644), ("sub/b", "2", 0o400)])).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("sub/b")).unwrap().permissions().mode() & 0o7777, 0o400);
        assert_eq!(fs::read_link(volume.join("sub")).unwrap(), Path::new("..data/sub"));
        let first = fs::read_link(volume.join("..data")).unwrap();
        assert!(first.to_str().unwrap().starts_with("..2026_01_02_03_04_05."));

        assert!(!write(volume, &payload(&[("a", "1", 0o644), ("sub/b", "2", 0o400)])).unwrap());
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), first, "nothing changed, so nothing is written");

        assert!(write(volume, &payload(&[("a", "new", 0o644), ("c", "3", 0o644)])).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "new");
        let names = listing(volume);
        assert_eq!(names.iter().filter(|name| !name.starts_with("..")).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(names.len(), 4, "one data directory, one link to it: {names:?}");
        assert!(write(volume, &payload(&[])).unwrap());
        assert_eq!(listing(volume).len(), 2);
    }

    #[test]
    fn a_changed_mode_or_a_foreign_file_is_mended() {
        let volume = tempfile::tempdir().unwrap();
        let volume = volume.path();
        let wanted = payload(&[("a", "1", 0o644)]);
        write(volume, &wanted).unwrap();
        assert!(write(volume, &payload(&[("a", "1", 0o600)])).unwrap());
        fs::write(volume.join("stray"), "x").unwrap();
        assert!(write(volume, &payload(&[("a", "1", 0o600)])).unwrap());
        assert!(!volume.join("stray").exists());
        fs::write(volume.join("..data/stray"), "x").unwrap();
        assert!(write(volume, &payload(&[("a", "1", 0o600)])).unwrap());
        assert!(!volume.join("..data/stray").exists());
    }

    #[test]
    fn links_that_a_container_planted_lead_nowhere() {
        let base = tempfile::tempdir().unwrap();
        let (volume, outside) = (base.path().join("volume"), base.path().join("outside"));
        fs::create_dir(&volume).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("a"), "mine").unwrap();
        symlink(&outside, volume.join("..data")).unwrap();
        symlink(outside.join("a"), volume.join("..data_tmp")).unwrap();
        write(&volume, &payload(&[("a", "theirs", 0o644)])).unwrap();
        assert_eq!(fs::read_to_string(outside.join("a")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "theirs");
    }

    #[test]
    fn paths_out_of_the_volume_are_refused() {
        let volume = tempfile::tempdir().unwrap();
        for path in ["../a", "/a", "a/../b", "..data", "..a", ""] {
            let result = write(volume.path(), &payload(&[(path, "x", 0o644)]));
            assert!(matches!(result, Err(WritePayloadError::InvalidPath(_))), "{path:?}: {result:?}");
        }
    }
}
