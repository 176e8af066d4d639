//! The chains that Services share: one for each number of endpoints, and one for each time that clients are remembered.

use std::fmt;
use std::str::FromStr;

use super::elements::{AFFINITY, ENDPOINTS, NODE_PORT_ENDPOINTS};

/// A chain that is made when a Service needs it. Its name says what is in it, so a chain of another content would need
/// another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceChain {
    /// Draws one of so many endpoints.
    Spread(u32),
    /// The same, at a port of the node.
    NodeSpread(u32),
    /// First looks whether the client is remembered.
    Sticky(u32),
    /// The same, at a port of the node.
    NodeSticky(u32),
    /// Remembers for so many seconds where the client was led.
    Remember(u32),
}

/// Those of most Services.
pub const USUAL: [ServiceChain; 4] =
    [ServiceChain::Spread(1), ServiceChain::Spread(2), ServiceChain::Spread(3), ServiceChain::NodeSpread(1)];

impl ServiceChain {
    /// As `nft` reads it. A chain comes after those that it names.
    pub fn rules(self) -> String {
        let entrance = "ip daddr . meta l4proto . th dport";
        let body = match self {
            Self::Spread(count) => format!("dnat ip to {entrance} . numgen random mod {count} map @{ENDPOINTS}"),
            Self::NodeSpread(count) => {
                format!("dnat ip to meta l4proto . th dport . numgen random mod {count} map @{NODE_PORT_ENDPOINTS}")
            }
            Self::Sticky(count) => {
                format!("dnat ip to {entrance} . ip saddr map @{AFFINITY}\n    goto {}", Self::Spread(count))
            }
            Self::NodeSticky(count) => {
                format!("dnat ip to {entrance} . ip saddr map @{AFFINITY}\n    goto {}", Self::NodeSpread(count))
            }
            // `nft` knows what a port of `ct` is only beside its protocol.
            Self::Remember(seconds) => ["tcp", "udp"]
                .map(|protocol| {
                    format!(
                        "meta l4proto {protocol} update @{AFFINITY} {{ ct original ip daddr . meta l4proto . \
                         ct original proto-dst . ip saddr timeout {seconds}s : ip daddr . th dport }}"
                    )
                })
                .join("\n    "),
        };
        format!("  chain {self} {{\n    {body}\n  }}\n")
    }

    /// The chain that this one goes on in.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Sticky(count) => Some(Self::Spread(count)),
            Self::NodeSticky(count) => Some(Self::NodeSpread(count)),
            Self::Spread(_) | Self::NodeSpread(_) | Self::Remember(_) => None,
        }
    }
}

impl fmt::Display for ServiceChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread(count) => write!(f, "spread_{count}"),
            Self::NodeSpread(count) => write!(f, "node_spread_{count}"),
            Self::Sticky(count) => write!(f, "sticky_{count}"),
            Self::NodeSticky(count) => write!(f, "node_sticky_{count}"),
            Self::Remember(seconds) => write!(f, "remember_{seconds}"),
        }
    }
}

/// What is no chain of this kind.
#[derive(Debug)]
pub struct OtherChain;

impl FromStr for ServiceChain {
    type Err = OtherChain;

    fn from_str(name: &str) -> Result<Self, OtherChain> {
        let (kind, number) = name.rsplit_once('_').ok_or(OtherChain)?;
        let number: u32 = number.parse().map_err(|_other| OtherChain)?;
        match kind {
            "spread" => Ok(Self::Spread(number)),
            "node_spread" => Ok(Self::NodeSpread(number)),
            "sticky" => Ok(Self::Sticky(number)),
            "node_sticky" => Ok(Self::NodeSticky(number)),
            "remember" => Ok(Self::Remember(number)),
            _ => Err(OtherChain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_known_by_its_name() {
        let chains = [
            ServiceChain::Spread(1),
            ServiceChain::NodeSpread(22),
            ServiceChain::Sticky(3),
            ServiceChain::NodeSticky(4),
            ServiceChain::Remember(10_800),
        ];
        for chain in chains {
            assert_eq!(chain.to_string().parse::<ServiceChain>().ok(), Some(chain));
            assert!(chain.rules().contains(&format!("chain {chain} {{")), "{}", chain.rules());
        }
        assert!("postrouting".parse::<ServiceChain>().is_err() && "host_ports".parse::<ServiceChain>().is_err());
    }
}
