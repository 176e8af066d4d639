//! Where in the v2 hierarchy our cgroups begin: in what was delegated to the daemon, at the top, or where Pods live already.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroups::{CgroupError, create_directory, subdirectories, write};

/// The leaf that the daemon lives in, so that its delegated cgroup can have others below it ("No Internal Process
/// Constraint" of cgroup-v2.rst). `DelegateSubgroup=` of packaging/monopod.service has the same name.
const DAEMON: &str = "daemon";

/// The directory below `mount` that our `parent` stands in, as a relative path; empty for the top.
///
/// What an earlier daemon started decides, wherever it was started from: by systemd with or without delegation, or by
/// hand. Otherwise its Pods could not be limited or ended any more.
pub(super) fn find_base(mount: &Path, parent: &str) -> Result<PathBuf, CgroupError> {
    let delegated = delegated_base(mount)?;
    Ok(living_base(mount, parent).unwrap_or(delegated))
}

/// Where `<parent>/infra` has processes: at the top, or in a unit of a slice (`system.slice/monopod.service`).
fn living_base(mount: &Path, parent: &str) -> Option<PathBuf> {
    let lives = |base: &Path| {
        let events = fs::read_to_string(mount.join(base).join(parent).join("infra/cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    };
    let mut level = vec![PathBuf::new()];
    for _depth in 0..3 {
        if let Some(found) = level.iter().find(|base| lives(base)) {
            return Some(found.clone());
        }
        let below = |base: &PathBuf| {
            let base = base.clone();
            subdirectories(&mount.join(&base)).into_iter().map(move |name| base.join(name))
        };
        level = level.iter().flat_map(below).collect();
    }
    None
}

/// The daemon's own cgroup if it was delegated (systemd.resource-control(5), `Delegate=`) to it alone; the daemon then moves
/// into a leaf of it.
fn delegated_base(mount: &Path) -> Result<PathBuf, CgroupError> {
    let Ok(own) = fs::read_to_string("/proc/self/cgroup") else { return Ok(PathBuf::new()) };
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = own.strip_suffix(DAEMON).and_then(|unit| unit.strip_suffix('/')).unwrap_or(own);
    let directory = mount.join(own);
    let delegated = ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(&directory, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    });
    if own.is_empty() || !delegated || is_shared(&directory) {
        return Ok(PathBuf::new());
    }
    let leaf = directory.join(DAEMON);
    create_directory(&leaf)?;
    write(&leaf.join("cgroup.procs"), "0")?;
    Ok(PathBuf::from(own))
}

/// Whether others than this process are in a cgroup, such as the shell that it was started from in a delegated unit.
/// It can have no controllers for cgroups below it then.
fn is_shared(directory: &Path) -> bool {
    let own = std::process::id().to_string();
    fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|pids| pids.lines().any(|pid| pid != own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_with_living_pods_is_found_again() {
        let mount = tempfile::tempdir().unwrap();
        let infra = |base: &str, parent: &str, populated: u8| {
            let directory = mount.path().join(base).join(parent).join("infra");
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup.events"), format!("populated {populated}\nfrozen 0\n")).unwrap();
        };
        let found = || living_base(mount.path(), "monopod");
        assert_eq!(found(), None);
        infra("", "monopod", 0);
        infra("system.slice/other.service", "monopod-123456", 1);
        assert_eq!(found(), None, "empty, or of another daemon");
        infra("system.slice/monopod.service", "monopod", 1);
        assert_eq!(found().as_deref(), Some(Path::new("system.slice/monopod.service")));
        infra("", "monopod", 1);
        assert_eq!(found().as_deref(), Some(Path::new("")));
    }
}
