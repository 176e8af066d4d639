//! The one nftables table that is ours: Pods reach the world under the host's address, and only ask from outside what
//! was published. It is set up by the program `nft`; no other table is ever touched (nft(8)).

use std::ffi::OsStr;
use std::io;
use std::net::Ipv4Addr;
use std::process::Output;

use crate::published::{HAIRPINS, ON_ALL_ADDRESSES, ON_ONE_ADDRESS};

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
}

impl Firewall {
    /// Sets the rules, unless they are there already: replacing them waits for the kernel's readers (20 ms against
    /// 3 ms for a look). Other rules in our table are replaced in one transaction, so that no packet sees a gap.
    /// Connections live on: their translation is kept by the kernel's connection tracking.
    pub fn apply(&self) -> Result<(), FirewallError> {
        let rules = self.rules();
        // Terse: the maps' elements come and go with Pods.
        let listed = nft(&["-t"], &format!("list table inet {}\n", self.table))?;
        if listed.status.success() && words(&String::from_utf8_lossy(&listed.stdout)) == words(&rules) {
            return Ok(());
        }
        // `flush table` empties the chains but keeps sets and maps.
        self.change(&format!("add table inet {0}\nflush table inet {0}\n{rules}", self.table))
    }

    /// Removes the table; one that is not there is as good.
    pub fn remove(&self) -> Result<(), FirewallError> {
        self.change(&format!("add table inet {0}\ndelete table inet {0}\n", self.table))
    }

    /// - `prerouting`: a Pod sends under its own address only, also where sysctl.d turns `rp_filter` off.
    /// - `forward`: from outside only answers, and what a port mapping led here. `ip_forward` is on, so without this
    ///   any neighbour of the host that adds a route could reach every port of every Pod.
    /// - `postrouting`: to the outside under the host's address; a port that is already taken is chosen anew. A Pod that
    ///   is asked from the host's loopback, or by itself over a host port, sees the gateway: it could not answer else.
    /// - `host_ports_…`, `to_pods`: packets to the host's own addresses and a published port go to its Pod, those of the
    ///   host itself too. What comes from elsewhere to 127.0.0.0/8 is nobody's; for Pods with host ports `route_localnet`
    ///   is on, so `prerouting` drops what such a Pod sends there (CVE-2020-8558).
    ///
    /// Written as `nft list table` prints it.
    fn rules(&self) -> String {
        let Self { table, group, gateway } = self;
        format!(
            "table inet {table} {{
  map {ON_ALL_ADDRESSES} {{
    type inet_proto . inet_service : ipv4_addr . inet_service
  }}
  map {ON_ONE_ADDRESS} {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }}
  set {HAIRPINS} {{
    type ipv4_addr . ipv4_addr
  }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifgroup {group} fib saddr . iif oif missing drop
    iifgroup {group} ip daddr 127.0.0.0/8 drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifgroup {group} accept
    oifgroup {group} ct state established,related accept
    oifgroup {group} ct status dnat accept
    oifgroup {group} drop
  }}
  chain host_ports_from_outside {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr != 127.0.0.0/8 fib daddr type local jump to_pods
  }}
  chain host_ports_from_here {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump to_pods
  }}
  chain to_pods {{
    dnat ip to ip daddr . meta l4proto . th dport map @{ON_ONE_ADDRESS}
    dnat ip to meta l4proto . th dport map @{ON_ALL_ADDRESSES}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    iifgroup {group} oifgroup != {group} masquerade fully-random
    oifgroup {group} ip saddr 127.0.0.0/8 snat ip to {gateway}
    oifgroup {group} ip saddr . ip daddr @{HAIRPINS} snat ip to {gateway}
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

fn nft(options: &[&str], script: &str) -> Result<Output, FirewallError> {
    let arguments: Vec<&OsStr> = options.iter().chain(&["-f", "-"]).map(OsStr::new).collect();
    sys::process::run(OsStr::new("nft"), &arguments, script.as_bytes()).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { FirewallError::MissingProgram } else { FirewallError::Run(error) }
    })
}

/// What matters of a ruleset: everything but how it is indented.
fn words(ruleset: &str) -> Vec<&str> {
    ruleset.split_whitespace().collect()
}
