//! The network that Pods get their addresses from, such as `10.85.0.0/16`.

use std::fmt;
use std::net::Ipv4Addr;

/// Room for the network's own address, the gateway, one Pod and the broadcast address.
const LONGEST_PREFIX: u8 = 30;
/// A network shorter than this is most of the Internet.
const SHORTEST_PREFIX: u8 = 8;

/// An IPv4 network in which the first address is the gateway and the last stays free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodCidr {
    network: Ipv4Addr,
    prefix_length: u8,
}

impl PodCidr {
    /// Reads `ADDRESS/LENGTH`; says in one sentence what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || "it must have the form 10.85.0.0/16".to_owned();
        let (address, length) = text.split_once('/').ok_or_else(form)?;
        if address.contains(':') {
            return Err("IPv6 is not supported yet".to_owned());
        }
        let network: Ipv4Addr = address.parse().map_err(|_invalid| form())?;
        let prefix_length: u8 = length.parse().map_err(|_invalid| form())?;
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&prefix_length) {
            return Err(format!("its prefix length must be from {SHORTEST_PREFIX} to {LONGEST_PREFIX}"));
        }
        let cidr = Self { network, prefix_length };
        let first = Ipv4Addr::from_bits(network.to_bits() & mask(prefix_length));
        if first != network {
            return Err(format!("bits are set behind its prefix: write {first}/{prefix_length}"));
        }
        match special(cidr) {
            Some(use_of) => Err(format!("{use_of} addresses cannot be given to Pods")),
            None => Ok(cidr),
        }
    }

    /// The gateway: the host's address that Pods see.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// How many Pods can have an address.
    pub fn capacity(self) -> u32 {
        (1 << (32 - u32::from(self.prefix_length))) - 3
    }

    /// The address of a Pod: `position` counts from 0 and is below the capacity.
    pub fn pod_address(self, position: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 2 + position)
    }

    /// Where in the order of Pod addresses this one is, if it is one.
    pub fn position(self, address: Ipv4Addr) -> Option<u32> {
        let position = address.to_bits().checked_sub(self.network.to_bits() + 2)?;
        (position < self.capacity()).then_some(position)
    }

    /// Whether the two networks have an address in common.
    pub fn overlaps(self, network: Ipv4Addr, prefix_length: u8) -> bool {
        let shorter = mask(prefix_length.min(self.prefix_length));
        network.to_bits() & shorter == self.network.to_bits() & shorter
    }

    /// The network's own address.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// How many bits all addresses have in common.
    pub fn prefix_length(self) -> u8 {
        self.prefix_length
    }
}

impl fmt::Display for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_length)
    }
}

fn mask(prefix_length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_length.min(32))).unwrap_or(0)
}

/// Addresses with a meaning of their own (RFC 6890).
fn special(cidr: PodCidr) -> Option<&'static str> {
    [
        ("unspecified", Ipv4Addr::UNSPECIFIED, 8),
        ("loopback", Ipv4Addr::new(127, 0, 0, 0), 8),
        ("link-local", Ipv4Addr::new(169, 254, 0, 0), 16),
        ("multicast", Ipv4Addr::new(224, 0, 0, 0), 4),
        ("reserved", Ipv4Addr::new(240, 0, 0, 0), 4),
    ]
    .into_iter()
    .find_map(|(name, network, prefix_length)| cidr.overlaps(network, prefix_length).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_without_room_or_with_another_meaning_are_refused() {
        let cases = [
            ("10.85.0.0", "form 10.85.0.0/16"),
            ("10.85.0/16", "form 10.85.0.0/16"),
            ("10.85.0.0/33", "from 8 to 30"),
            ("10.85.0.0/31", "from 8 to 30"),
            ("0.0.0.0/0", "from 8 to 30"),
            ("10.85.0.7/16", "write 10.85.0.0/16"),
            ("127.0.0.0/8", "loopback"),
            ("168.0.0.0/7", "from 8 to 30"),
            ("169.0.0.0/8", "link-local"),
            ("224.0.0.0/8", "multicast"),
            ("fd00::/64", "IPv6"),
        ];
        for (text, why) in cases {
            let error = PodCidr::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_address_is_the_gateway_and_the_last_stays_free() {
        for (text, gateway, first, last, capacity) in [
            ("10.85.0.0/16", "10.85.0.1", "10.85.0.2", "10.85.255.254", 65_533),
            ("192.168.7.4/30", "192.168.7.5", "192.168.7.6", "192.168.7.6", 1),
            ("8.8.8.0/24", "8.8.8.1", "8.8.8.2", "8.8.8.254", 253),
        ] {
            let cidr = PodCidr::parse(text).unwrap();
            assert_eq!(cidr.to_string(), text);
            assert_eq!(cidr.gateway().to_string(), gateway);
            assert_eq!(cidr.capacity(), capacity);
            assert_eq!(cidr.pod_address(0).to_string(), first);
            assert_eq!(cidr.pod_address(capacity - 1).to_string(), last);
            assert_eq!(cidr.position(last.parse().unwrap()), Some(capacity - 1));
            assert_eq!(cidr.position(gateway.parse().unwrap()), None);
            assert_eq!(cidr.position(cidr.pod_address(capacity)), None);
        }
    }

    #[test]
    fn networks_overlap_if_one_holds_the_other() {
        let cidr = PodCidr::parse("10.85.0.0/16").unwrap();
        for (network, prefix_length, expected) in [
            ([10, 85, 3, 0], 24, true),
            ([10, 0, 0, 0], 8, true),
            ([10, 85, 255, 255], 32, true),
            ([0, 0, 0, 0], 0, true),
            ([10, 86, 0, 0], 16, false),
            ([10, 84, 255, 255], 32, false),
        ] {
            assert_eq!(cidr.overlaps(network.into(), prefix_length), expected, "{network:?}/{prefix_length}");
        }
    }
}
