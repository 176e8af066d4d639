//! What the endpoints of a Service are: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use spec::k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use spec::k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use spec::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use spec::ordered::sort_by;

use crate::pod::ServedPod;

/// Label of a slice: its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of a slice: who writes it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who writes those of Services with a selector, in every cluster.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of a slice of a Service without an address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// Which addresses a slice holds, and their ports: Pods of which a named port has another number stand in another slice.
pub type Group = (String, Vec<PortEntry>);

/// Port of an endpoint, to be sorted: name, protocol, number, application protocol.
pub type PortEntry = (String, String, i32, Option<String>);

/// The endpoints of a Service, for each family of addresses and set of ports.
pub fn endpoints_by_ports(service: &Service, pods: &[ServedPod<'_>]) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in families(service) {
        for pod in pods.iter().filter(|pod| !pod.is_terminal()) {
            let addresses: Vec<String> = pod
                .addresses()
                .iter()
                .filter_map(|text| text.parse::<IpAddr>().ok())
                .filter(|address| address.is_ipv4() == (family == "IPv4"))
                .map(|address| address.to_string())
                .collect();
            if !addresses.is_empty() {
                let group = (family.clone(), ports(service, pod));
                groups.entry(group).or_default().push(endpoint(service, pod, addresses));
            }
        }
    }
    groups
}

/// The families that a Service has, as slices call them.
pub fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".to_owned()] } else { families }
}

/// As a slice has it.
pub fn endpoint_port((name, protocol, port, app_protocol): &PortEntry) -> EndpointPort {
    EndpointPort {
        name: Some(name.clone()),
        protocol: Some(protocol.clone()),
        port: Some(*port),
        app_protocol: app_protocol.clone(),
    }
}

/// What [`endpoint_port`] was made from.
pub fn port_entry(port: &EndpointPort) -> PortEntry {
    (
        port.name.clone().unwrap_or_default(),
        port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port.port.unwrap_or_default(),
        port.app_protocol.clone(),
    )
}

/// Labels of all slices of a Service: its own, but for those that say whose the slice is.
pub fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !has_address(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn has_address(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    !matches!(address, "" | "None")
}

/// A Pod that is asked to end is not ready, whatever its probes say; it may still serve.
fn endpoint(service: &Service, pod: &ServedPod<'_>, addresses: Vec<String>) -> Endpoint {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let publishes = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publishes || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: given(pod.text("/spec/hostname")).filter(|_| pod.text("/spec/subdomain") == name),
        node_name: given(pod.text("/spec/nodeName")),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.pod_namespace.to_owned()),
            name: Some(pod.name.to_owned()),
            uid: Some(pod.uid().to_owned()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// Ports of the Service that this Pod has.
fn ports(service: &Service, pod: &ServedPod<'_>) -> Vec<PortEntry> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut entries: Vec<PortEntry> = ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let number = target(port, &protocol, pod)?;
            Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
        })
        .collect();
    sort_by(&mut entries, Ord::cmp);
    entries
}

fn target(port: &ServicePort, protocol: &str, pod: &ServedPod<'_>) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        Some(IntOrString::String(name)) => pod.port(name, protocol),
        _ => Some(port.port),
    }
}
