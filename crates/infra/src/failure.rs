//! Failures as data: which step, on which path, with which errno. They cross a socket and are worded by the daemon.

use std::io;
use std::path::Path;

use crate::protocol::Failure;

/// Says at which step, and on what, a system call failed.
pub(crate) trait At<T> {
    /// Names the step.
    fn at(self, step: &str) -> Result<T, Failure>;
    /// Names the step and the path.
    fn at_path(self, step: &str, path: impl AsRef<Path>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| failure(step, None, &error.into()))
    }

    fn at_path(self, step: &str, path: impl AsRef<Path>) -> Result<T, Failure> {
        self.map_err(|error| failure(step, Some(path.as_ref()), &error.into()))
    }
}

/// A failure from an error of the kernel; one that has no errno counts as EIO.
pub(crate) fn failure(step: &str, path: Option<&Path>, error: &io::Error) -> Failure {
    Failure {
        step: step.to_owned(),
        path: path.map(|path| path.to_string_lossy().into_owned()),
        errno: error.raw_os_error().unwrap_or_else(|| rustix::io::Errno::IO.raw_os_error()),
    }
}

/// Goes on whatever came of it; the caller says why that is right.
pub(crate) fn tolerate<T, E>(_outcome: Result<T, E>) {}
