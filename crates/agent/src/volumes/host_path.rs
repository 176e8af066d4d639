//! `hostPath`: a path of the machine, checked to be what the pod says it is. Never removed by us.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use super::VolumeCause;

/// How long the file system of a path may take: a living one answers within milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Paths whose file systems did not answer in time. The thread that asked stays until they do, so nobody asks again.
static SILENT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Checks the path as [`check_now`] does, in a thread of its own: where a server is gone (NFS, FUSE), a look at a path of
/// its file system waits for ever, and nothing but that thread shall.
pub(super) fn check(path: &Path, type_: &str) -> Result<(), VolumeCause> {
    let type_ = type_.to_owned();
    in_time(path, move |path| check_now(path, &type_))
}

/// A look at a path of the machine, by a thread of its own.
pub(super) fn in_time(
    path: &Path,
    look: impl FnOnce(&Path) -> Result<(), VolumeCause> + Send + 'static,
) -> Result<(), VolumeCause> {
    if silent().contains(path) {
        return Err(no_answer(path));
    }
    let (sender, receiver) = mpsc::channel();
    let asked = path.to_owned();
    std::thread::spawn(move || {
        // Too late, nobody waits any more.
        drop(sender.send(look(&asked)));
        silent().remove(&asked);
    });
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_elapsed| {
        silent().insert(path.to_owned());
        // It may have answered at this very moment, and then nobody would take the path out again.
        let Ok(checked) = receiver.try_recv() else { return Err(no_answer(path)) };
        silent().remove(path);
        checked
    })
}

fn silent() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    SILENT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_answer(path: &Path) -> VolumeCause {
    VolumeCause::Unmet(format!(
        "hostPath type check failed: {} does not answer; the server of its file system may be gone",
        path.display()
    ))
}

/// Checks the path, makes it where `type` asks for that, and says the kubelet's words if it is something else
/// (`pkg/volume/hostpath`). Without a type a missing path becomes a directory, as container runtimes do it.
fn check_now(path: &Path, type_: &str) -> Result<(), VolumeCause> {
    let failed = |source| VolumeCause::Directory { path: path.to_owned(), source };
    let present = match fs::metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (holds, what) = match (type_, present) {
        ("" | "DirectoryOrCreate", None) => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed)?;
            (true, "")
        }
        ("", Some(_)) => (true, ""),
        ("FileOrCreate", None) => {
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(failed)?;
            (true, "")
        }
        ("Directory" | "DirectoryOrCreate", present) => {
            (present.is_some_and(|present| present.is_dir()), "is not a directory")
        }
        ("File" | "FileOrCreate", present) => (present.is_some_and(|present| present.is_file()), "is not a file"),
        ("Socket", present) => (present.is_some_and(|present| present.is_socket()), "is not a socket file"),
        ("CharDevice", present) => {
            (present.is_some_and(|present| present.is_char_device()), "is not a character device")
        }
        ("BlockDevice", present) => (present.is_some_and(|present| present.is_block_device()), "is not a block device"),
        (_, _) => (false, "has an unknown type"),
    };
    if holds {
        Ok(())
    } else {
        Err(VolumeCause::Unmet(format!("hostPath type check failed: {} {what}", path.display())))
    }
}
