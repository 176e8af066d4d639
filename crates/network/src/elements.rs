//! Elements of the firewall's sets and maps, changed by transactions: all of one, or nothing.

use crate::netlink::uapi::{
    NF_DROP, NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_GOTO, NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM, NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT, NFTA_LIST_ELEM, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE, NLM_F_CREATE,
};
use crate::netlink::{Batch, NetlinkError, NetlinkSocket, netfilter_header};

/// Elements in one message: the length of an attribute has 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Where an element stands: its set or map, and its key. Each part of a key fills words of 32 bits, in the network's
/// order (nft(8), concatenations).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub set: &'static str,
    pub key: Vec<u8>,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The key alone counts.
    Member,
    /// A value, laid out as a key is.
    Value(Vec<u8>),
    /// The chain that a packet goes on in.
    Goto(String),
    /// The packet goes nowhere.
    Drop,
}

/// Changes that are made all at once.
#[derive(Debug)]
pub struct Transaction<'a> {
    table: &'a str,
    batch: Batch,
}

impl<'a> Transaction<'a> {
    /// Of elements in this table.
    pub fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.begin_transaction("change the maps of the firewall");
        Self { table, batch }
    }

    /// Takes out all elements of a set.
    pub fn empty(&mut self, set: &'static str) {
        self.request("empty a map of the firewall", NFT_MSG_DELSETELEM, set, &[]);
    }

    /// Puts elements in; one that stands there with another content is a refusal of the whole.
    pub fn add<'e>(&mut self, what: &'static str, elements: impl IntoIterator<Item = (&'e Place, &'e Content)>) {
        self.each(what, NFT_MSG_NEWSETELEM, elements);
    }

    /// Takes elements out; one that is not there is a refusal of the whole.
    pub fn remove<'e>(&mut self, what: &'static str, elements: impl IntoIterator<Item = (&'e Place, &'e Content)>) {
        self.each(what, NFT_MSG_DELSETELEM, elements);
    }

    /// Does it.
    pub fn execute(mut self) -> Result<(), NetlinkError> {
        self.batch.end_transaction("change the maps of the firewall");
        NetlinkSocket::open_netfilter()?.execute(self.batch)
    }

    fn each<'e>(
        &mut self,
        what: &'static str,
        kind: u16,
        elements: impl IntoIterator<Item = (&'e Place, &'e Content)>,
    ) {
        let elements: Vec<(&Place, &Content)> = elements.into_iter().collect();
        for of_one_set in elements.chunk_by(|one, next| one.0.set == next.0.set) {
            for some in of_one_set.chunks(ELEMENTS_PER_MESSAGE) {
                let set = some.first().map_or("", |(place, _)| place.set);
                self.request(what, kind, set, some);
            }
        }
    }

    fn request(&mut self, what: &'static str, kind: u16, set: &str, elements: &[(&Place, &Content)]) {
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        let mut request = self.batch.request(what, kind, NLM_F_CREATE, &netfilter_header(NFPROTO_INET, 0));
        request.text(NFTA_SET_ELEM_LIST_TABLE, self.table).text(NFTA_SET_ELEM_LIST_SET, set);
        if elements.is_empty() {
            return;
        }
        request.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            for (place, content) in elements {
                list.nested(NFTA_LIST_ELEM, |one| {
                    one.nested(NFTA_SET_ELEM_KEY, |key| {
                        key.bytes(NFTA_DATA_VALUE, &place.key);
                    });
                    match content {
                        Content::Member => {}
                        Content::Value(value) => {
                            one.nested(NFTA_SET_ELEM_DATA, |data| {
                                data.bytes(NFTA_DATA_VALUE, value);
                            });
                        }
                        Content::Goto(chain) => verdict(one, NFT_GOTO, Some(chain)),
                        Content::Drop => verdict(one, NF_DROP, None),
                    }
                });
            }
        });
    }
}

fn verdict(element: &mut crate::netlink::Request<'_>, code: i32, chain: Option<&str>) {
    element.nested(NFTA_SET_ELEM_DATA, |data| {
        data.nested(NFTA_DATA_VERDICT, |verdict| {
            verdict.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

/// A port as part of a key.
pub fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
