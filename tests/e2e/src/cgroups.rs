//! The cgroups of a node: its directories in every hierarchy that this machine mounts.

use std::fs;
use std::path::{Path, PathBuf};

/// Every mounted hierarchy: v1 controllers and the unified one.
pub fn hierarchies() -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        // proc_pid_mountinfo(5): the mount point is the fifth field, the type follows " - ".
        let Some((left, right)) = line.split_once(" - ") else { continue };
        if right.starts_with("cgroup ") || right.starts_with("cgroup2 ") {
            found.extend(left.split(' ').nth(4).map(PathBuf::from));
        }
    }
    found
}

/// Every cgroup named `name` with all below it, deepest first.
pub fn directories(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        collect(&hierarchy, name, false, &mut found);
    }
    found
}

fn collect(directory: &Path, name: &str, inside: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let inside = inside || entry.file_name().to_str() == Some(name);
            collect(&entry.path(), name, inside, found);
            if inside {
                found.push(entry.path());
            }
        }
    }
}

/// Removes what a killed node left; empty directories only, so it hurts nothing that lives.
pub fn remove(name: &str) {
    for directory in directories(name) {
        fs::remove_dir(directory).ok();
    }
}

/// The directory of `pid` in the hierarchy that holds `controller`, which is the unified one when no v1 has it.
#[track_caller]
pub fn of_process(pid: u32, controller: &str) -> PathBuf {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut unified = None;
    for line in lines.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        if controllers.split(',').any(|one| one == controller) {
            return join(&mount_point(|options| options.split(',').any(|one| one == controller), "cgroup "), path);
        }
        if controllers.is_empty() {
            unified = Some(path.to_owned());
        }
    }
    join(&mount_point(|_| true, "cgroup2 "), &unified.expect("a unified hierarchy"))
}

/// The directory of `pid` in the unified hierarchy.
#[track_caller]
pub fn unified(pid: u32) -> PathBuf {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = lines.lines().find_map(|line| line.strip_prefix("0::")).expect("a unified hierarchy");
    join(&mount_point(|_| true, "cgroup2 "), path)
}

fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

#[track_caller]
fn mount_point(wanted: impl Fn(&str) -> bool, kind: &str) -> PathBuf {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        if right.starts_with(kind) && wanted(right.rsplit(' ').next().unwrap_or("")) {
            return PathBuf::from(left.split(' ').nth(4).unwrap());
        }
    }
    panic!("no mount of {kind}");
}
