//! Rules for Services, EndpointSlices and Endpoints.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::pod::one_of;
use super::{meta, names};
use crate::field::{Errors, FieldError, Path};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const LOAD_BALANCER: &str = "LoadBalancer";
/// A day.
const MAX_AFFINITY_SECONDS: i32 = 86_400;

/// Checks a Service. What the stored one breaks already does not keep it from being changed.
pub fn validate_service(new: &Service, old: Option<&Service>) -> Vec<FieldError> {
    let mut faults = rules(new);
    if let Some(old) = old {
        let known = rules(old);
        faults.retain(|fault| !known.contains(fault));
        faults.splice(0..0, changes(new, old));
    }
    faults
}

fn changes(new: &Service, old: &Service) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return Vec::new() };
    let is_external = new.type_.as_deref() == Some("ExternalName");
    if let Some(before) = old.cluster_ip.as_deref().filter(|_| !is_external && new.cluster_ip != old.cluster_ip) {
        let now = new.cluster_ip.as_deref().unwrap_or_default();
        errors.invalid(&path.child("clusterIPs").index(0), now, format!("may not change once set to {before:?}"));
    }
    let is_balanced = |spec: &ServiceSpec| spec.type_.as_deref() == Some(LOAD_BALANCER);
    if is_balanced(new) && is_balanced(old) && new.load_balancer_class != old.load_balancer_class {
        let now = new.load_balancer_class.as_deref();
        errors.invalid(&path.child("loadBalancerClass"), now, "may not change once set");
    }
    errors.into_vec()
}

/// In the order of Kubernetes' `validateService`.
fn rules(service: &Service) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let path = Path::root("spec");
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let kind = spec.type_.as_deref().unwrap_or_default();
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && kind != "ExternalName" && !is_headless {
        errors.required(&path.child("ports"), "");
    }
    if is_headless && matches!(kind, LOAD_BALANCER | "NodePort") {
        let fault = format!("may not be set to 'None' for {kind} services");
        errors.invalid(&path.child("clusterIPs").index(0), "None", fault);
    }
    if kind == "ExternalName" {
        external_name(&mut errors, &path, spec);
    }
    service_ports(&mut errors, &path.child("ports"), ports);
    if let Some(selector) = &spec.selector {
        meta::labels(&mut errors, &path.child("selector"), selector);
    }
    let affinity = spec.session_affinity.as_deref();
    one_of(&mut errors, &path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let config = spec.session_affinity_config.as_ref().filter(|_| affinity == Some("ClientIP"));
    let timeout = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    if let Some(seconds) = timeout.filter(|seconds| !(1..=MAX_AFFINITY_SECONDS).contains(seconds)) {
        let path = path.child("sessionAffinityConfig");
        let fault = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.invalid(&path.child("clientIP").child("timeoutSeconds"), seconds, fault);
    }
    addresses(&mut errors, &path, spec);
    one_of(&mut errors, &path.child("type"), Some(kind), &["ClusterIP", "ExternalName", LOAD_BALANCER, "NodePort"]);
    port_conflicts(&mut errors, &path.child("ports"), ports, kind);
    load_balancer(&mut errors, &path, spec, kind);
    traffic(&mut errors, &path, spec, kind);
    errors.into_vec()
}

fn external_name(errors: &mut Errors, path: &Path<'_>, spec: &ServiceSpec) {
    for (field, is_set) in [
        (
            "clusterIPs",
            [&spec.cluster_ip]
                .into_iter()
                .flatten()
                .chain(spec.cluster_ips.iter().flatten())
                .any(|text| !text.is_empty()),
        ),
        ("ipFamilies", spec.ip_families.as_ref().is_some_and(|list| !list.is_empty())),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ] {
        if is_set {
            errors.forbidden(&path.child(field), "may not be set for ExternalName services");
        }
    }
    let path = path.child("externalName");
    let name = spec.external_name.as_deref().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required(&path, "");
    } else {
        of_form(errors, &path, name, names::dns_subdomain(name));
    }
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
    if spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    let field = path.child("clusterIPs");
    match list {
        [_] if address.is_empty() => {
            errors.invalid(&field, list.to_vec(), "must be empty when `clusterIP` is not specified");
        }
        [first] if first != address => errors.invalid(&field, list.to_vec(), "first value must match `clusterIP`"),
        [] | [_] => {}
        [_, _, ..] => errors.forbidden(&field, "monopod does not support this field yet with more than one address"),
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let families_path = path.child("ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let path = families_path.index(index);
        known(errors, &path, Some(family), &["IPv4", "IPv6"]);
        if families.iter().take(index).any(|other| other == family) {
            errors.duplicate(&path, family.as_str());
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    known(errors, &path.child("ipFamilyPolicy"), spec.ip_family_policy.as_deref(), &policies);
    if !matches!(address, "" | "None") && address.parse::<std::net::Ipv4Addr>().is_err() {
        let fault = "must be a valid IP address, of IPv4 here";
        errors.invalid(&field.index(0), address, fault);
    }
}

fn service_ports(errors: &mut Errors, path: &Path<'_>, ports: &[ServicePort]) {
    let mut port_names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            errors.required(&path.child("name"), "");
        }
        if !name.is_empty() {
            of_form(errors, &path.child("name"), name, names::dns_label(name));
            if !port_names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        of_form(errors, &path.child("port"), port.port, names::port_number(i64::from(port.port)));
        one_of(errors, &path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS);
        let target = path.child("targetPort");
        match &port.target_port {
            Some(IntOrString::Int(number)) => {
                of_form(errors, &target, *number, names::port_number(i64::from(*number)));
            }
            Some(IntOrString::String(name)) => of_form(errors, &target, name.as_str(), names::port_name(name)),
            None => {}
        }
        if let Some(protocol) = port.app_protocol.as_deref() {
            of_form(errors, &path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

/// Ports of the node where there are none, and ports that stand twice.
fn port_conflicts(errors: &mut Errors, path: &Path<'_>, ports: &[ServicePort], kind: &str) {
    let of_node = |port: &ServicePort| port.node_port.filter(|number| *number != 0);
    if kind == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, port)| of_node(port).is_some()) {
            errors.forbidden(&path.index(index).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        if let Some(number) = of_node(port).filter(|number| !seen.insert((port.protocol.as_deref(), *number))) {
            errors.duplicate(&path.index(index).child("nodePort"), number);
        }
    }
    seen.clear();
    for (index, port) in ports.iter().enumerate() {
        if !seen.insert((port.protocol.as_deref(), port.port)) {
            errors.duplicate(&path.index(index), serde_json::json!({"port": port.port, "protocol": port.protocol}));
        }
    }
}

fn load_balancer(errors: &mut Errors, path: &Path<'_>, spec: &ServiceSpec, kind: &str) {
    let only_balanced = |errors: &mut Errors, path: &Path<'_>, is_set: bool| {
        if is_set && kind != LOAD_BALANCER {
            errors.forbidden(path, "may only be used when `type` is 'LoadBalancer'");
        }
    };
    // Kubernetes writes this one with a capital.
    let ranges_path = path.child("LoadBalancerSourceRanges");
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    only_balanced(errors, &ranges_path, !ranges.is_empty());
    for (index, range) in ranges.iter().enumerate() {
        of_form(errors, &ranges_path.index(index), range.trim(), names::cidr(range.trim()));
    }
    let allocate = &spec.allocate_load_balancer_node_ports;
    only_balanced(errors, &path.child("allocateLoadBalancerNodePorts"), allocate.is_some());
    let class_path = path.child("loadBalancerClass");
    let class = spec.load_balancer_class.as_deref();
    only_balanced(errors, &class_path, class.is_some());
    if let Some(class) = class.filter(|_| kind == LOAD_BALANCER) {
        of_form(errors, &class_path, class, names::qualified_name(class));
    }
}

fn traffic(errors: &mut Errors, path: &Path<'_>, spec: &ServiceSpec, kind: &str) {
    const POLICIES: [&str; 2] = ["Cluster", "Local"];
    let external_path = path.child("externalTrafficPolicy");
    let external = spec.external_traffic_policy.as_deref().filter(|policy| !policy.is_empty());
    let is_reachable = match kind {
        LOAD_BALANCER | "NodePort" => true,
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|list| !list.is_empty()),
        _ => false,
    };
    match external {
        Some(policy) if !is_reachable => {
            errors.invalid(&external_path, policy, "may only be set for externally-accessible services");
        }
        _ => known(errors, &external_path, external, &POLICIES),
    }
    let port_path = path.child("healthCheckNodePort");
    match spec.health_check_node_port {
        None | Some(0) => {}
        Some(port) if kind == LOAD_BALANCER && external == Some("Local") => {
            of_form(errors, &port_path, port, names::port_number(i64::from(port)));
        }
        Some(port) => {
            let fault = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&port_path, port, fault);
        }
    }
    known(errors, &path.child("internalTrafficPolicy"), spec.internal_traffic_policy.as_deref(), &POLICIES);
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    known(errors, &path.child("trafficDistribution"), spec.traffic_distribution.as_deref(), &distributions);
}

/// A value that may be missing, but not be an unknown word.
fn known(errors: &mut Errors, path: &Path<'_>, value: Option<&str>, words: &[&str]) {
    if let Some(value) = value.filter(|value| !words.contains(value)) {
        errors.not_supported(path, value, words);
    }
}

fn of_form(errors: &mut Errors, path: &Path<'_>, value: impl Into<Value>, faults: Vec<String>) {
    let value = value.into();
    for fault in faults {
        errors.invalid(path, value.clone(), fault);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::defaults::default_service;

    /// A Service with one port, and what else is given.
    fn service(spec: &Value) -> Service {
        let mut document = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
        for (name, value) in spec.as_object().unwrap() {
            document["spec"][name] = value.clone();
        }
        let mut service = serde_json::from_value(document).unwrap();
        default_service(&mut service);
        service
    }

    fn said(faults: &[FieldError]) -> Vec<String> {
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_breaks_no_rule_passes() {
        let port = |fields: Value| json!({"ports": [fields]});
        for spec in [
            json!({}),
            port(json!({"port": 80, "appProtocol": "kubernetes.io/h2c"})),
            json!({"clusterIP": "None", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
            json!({"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [
                {"port": 80, "name": "a", "nodePort": 30000}, {"port": 80, "name": "b", "protocol": "UDP", "nodePort": 30000},
            ]}),
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30000}),
            json!({"type": "LoadBalancer", "loadBalancerClass": "a/b", "allocateLoadBalancerNodePorts": false,
                   "loadBalancerSourceRanges": ["10.0.0.0/8", " 2001:db8::/32 ", "0.0.0.0/0", "::/0"]}),
            json!({"type": "ExternalName", "externalName": "a.b.", "ports": []}),
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}}}),
            json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            json!({"internalTrafficPolicy": "Local", "trafficDistribution": "PreferSameNode", "externalTrafficPolicy": "",
                   "healthCheckNodePort": 0, "loadBalancerSourceRanges": []}),
        ] {
            assert_eq!(said(&validate_service(&service(&spec), None)), [""; 0], "{spec}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn each_rule_has_its_sentence() {
        let timeout = |seconds: i32| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
        let ranges = |range: &str| json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [range]});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                vec!["ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"clusterIP": "None", "ports": [{"port": 80, "nodePort": 30000}]}),
                vec!["ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 80, "name": "a", "nodePort": 30000}, {"port": 81, "name": "b", "nodePort": 30000}]}),
                vec!["ports[1].nodePort: Duplicate value: 30000"],
            ),
            (
                json!({"ports": [{"port": 80, "appProtocol": "a b"}]}),
                vec![
                    "ports[0].appProtocol: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', \
                     '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
                     '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                ],
            ),
            (
                json!({"externalTrafficPolicy": "Local"}),
                vec![
                    "externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                json!({"type": "NodePort", "externalTrafficPolicy": "x"}),
                vec!["externalTrafficPolicy: Unsupported value: \"x\": supported values: \"Cluster\", \"Local\""],
            ),
            (
                json!({"internalTrafficPolicy": "x"}),
                vec!["internalTrafficPolicy: Unsupported value: \"x\": supported values: \"Cluster\", \"Local\""],
            ),
            (
                json!({"trafficDistribution": ""}),
                vec![
                    "trafficDistribution: Unsupported value: \"\": supported values: \"PreferClose\", \"PreferSameZone\", \
                     \"PreferSameNode\"",
                ],
            ),
            (
                timeout(0),
                vec![
                    "sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
                ],
            ),
            (
                timeout(86_401),
                vec![
                    "sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than \
                     86400",
                ],
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None"}),
                vec!["clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
            ),
            (
                json!({"type": "LoadBalancer", "clusterIP": "None"}),
                vec!["clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services"],
            ),
            (
                json!({"ipFamilyPolicy": "x"}),
                vec![
                    "ipFamilyPolicy: Unsupported value: \"x\": supported values: \"PreferDualStack\", \"RequireDualStack\", \
                     \"SingleStack\"",
                ],
            ),
            (
                json!({"ipFamilies": ["IPv4", "x", "IPv4"]}),
                vec![
                    "ipFamilies[1]: Unsupported value: \"x\": supported values: \"IPv4\", \"IPv6\"",
                    "ipFamilies[2]: Duplicate value: \"IPv4\"",
                ],
            ),
            (
                json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "x"]}),
                vec![
                    "LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "LoadBalancerSourceRanges[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or \
                     2001:db8::/64)",
                ],
            ),
            (
                ranges("10.0.0.1/8"),
                vec![
                    "LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
                ],
            ),
            (
                json!({"loadBalancerClass": "", "allocateLoadBalancerNodePorts": false}),
                vec![
                    "allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ],
            ),
            (
                json!({"type": "LoadBalancer", "loadBalancerClass": "a/"}),
                vec![
                    "loadBalancerClass: Invalid value: \"a/\": name part must be non-empty",
                    "loadBalancerClass: Invalid value: \"a/\": name part must consist",
                ],
            ),
            (
                json!({"type": "LoadBalancer", "healthCheckNodePort": 30000}),
                vec![
                    "healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and \
                     `externalTrafficPolicy` is 'Local'",
                ],
            ),
            (
                json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 70000}),
                vec!["healthCheckNodePort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
            ),
            (json!({"type": "ExternalName"}), vec!["externalName: Required value"]),
            (json!({"type": "ExternalName", "externalName": "."}), vec!["externalName: Required value"]),
            (
                json!({"type": "ExternalName", "externalName": "a", "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "x"}),
                vec![
                    "clusterIPs: Forbidden: may not be set for ExternalName services",
                    "ipFamilies: Forbidden: may not be set for ExternalName services",
                    "ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
                ],
            ),
        ];
        for (spec, wanted) in table {
            let found = said(&validate_service(&service(&spec), None));
            let fits = found.len() == wanted.len()
                && found.iter().zip(&wanted).all(|(found, wanted)| {
                    let found = found.strip_prefix("spec.").unwrap();
                    found == *wanted || wanted.ends_with("must consist") && found.starts_with(wanted)
                });
            assert!(fits, "{spec}\n found: {found:#?}\nwanted: {wanted:#?}");
        }
    }

    #[test]
    fn a_stored_service_stays_changeable_but_for_what_is_fixed() {
        let stored = service(&json!({"externalTrafficPolicy": "Local"}));
        let now = service(&json!({"externalTrafficPolicy": "Local", "trafficDistribution": "x"}));
        let found = said(&validate_service(&now, Some(&stored)));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("spec.trafficDistribution: "), "{found:?}");
        let balanced = |class: &str| service(&json!({"type": "LoadBalancer", "loadBalancerClass": class}));
        let found = said(&validate_service(&balanced("b"), Some(&balanced("a"))));
        assert_eq!(found, ["spec.loadBalancerClass: Invalid value: \"b\": may not change once set"]);
    }
}
