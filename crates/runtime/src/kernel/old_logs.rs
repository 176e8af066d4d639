//! Rotated logs are packed with gzip, all but the newest, as the kubelet does it (pkg/kubelet/logs): the daemon's work,
//! so that infra stays small. infra rotates, and removes what is beyond the limit.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid, fchmod, fchown, futimens,
    openat2, renameat_with, unlinkat,
};
use rustix::io::Errno;
use spec::ContainerId;

use super::Kernel;

/// The kubelet looks that often. A container that floods its log rotates files away meanwhile that need no packing then.
const PERIOD: Duration = Duration::from_secs(10);
/// Ending of a packed log.
const PACKED: &str = ".gz";
/// Ending of one that is being packed.
const UNFINISHED: &str = ".tmp";

impl Kernel {
    /// Packs the rotated logs of a container in a while, once for all rotations until then.
    pub(super) fn pack_logs_later(self: &Arc<Self>, id: &ContainerId) {
        if !self.state.lock().packing.insert(id.clone()) {
            return;
        }
        let (kernel, id) = (Arc::clone(self), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(PERIOD).await;
            kernel.state.lock().packing.remove(&id);
            if let Err(error) = kernel.pack_logs(&id) {
                tracing::warn!(container = %id, %error, "rotated logs are not packed");
            }
        });
    }

    fn pack_logs(&self, id: &ContainerId) -> io::Result<()> {
        // Removed meanwhile, and its logs with its Pod.
        let Ok(record) = self.state.container_record(id) else { return Ok(()) };
        let Ok(sandbox) = self.state.sandbox_record(&record.sandbox) else { return Ok(()) };
        let Some(directory) = open_directory(&sandbox.config.log_directory.join(record.config.name.as_str()))? else {
            return Ok(());
        };
        let name = format!("{}.log", record.config.attempt);
        let id = id.clone();
        // A thread of its own: it is nobody else's, so it may be the least important one.
        std::thread::Builder::new().name("log-packer".to_owned()).spawn(move || {
            let packed = rustix::process::setpriority_process(None, 19).map_err(io::Error::from);
            if let Err(error) = packed.and_then(|()| pack(&directory, &name)) {
                tracing::warn!(container = %id, %error, "rotated logs are not packed");
            }
        })?;
        Ok(())
    }
}

/// Packs all rotations of the log `name` but the newest, and removes what a daemon that died has left half done.
fn pack(directory: &OwnedFd, name: &str) -> io::Result<()> {
    let start = format!("{name}.");
    let mut found = BTreeSet::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        found.extend(entry.file_name().to_str().ok().filter(|name| name.starts_with(&start)).map(str::to_owned));
    }
    let mut unpacked = Vec::new();
    for name in &found {
        if name.ends_with(UNFINISHED) || found.contains(&format!("{name}{PACKED}")) {
            remove(directory, name)?;
        } else if !name.ends_with(PACKED) {
            unpacked.push(name);
        }
    }
    // Their stamps sort as text. The newest may still be read by a collector of logs.
    unpacked.pop();
    unpacked.into_iter().try_for_each(|name| pack_one(directory, name))
}

/// The order matters: the packed file is whole on disk before it has its name, and the other goes after that.
fn pack_one(directory: &OwnedFd, name: &str) -> io::Result<()> {
    // A Pod with a hostPath on the log directory may have put a link, a FIFO or a device there.
    let Some(source) = open(directory, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())? else { return Ok(()) };
    let metadata = source.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not a regular file")));
    }
    let unfinished = format!("{name}{UNFINISHED}");
    let packed = write_packed(directory, &unfinished, source, &metadata).and_then(|()| {
        let named = renameat_with(directory, &unfinished, directory, format!("{name}{PACKED}"), RenameFlags::NOREPLACE);
        Ok(named?)
    });
    match packed {
        Ok(()) => remove(directory, name),
        // infra removed the oldest meanwhile, and this with it.
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
        Err(error) => remove(directory, &unfinished).and(Err(error)),
    }
}

/// It has the owner, mode and time of what it was made from: `logs --since-time` goes by the time.
fn write_packed(directory: &OwnedFd, name: &str, source: File, metadata: &Metadata) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = open(directory, name, flags, Mode::from_raw_mode(0o600))?.ok_or(io::ErrorKind::NotFound)?;
    let mut encoder = GzEncoder::new(file, Compression::fast());
    io::copy(&mut BufReader::with_capacity(128 << 10, source), &mut encoder)?;
    let mut file = encoder.finish()?;
    file.flush()?;
    fchown(&file, Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())))?;
    fchmod(&file, Mode::from_raw_mode(metadata.mode()))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    futimens(&file, &times)?;
    file.sync_data()
}

/// The directory of a container below that of its Pod, without following a link in either's place.
fn open_directory(path: &Path) -> io::Result<Option<OwnedFd>> {
    let mut parts = path.iter().rev();
    let (Some(container), Some(pod)) = (parts.next(), parts.next()) else { return Ok(None) };
    let Some(above) = path.ancestors().nth(2) else { return Ok(None) };
    let opened = File::open(above).and_then(|above| {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(&above, Path::new(pod).join(container), flags, Mode::empty(), how)?)
    });
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn open(directory: impl std::os::fd::AsFd, name: &str, flags: OFlags, mode: Mode) -> io::Result<Option<File>> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let directory: BorrowedFd<'_> = directory.as_fd();
    match openat2(directory, name, flags | OFlags::CLOEXEC, mode, how) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(directory.as_fd(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::SystemTime;

    use flate2::read::GzDecoder;

    use super::*;

    fn packed(base: &Path) -> BTreeMap<String, String> {
        let directory: OwnedFd = File::open(base).unwrap().into();
        pack(&directory, "0.log").unwrap();
        let read = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let mut text = String::new();
            let file = File::open(entry.path()).unwrap();
            if name.ends_with(PACKED) {
                GzDecoder::new(file).read_to_string(&mut text).unwrap();
            } else {
                BufReader::new(file).read_to_string(&mut text).unwrap();
            }
            (name, text)
        };
        fs::read_dir(base).unwrap().map(read).collect()
    }

    #[test]
    fn all_but_the_newest_rotation_are_packed_with_mode_and_time() {
        let base = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(base.path().join(name), text).unwrap();
        for (name, text) in [("0.log", "present"), ("0.log.3", "third"), ("0.log.2", "second"), ("0.log.1", "first")] {
            write(name, text);
        }
        write("10.log.1", "of another run");
        let second = base.path().join("0.log.2");
        fs::set_permissions(&second, fs::Permissions::from_mode(0o604)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789);
        File::options().write(true).open(&second).unwrap().set_modified(time).unwrap();
        let names = ["0.log", "0.log.1.gz", "0.log.2.gz", "0.log.3", "10.log.1"];
        let texts = ["present", "first", "second", "third", "of another run"];
        let expected: BTreeMap<_, _> =
            names.iter().zip(texts).map(|(name, text)| ((*name).to_owned(), text.to_owned())).collect();
        assert_eq!(packed(base.path()), expected);
        let metadata = fs::metadata(base.path().join("0.log.2.gz")).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.modified().unwrap()), (0o604, time));
        // Nothing is left to do.
        assert_eq!(packed(base.path()), expected);
    }

    #[test]
    fn what_a_dead_daemon_left_half_done_is_finished() {
        let base = tempfile::tempdir().unwrap();
        for (name, text) in [("0.log.1.tmp", "hal"), ("0.log.1", "whole"), ("0.log.3", "newest")] {
            fs::write(base.path().join(name), text).unwrap();
        }
        fs::write(base.path().join("0.log.0"), "doubled").unwrap();
        let mut encoder = GzEncoder::new(File::create(base.path().join("0.log.0.gz")).unwrap(), Compression::fast());
        encoder.write_all(b"doubled").unwrap();
        encoder.finish().unwrap();
        let found = packed(base.path());
        let expected = [("0.log.0.gz", "doubled"), ("0.log.1.gz", "whole"), ("0.log.3", "newest")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    }

    #[test]
    fn a_link_in_place_of_a_log_is_not_followed() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("shadow"), "secret").unwrap();
        symlink("shadow", base.path().join("0.log.1")).unwrap();
        fs::write(base.path().join("0.log.2"), "newest").unwrap();
        let directory: OwnedFd = File::open(base.path()).unwrap().into();
        assert_eq!(pack(&directory, "0.log").unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert!(!base.path().join("0.log.1.gz").exists());
    }
}
