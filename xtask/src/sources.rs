//! What every source file and every manifest of a crate says at its beginning.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::check::Finding;

/// The only crate with `unsafe`.
const UNSAFE_CRATE: &str = "crates/sys";

/// Checks each crate's sources and manifest.
pub fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let mut found = Vec::new();
    for directory in crate_directories(root)? {
        let shown = directory.strip_prefix(root).unwrap_or(&directory).display().to_string();
        let manifest = read(&directory.join("Cargo.toml"))?;
        if !manifest.contains("[lints]\nworkspace = true") {
            found.push(Finding::new(format!("{shown}/Cargo.toml"), "does not inherit the lints of the workspace"));
        }
        for file in rust_files(&directory)? {
            let text = read(&file)?;
            let place = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            found.extend(check_file(&place, &text, shown == UNSAFE_CRATE));
        }
    }
    Ok(found)
}

fn check_file(place: &str, text: &str, unsafe_crate: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if !text.starts_with("//! ") {
        found.push(Finding::new(place, "does not open with `//!` and what it is for"));
    }
    let is_root = place.ends_with("src/lib.rs") || place.ends_with("src/main.rs");
    if is_root && !unsafe_crate && !text.contains("#![forbid(unsafe_code)]") {
        found.push(Finding::new(place, "does not say #![forbid(unsafe_code)]"));
    }
    found
}

/// Every directory with a manifest of a crate of ours.
pub fn crate_directories(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![root.join("xtask")];
    for parent in ["crates", "tests", "benches"] {
        let directory = root.join(parent);
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))? {
            let path = entry?.path();
            if path.join("Cargo.toml").exists() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Every Rust file below `directory`.
pub fn rust_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A file's text.
pub fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_is_for_and_a_root_forbids_unsafe() {
        let good = "//! What it is for.\n#![forbid(unsafe_code)]\n";
        assert_eq!(check_file("crates/a/src/lib.rs", good, false), []);
        assert_eq!(check_file("crates/a/src/part.rs", "//! A part.\n", false), []);
        assert_eq!(check_file("crates/a/src/lib.rs", "//! Root.\n", false).len(), 1);
        assert_eq!(check_file("crates/sys/src/lib.rs", "//! Root.\n", true), []);
        assert_eq!(check_file("crates/a/src/part.rs", "use std::fs;\n", false).len(), 1);
    }
}
