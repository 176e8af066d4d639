//! Which control groups there are: version 2, version 1 or both, their controllers, and whether any can be made.

use std::path::Path;

use super::Finding;
use super::machine::Machine;

/// Without these, limits of Pods could not be kept.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// Without these, some fields of a Pod would not be honoured.
const USEFUL: [(&str, &str); 1] = [("hugetlb", "hugepages")];

/// Looks at what is mounted.
pub fn look(machine: &Machine) -> Vec<Finding> {
    let mounts = machine.text("/proc/self/mountinfo");
    let mut findings = vec![match machine.read("/sys/fs/cgroup/cgroup.controllers") {
        Some(controllers) => unified_finding(&controllers),
        None => legacy_finding(&mounts),
    }];
    findings.extend(mounts.lines().find_map(read_only_mount));
    findings
}

fn unified_finding(controllers: &str) -> Finding {
    let present: Vec<_> = controllers.split_whitespace().collect();
    match missing(&present) {
        missing if missing.is_empty() => match useful(&present) {
            lost if lost.is_empty() => Finding::ok(format!("cgroup v2 with {}", present.join(", "))),
            lost => Finding::ok(format!("cgroup v2 with {}; without {}", present.join(", "), lost.join(", "))),
        },
        missing => Finding::fail(
            format!("cgroup v2 lacks {}", missing.join(", ")),
            "take cgroup_disable=… off the kernel's command line; in a container, run it with its own cgroup namespace",
        ),
    }
}

/// Version 1 has a mount per controller, named in the superblock's options (the last field of mountinfo).
fn legacy_finding(mountinfo: &str) -> Finding {
    let of_kind = |kind: &'static str| {
        move |line: &&str| line.split(" - ").nth(1).is_some_and(|end| end.split(' ').next() == Some(kind))
    };
    let options = mountinfo.lines().filter(of_kind("cgroup")).filter_map(|line| line.rsplit(' ').next());
    let present: Vec<_> = options.flat_map(|options| options.split(',')).collect();
    if present.is_empty() {
        return Finding::fail("no cgroups are mounted", "mount -t cgroup2 none /sys/fs/cgroup");
    }
    match missing(&present) {
        missing if missing.is_empty() => {
            let hybrid = mountinfo.lines().any(|line| of_kind("cgroup2")(&line));
            let kind = if hybrid { "cgroup v1 beside an empty v2 (hybrid)" } else { "cgroup v1" };
            let better = "version 2 alone is better: systemd.unified_cgroup_hierarchy=1";
            Finding::ok(format!("{kind} with {} ({better})", NEEDED.join(", ")))
        }
        missing => Finding::fail(
            format!("cgroup v1 lacks {}", missing.join(", ")),
            "boot with cgroup_enable=memory, or with cgroup v2: systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

/// As containers have it, also privileged ones of some engines.
fn read_only_mount(line: &str) -> Option<Finding> {
    let (mount, file_system) = line.split_once(" - ")?;
    let fields: Vec<_> = mount.split(' ').collect();
    let (point, options) = (fields.get(4)?, fields.get(5)?);
    let is_cgroup = ["cgroup", "cgroup2"].contains(&file_system.split(' ').next()?);
    let is_read_only = options.split(',').any(|option| option == "ro");
    // Distributions keep the directory around the hierarchies of version 1 read-only, which is of another kind.
    (is_cgroup && is_read_only && Path::new(point).starts_with("/sys/fs/cgroup")).then(|| {
        Finding::fail(
            format!("{point} is mounted read-only: no control group can be made"),
            format!("mount -o remount,rw {point}; in a container, run it privileged and with its own cgroup namespace"),
        )
    })
}

fn missing(present: &[&str]) -> Vec<&'static str> {
    NEEDED.into_iter().filter(|controller| !present.contains(controller)).collect()
}

fn useful(present: &[&str]) -> Vec<String> {
    let lost = USEFUL.into_iter().filter(|(controller, _)| !present.contains(controller));
    lost.map(|(controller, what)| format!("{controller} (no limits of {what})")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::tests::machine;
    use super::*;

    #[test]
    fn controllers_are_found_in_both_versions() {
        assert_eq!(unified_finding("cpuset cpu io memory hugetlb pids\n").level, Level::Ok);
        assert_eq!(
            unified_finding("cpu memory pids").what,
            "cgroup v2 with cpu, memory, pids; without hugetlb (no limits of hugepages)"
        );
        assert_eq!(unified_finding("cpu pids\n").what, "cgroup v2 lacks memory");
        let v1 = "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            31 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let pids = "32 29 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let unified = "33 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,pids\n";
        assert_eq!(legacy_finding(&[v1, unified].concat()).what, "cgroup v1 lacks pids");
        assert!(legacy_finding(&[v1, pids].concat()).what.starts_with("cgroup v1 with cpu"));
        assert!(legacy_finding(&[v1, pids, unified].concat()).what.contains("(hybrid)"));
        assert_eq!(legacy_finding("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n").what, "no cgroups are mounted");
    }

    #[test]
    fn a_read_only_hierarchy_is_named() {
        let mounts = |options: &str| {
            format!(
                "29 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n30 29 0:26 / /sys/fs/cgroup/memory {options} - cgroup cgroup rw,memory,cpu,pids\n"
            )
        };
        let found = |options: &str| look(&machine(&[("/proc/self/mountinfo", &mounts(options))]).1);
        assert_eq!(found("rw,nosuid").len(), 1);
        assert_eq!(
            found("ro,nosuid")[1].what,
            "/sys/fs/cgroup/memory is mounted read-only: no control group can be made"
        );
    }
}
