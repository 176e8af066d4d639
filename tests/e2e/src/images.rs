//! The images of the tests, made once by `tests/images/build`; `MONOPOD_TEST_IMAGES` names a directory with ready ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The project's directory.
pub fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The directory with `busybox.tar` and the others; makes them when they are missing.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        if let Some(ready) = std::env::var_os("MONOPOD_TEST_IMAGES") {
            return PathBuf::from(ready);
        }
        let build = project().join("tests/images/build");
        let output = Command::new(&build).output().unwrap_or_else(|error| panic!("{}: {error}", build.display()));
        assert!(output.status.success(), "{}: {}", build.display(), String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    })
}

/// The archive of the image `name`, such as `busybox`.
pub fn archive(name: &str) -> PathBuf {
    directory().join(format!("{name}.tar"))
}

/// A manifest of `tests/manifests`.
#[track_caller]
pub fn manifest(name: &str) -> PathBuf {
    let path = project().join("tests/manifests").join(name);
    assert!(path.exists(), "no {}", path.display());
    path
}
