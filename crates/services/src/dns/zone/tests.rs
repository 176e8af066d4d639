//! Names as programs ask for them, and what they hear.

use hickory_proto::op::{Message, MessageType, OpCode};
use serde_json::{Value, json};
use store::{ObjectKey, StoredObject};

use super::*;
use crate::AddressRange;
use crate::dns::answer::encode;

fn stored(resource: &str, value: Value) -> StoredObject {
    let text = |pointer: &str| value.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let key = ObjectKey::namespaced(resource, text("/metadata/namespace"), text("/metadata/name"));
    StoredObject { key: key.into(), revision: 1, json: Vec::new().into(), value: value.into() }
}

fn config() -> DnsConfig {
    DnsConfig {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        host_resolv_conf: "/dev/null".into(),
        pods: AddressRange { address: Ipv4Addr::new(10, 85, 0, 0), prefix_length: 16 },
        services: AddressRange { address: Ipv4Addr::new(10, 96, 0, 0), prefix_length: 16 },
        own_addresses: vec![Ipv4Addr::new(10, 85, 0, 1)],
    }
}

/// A Service with an address, a headless one with two hosts, one without Pods, and two other names.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.note_namespace("default", true);
    let service = |name: &str, spec: Value| {
        stored("services", json!({"metadata": {"namespace": "default", "name": name}, "spec": spec}))
    };
    let slice = |name: &str, endpoints: Value| {
        stored(
            "endpointslices",
            json!({
                "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "ports": [{"name": "redis", "port": 6379, "protocol": "TCP"}], "endpoints": endpoints,
            }),
        )
    };
    let ports =
        json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    catalog.put_service(&service("web", json!({"clusterIP": "10.96.0.7", "ports": ports})));
    catalog.put_service(&service("redis", json!({"clusterIP": "None"})));
    catalog.put_service(&service("empty", json!({"clusterIP": "None"})));
    catalog.put_service(&service("db", json!({"type": "ExternalName", "externalName": "db.example.com"})));
    catalog.put_service(&service("number", json!({"type": "ExternalName", "externalName": "192.0.2.7"})));
    catalog.put_slice(&slice("web", json!([{"addresses": ["10.85.0.9"]}])));
    catalog.put_slice(&slice(
        "redis",
        json!([
            {"addresses": ["10.85.0.2"], "hostname": "first"}, {"addresses": ["10.85.0.3"]},
            {"addresses": ["10.85.0.4"], "conditions": {"ready": false}},
        ]),
    ));
    catalog
}

/// The answer in words: records in order, or why there is none.
fn told(name: &str, kind: RecordType) -> String {
    match answer(&catalog(), &config(), &Query::query(Name::from_ascii(name).unwrap(), kind)) {
        Answered::Elsewhere => "elsewhere".to_owned(),
        Answered::NoSuchName => "no such name".to_owned(),
        Answered::NoData => "no data".to_owned(),
        Answered::Alias { target, .. } => format!("alias of {target}"),
        Answered::Records { answers, additionals } => {
            let mut texts: Vec<String> = answers.iter().map(|record| record.data.to_string()).collect();
            texts.sort();
            let helps: Vec<String> =
                additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
            if helps.is_empty() { texts.join(", ") } else { format!("{} with {}", texts.join(", "), helps.join(", ")) }
        }
    }
}

#[test]
fn names_are_answered_as_in_a_cluster() {
    use RecordType::{A, AAAA, CNAME, PTR, SRV, TXT};
    let table = [
        ("web.default.svc.cluster.local.", A, "10.96.0.7"),
        ("WEB.Default.svc.CLUSTER.local.", A, "10.96.0.7"),
        ("web.default.svc.cluster.local.", AAAA, "no data"),
        ("web.other.svc.cluster.local.", A, "no such name"),
        ("web.default.svc.cluster.local.default.svc.cluster.local.", A, "no such name"),
        ("redis.default.svc.cluster.local.", A, "10.85.0.2, 10.85.0.3"),
        ("redis.default.svc.cluster.local.", AAAA, "no data"),
        ("first.redis.default.svc.cluster.local.", A, "10.85.0.2"),
        ("10-85-0-3.redis.default.svc.cluster.local.", A, "10.85.0.3"),
        ("10-85-0-4.redis.default.svc.cluster.local.", A, "no such name"),
        ("empty.default.svc.cluster.local.", A, "no such name"),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            SRV,
            "0 100 80 web.default.svc.cluster.local. with web.default.svc.cluster.local. 10.96.0.7",
        ),
        ("_http._udp.web.default.svc.cluster.local.", SRV, "no such name"),
        ("_http._tcp.web.default.svc.cluster.local.", A, "no data"),
        (
            "_redis._tcp.redis.default.svc.cluster.local.",
            SRV,
            "0 100 6379 10-85-0-3.redis.default.svc.cluster.local., 0 100 6379 first.redis.default.svc.cluster.local. with \
          first.redis.default.svc.cluster.local. 10.85.0.2, 10-85-0-3.redis.default.svc.cluster.local. 10.85.0.3",
        ),
        ("db.default.svc.cluster.local.", A, "alias of db.example.com."),
        ("db.default.svc.cluster.local.", CNAME, "db.example.com."),
        ("number.default.svc.cluster.local.", A, "192.0.2.7"),
        ("7.0.96.10.in-addr.arpa.", PTR, "web.default.svc.cluster.local."),
        ("2.0.85.10.in-addr.arpa.", PTR, "first.redis.default.svc.cluster.local."),
        ("99.0.85.10.in-addr.arpa.", PTR, "no such name"),
        ("1.2.0.192.in-addr.arpa.", PTR, "elsewhere"),
        ("10-85-0-77.default.pod.cluster.local.", A, "10.85.0.77"),
        ("10-85-0-77.other.pod.cluster.local.", A, "no such name"),
        ("default.svc.cluster.local.", A, "no data"),
        ("svc.cluster.local.", A, "no data"),
        ("other.svc.cluster.local.", A, "no such name"),
        ("dns-version.cluster.local.", TXT, "1.1.0"),
        ("example.com.", A, "elsewhere"),
        ("web.", A, "elsewhere"),
        ("default.svc.cluster.local.example.com.", A, "elsewhere"),
    ];
    for (name, kind, expected) in table {
        assert_eq!(told(name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn nothing_is_told_with_the_time_that_it_holds() {
    let domain = config().domain;
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii("x.default.svc.cluster.local.").unwrap(), RecordType::A));
    for (answered, code) in [(Answered::NoSuchName, "NXDomain"), (Answered::NoData, "NoError")] {
        let response = Message::from_vec(&encode(&question, answered, &domain, true)).unwrap();
        assert_eq!(format!("{:?}", response.metadata.response_code), code);
        assert_eq!((response.metadata.id, response.queries.len(), response.answers.len()), (7, 1, 0));
        assert!(response.metadata.authoritative && response.metadata.recursion_available);
        let soa = &response.authorities[0];
        assert_eq!((soa.name.to_ascii(), soa.record_type()), ("cluster.local.".to_owned(), RecordType::SOA));
    }
}

#[test]
fn a_long_answer_is_cut_for_a_datagram_only() {
    let name = Name::from_ascii("many.default.svc.cluster.local.").unwrap();
    let record = |last: u8| Record::from_rdata(name.clone(), TTL, RData::A(A(Ipv4Addr::new(10, 85, 1, last))));
    let answered = Answered::Records { answers: (0..200).map(record).collect(), additionals: Vec::new() };
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(name.clone(), RecordType::A));
    let domain = config().domain;
    let cut = encode(&question, answered.clone(), &domain, true);
    let cut = Message::from_vec(&cut).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = Message::from_vec(&encode(&question, answered, &domain, false)).unwrap();
    assert!(!whole.metadata.truncation && whole.answers.len() == 200);
}
