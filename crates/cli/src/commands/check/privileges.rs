//! What this process may do: capabilities, and the kernel's further guards.

use super::machine::Machine;
use super::{Finding, Level};

/// Without one of these no Pod starts; capabilities(7) has the numbers.
const NEEDED: [(u32, &str); 13] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (4, "CAP_FSETID"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (12, "CAP_NET_ADMIN"),
    (18, "CAP_SYS_CHROOT"),
    (21, "CAP_SYS_ADMIN"),
    (27, "CAP_MKNOD"),
    (31, "CAP_SETFCAP"),
];
/// What is missed without one of these.
const USEFUL: [(u32, &str, &str); 6] = [
    (10, "CAP_NET_BIND_SERVICE", "programs of Pods can't listen below port 1024"),
    (13, "CAP_NET_RAW", "ping and other raw sockets fail in Pods"),
    (19, "CAP_SYS_PTRACE", "processes of Pods with user namespaces can't all be looked at"),
    (
        24,
        "CAP_SYS_RESOURCE",
        "oom_score_adj can't be lowered: under memory pressure the kernel chooses without regard to the Pods' classes",
    ),
    (29, "CAP_AUDIT_WRITE", "programs of Pods can't write to the audit log"),
    (39, "CAP_BPF", "devices may not be refused on cgroup v2"),
];
/// The last one that Linux 6.1 has.
const LAST: u32 = 40;

/// Where the runtime looks for it.
const PARSERS: [&str; 4] = [
    "/usr/sbin/apparmor_parser",
    "/sbin/apparmor_parser",
    "/usr/bin/apparmor_parser",
    "/usr/local/sbin/apparmor_parser",
];

/// Looks at our own privileges.
pub fn look(machine: &Machine) -> Vec<Finding> {
    let mut findings = capabilities(&machine.text("/proc/self/status"));
    findings.push(app_armor(machine));
    findings.extend(selinux(machine));
    findings
}

/// Logs what this machine withholds from root, once at the daemon's start: Pods run, and miss it.
pub fn tell_withheld() {
    let findings = capabilities(&Machine::here().text("/proc/self/status"));
    for finding in findings.into_iter().filter(|finding| finding.level == Level::Warn) {
        tracing::warn!(what = finding.what, remedy = finding.remedy, "pods will miss something here");
    }
}

fn capabilities(status: &str) -> Vec<Finding> {
    let set =
        |name: &str| status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(name)?.trim(), 16).ok());
    let Some(present) = set("CapEff:").zip(set("CapBnd:")).map(|(effective, bounding)| effective & bounding) else {
        return vec![Finding::fail("/proc/self/status can't be read", "mount -t proc proc /proc")];
    };
    let has = |number: u32| present >> number & 1 == 1;
    let remedy = "run the daemon as root outside of containers, or in one with all capabilities";
    let mut findings = Vec::new();
    let missing: Vec<_> = NEEDED.iter().filter(|(number, _)| !has(*number)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        findings.push(Finding::fail(format!("root here lacks {}", missing.join(", ")), remedy));
    }
    for (_, name, lost) in USEFUL.iter().filter(|(number, ..)| !has(*number)) {
        findings.push(Finding::warn(format!("root here lacks {name}: {lost}"), remedy));
    }
    let known =
        |number: &u32| NEEDED.iter().any(|(one, _)| one == number) || USEFUL.iter().any(|(one, ..)| one == number);
    let others = (0..=LAST).filter(|number| !known(number) && !has(*number)).count();
    if others > 0 {
        let plural = if others == 1 { "capability that" } else { "capabilities that" };
        findings
            .push(Finding::warn(format!("root here lacks {others} {plural} privileged containers would get"), remedy));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("root has all capabilities"));
    }
    findings
}

/// Asked as the runtime asks when it chooses a container's profile.
fn app_armor(machine: &Machine) -> Finding {
    if machine.text("/sys/module/apparmor/parameters/enabled") != "Y" {
        return Finding::ok(
            "AppArmor is off: seccomp, capabilities and namespaces confine containers; a Pod that asks for a profile fails",
        );
    }
    if !machine.has("/sys/kernel/security/apparmor") {
        return Finding::warn(
            "AppArmor is on, but its policies can't be seen here: containers run without a profile, and a Pod that asks \
             for one fails",
            "mount -t securityfs securityfs /sys/kernel/security",
        );
    }
    if !PARSERS.iter().any(|path| machine.has(path)) {
        return Finding::warn(
            "AppArmor is on, but apparmor_parser is missing: containers run without a profile unless their Pod names one \
             that is loaded",
            "apt-get install apparmor",
        );
    }
    Finding::ok("AppArmor is on, and apparmor_parser loads the containers' default profile")
}

fn selinux(machine: &Machine) -> Option<Finding> {
    let mode = machine.number("/sys/fs/selinux/enforce")?;
    Some(match mode {
        0 => Finding::ok("SELinux is permissive; containers are not labelled"),
        _ => Finding::warn(
            "SELinux enforces, but containers are not labelled: all run in the daemon's domain",
            "look for denials with `ausearch -m avc -ts recent`; `setenforce 0` if Pods are kept from their files",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::machine;
    use super::*;

    fn found(effective: u64) -> Vec<(Level, String)> {
        let status = format!("Name:\tmonopod\nCapEff:\t{effective:016x}\nCapBnd:\t000001ffffffffff\n");
        capabilities(&status).into_iter().map(|finding| (finding.level, finding.what)).collect()
    }

    #[test]
    fn missing_capabilities_are_named_with_what_they_cost() {
        let all = 0x1ff_ffff_ffff_u64;
        assert_eq!(found(all), [(Level::Ok, "root has all capabilities".to_owned())]);
        let without = found(all & !(1 << 24));
        assert!(without[0].1.starts_with("root here lacks CAP_SYS_RESOURCE: oom_score_adj"), "{without:?}");
        assert_eq!(found(all & !(1 << 21)), [(Level::Fail, "root here lacks CAP_SYS_ADMIN".to_owned())]);
        let docker = found(0xa804_25fb);
        assert_eq!(docker[0], (Level::Fail, "root here lacks CAP_NET_ADMIN, CAP_SYS_ADMIN".to_owned()));
        assert_eq!(docker.last().unwrap().1, "root here lacks 22 capabilities that privileged containers would get");
        assert_eq!(capabilities("")[0].level, Level::Fail);
    }

    #[test]
    fn security_modules_are_told() {
        let levels = |files: &[(&str, &str)]| -> Vec<String> {
            let (_kept, machine) = machine(files);
            std::iter::once(app_armor(&machine)).chain(selinux(&machine)).map(|finding| finding.what).collect()
        };
        assert_eq!(levels(&[]).len(), 1);
        assert!(levels(&[])[0].starts_with("AppArmor is off"));
        let on = ("/sys/module/apparmor/parameters/enabled", "Y\n");
        let seen = ("/sys/kernel/security/apparmor/profiles", "");
        assert!(levels(&[on])[0].contains("policies can't be seen"));
        assert!(levels(&[on, seen])[0].contains("apparmor_parser is missing"));
        let parser = ("/sbin/apparmor_parser", "");
        assert!(levels(&[on, seen, parser])[0].contains("loads the containers' default profile"));
        assert!(levels(&[("/sys/fs/selinux/enforce", "1")])[1].starts_with("SELinux enforces"));
        assert!(levels(&[("/sys/fs/selinux/enforce", "0")])[1].starts_with("SELinux is permissive"));
    }
}
