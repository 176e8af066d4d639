//! Directories of logs: made beneath the Pod's, or taken from those that were made ahead.
//!
//! Two new directories are a tenth of a start that has all else made ahead. The next ones lie in the data directory without names of
//! a Pod or container until they are given some, so nobody sees them where logs are. Nothing records them: a daemon that starts
//! anew removes what the last one left. Where logs are on another file system they cannot be moved there, and none are made.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, mkdirat, openat2, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use spec::ContainerId;

use super::sandbox::remove_directory;

/// How many there are; a burst of Pods makes its own.
const COUNT: usize = 4;
/// Stands for the container that starts first. No container has such a name.
const FIRST: &str = "..first";

/// The directories that are no Pod's yet.
#[derive(Debug)]
pub(super) struct LogDirectoriesAhead {
    /// Where they are until then.
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<PathBuf>,
    /// Logs are where these cannot go.
    useless: bool,
}

impl LogDirectoriesAhead {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives one of them to a Pod that has none: its container's directory, or `None`, and then that is not made yet. Blocks.
    fn take(&self, above: BorrowedFd<'_>, pod: &Path, container: &Path) -> Option<OwnedFd> {
        if gives_on(above) {
            return None;
        }
        let ready = self.lock().ready.pop()?;
        match renameat_with(CWD, &ready, above, pod, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // It has one already.
            Err(Errno::EXIST) => {
                self.lock().ready.push(ready);
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "a directory for logs that was made ahead does not serve");
                clear(&ready);
                // Another file system, or one that cannot rename so: none of the others would serve either.
                if matches!(error, Errno::XDEV | Errno::INVAL) {
                    self.lock().useless = true;
                    self.clear();
                }
                return None;
            }
        }
        let named = open(above, pod).and_then(|pod| {
            if let Err(error) = renameat(&pod, FIRST, &pod, container) {
                // The Pod's serves all the same.
                let removed = unlinkat(&pod, FIRST, AtFlags::REMOVEDIR).is_ok();
                tracing::debug!(%error, removed, "a directory for logs that was made ahead does not serve");
                return Err(error.into());
            }
            open(pod.as_fd(), container)
        });
        named.ok()
    }

    /// Makes what is missing. Blocks.
    pub(super) fn fill(&self) -> io::Result<()> {
        while self.is_short() {
            let path = self.root.join(ContainerId::random().as_str());
            let made = DirBuilder::new().recursive(true).mode(0o755).create(path.join(FIRST));
            made.inspect_err(|_| clear(&path))?;
            self.lock().ready.push(path);
        }
        Ok(())
    }

    /// Whether [`Self::fill`] has anything to do.
    pub(super) fn is_short(&self) -> bool {
        let state = self.lock();
        !state.useless && state.ready.len() < COUNT
    }

    /// Removes all of them. Blocks.
    pub(super) fn clear(&self) {
        let ready = std::mem::take(&mut self.lock().ready);
        for path in &ready {
            clear(path);
        }
    }
}

/// Whether a directory gives those made in it what one that is moved there lacks: its group, entries of its access control list (acl(5),
/// default ACL), or a label for SELinux.
fn gives_on(directory: BorrowedFd<'_>) -> bool {
    let is_set_group = |found: rustix::fs::Stat| Mode::from_raw_mode(found.st_mode).contains(Mode::SGID);
    let has = |name: &str| rustix::fs::fgetxattr(directory, name, &mut [0_u8; 0]).is_ok();
    rustix::fs::fstat(directory).is_ok_and(is_set_group) || has("system.posix_acl_default") || has("security.selinux")
}

fn clear(path: &Path) {
    if let Err(error) = remove_directory(path) {
        tracing::warn!(path = %path.display(), %error, "a directory for logs that was made ahead stays until the next start");
    }
}

/// The directory of the file `log` beneath `pod`, made if it is missing. A Pod with a hostPath on the log directory may have put links
/// there: none is followed. Blocks.
pub(super) fn open_log_directory(pod: &Path, log: &Path, ahead: &LogDirectoriesAhead) -> io::Result<OwnedFd> {
    let name = pod.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let above = pod.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let above = match File::open(above) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o755).create(above)?;
            File::open(above)?
        }
        opened => opened?,
    };
    let container = log.parent().into_iter().flat_map(Path::components).collect::<Vec<_>>();
    if let [Component::Normal(container)] = container.as_slice()
        && let Some(taken) = ahead.take(above.as_fd(), Path::new(name), Path::new(container))
    {
        return Ok(taken);
    }
    let mut directory = open_or_make(above.as_fd(), Path::new(name))?;
    for name in container {
        directory = open_or_make(directory.as_fd(), Path::new(name.as_os_str()))?;
    }
    Ok(directory)
}

fn open_or_make(parent: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    open(parent, name)
}

fn open(parent: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn is(directory: &OwnedFd, path: &Path) -> bool {
        let (of, at) = (rustix::fs::fstat(directory).unwrap(), fs::symlink_metadata(path).unwrap());
        (of.st_dev, of.st_ino) == (at.dev(), at.ino())
    }

    #[test]
    fn a_pods_first_container_takes_one_and_the_next_finds_the_pods() {
        let base = tempfile::tempdir().unwrap();
        let (root, logs) = (base.path().join("ahead"), base.path().join("logs"));
        fs::create_dir(&root).unwrap();
        let ahead = LogDirectoriesAhead::new(root.clone());
        ahead.fill().unwrap();
        assert!(!ahead.is_short());
        assert_eq!(fs::read_dir(&root).unwrap().count(), COUNT);
        let pod = logs.join("default_web_1");
        let first = open_log_directory(&pod, Path::new("app/0.log"), &ahead).unwrap();
        assert!(is(&first, &pod.join("app")));
        assert_eq!(fs::read_dir(&pod).unwrap().count(), 1, "it has no other name");
        assert!(ahead.is_short(), "it is taken");
        let second = open_log_directory(&pod, Path::new("log/0.log"), &ahead).unwrap();
        assert!(is(&second, &pod.join("log")));
        let again = open_log_directory(&pod, Path::new("app/1.log"), &ahead).unwrap();
        assert!(is(&again, &pod.join("app")));
        assert_eq!(fs::read_dir(&root).unwrap().count(), COUNT - 1, "a Pod keeps the directory that it has");
        ahead.clear();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert!(is(&open_log_directory(&logs.join("b"), Path::new("app/0.log"), &ahead).unwrap(), &logs.join("b/app")));
    }

    #[test]
    fn where_new_directories_inherit_none_is_moved() {
        use std::os::unix::fs::PermissionsExt as _;

        let base = tempfile::tempdir().unwrap();
        let (root, logs) = (base.path().join("ahead"), base.path().join("logs"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&logs).unwrap();
        let ahead = LogDirectoriesAhead::new(root.clone());
        ahead.fill().unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o2755)).unwrap();
        let directory = open_log_directory(&logs.join("a"), Path::new("app/0.log"), &ahead).unwrap();
        assert!(Mode::from_raw_mode(rustix::fs::fstat(&directory).unwrap().st_mode).contains(Mode::SGID));
        assert_eq!(fs::read_dir(&root).unwrap().count(), COUNT);
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o755)).unwrap();
        open_log_directory(&logs.join("b"), Path::new("app/0.log"), &ahead).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), COUNT - 1);
    }

    #[test]
    fn none_are_made_where_logs_are_on_another_file_system() {
        let base = tempfile::tempdir().unwrap();
        let logs = tempfile::tempdir_in("/dev/shm").unwrap();
        let ahead = LogDirectoriesAhead::new(base.path().to_owned());
        ahead.fill().unwrap();
        let directory = open_log_directory(&logs.path().join("a"), Path::new("app/0.log"), &ahead).unwrap();
        assert!(is(&directory, &logs.path().join("a/app")));
        assert!(!ahead.is_short());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0, "the others go, too");
    }

    #[test]
    fn one_that_is_gone_is_no_loss() {
        let base = tempfile::tempdir().unwrap();
        let (root, logs) = (base.path().join("ahead"), base.path().join("logs"));
        fs::create_dir(&root).unwrap();
        let ahead = LogDirectoriesAhead::new(root.clone());
        ahead.fill().unwrap();
        fs::remove_dir_all(&root).unwrap();
        for pod in ["a", "b"] {
            let directory = open_log_directory(&logs.join(pod), Path::new("app/0.log"), &ahead).unwrap();
            assert!(is(&directory, &logs.join(pod).join("app")));
        }
        assert!(ahead.is_short());
    }

    #[test]
    fn no_link_is_followed() {
        let base = tempfile::tempdir().unwrap();
        let ahead = LogDirectoriesAhead::new(base.path().join("ahead"));
        fs::create_dir(base.path().join("ahead")).unwrap();
        ahead.fill().unwrap();
        let (logs, elsewhere) = (base.path().join("logs"), base.path().join("elsewhere"));
        fs::create_dir_all(logs.join("b")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, logs.join("a")).unwrap();
        symlink(&elsewhere, logs.join("b/app")).unwrap();
        for pod in ["a", "b"] {
            open_log_directory(&logs.join(pod), Path::new("app/0.log"), &ahead).unwrap_err();
        }
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
