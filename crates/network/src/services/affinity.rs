//! Clients that are remembered for a server that is gone: they are led anew.

use std::collections::{HashMap, HashSet};

use super::elements::{AFFINITY, key, value};
use super::{Entrance, ServiceForward};
use crate::elements::{Content, Place, Transaction};
use crate::netlink::uapi::{
    NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_MSG_GETSETELEM, NFTA_DATA_VALUE, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NLM_F_DUMP,
};
use crate::netlink::{Batch, NetlinkError, NetlinkSocket, attributes, netfilter_header};

/// Of a key: address of the Service.
const ADDRESS_BYTES: usize = 4;
/// Of a key: address of the Service, protocol, and port.
const ENTRANCE_BYTES: usize = 12;

/// Takes out what leads to no present server of a Service that remembers.
pub fn forget_stale(table: &str, present: &[ServiceForward]) -> Result<(), NetlinkError> {
    let mut servers: HashMap<Vec<u8>, HashSet<Vec<u8>>> = HashMap::new();
    for forward in present.iter().filter(|forward| forward.affinity_seconds.is_some()) {
        servers.entry(key(forward)).or_default().extend(forward.to.iter().map(|server| value(*server)));
    }
    let has_addresses = |forward: &ServiceForward| !matches!(forward.entrance, Entrance::NodePort(_));
    let addresses: HashSet<Vec<u8>> = present.iter().filter(|forward| has_addresses(forward)).map(key).collect();
    let is_stale = |(key, server): &Remembered| {
        let entrance = key.get(..ENTRANCE_BYTES).unwrap_or_default();
        // What is no address of a Service is one of the machine.
        let skipped = if addresses.contains(entrance) { 0 } else { ADDRESS_BYTES };
        let servers = entrance.get(skipped..).and_then(|entrance| servers.get(entrance));
        servers.is_none_or(|servers| !servers.contains(server))
    };
    let stale: Vec<(Place, Content)> = remembered(table)?
        .into_iter()
        .filter(is_stale)
        .map(|(key, _)| (Place { set: AFFINITY, key }, Content::Member))
        .collect();
    // One by one: each may be over by now, which would be a refusal of them all.
    for (place, content) in &stale {
        let mut transaction = Transaction::new(table);
        transaction.remove("forget a client of a service", [(place, content)]);
        match transaction.execute() {
            Err(error) if error.is(rustix::io::Errno::NOENT) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Key and value of an element of the map.
type Remembered = (Vec<u8>, Vec<u8>);

/// All of them.
fn remembered(table: &str) -> Result<Vec<Remembered>, NetlinkError> {
    let mut batch = Batch::new();
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM;
    batch
        .request("list the clients of services", kind, NLM_F_DUMP, &netfilter_header(NFPROTO_INET, 0))
        .text(NFTA_SET_ELEM_LIST_TABLE, table)
        .text(NFTA_SET_ELEM_LIST_SET, AFFINITY);
    let mut found = Vec::new();
    NetlinkSocket::open_netfilter()?.ask(batch, |message| {
        let parts = attributes(message.payload.get(4..).unwrap_or_default());
        for (_, list) in parts.filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS) {
            found.extend(attributes(list).filter_map(|(_, element)| {
                Some((part(element, NFTA_SET_ELEM_KEY)?, part(element, NFTA_SET_ELEM_DATA)?))
            }));
        }
    })?;
    Ok(found)
}

fn part(element: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let (_, data) = attributes(element).find(|(kind, _)| *kind == wanted)?;
    attributes(data).find(|(kind, _)| *kind == NFTA_DATA_VALUE).map(|(_, value)| value.to_vec())
}
