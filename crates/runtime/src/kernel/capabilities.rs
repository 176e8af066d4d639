//! Capability sets of containers (capabilities(7)).

use rustix::thread::CapabilitySet;

/// What containers get unless they ask otherwise: the list that containerd and the kubelet's docs give.
const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);
/// The last capability that Linux has, `CAP_CHECKPOINT_RESTORE` (40).
const ALL: u64 = (1 << 41) - 1;

/// Why a capability list is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown capability {0:?}: names are those of capabilities(7) without CAP_, or ALL")]
pub(super) struct UnknownCapability(String);

/// The set as bits, by containerd's order: `ALL` added, `ALL` dropped, then single ones added, then single ones dropped.
pub(super) fn bits(add: &[String], drop: &[String], privileged: bool) -> Result<u64, UnknownCapability> {
    if privileged {
        return Ok(ALL);
    }
    let mut set = DEFAULT.bits();
    if names_all(add) {
        set = ALL;
    }
    if names_all(drop) {
        set = 0;
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        set |= one(name)?;
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        set &= !one(name)?;
    }
    Ok(set)
}

fn names_all(list: &[String]) -> bool {
    list.iter().any(|name| is_all(name))
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL")
}

fn one(name: &str) -> Result<u64, UnknownCapability> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CapabilitySet::from_name(plain)
        .map(|set| set.bits())
        .filter(|bits| bits.is_power_of_two())
        .ok_or_else(|| UnknownCapability(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_comes_before_single_ones() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let default = bits(&[], &[], false).unwrap();
        assert_eq!(default, 0xa804_25fb, "the set that /proc/PID/status shows of a container elsewhere");
        for (add, drop, privileged, expected) in [
            (vec!["NET_BIND_SERVICE"], vec!["ALL"], false, 1 << 10),
            (vec!["ALL"], vec!["CHOWN"], false, ALL & !1),
            (vec!["ALL"], vec!["ALL"], false, 0),
            (vec![], vec!["CAP_MKNOD", "net_raw"], false, default & !(1 << 27) & !(1 << 13)),
            (vec!["SYS_ADMIN"], vec![], false, default | 1 << 21),
            (vec![], vec!["ALL"], true, ALL),
        ] {
            assert_eq!(bits(&names(&add), &names(&drop), privileged).unwrap(), expected, "+{add:?} -{drop:?}");
        }
        assert_eq!(bits(&names(&["NOPE"]), &[], false), Err(UnknownCapability("NOPE".into())));
    }
}
