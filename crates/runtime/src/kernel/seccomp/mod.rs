//! Filters of system calls: which one a container gets, and the program that infra loads.
//!
//! A program is compiled once for each profile and set of capabilities. What `Localhost` names is read when the
//! container is created and kept in its record: an exec gets the same filter though the file may have changed.

mod default;
mod filter;
mod profile;

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use filter::TooLong;
use profile::ProfileError;

/// A larger file is no profile.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Why there is no filter from a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadProfileError {
    #[error("{}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}", path.display())]
    Profile {
        path: PathBuf,
        #[source]
        source: ProfileError,
    },
    #[error("{}", path.display())]
    Long {
        path: PathBuf,
        #[source]
        source: TooLong,
    },
}

/// The filters of this daemon.
#[derive(Debug)]
pub(super) struct Filters {
    /// `<data-dir>/seccomp`.
    directory: PathBuf,
    /// `RuntimeDefault` by capabilities.
    defaults: Mutex<HashMap<u64, Arc<[u8]>>>,
}

impl Filters {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, defaults: Mutex::default() }
    }

    /// The program of `RuntimeDefault` for a container with these capabilities.
    pub(super) fn runtime_default(&self, capabilities: u64) -> io::Result<Arc<[u8]>> {
        let mut defaults = self.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = defaults.get(&capabilities) {
            return Ok(Arc::clone(program));
        }
        let program: Arc<[u8]> = default::runtime_default(capabilities).compile().map_err(io::Error::other)?.into();
        defaults.insert(capabilities, Arc::clone(&program));
        Ok(program)
    }

    /// The program of a profile in our directory.
    pub(super) fn localhost(&self, name: &Path, capabilities: u64) -> Result<Vec<u8>, LoadProfileError> {
        load(&self.directory, name, capabilities)
    }

    /// The program of a profile of the machine, by its absolute path.
    pub(super) fn file(path: &Path, capabilities: u64) -> Result<Vec<u8>, LoadProfileError> {
        let (directory, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
        load(directory, Path::new(name), capabilities)
    }
}

fn load(directory: &Path, name: &Path, capabilities: u64) -> Result<Vec<u8>, LoadProfileError> {
    let path = directory.join(name);
    let text = match read_beneath(directory, name) {
        Ok(text) => text,
        Err(source) => return Err(LoadProfileError::Read { path, source }),
    };
    let filter = match profile::parse(&text, capabilities) {
        Ok(filter) => filter,
        Err(source) => return Err(LoadProfileError::Profile { path, source }),
    };
    filter.compile().map_err(|source| LoadProfileError::Long { path, source })
}

/// A regular file beneath the directory, bounded; nothing leads out of it.
fn read_beneath(directory: &Path, name: &Path) -> io::Result<Vec<u8>> {
    let root = std::fs::File::open(directory)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&root, name, flags, Mode::empty(), how)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let mut text = Vec::new();
    if std::fs::File::from(file).take(FILE_LIMIT + 1).read_to_end(&mut text)? as u64 > FILE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::filter::tests::run;
    use super::*;

    const X86_64: u32 = 0xc000_003e;
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    const ENOSYS: u32 = 0x0005_0026;
    /// Of an ordinary container.
    const USUAL: u64 = 0xa804_25fb;
    const SYS_ADMIN: u64 = 1 << 21;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_default_draws_the_usual_line() {
        let filters = Filters::new(PathBuf::from("/nowhere"));
        for (call, first, usual, with_admin) in [
            ("read", 0, ALLOW, ALLOW),
            ("fchmodat2", 0, ALLOW, ALLOW),
            ("clone", 0x11, ALLOW, ALLOW),
            ("clone", 0x1000_0011, EPERM, ALLOW),
            ("clone", 0x2_0000, EPERM, ALLOW),
            ("clone3", 0, ENOSYS, ALLOW),
            ("unshare", 0x1000_0000, EPERM, ALLOW),
            ("setns", 3, EPERM, ALLOW),
            ("mount", 0, EPERM, ALLOW),
            ("socket", 2, ALLOW, ALLOW),
            ("socket", 38, EPERM, EPERM),
            ("socket", 40, EPERM, EPERM),
            // The kernel looks at 32 bits of it.
            ("socket", 0x1_0000_0028, EPERM, EPERM),
            ("personality", 0, ALLOW, ALLOW),
            ("personality", 0xffff_ffff, ALLOW, ALLOW),
            ("personality", 0x004_0000, EPERM, EPERM),
            ("chroot", 0, ALLOW, EPERM),
            ("keyctl", 0, EPERM, EPERM),
            ("io_uring_setup", 0, EPERM, EPERM),
            ("kexec_load", 0, EPERM, EPERM),
            ("ptrace", 0, ALLOW, ALLOW),
        ] {
            let number = sys::syscalls::number(call).unwrap();
            for (capabilities, expected) in [(USUAL, usual), (SYS_ADMIN, with_admin)] {
                let program = filters.runtime_default(capabilities).unwrap();
                let given = run(&program, X86_64, number, [first, 0, 0, 0, 0, 0]);
                assert_eq!(given, expected, "{call} {first:#x} with {capabilities:#x}: {given:#x}");
            }
        }
        let program = filters.runtime_default(USUAL).unwrap();
        assert!(program.len() / 8 < 400, "{} instructions", program.len() / 8);
        assert_eq!(run(&program, 0x4000_0003, 20, [0; 6]), 0x8000_0000, "i386");
    }

    #[test]
    fn profiles_are_read_beneath_their_directory_only() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("seccomp");
        std::fs::create_dir(&inside).unwrap();
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
        std::fs::write(inside.join("all.json"), text).unwrap();
        std::fs::write(directory.path().join("outside.json"), text).unwrap();
        std::os::unix::fs::symlink("../outside.json", inside.join("link.json")).unwrap();
        std::fs::File::create(inside.join("huge.json")).unwrap().set_len(FILE_LIMIT + 1).unwrap();
        let filters = Filters::new(inside);
        assert!(filters.localhost(Path::new("all.json"), 0).is_ok());
        for name in ["missing.json", "../outside.json", "link.json", "huge.json", "/etc/hostname", "."] {
            let error = filters.localhost(Path::new(name), 0).unwrap_err();
            assert!(matches!(error, LoadProfileError::Read { .. }), "{name}: {error:?}");
        }
    }
}
