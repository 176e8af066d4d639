//! Whether the Pods' network can be made: tried for real in a network namespace that goes at once.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use network::{Network, NetworkConfig, POD_LINK};
use store::Store;
use sys::process::Unshare;

use super::Finding;
use crate::daemon::{Names, Place};
use crate::errors::render;

/// Tries the network, and looks for another one with the same addresses.
pub fn look(place: &Place) -> Vec<Finding> {
    let mut findings = vec![match sys::process::run("nft".as_ref(), &["--version".as_ref()], b"") {
        Ok(output) if output.status.success() => Finding::ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(_) | Err(_) => Finding::fail("the program nft is missing", "apt install nftables"),
    }];
    let (names, pod_cidr) = (place.names(), place.pod_cidr.clone());
    let thread = std::thread::spawn(move || try_network(&names, pod_cidr));
    findings.push(match thread.join() {
        Ok(Ok(())) => Finding::ok(format!("the network {} can be made: links, routes, masquerading", place.pod_cidr)),
        Ok(Err(error)) => {
            let text = render(&error);
            let text = text.trim().trim_start_matches("error: ").replace("\n  caused by", "; caused by");
            Finding::fail(
                format!("the Pods' network can't be made: {text}"),
                "modprobe -a veth nf_tables nft_masq; or another --pod-cidr",
            )
        }
        Err(_panicked) => Finding::fail("the Pods' network can't be tried", "see the messages above"),
    });
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let bridge = place.names().bridge;
    let own = Path::new("/sys/class/net").join(&bridge).exists().then_some(bridge.as_str());
    findings.push(match overlapping(&routes, &place.pod_cidr, own) {
        None => Finding::ok(format!("no other network uses {}", place.pod_cidr)),
        Some(route) => Finding::fail(
            format!("the Pods' network {} overlaps {route}", place.pod_cidr),
            "choose another: monopod serve --pod-cidr 10.99.0.0/16",
        ),
    });
    findings
}

/// Makes the whole network in a namespace of this thread, which ends after.
fn try_network(names: &Names, pod_cidr: String) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("monopod-check-").tempdir()?;
    sys::process::unshare(Unshare { network: true, ..Unshare::default() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(directory.path())?;
        let config = NetworkConfig {
            bridge: names.bridge.clone(),
            nft_table: names.nft_table.clone(),
            pod_cidr,
            service_cidr: None,
        };
        Network::open(config, store).await?.remove().await?;
        Ok(())
    })
}

/// The first route of others that shares addresses with the Pods' network. `own` is our bridge, if it is there: then
/// the route that refuses unused addresses, which has no interface (`*`), is ours, too.
fn overlapping(routes: &str, pod_cidr: &str, own: Option<&str>) -> Option<String> {
    let (network, length) = pod_cidr.split_once('/')?;
    let network = network.parse::<Ipv4Addr>().ok()?.to_bits();
    let own_mask = mask(length.parse().ok()?);
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (Some(interface), Some(destination), Some(other_mask)) = (fields.first(), fields.get(1), fields.get(7))
        else {
            return None;
        };
        // The kernel prints addresses as numbers of the machine's byte order (proc_net_route(5)).
        let destination = u32::from_str_radix(destination, 16).ok()?.swap_bytes();
        let other_mask = u32::from_str_radix(other_mask, 16).ok()?.swap_bytes();
        let common = own_mask & other_mask;
        // A Pod's link leads to one address. No second daemon has made this one: ours would have been refused beside it.
        let to_pod = interface.starts_with(POD_LINK) && other_mask == u32::MAX;
        let is_own =
            own.is_some_and(|own| *interface == own || to_pod || (*interface == "*" && other_mask == own_mask));
        let overlaps = other_mask != 0 && !is_own && destination & common == network & common;
        let destination = format!("{}/{}", Ipv4Addr::from_bits(destination), other_mask.count_ones());
        overlaps.then(|| match *interface {
            "*" => format!("the route that refuses {destination}"),
            interface => format!("the route to {destination} at {interface}"),
        })
    })
}

fn mask(length: u32) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_routes_are_named() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let route = |interface: &str, destination: &str, mask: &str| {
            format!("{head}{interface}\t{destination}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        for (routes, own, expected) in [
            (route("eth0", "00000000", "00000000"), None, None),
            (route("eth0", "0000A8C0", "00FFFFFF"), None, None),
            (route("docker0", "0000550A", "0000FFFF"), Some("mono0"), Some("the route to 10.85.0.0/16 at docker0")),
            (route("wg0", "0000000A", "000000FF"), None, Some("the route to 10.0.0.0/8 at wg0")),
            (route("br1", "0005550A", "00FFFFFF"), None, Some("the route to 10.85.5.0/24 at br1")),
            (route("mono0", "0000550A", "0000FFFF"), Some("mono0"), None),
            (route("*", "0000550A", "0000FFFF"), Some("mono0"), None),
            (route("*", "0000550A", "0000FFFF"), None, Some("the route that refuses 10.85.0.0/16")),
            (route("*", "0005550A", "00FFFFFF"), Some("mono0"), Some("the route that refuses 10.85.5.0/24")),
            (route("mp0123456789ab", "0200550A", "FFFFFFFF"), Some("mono0"), None),
            (
                route("mp0123456789ab", "0200550A", "FFFFFFFF"),
                None,
                Some("the route to 10.85.0.2/32 at mp0123456789ab"),
            ),
            ("nonsense\nx\ny z\n".to_owned(), None, None),
        ] {
            assert_eq!(overlapping(&routes, "10.85.0.0/16", own).as_deref(), expected, "{routes}");
        }
    }
}
