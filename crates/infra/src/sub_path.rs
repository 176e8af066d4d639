//! A path inside a volume, as `subPath` names it: found from the volume's own descriptor, never out of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawMode, ResolveFlags, fchmod, fstat, mkdirat, openat2};
use rustix::io::Errno;

/// The kernel gives up with EAGAIN where a rename elsewhere crosses a lookup with `..` (openat2(2)).
const ATTEMPTS: usize = 100;
const STEP: &str = "find in volume ";

/// Refers to `path` beneath the directory `volume`, whatever another container does to it meanwhile.
///
/// The kernel resolves the path in one go and refuses each step that would leave the volume: a symbolic link inside may
/// lead on inside, one to an absolute path or above the volume is EXDEV (CVE-2017-1002101, CVE-2021-25741). What is
/// missing becomes a directory with the mode of the volume's root, as the kubelet makes it.
///
/// # Errors
/// What the kernel says, and `EINVAL` for a path that is not plain: absolute, or with `..`.
pub fn open_sub_path(volume: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match find_sub_path(volume, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(make(volume, path)?),
        found => found,
    }
}

/// The same where nothing is made: what is missing is ENOENT.
///
/// # Errors
/// As above.
pub fn find_sub_path(volume: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    if !path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
        return Err(Errno::INVAL.into());
    }
    Ok(resolve(volume, path)?)
}

/// What was being done when a path of this volume could not be opened.
#[must_use]
pub fn step(volume: &str) -> String {
    format!("{STEP}{volume:?} the subPath")
}

/// Words what the kernel said at that step; what was said at other steps stays.
#[must_use]
pub fn explain(step: &str, error: io::Error) -> io::Error {
    if step.starts_with(STEP) && error.kind() == io::ErrorKind::CrossesDevices {
        io::Error::new(error.kind(), "a symbolic link in it leads out of the volume")
    } else {
        error
    }
}

fn make(volume: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let mode: RawMode = Mode::from_raw_mode(fstat(volume)?.st_mode).as_raw_mode() & 0o7777;
    let mut below = PathBuf::from(".");
    let mut found = resolve(volume, &below)?;
    for name in path.components().filter(|component| matches!(component, Component::Normal(_))) {
        below.push(name);
        found = match resolve(volume, &below) {
            Err(Errno::NOENT) => make_directory(&found, Path::new(name.as_os_str()), mode)?,
            resolved => resolved?,
        };
    }
    Ok(found)
}

/// Another container may make it first, or put a link in its place: the link is not followed.
fn make_directory(parent: &OwnedFd, name: &Path, mode: RawMode) -> rustix::io::Result<OwnedFd> {
    let is_new = match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let directory = openat2(parent, name, flags, Mode::empty(), how)?;
    if is_new {
        // The umask does not count here.
        fchmod(&directory, Mode::from_raw_mode(mode))?;
    }
    Ok(directory)
}

fn resolve(volume: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut attempts = 0;
    loop {
        attempts += 1;
        match openat2(volume.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN) if attempts < ATTEMPTS => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Volume {
        base: tempfile::TempDir,
        root: fs::File,
    }

    /// A volume, and beside it what is not the container's business.
    fn volume() -> Volume {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("volume")).unwrap();
        fs::create_dir(base.path().join("outside")).unwrap();
        fs::write(base.path().join("outside/secret"), "").unwrap();
        fs::set_permissions(base.path().join("volume"), fs::Permissions::from_mode(0o2771)).unwrap();
        let root = fs::File::open(base.path().join("volume")).unwrap();
        Volume { base, root }
    }

    impl Volume {
        fn path(&self, name: &str) -> PathBuf {
            self.base.path().join(name)
        }

        fn open(&self, path: &str) -> io::Result<u64> {
            let found = open_sub_path(self.root.as_fd(), Path::new(path))?;
            Ok(fstat(&found).unwrap().st_ino)
        }

        fn inode(&self, name: &str) -> u64 {
            fs::metadata(self.path(name)).unwrap().ino()
        }
    }

    #[test]
    fn what_is_there_is_found_and_what_is_missing_is_made() {
        let volume = volume();
        fs::create_dir(volume.path("volume/there")).unwrap();
        fs::write(volume.path("volume/there/file"), "").unwrap();
        symlink("there", volume.path("volume/inside")).unwrap();
        symlink("there/../there/file", volume.path("volume/winding")).unwrap();
        for (path, inode) in [
            ("there", "volume/there"),
            ("there/file", "volume/there/file"),
            ("inside/file", "volume/there/file"),
            ("winding", "volume/there/file"),
            (".", "volume"),
        ] {
            assert_eq!(volume.open(path).unwrap(), volume.inode(inode), "{path}");
        }
        for path in ["new", "deep/er/still", "inside/below"] {
            assert_eq!(volume.open(path).unwrap(), volume.inode(&format!("volume/{path}")), "{path}");
            let mode = fs::metadata(volume.path(&format!("volume/{path}"))).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o2771, "{path}: the mode of the volume's root");
        }
    }

    #[test]
    fn no_path_leads_out() {
        let volume = volume();
        let outside = volume.path("outside");
        symlink(&outside, volume.path("volume/absolute")).unwrap();
        symlink("../outside", volume.path("volume/above")).unwrap();
        symlink("/proc/self/root", volume.path("volume/magic")).unwrap();
        symlink("/", volume.path("volume/root")).unwrap();
        symlink("../outside/new", volume.path("volume/dangling")).unwrap();
        for path in [
            "absolute",
            "absolute/secret",
            "above",
            "above/new",
            "magic",
            "root/etc",
            "dangling",
            "dangling/x",
            "..",
            "../outside",
            "/outside",
            "a/../../outside",
        ] {
            assert!(volume.open(path).is_err(), "{path}");
        }
        assert!(!outside.join("new").exists(), "nothing is made outside either");
    }

    #[test]
    fn what_is_only_looked_for_is_not_made() {
        let volume = volume();
        symlink("../outside", volume.path("volume/above")).unwrap();
        let kind = |path: &str| find_sub_path(volume.root.as_fd(), Path::new(path)).unwrap_err().kind();
        assert_eq!(kind("no/such"), io::ErrorKind::NotFound);
        assert_eq!(kind("above/no"), io::ErrorKind::CrossesDevices);
        assert!(!volume.path("volume/no").exists());
        assert!(find_sub_path(volume.root.as_fd(), Path::new(".")).is_ok());
    }

    /// CVE-2021-25741: a neighbour swaps a directory and a link while the path is resolved.
    #[test]
    fn a_swapped_link_never_leads_out() {
        let volume = volume();
        fs::create_dir(volume.path("volume/swapped")).unwrap();
        fs::create_dir(volume.path("volume/swapped/secret")).unwrap();
        symlink("../outside", volume.path("volume/link")).unwrap();
        let done = AtomicBool::new(false);
        let forbidden = [volume.inode("outside"), volume.inode("outside/secret")];
        let (mut found, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let exchange = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(&volume.root, "swapped", &volume.root, "link", exchange).unwrap();
                }
            });
            while found < 1000 || refused < 1000 {
                match volume.open("swapped/secret") {
                    Ok(inode) => {
                        assert!(!forbidden.contains(&inode));
                        found += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(volume.path("outside")).unwrap().count(), 1, "nothing was made outside");
    }
}
