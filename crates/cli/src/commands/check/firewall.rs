//! Other masters of the firewall that would drop the Pods' packets: docker, firewalld, ufw.

use std::ffi::OsStr;
use std::path::Path;

use super::Finding;

/// Looks for chains that drop what is forwarded.
pub fn look(pod_cidr: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if Path::new("/run/firewalld").exists() {
        findings.push(Finding::warn(
            "firewalld runs and may drop what Pods send",
            format!("firewall-cmd --permanent --zone=trusted --add-source={pod_cidr} && firewall-cmd --reload"),
        ));
    }
    let chains = output("nft", &["list", "chains"]);
    let legacy = output("iptables-legacy", &["-S", "FORWARD"]);
    match dropping_chain(&chains).or_else(|| legacy_drops(&legacy)) {
        Some(chain) => findings.push(Finding::warn(
            format!("{chain} drops what is forwarded{}: Pods won't reach other machines", culprit()),
            remedy(pod_cidr),
        )),
        None => findings.push(Finding::ok("no other firewall drops what Pods send")),
    }
    findings.push(look_at_forwarding());
    findings
}

fn look_at_forwarding() -> Finding {
    let value = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    match value.trim() {
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

fn culprit() -> &'static str {
    if Path::new("/run/docker.sock").exists() || Path::new("/var/run/docker.sock").exists() {
        " (docker sets it so)"
    } else {
        ""
    }
}

fn remedy(pod_cidr: &str) -> String {
    let chain = if culprit().is_empty() { "FORWARD" } else { "DOCKER-USER" };
    format!("iptables -I {chain} -s {pod_cidr} -j ACCEPT; iptables -I {chain} -d {pod_cidr} -j ACCEPT")
}

/// What the program prints, or nothing if it is missing or refuses.
fn output(program: &str, arguments: &[&str]) -> String {
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let output = sys::process::run(program.as_ref(), &arguments, b"");
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
