//! What the names of Services say: pure. Kubernetes' specification of names, version 1.1.0, read as CoreDNS reads it.

use std::net::Ipv4Addr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, CNAME, PTR, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::seq::SliceRandom as _;
use spec::k8s_openapi::api::core::v1::Service;

use super::answer::{Answered, TTL};
use crate::DnsConfig;
use crate::catalog::{Catalog, Endpoint, Kind, ServiceKey, kind};

/// Of the specification that these names follow.
const VERSION: &str = "1.1.0";
/// Of an SRV record; all servers are alike.
const WEIGHT: u16 = 100;

/// What there is to say.
pub fn answer(catalog: &Catalog, config: &DnsConfig, query: &Query) -> Answered {
    if query.query_class != DNSClass::IN {
        return Answered::Elsewhere;
    }
    let asked = Asked { catalog, config, name: &query.name, kind: query.query_type };
    let labels = labels(&query.name);
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let domain = self::labels(&config.domain);
    if let Some(address) = reversed(&labels) {
        return asked.pointer(address);
    }
    let Some(below) = labels.len().checked_sub(domain.len()) else { return Answered::Elsewhere };
    match labels.split_at_checked(below) {
        Some((below, own)) if own == domain => asked.below(below),
        _ => Answered::Elsewhere,
    }
}

struct Asked<'a> {
    catalog: &'a Catalog,
    config: &'a DnsConfig,
    name: &'a Name,
    kind: RecordType,
}

impl Asked<'_> {
    /// A name below the cluster's domain.
    fn below(&self, labels: &[&str]) -> Answered {
        match labels {
            ["dns-version"] if self.wants(RecordType::TXT) => {
                self.records(vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))], Vec::new())
            }
            [] | ["svc" | "pod" | "dns-version"] => Answered::NoData,
            [pod_namespace, "svc" | "pod"] => self.in_namespace(pod_namespace, Answered::NoData),
            [address, pod_namespace, "pod"] => match address.replace('-', ".").parse() {
                Ok(address) => self.in_namespace(pod_namespace, self.addresses(vec![address])),
                Err(_) => Answered::NoSuchName,
            },
            [.., service, pod_namespace, "svc"] => {
                let key = ((*pod_namespace).to_owned(), (*service).to_owned());
                let Some(found) = self.catalog.service(&key) else { return Answered::NoSuchName };
                let before = labels.get(..labels.len() - 3).unwrap_or_default();
                self.of_service(&key, found, before)
            }
            _ => Answered::NoSuchName,
        }
    }

    fn in_namespace(&self, pod_namespace: &str, answered: Answered) -> Answered {
        if self.catalog.has_namespace(pod_namespace) { answered } else { Answered::NoSuchName }
    }

    fn of_service(&self, key: &ServiceKey, service: &Service, before: &[&str]) -> Answered {
        let ready: Vec<&Endpoint> = self.catalog.endpoints(key).into_iter().filter(|endpoint| endpoint.ready).collect();
        match (before, kind(service)) {
            ([], Kind::Alias(target)) => self.alias(&target),
            (_, Kind::Alias(_)) => Answered::NoSuchName,
            ([], Kind::Headless) if ready.is_empty() => Answered::NoSuchName,
            ([], of) => {
                if self.kind == RecordType::SRV {
                    return self.servers(key, service, &of, &ready, |_, _| true);
                }
                match of {
                    Kind::Address(address) => self.addresses(vec![address]),
                    _ => self.addresses(ready.iter().map(|endpoint| endpoint.address).collect()),
                }
            }
            ([port, protocol], of) => {
                let Some((port, protocol)) = port.strip_prefix('_').zip(protocol.strip_prefix('_')) else {
                    return Answered::NoSuchName;
                };
                let is_asked = |name: &str, of: &str| name == port && of.eq_ignore_ascii_case(protocol);
                match self.servers(key, service, &of, &ready, is_asked) {
                    Answered::NoData => Answered::NoSuchName,
                    _ if !self.wants(RecordType::SRV) => Answered::NoData,
                    servers => servers,
                }
            }
            ([host], _) => {
                let named = ready.iter().filter(|endpoint| host_name(endpoint) == *host);
                let addresses: Vec<Ipv4Addr> = named.map(|endpoint| endpoint.address).collect();
                if addresses.is_empty() { Answered::NoSuchName } else { self.addresses(addresses) }
            }
            _ => Answered::NoSuchName,
        }
    }

    fn alias(&self, target: &str) -> Answered {
        if let Ok(address) = target.parse() {
            return self.addresses(vec![address]);
        }
        let Ok(mut target) = Name::from_ascii(target) else { return Answered::NoData };
        target.set_fqdn(true);
        let record = self.record(RData::CNAME(CNAME(target.clone())));
        match self.kind {
            RecordType::CNAME => Answered::Records { answers: vec![record], additionals: Vec::new() },
            _ => Answered::Alias { record: Box::new(record), target },
        }
    }

    /// SRV records of the ports that are asked for: of the Service, or of each server of a headless one.
    fn servers(
        &self,
        key: &ServiceKey,
        service: &Service,
        of: &Kind,
        ready: &[&Endpoint],
        is_asked: impl Fn(&str, &str) -> bool,
    ) -> Answered {
        let mut found: Vec<(u16, String, Ipv4Addr)> = Vec::new();
        if let Kind::Address(address) = of {
            for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
                let name = port.name.as_deref().unwrap_or_default();
                if is_asked(name, port.protocol.as_deref().unwrap_or("TCP"))
                    && let Ok(port) = u16::try_from(port.port)
                {
                    found.push((port, String::new(), *address));
                }
            }
        } else {
            for endpoint in ready {
                let ports = endpoint.ports.iter().filter(|port| is_asked(&port.name, &port.protocol));
                found.extend(ports.map(|port| (port.port, host_name(endpoint), endpoint.address)));
            }
        }
        if found.is_empty() {
            return Answered::NoData;
        }
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for (port, host, address) in found {
            let Some(target) = self.service_name(key, &host) else { continue };
            answers.push(RData::SRV(SRV::new(0, WEIGHT, port, target.clone())));
            let record = Record::from_rdata(target, TTL, RData::A(A(address)));
            if !additionals.contains(&record) {
                additionals.push(record);
            }
        }
        self.records(answers, additionals)
    }

    /// Who has this address. Of the cluster's networks nobody else knows.
    fn pointer(&self, address: Ipv4Addr) -> Answered {
        let (mut services, mut endpoints) = (Vec::new(), Vec::new());
        for (key, service) in self.catalog.having(address) {
            if kind(service) == Kind::Address(address) {
                services.extend(self.service_name(key, ""));
            }
            let named = self.catalog.endpoints(key).into_iter().filter(|endpoint| endpoint.address == address);
            endpoints.extend(named.take(1).filter_map(|endpoint| self.service_name(key, &host_name(endpoint))));
        }
        let names = if services.is_empty() { endpoints } else { services };
        match names.as_slice() {
            [] if self.config.pods.contains(address) || self.config.services.contains(address) => Answered::NoSuchName,
            [] => Answered::Elsewhere,
            _ if self.wants(RecordType::PTR) => {
                self.records(names.into_iter().map(|name| RData::PTR(PTR(name))).collect(), Vec::new())
            }
            _ => Answered::NoData,
        }
    }

    fn addresses(&self, mut addresses: Vec<Ipv4Addr>) -> Answered {
        if !self.wants(RecordType::A) {
            return Answered::NoData;
        }
        addresses.sort_unstable();
        addresses.dedup();
        // Clients take the first.
        addresses.shuffle(&mut rand::rng());
        self.records(addresses.into_iter().map(|address| RData::A(A(address))).collect(), Vec::new())
    }

    fn records(&self, data: Vec<RData>, additionals: Vec<Record>) -> Answered {
        Answered::Records { answers: data.into_iter().map(|data| self.record(data)).collect(), additionals }
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), TTL, data)
    }

    fn wants(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    /// The full name of a Service, or of one of its hosts.
    fn service_name(&self, (pod_namespace, service): &ServiceKey, host: &str) -> Option<Name> {
        let host = Some(host).filter(|host| !host.is_empty());
        let labels = host.into_iter().chain([service.as_str(), pod_namespace, "svc"]);
        Name::from_labels(labels.map(str::as_bytes)).ok()?.append_domain(&self.config.domain).ok()
    }
}

/// What an endpoint is called below its Service: its host name, or its address with dashes.
fn host_name(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.address.to_string().replace('.', "-"))
}

fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// The address that a name of `in-addr.arpa` is for.
fn reversed(labels: &[&str]) -> Option<Ipv4Addr> {
    let [last, third, second, first, "in-addr", "arpa"] = labels else { return None };
    [*first, *second, *third, *last].join(".").parse().ok()
}

#[cfg(test)]
mod tests;
