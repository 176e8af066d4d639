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

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use spec::Timestamp;
use spec::ordered::set_of;

use crate::directories::{make_whole_below, open_below, remove_below, set_mode_and_group};

const DATA_LINK: &str = "..data";
const NEW_DATA_LINK: &str = "..data_tmp";

/// Files of a volume by their path in it.
pub type Payload = BTreeMap<PathBuf, PayloadFile>;

/// One file of a volume.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PayloadFile {
    /// Its content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Whose it is; root's without one.
    pub user: Option<u32>,
}

// The content may be secret.
impl std::fmt::Debug for PayloadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.content.len();
        let mut shown = f.debug_struct("PayloadFile");
        shown.field("bytes", &bytes).field("mode", &self.mode).field("user", &self.user).finish()
    }
}

impl PayloadFile {
    /// A group that the pod asks for may read, as the kubelet does it for read-only volumes.
    fn mode_for(&self, group: Option<u32>) -> u32 {
        let more = if group.is_some() { 0o440 } else { 0 };
        (self.mode | more) & 0o7777
    }
}

/// Mode of the directories; with a group of their own they give it on.
pub(crate) fn directory_mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o2755 } else { 0o755 }
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

/// Makes the volume hold exactly `payload`, readable for `group`. Returns whether anything had to change.
///
/// The order matters:
/// 1. the new directory is complete before anything points to it;
/// 2. `..data` is replaced by rename(2), the one step in which readers change over;
/// 3. visible names are added after, and those that lead nowhere removed, so that none ever dangles for long;
/// 4. the old directory goes last.
pub fn write_payload(
    volume: BorrowedFd<'_>,
    payload: &Payload,
    group: Option<u32>,
    now: Timestamp,
) -> Result<bool, WritePayloadError> {
    for path in payload.keys() {
        validate(path)?;
    }
    let old = data_target(volume)?;
    if let Some(old) = &old
        && holds(volume, old, payload, group)
        && visible_names(volume).is_ok_and(|visible| visible == wanted_names(payload))
    {
        return Ok(false);
    }
    let name = write_directory(volume, payload, group, now)?;
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
fn holds(volume: BorrowedFd<'_>, directory: &str, payload: &Payload, group: Option<u32>) -> bool {
    let Ok(root) = open_below(volume, directory) else { return false };
    let mut found = 0;
    let same = |(path, file): (&PathBuf, &PayloadFile)| -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let present = File::from(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?);
        let metadata = rustix::fs::fstat(&present)?;
        let mode = Mode::from_raw_mode(metadata.st_mode).as_raw_mode() & 0o7777;
        let owned =
            group.is_none_or(|group| group == metadata.st_gid) && file.user.is_none_or(|user| user == metadata.st_uid);
        if !owned
            || mode != file.mode_for(group)
            || u64::try_from(metadata.st_size).ok() != u64::try_from(file.content.len()).ok()
        {
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

fn write_directory(
    volume: BorrowedFd<'_>,
    payload: &Payload,
    group: Option<u32>,
    now: Timestamp,
) -> Result<String, WritePayloadError> {
    let failed = |step| move |source: io::Error| WritePayloadError::Io { step, source };
    let mut random = [0_u8; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| failed("get a random number")(errno.into()))?;
    let name = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), u32::from_ne_bytes(random));
    rustix::fs::mkdirat(volume, &*name, Mode::from_raw_mode(0o700))
        .map_err(|errno| failed("make a directory for the new data")(errno.into()))?;
    let root = open_below(volume, &*name).map_err(failed("open the directory of the new data"))?;
    set_mode_and_group(&root, directory_mode(group), group).map_err(failed("open the directory of the new data"))?;
    for (path, file) in payload {
        write_file(&root, path, file, group).map_err(failed("write a file of the new data"))?;
    }
    Ok(name)
}

fn write_file(root: &OwnedFd, path: &Path, file: &PayloadFile, group: Option<u32>) -> io::Result<()> {
    let mut directory = root.try_clone()?;
    for component in path.parent().into_iter().flat_map(Path::components) {
        let name = component.as_os_str().to_str().ok_or(io::ErrorKind::InvalidInput)?;
        directory = make_whole_below(directory.as_fd(), name, directory_mode(group), group)?;
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut output = File::from(rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o600))?);
    output.write_all(&file.content)?;
    if let Some(user) = file.user {
        rustix::fs::fchown(&output, Some(rustix::fs::Uid::from_raw(user)), None)?;
    }
    // Only now: the umask does not count, and the file is complete before others may read it.
    set_mode_and_group(&output, file.mode_for(group), group)
}

fn wanted_names(payload: &Payload) -> BTreeSet<CString> {
    let first = payload.keys().filter_map(|path| path.components().next());
    set_of(first.filter_map(|first| CString::new(first.as_os_str().as_encoded_bytes()).ok()))
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
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::directories::open_directory;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        files
            .iter()
            .map(|&(path, content, mode)| (path.into(), PayloadFile { content: content.into(), mode, user: None }))
            .collect()
    }

    fn write(volume: &Path, payload: &Payload) -> Result<bool, WritePayloadError> {
        let directory = open_directory(volume).unwrap();
        write_payload(directory.as_fd(), payload, None, NOW.parse().unwrap())
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
    fn a_group_may_read_every_file() {
        let volume = tempfile::tempdir().unwrap();
        let directory = open_directory(volume.path()).unwrap();
        let payload = payload(&[("a", "1", 0o400), ("sub/b", "2", 0o604)]);
        let write = |group| write_payload(directory.as_fd(), &payload, group, NOW.parse().unwrap()).unwrap();
        let seen = || {
            ["..data/.", "a", "sub", "sub/b"].map(|name| {
                let metadata = fs::metadata(volume.path().join(name)).unwrap();
                (metadata.mode() & 0o7777, metadata.gid())
            })
        };
        assert!(write(Some(4242)));
        assert_eq!(seen(), [(0o2755, 4242), (0o440, 4242), (0o2755, 4242), (0o644, 4242)]);
        assert!(!write(Some(4242)));
        assert!(write(Some(4243)), "another group is a change");
        assert!(write(None));
        assert_eq!(seen().map(|(mode, _)| mode), [0o755, 0o400, 0o755, 0o604]);
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
