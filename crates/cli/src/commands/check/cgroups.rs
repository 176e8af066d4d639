//! Which control groups there are: version 2, version 1, and their controllers.

use std::fs;

use super::Finding;

/// Without these, limits of Pods could not be kept.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// Looks at what is mounted.
pub fn look() -> Vec<Finding> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok();
    vec![match unified {
        Some(controllers) => unified_finding(&controllers),
        None => legacy_finding(&mounts),
    }]
}

fn unified_finding(controllers: &str) -> Finding {
    let present: Vec<_> = controllers.split_whitespace().collect();
    match missing(&present) {
        missing if missing.is_empty() => Finding::ok(format!("cgroup v2 with {}", present.join(", "))),
        missing => Finding::fail(
            format!("cgroup v2 lacks {}", missing.join(", ")),
            "take cgroup_disable=… off the kernel's command line; in a container, run it with its own cgroup namespace",
        ),
    }
}

/// Version 1 has a mount per controller, named in the superblock's options (the last field of mountinfo).
fn legacy_finding(mountinfo: &str) -> Finding {
    let is_legacy = |line: &&str| line.split(" - ").nth(1).is_some_and(|end| end.starts_with("cgroup "));
    let options = mountinfo.lines().filter(is_legacy).filter_map(|line| line.rsplit(' ').next());
    let present: Vec<_> = options.flat_map(|options| options.split(',')).collect();
    if present.is_empty() {
        return Finding::fail("no cgroups are mounted", "mount -t cgroup2 none /sys/fs/cgroup");
    }
    match missing(&present) {
        missing if missing.is_empty() => {
            Finding::ok("cgroup v1 with cpu, memory, pids (version 2 is better: systemd.unified_cgroup_hierarchy=1)")
        }
        missing => Finding::fail(
            format!("cgroup v1 lacks {}", missing.join(", ")),
            "boot with cgroup_enable=memory, or with cgroup v2: systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

fn missing(present: &[&str]) -> Vec<&'static str> {
    NEEDED.into_iter().filter(|controller| !present.contains(controller)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn controllers_are_found_in_both_versions() {
        assert_eq!(unified_finding("cpuset cpu io memory pids\n").level, Level::Ok);
        assert_eq!(unified_finding("cpu pids\n").what, "cgroup v2 lacks memory");
        let v1 = "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            31 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            33 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,pids\n";
        assert_eq!(legacy_finding(v1).what, "cgroup v1 lacks pids");
        assert_eq!(
            legacy_finding(&format!("{v1}32 29 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n")).level,
            Level::Ok
        );
        assert_eq!(legacy_finding("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n").what, "no cgroups are mounted");
    }
}
