//! Rules for Services, EndpointSlices and Endpoints.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::one_of;
use super::{meta, names};
use crate::field::{Errors, FieldError, Path};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Checks a Service.
pub fn validate_service(new: &Service, old: Option<&Service>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let empty = ServiceSpec::default();
    let spec = new.spec.as_ref().unwrap_or(&empty);
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(&mut errors, &path.child("type"), spec.type_.as_deref(), &types);
    one_of(&mut errors, &path.child("sessionAffinity"), spec.session_affinity.as_deref(), &["ClientIP", "None"]);
    if let Some(selector) = &spec.selector {
        meta::labels(&mut errors, &path.child("selector"), selector);
    }
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    if is_external {
        let name = spec.external_name.as_deref().unwrap_or_default();
        for fault in names::dns_subdomain(name.strip_suffix('.').unwrap_or(name)) {
            errors.invalid(&path.child("externalName"), name, fault);
        }
    }
    addresses(&mut errors, &path, spec);
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_external && spec.cluster_ip.as_deref() != Some("None") {
        errors.required(&path.child("ports"), "");
    }
    service_ports(&mut errors, &path.child("ports"), ports);
    let before = old.and_then(|old| old.spec.as_ref()).and_then(|old| old.cluster_ip.as_deref());
    if let Some(before) = before.filter(|before| !is_external && spec.cluster_ip.as_deref() != Some(before)) {
        let now = spec.cluster_ip.as_deref().unwrap_or_default();
        errors.invalid(&path.child("clusterIPs").index(0), now, format!("may not change once set to {before:?}"));
    }
    errors.into_vec()
}

/// One IPv4 address, or `None`; from outside nobody gets in by a Service.
fn addresses(errors: &mut Errors, path: &Path<'_>, spec: &ServiceSpec) {
    let from_outside = [
        ("externalIPs", spec.external_ips.as_ref().is_some_and(|list| !list.is_empty())),
        ("loadBalancerIP", spec.load_balancer_ip.as_ref().is_some_and(|text| !text.is_empty())),
    ];
    for (field, is_set) in from_outside {
        if is_set {
            errors
                .forbidden(&path.child(field), "monopod does not support this field yet: nothing forwards to Services");
        }
    }
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    let field = path.child("clusterIPs");
    if !matches!(address, "" | "None") && address.parse::<std::net::Ipv4Addr>().is_err() {
        let fault = "must be a valid IP address, of IPv4 here";
        errors.invalid(&field.index(0), address, fault);
    }
    match list {
        [_] if address.is_empty() => {
            errors.invalid(&field, list.to_vec(), "must be empty when `clusterIP` is not specified");
        }
        [first] if first != address => errors.invalid(&field, list.to_vec(), "first value must match `clusterIP`"),
        [] | [_] => {}
        [_, _, ..] => errors.forbidden(&field, "monopod does not support this field yet with more than one address"),
    }
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    if is_external && !address.is_empty() {
        errors.forbidden(&path.child("clusterIPs"), "may not be set when `type` is 'ExternalName'");
    }
}

fn service_ports(errors: &mut Errors, path: &Path<'_>, ports: &[ServicePort]) {
    let (mut numbers, mut port_names) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            errors.required(&path.child("name"), "");
        }
        if !name.is_empty() {
            for fault in names::dns_label(name) {
                errors.invalid(&path.child("name"), name, fault);
            }
            if !port_names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        for fault in names::port_number(i64::from(port.port)) {
            errors.invalid(&path.child("port"), port.port, fault);
        }
        one_of(errors, &path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS);
        let target = path.child("targetPort");
        match &port.target_port {
            Some(IntOrString::Int(number)) => {
                for fault in names::port_number(i64::from(*number)) {
                    errors.invalid(&target, *number, fault);
                }
            }
            Some(IntOrString::String(name)) => {
                for fault in names::port_name(name) {
                    errors.invalid(&target, name.as_str(), fault);
                }
            }
            None => {}
        }
        if !numbers.insert((port.protocol.as_deref(), port.port)) {
            let what = serde_json::json!({"port": port.port, "protocol": port.protocol});
            errors.duplicate(&path, what);
        }
    }
}

/// Checks an EndpointSlice.
pub fn validate_endpoint_slice(new: &EndpointSlice, old: Option<&EndpointSlice>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let kind = Path::root("addressType");
    one_of(&mut errors, &kind, Some(&new.address_type), &["FQDN", "IPv4", "IPv6"]);
    if old.is_some_and(|old| old.address_type != new.address_type) {
        errors.invalid(&kind, new.address_type.as_str(), "field is immutable");
    }
    let path = Path::root("endpoints");
    for (index, endpoint) in new.endpoints.iter().flatten().enumerate() {
        let path = path.index(index);
        let path = path.child("addresses");
        if endpoint.addresses.is_empty() {
            errors.required(&path, "must contain at least 1 address");
        }
        for (index, address) in endpoint.addresses.iter().enumerate() {
            let faults = match new.address_type.as_str() {
                "FQDN" => names::dns_subdomain(address),
                _ => names::ip_address(address),
            };
            for fault in faults {
                errors.invalid(&path.index(index), address.as_str(), fault);
            }
        }
    }
    let path = Path::root("ports");
    for (index, port) in new.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        one_of(&mut errors, &path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS);
        for fault in port.port.map_or_else(Vec::new, |port| names::port_number(i64::from(port))) {
            errors.invalid(&path.child("port"), port.port, fault);
        }
    }
    errors.into_vec()
}

/// Checks Endpoints.
pub fn validate_endpoints(new: &Endpoints, _old: Option<&Endpoints>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("subsets");
    for (index, subset) in new.subsets.iter().flatten().enumerate() {
        let path = path.index(index);
        let (ready, not_ready) = (subset.addresses.as_deref(), subset.not_ready_addresses.as_deref());
        let lists = [("addresses", ready), ("notReadyAddresses", not_ready)];
        if lists.iter().all(|(_, list)| list.unwrap_or_default().is_empty()) {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (field, list) in lists {
            let path = path.child(field);
            for (index, address) in list.unwrap_or_default().iter().enumerate() {
                for fault in names::ip_address(&address.ip) {
                    errors.invalid(&path.index(index).child("ip"), address.ip.as_str(), fault);
                }
            }
        }
        let path = path.child("ports");
        for (index, port) in subset.ports.iter().flatten().enumerate() {
            let path = path.index(index);
            one_of(&mut errors, &path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS);
            for fault in names::port_number(i64::from(port.port)) {
                errors.invalid(&path.child("port"), port.port, fault);
            }
        }
    }
    errors.into_vec()
}
