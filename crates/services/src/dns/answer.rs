//! An answer as it is sent.

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

/// Seconds for which an answer may be kept. Services change at once; programs that keep answers at all keep these shortly.
pub const TTL: u32 = 5;
/// What fits into a datagram of a client that does not say more (RFC 1035).
const SHORTEST_DATAGRAM: u16 = 512;
/// What is sent in one datagram at most, however much a client takes: no fragments (DNS flag day 2020).
const LONGEST_DATAGRAM: u16 = 1232;

/// What the names of Services say to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answered {
    /// It is not for us to say.
    Elsewhere,
    /// There is nothing by that name.
    NoSuchName,
    /// There is that name, but nothing of that kind.
    NoData,
    /// It is another name for something: this says so, and that is the something.
    Alias { record: Box<Record>, target: Name },
    /// This is it.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
}

/// An answer to the question, no longer than its asker takes. Nothing is a fact, too, with the record that says how long
/// it may be kept (RFC 2308): resolvers of C libraries go on to the next name of their search list only after it.
pub fn encode(question: &Message, answered: Answered, domain: &Name, is_udp: bool) -> Vec<u8> {
    let mut response = begin(question);
    response.metadata.authoritative = true;
    match answered {
        Answered::Records { answers, additionals } => {
            response.answers = answers;
            response.additionals = additionals;
        }
        Answered::Alias { record, .. } => response.answers = vec![*record],
        Answered::NoSuchName | Answered::NoData | Answered::Elsewhere => {
            if answered == Answered::NoSuchName {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            response.authorities.extend(question.queries.first().map(|query| authority(&query.name, domain)));
        }
    }
    let encoded = response.to_vec().unwrap_or_default();
    let limit = question.max_payload().clamp(SHORTEST_DATAGRAM, LONGEST_DATAGRAM);
    if !is_udp || encoded.len() <= usize::from(limit) {
        return encoded;
    }
    // What is only a help goes first; then the client is to come again over TCP.
    response.additionals.clear();
    let encoded = response.to_vec().unwrap_or_default();
    if encoded.len() <= usize::from(limit) { encoded } else { response.truncate().to_vec().unwrap_or_default() }
}

/// The answer that there is none.
pub fn refusal(question: &Message, code: ResponseCode) -> Vec<u8> {
    let mut response = begin(question);
    response.metadata.response_code = code;
    response.to_vec().unwrap_or_default()
}

fn begin(question: &Message) -> Message {
    let mut response = Message::response(question.metadata.id, question.metadata.op_code);
    response.metadata.recursion_desired = question.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.queries.clone_from(&question.queries);
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LONGEST_DATAGRAM);
        response.set_edns(edns);
    }
    response
}

/// The start of authority of the zone that the name is in: the cluster's, or the one of addresses.
fn authority(name: &Name, domain: &Name) -> Record {
    let zone = if domain.zone_of(name) { domain.clone() } else { name.trim_to(2) };
    let called = |label: &str| zone.prepend_label(label).unwrap_or_else(|_too_long| zone.clone());
    let soa = SOA::new(called("ns"), called("hostmaster"), 1, 7200, 1800, 86_400, TTL);
    Record::from_rdata(zone.clone(), TTL, RData::SOA(soa))
}
