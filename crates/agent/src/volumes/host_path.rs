//! `hostPath`: a path of the machine, checked to be what the pod says it is. Never removed by us.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::VolumeCause;

/// Checks the path, makes it where `type` asks for that, and says the kubelet's words if it is something else
/// (`pkg/volume/hostpath`). Without a type a missing path becomes a directory, as container runtimes do it.
pub(super) fn check(path: &Path, type_: &str) -> Result<(), VolumeCause> {
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
