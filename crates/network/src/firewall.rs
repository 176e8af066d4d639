//! The one nftables table that is ours: Pods reach the world under the host's address, and only ask from outside what
//! was published. It is set up by the program `nft`; no other table is ever touched (nft(8)).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::net::Ipv4Addr;
use std::process::Output;

use spec::ordered::set_of;

use crate::cidr::PodCidr;
use crate::published::{HAIRPINS, ON_ALL_ADDRESSES, ON_ONE_ADDRESS};
use crate::services::{AFFINITY, ENDPOINTS, NODE_PORT_ENDPOINTS, NODE_PORTS, REMEMBERING, REMEMBERING_NODE_PORTS};
use crate::services::{SERVICE_HAIRPINS, SERVICES, ServiceChain, UNSERVED, UNSERVED_NODE_PORTS, USUAL};

/// Clients that are remembered for all Services together; when there are more, the kernel forgets to remember.
const MOST_CLIENTS: u32 = 65_536;
/// What a client gets where nobody serves.
const REJECT: &str = "reject with icmp port-unreachable";

/// Why the table could not be set up or removed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is no `nft` on this machine.
    #[error("the program `nft` is not installed; install the package nftables")]
    MissingProgram,
    /// It could not be run.
    #[error("cannot run the program `nft`")]
    Run(#[source] io::Error),
    /// It refused what we asked for.
    #[error("`nft` refused the table {table:?}: {stderr}")]
    Refused { table: String, stderr: String },
}

/// The table and what its rules go by.
#[derive(Debug, Clone)]
pub struct Firewall {
    pub table: String,
    /// The interface group of the host ends of all Pods.
    pub group: u32,
    /// The host's address that Pods see.
    pub gateway: Ipv4Addr,
    /// The addresses of Services.
    pub services: Option<PodCidr>,
}

impl Firewall {
    /// Sets the rules, unless they are there already: replacing them waits for the kernel's readers (20 ms against
    /// 3 ms for a look). Other rules in our table are replaced in one transaction, so that no packet sees a gap.
    /// Connections live on: their translation is kept by the kernel's connection tracking. Chains of Services that are
    /// there stay: elements of the maps lead to them. All of them are given back.
    pub fn apply(&self, chains: &BTreeSet<ServiceChain>) -> Result<BTreeSet<ServiceChain>, FirewallError> {
        // Terse: the maps' elements come and go with Pods.
        let listed = nft(&["-t"], &format!("list table inet {}\n", self.table))?;
        let present = if listed.status.success() { String::from_utf8_lossy(&listed.stdout) } else { "".into() };
        let present = blocks(&present);
        let mut chains = set_of(chains.iter().copied().chain(USUAL));
        chains.extend(present.keys().filter_map(|name| name.strip_prefix("chain ")?.parse::<ServiceChain>().ok()));
        chains.extend(chains.clone().into_iter().filter_map(ServiceChain::next));
        let rules = self.rules(&chains);
        if blocks(&rules) == present {
            return Ok(chains);
        }
        // `flush table` empties the chains but keeps sets and maps.
        self.change(&format!("add table inet {0}\nflush table inet {0}\n{rules}", self.table)).map(|()| chains)
    }

    /// Removes the table; one that is not there is as good.
    pub fn remove(&self) -> Result<(), FirewallError> {
        self.change(&format!("add table inet {0}\ndelete table inet {0}\n", self.table))
    }

    /// - `prerouting`: a Pod sends under its own address only, also where sysctl.d turns `rp_filter` off.
    /// - `forward`: from outside only answers, and what a port mapping or a Service led here. `ip_forward` is on, so
    ///   without this any neighbour of the host that adds a route could reach every port of every Pod.
    /// - `postrouting`: to the outside under the host's address; a port that is already taken is chosen anew. A Pod that
    ///   is asked from the host's loopback, or by itself over a host port or a Service, sees the gateway: it could not
    ///   answer else. The host asks a Service from the gateway's address, which nobody outside knows.
    /// - `host_ports_…`, `to_pods`: packets to the host's own addresses and a published port go to its Pod, those of the
    ///   host itself too. What comes from elsewhere to 127.0.0.0/8 is nobody's; for Pods with host ports `route_localnet`
    ///   is on, so `prerouting` drops what such a Pod sends there (CVE-2020-8558).
    /// - `services`: Pods and the host reach all Services; from outside only what is meant to be reached from there.
    /// - `refuse…`: nobody serves here, so nobody waits. What went to a Service has another address by then.
    /// - `remember`: where a client was led that is to come there again.
    /// - `keep_asking`: while no daemon listens, a question for a name is asked again, not given up.
    ///
    /// Written as `nft list table` prints it.
    fn rules(&self, chains: &BTreeSet<ServiceChain>) -> String {
        let Self { table, group, gateway, services } = self;
        let entrance = "ip daddr . meta l4proto . th dport";
        let not_inside = services.map(|cidr| format!("ip daddr != {cidr} ")).unwrap_or_default();
        let unknown = services.map(|cidr| format!("ip daddr {cidr} {REJECT}\n    ")).unwrap_or_default();
        let maps = maps();
        let chains: String = chains.iter().rev().copied().map(ServiceChain::rules).collect();
        format!(
            "table inet {table} {{
{maps}{chains}  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifgroup {group} fib saddr . iif oif missing drop
    iifgroup {group} ip daddr 127.0.0.0/8 drop
  }}
  chain refuse {{
    {unknown}{entrance} @{UNSERVED} {REJECT}
  }}
  chain refuse_node_ports {{
    ip daddr != 127.0.0.0/8 meta l4proto . th dport @{UNSERVED_NODE_PORTS} {REJECT}
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state new jump refuse
    iifgroup {group} accept
    oifgroup {group} ct state established,related accept
    oifgroup {group} ct status dnat accept
    oifgroup {group} drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ct state new jump refuse_node_ports
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    ct state new jump refuse
    oifgroup {group} icmp type destination-unreachable ct original proto-dst 53 drop
  }}
  chain host_ports_from_outside {{
    type nat hook prerouting priority dstnat; policy accept;
    iifgroup {group} {entrance} vmap @{SERVICES}
    iifgroup != {group} {not_inside}{entrance} vmap @{SERVICES}
    ip daddr != 127.0.0.0/8 fib daddr type local jump to_pods
  }}
  chain host_ports_from_here {{
    type nat hook output priority -100; policy accept;
    {entrance} vmap @{SERVICES}
    fib daddr type local jump to_pods
  }}
  chain to_pods {{
    dnat ip to {entrance} map @{ON_ONE_ADDRESS}
    dnat ip to meta l4proto . th dport map @{ON_ALL_ADDRESSES}
    ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @{NODE_PORTS}
  }}
  chain remember {{
    type filter hook postrouting priority mangle; policy accept;
    ct state new ct status dnat meta l4proto tcp ct original ip daddr . meta l4proto . ct original proto-dst vmap @{REMEMBERING}
    ct state new ct status dnat meta l4proto udp ct original ip daddr . meta l4proto . ct original proto-dst vmap @{REMEMBERING}
    ct state new ct status dnat meta l4proto tcp meta l4proto . ct original proto-dst vmap @{REMEMBERING_NODE_PORTS}
    ct state new ct status dnat meta l4proto udp meta l4proto . ct original proto-dst vmap @{REMEMBERING_NODE_PORTS}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    iifgroup {group} oifgroup != {group} masquerade fully-random
    oifgroup {group} ip saddr 127.0.0.0/8 snat ip to {gateway}
    oifgroup {group} ip saddr . ip daddr @{HAIRPINS} snat ip to {gateway}
    oifgroup {group} ip saddr . ip daddr @{SERVICE_HAIRPINS} snat ip to {gateway}
    oifgroup != {group} oifname != \"lo\" ip saddr {gateway} masquerade fully-random
  }}
}}
"
        )
    }

    fn change(&self, script: &str) -> Result<(), FirewallError> {
        let output = nft(&[], script)?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(FirewallError::Refused { table: self.table.clone(), stderr })
    }
}

/// The sets and maps, as `nft list table` prints them. A type by `th dport` it cannot read back; `tcp dport` is the same.
fn maps() -> String {
    format!(
        "  map {ON_ALL_ADDRESSES} {{
    type inet_proto . inet_service : ipv4_addr . inet_service
  }}
  map {ON_ONE_ADDRESS} {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }}
  set {HAIRPINS} {{
    type ipv4_addr . ipv4_addr
  }}
  map {SERVICES} {{
    type ipv4_addr . inet_proto . inet_service : verdict
  }}
  map {ENDPOINTS} {{
    typeof ip daddr . meta l4proto . tcp dport . numgen random mod 65536 : ip daddr . tcp dport
  }}
  map {NODE_PORTS} {{
    type inet_proto . inet_service : verdict
  }}
  map {NODE_PORT_ENDPOINTS} {{
    typeof meta l4proto . tcp dport . numgen random mod 65536 : ip daddr . tcp dport
  }}
  set {SERVICE_HAIRPINS} {{
    type ipv4_addr . ipv4_addr
  }}
  set {UNSERVED} {{
    type ipv4_addr . inet_proto . inet_service
  }}
  set {UNSERVED_NODE_PORTS} {{
    type inet_proto . inet_service
  }}
  map {REMEMBERING} {{
    type ipv4_addr . inet_proto . inet_service : verdict
  }}
  map {REMEMBERING_NODE_PORTS} {{
    type inet_proto . inet_service : verdict
  }}
  map {AFFINITY} {{
    type ipv4_addr . inet_proto . inet_service . ipv4_addr : ipv4_addr . inet_service
    size {MOST_CLIENTS}
    flags dynamic,timeout
  }}
"
    )
}

fn nft(options: &[&str], script: &str) -> Result<Output, FirewallError> {
    let arguments: Vec<&OsStr> = options.iter().chain(&["-f", "-"]).map(OsStr::new).collect();
    sys::process::run(OsStr::new("nft"), &arguments, script.as_bytes()).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { FirewallError::MissingProgram } else { FirewallError::Run(error) }
    })
}

/// What matters of a ruleset, for each set, map and chain by its kind and name: everything but how it is indented. Of
/// Services' chains it is the name: `nft` prints their rules otherwise than it reads them.
fn blocks(ruleset: &str) -> BTreeMap<String, Vec<&str>> {
    let (mut blocks, mut name) = (BTreeMap::new(), None);
    for line in ruleset.lines().map(str::trim) {
        match (&name, line.strip_suffix(" {")) {
            (None, Some(begun)) if !begun.starts_with("table ") => name = Some(begun.to_owned()),
            (Some(_), _) if line == "}" => name = None,
            (Some(name), _) => {
                let words: &mut Vec<&str> = blocks.entry(name.clone()).or_default();
                let is_of_services =
                    name.strip_prefix("chain ").is_some_and(|name| name.parse::<ServiceChain>().is_ok());
                words.extend(line.split_whitespace().filter(|_| !is_of_services));
            }
            (None, _) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulesets_are_compared_whatever_their_order() {
        let read = "table inet m {\n  chain b {\n    accept\n  }\n  chain spread_2 {\n    numgen\n  }\n  set a {\n    type mark\n  }\n}\n";
        let listed = "table inet m {\n\tset a {\n\t\ttype mark\n\t}\n\n\tchain b {\n\t\taccept\n\t}\n\tchain spread_2 {\n\t\tother\n\t}\n}\n";
        assert_eq!(blocks(read), blocks(listed));
        assert_ne!(blocks(read), blocks(&listed.replace("accept", "drop")));
        assert_ne!(blocks(read), blocks(&listed.replace("spread_2", "spread_3")));
    }
}
