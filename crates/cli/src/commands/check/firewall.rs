//! Other masters of the firewall that would drop the Pods' packets or our rules: docker, firewalld, ufw, nftables.service.

use std::ffi::OsStr;

use super::Finding;
use super::machine::Machine;

/// Looks for chains that drop what is forwarded, and for who would remove ours.
pub fn look(machine: &Machine, pod_cidr: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if machine.has("/run/firewalld") {
        findings.push(Finding::warn(
            "firewalld runs and may drop what Pods send",
            format!("firewall-cmd --permanent --zone=trusted --add-source={pod_cidr} && firewall-cmd --reload"),
        ));
    }
    findings.extend(flushing_service(machine));
    findings.extend(bridge_netfilter(machine));
    let culprit = Culprit::of(machine);
    let chains = output("nft", &["list", "chains"]);
    let legacy = output("iptables-legacy", &["-S", "FORWARD"]);
    match dropping_chain(&chains).or_else(|| legacy_drops(&legacy)) {
        Some(chain) => findings.push(Finding::warn(
            format!("{chain} drops what is forwarded{}: Pods won't reach other machines", culprit.words()),
            culprit.remedy(pod_cidr),
        )),
        None => findings.push(Finding::ok("no other firewall drops what Pods send")),
    }
    findings.push(forwarding(machine));
    findings
}

/// Debian's and others' configuration begins with `flush ruleset`, and so takes all rules of all programs along.
fn flushing_service(machine: &Machine) -> Option<Finding> {
    let enabled = ["sysinit", "multi-user"]
        .iter()
        .any(|target| machine.has(&format!("/etc/systemd/system/{target}.target.wants/nftables.service")));
    let file = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"]
        .into_iter()
        .find(|file| machine.text(file).lines().any(|line| line.trim().trim_end_matches(';') == "flush ruleset"))?;
    enabled.then(|| {
        Finding::warn(
            format!(
                "nftables.service flushes all rules whenever it starts ({file}): the daemon sets its own anew at once, \
                 but while it doesn't run, Pods reach nobody and nobody their ports"
            ),
            format!("in {file}, put `destroy table inet NAME` for each table of its own in place of `flush ruleset`"),
        )
    })
}

/// With it, what crosses a bridge passes the chains of the firewall as if it were routed.
fn bridge_netfilter(machine: &Machine) -> Option<Finding> {
    let on = machine.number("/proc/sys/net/bridge/bridge-nf-call-iptables")? == 1;
    on.then(|| {
        Finding::ok(
            "bridge-nf-call-iptables is 1: what crosses bridges of others passes the firewall; Pods are routed, \
             on no bridge, so it changes nothing for them",
        )
    })
}

fn forwarding(machine: &Machine) -> Finding {
    match machine.text("/proc/sys/net/ipv4/ip_forward").as_str() {
        "1" => Finding::ok("IP forwarding is on"),
        "0" => Finding::ok("IP forwarding is off; the daemon switches it on"),
        _ => Finding::fail("IP forwarding can't be read", "mount -t proc proc /proc"),
    }
}

/// The name of a base chain at the forward hook whose policy is to drop, as `nft list chains` prints it.
fn dropping_chain(listing: &str) -> Option<String> {
    let (mut table, mut chain) = ("", "");
    for line in listing.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if line.contains("hook forward") && line.contains("policy drop") {
            return Some(format!("the chain {chain} of table {table}"));
        }
    }
    None
}

fn legacy_drops(rules: &str) -> Option<String> {
    rules
        .lines()
        .any(|line| line.trim() == "-P FORWARD DROP")
        .then(|| "the chain FORWARD of iptables-legacy".to_owned())
}

/// Who has set the policy, as far as one can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Culprit {
    Docker,
    Ufw,
    Unknown,
}

impl Culprit {
    fn of(machine: &Machine) -> Self {
        if machine.text("/etc/ufw/ufw.conf").lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")) {
            Self::Ufw
        } else if machine.has("/run/docker.sock") || machine.has("/var/run/docker.sock") {
            Self::Docker
        } else {
            Self::Unknown
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Docker => " (docker sets it so)",
            Self::Ufw => " (ufw sets it so)",
            Self::Unknown => "",
        }
    }

    fn remedy(self, pod_cidr: &str) -> String {
        let chain = match self {
            Self::Ufw => return format!("ufw route allow from {pod_cidr}; ufw route allow to {pod_cidr}"),
            Self::Docker => "DOCKER-USER",
            Self::Unknown => "FORWARD",
        };
        format!("iptables -I {chain} -s {pod_cidr} -j ACCEPT; iptables -I {chain} -d {pod_cidr} -j ACCEPT")
    }
}

/// What the program prints, or nothing if it is missing or refuses.
fn output(program: &str, arguments: &[&str]) -> String {
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let output = sys::process::run(program.as_ref(), &arguments, b"");
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::tests::machine;
    use super::*;

    #[test]
    fn who_flushes_or_drops_is_named_with_the_remedy() {
        let enabled = ("/etc/systemd/system/sysinit.target.wants/nftables.service", "");
        let flushes = ("/etc/nftables.conf", "#!/usr/sbin/nft -f\nflush ruleset\ntable inet filter {}\n");
        let flushing = |files: &[(&str, &str)]| flushing_service(&machine(files).1);
        let found = flushing(&[enabled, flushes]).unwrap();
        assert!(found.level == Level::Warn && found.what.contains("(/etc/nftables.conf)"), "{found:?}");
        assert_eq!(flushing(&[flushes]), None);
        assert_eq!(flushing(&[enabled, ("/etc/nftables.conf", "# flush ruleset\n")]), None);
        let culprit = |files: &[(&str, &str)]| Culprit::of(&machine(files).1);
        let ufw = culprit(&[("/etc/ufw/ufw.conf", "LOGLEVEL=low\nENABLED=yes\n"), ("/run/docker.sock", "")]);
        assert_eq!(ufw.remedy("10.85.0.0/16"), "ufw route allow from 10.85.0.0/16; ufw route allow to 10.85.0.0/16");
        assert_eq!(culprit(&[("/etc/ufw/ufw.conf", "ENABLED=no\n")]), Culprit::Unknown);
        assert!(culprit(&[("/run/docker.sock", "")]).remedy("10.85.0.0/16").starts_with("iptables -I DOCKER-USER -s"));
    }

    #[test]
    fn switches_of_the_kernel_are_told_with_their_effect() {
        let bridge = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        assert_eq!(bridge_netfilter(&machine(&[]).1), None);
        assert_eq!(bridge_netfilter(&machine(&[(bridge, "0\n")]).1), None);
        assert!(bridge_netfilter(&machine(&[(bridge, "1\n")]).1).unwrap().what.contains("changes nothing for them"));
        let level = |value| forwarding(&machine(&[("/proc/sys/net/ipv4/ip_forward", value)]).1).level;
        assert_eq!([level("1\n"), level("0\n"), level("")], [Level::Ok, Level::Ok, Level::Fail]);
    }

    #[test]
    fn a_chain_that_drops_is_named() {
        let docker = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
            \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        assert_eq!(dropping_chain(docker).as_deref(), Some("the chain FORWARD of table ip filter"));
        assert_eq!(
            dropping_chain(
                &docker.replace("forward priority filter; policy drop", "forward priority filter; policy accept")
            ),
            None
        );
        assert!(legacy_drops("-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n").is_some());
        assert_eq!(legacy_drops("-P FORWARD ACCEPT\n"), None);
    }
}
