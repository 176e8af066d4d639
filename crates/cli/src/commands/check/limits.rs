//! Limits of the machine that many Pods would meet, its clock, and what was not rebooted yet.

use k8s_openapi::jiff::Timestamp;
use rustix::process::{Resource, getrlimit};

use super::Finding;
use super::machine::Machine;

/// Below this a machine with its hundred Pods may meet the limit: file, what ends there.
const KERNEL: [(&str, u64, &str); 9] = [
    ("fs/inotify/max_user_instances", 128, "programs that watch files, and `monopod logs -f`, fail"),
    ("fs/inotify/max_user_watches", 8192, "programs that watch files fail"),
    ("fs/file-max", 65_536, "programs can't open files"),
    ("kernel/pid_max", 32_768, "Pods can't start processes"),
    ("kernel/threads-max", 8192, "Pods can't start processes"),
    ("user/max_net_namespaces", 512, "Pods can't start"),
    ("user/max_mnt_namespaces", 1024, "containers can't start"),
    ("user/max_pid_namespaces", 512, "containers can't start"),
    ("kernel/keys/root_maxkeys", 1000, "containers can't start"),
];
/// Open files that the daemon may need.
const OPEN_FILES: u64 = 65_536;
/// 2020-01-01: no release of this program is older, so the clock is wrong.
const TOO_EARLY: i64 = 1_577_836_800;

/// Looks at all of them.
pub fn look(machine: &Machine) -> Vec<Finding> {
    let mut findings = kernel_limits(machine);
    findings.push(open_files(getrlimit(Resource::Nofile).maximum));
    findings.push(clock(Timestamp::now().as_second()));
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    findings.extend(modules(machine, &release));
    findings.extend(names(machine));
    findings
}

fn kernel_limits(machine: &Machine) -> Vec<Finding> {
    let low = |(name, least, lost): (&str, u64, &str)| {
        let value = machine.number(&format!("/proc/sys/{name}")).filter(|value| *value < least)?;
        let key = name.replace('/', ".");
        Some(Finding::warn(
            format!("{key} is only {value}: with many Pods {lost}"),
            format!("sysctl -w {key}={}", least * 4),
        ))
    };
    let findings: Vec<_> = KERNEL.into_iter().filter_map(low).collect();
    if findings.is_empty() { vec![Finding::ok("the kernel's limits leave room for many Pods")] } else { findings }
}

/// The hard limit; the daemon raises the soft one itself. None is without limit.
fn open_files(maximum: Option<u64>) -> Finding {
    match maximum {
        Some(maximum) if maximum < OPEN_FILES => Finding::warn(
            format!("a process may open only {maximum} files: the daemon needs some for each Pod"),
            "LimitNOFILE=1048576 in the unit of the daemon, or `ulimit -Hn 1048576` before it is started",
        ),
        Some(_) | None => Finding::ok("processes may open enough files"),
    }
}

fn clock(now: i64) -> Finding {
    if now < TOO_EARLY {
        return Finding::warn(
            "the clock is before 2020: certificates of registries and tokens will not be valid",
            "timedatectl set-ntp true, or set it: date -s '2026-01-31 12:00'",
        );
    }
    Finding::ok("the clock is after 2020")
}

/// A kernel that was updated and not rebooted has lost the modules that it would load now.
fn modules(machine: &Machine, release: &str) -> Option<Finding> {
    let loads = machine.has("/proc/modules") && !machine.text("/proc/modules").is_empty();
    let installed = ["/lib/modules", "/usr/lib/modules"].iter().any(|at| machine.has(&format!("{at}/{release}")));
    (loads && !installed).then(|| {
        Finding::warn(
            format!("the modules of the running kernel {release} are not there: what is not loaded yet can't be"),
            "reboot, if the kernel was updated; else install its modules",
        )
    })
}

/// Pods with `dnsPolicy: Default` or `ClusterFirst` have the machine's resolvers.
fn names(machine: &Machine) -> Option<Finding> {
    let text = machine.text("/etc/resolv.conf");
    let servers: Vec<_> =
        text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim).collect();
    let is_local = |server: &&str| server.starts_with("127.") || *server == "::1";
    let behind = machine.has("/run/systemd/resolve/resolv.conf");
    if servers.is_empty() {
        return Some(Finding::warn(
            "/etc/resolv.conf names no resolver: Pods can't look up names",
            "put `nameserver ADDRESS` into it, or give Pods a dnsConfig",
        ));
    }
    (servers.iter().all(is_local) && !behind).then(|| {
        Finding::warn(
            format!("/etc/resolv.conf names only {}, which Pods can't reach", servers.join(", ")),
            "name a resolver on another address, or give Pods a dnsConfig",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::tests::machine;
    use super::*;

    #[test]
    fn low_limits_are_named_with_the_command_that_raises_them() {
        let (_kept, none) = machine(&[]);
        assert_eq!(kernel_limits(&none)[0].level, Level::Ok);
        let (_kept, low) =
            machine(&[("/proc/sys/fs/inotify/max_user_instances", "64\n"), ("/proc/sys/kernel/pid_max", "32768")]);
        let found = kernel_limits(&low);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("fs.inotify.max_user_instances is only 64"), "{found:?}");
        assert_eq!(found[0].remedy.as_deref(), Some("sysctl -w fs.inotify.max_user_instances=512"));
        assert_eq!(
            [Some(1024), Some(65_536), None].map(|limit| open_files(limit).level),
            [Level::Warn, Level::Ok, Level::Ok]
        );
        assert_eq!([0, TOO_EARLY].map(|now| clock(now).level), [Level::Warn, Level::Ok]);
    }

    #[test]
    fn modules_of_another_kernel_are_noticed() {
        let loaded = ("/proc/modules", "overlay 1 0 - Live 0x0\n");
        let case = |files: &[(&str, &str)]| modules(&machine(files).1, "6.12.1").is_some();
        assert!(case(&[loaded, ("/lib/modules/6.11.0/modules.dep", "")]));
        assert!(!case(&[loaded, ("/usr/lib/modules/6.12.1/modules.dep", "")]));
        // All is built in.
        assert!(!case(&[("/proc/modules", "")]));
    }

    #[test]
    fn resolvers_that_pods_cannot_reach_are_named() {
        let case = |files: &[(&str, &str)]| names(&machine(files).1).map(|finding| finding.what);
        assert!(case(&[]).unwrap().contains("names no resolver"));
        assert_eq!(case(&[("/etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 9.9.9.9\n")]), None);
        let stub = ("/etc/resolv.conf", "nameserver 127.0.0.53\n");
        assert!(case(&[stub]).unwrap().contains("only 127.0.0.53"));
        assert_eq!(case(&[stub, ("/run/systemd/resolve/resolv.conf", "nameserver 9.9.9.9\n")]), None);
    }
}
