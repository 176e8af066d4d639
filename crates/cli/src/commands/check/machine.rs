//! The files of the machine that is looked at; in tests, those of a made-up one.

use std::path::{Path, PathBuf};

/// Where the machine's root is.
#[derive(Debug)]
pub struct Machine(PathBuf);

impl Machine {
    /// This one.
    pub fn here() -> Self {
        Self(PathBuf::from("/"))
    }

    /// What a file says, without white space around it; empty if it is missing.
    pub fn text(&self, path: &str) -> String {
        self.read(path).unwrap_or_default()
    }

    /// The same, if it is there.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// The number that a file says.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path).parse().ok()
    }

    /// Whether something is there, be it a link to nowhere.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path)))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A machine of these files.
    pub fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine(directory.path().to_owned());
        for (path, text) in files {
            let path = machine.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        (directory, machine)
    }
}
