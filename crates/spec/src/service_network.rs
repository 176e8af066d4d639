//! The network that Services get their addresses from, such as `10.96.0.0/16`, and their ports on the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::field::{FieldError, FieldReason};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

/// Where the network is not named.
pub const DEFAULT: &str = "10.96.0.0/16";

const SHORTEST_PREFIX: u8 = 8;
const LONGEST_PREFIX: u8 = 30;
/// The API server's default of `--service-node-port-range`.
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;

/// An IPv4 network of which neither the first nor the last address is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceNetwork {
    network: Ipv4Addr,
    prefix_length: u8,
}

/// What other Services have.
#[derive(Debug, Default)]
pub struct Taken {
    /// Their addresses.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Their ports on the node.
    pub node_ports: BTreeSet<i32>,
}

impl Taken {
    /// Notes what one Service has.
    pub fn add(&mut self, spec: &ServiceSpec) {
        self.addresses.extend(spec.cluster_ip.as_deref().and_then(|text| text.parse::<Ipv4Addr>().ok()));
        let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
        self.node_ports.extend(ports.chain(spec.health_check_node_port).filter(|port| *port != 0));
    }
}

impl ServiceNetwork {
    /// Reads `ADDRESS/LENGTH`; says in one sentence what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("it must have the form {DEFAULT}");
        let (address, length) = text.split_once('/').ok_or_else(form)?;
        let network: Ipv4Addr = address.parse().map_err(|_invalid| form())?;
        let prefix_length: u8 = length.parse().map_err(|_invalid| form())?;
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&prefix_length) {
            return Err(format!("its prefix length must be from {SHORTEST_PREFIX} to {LONGEST_PREFIX}"));
        }
        let this = Self { network, prefix_length };
        if network.to_bits() & this.host_bits() != 0 {
            let first = Ipv4Addr::from_bits(network.to_bits() & !this.host_bits());
            return Err(format!("bits are set behind its prefix: write {first}/{prefix_length}"));
        }
        Ok(this)
    }

    /// The first address: the API's.
    pub fn api(self) -> Ipv4Addr {
        self.fixed(1)
    }

    /// The tenth address, as clusters have it: where names are asked.
    pub fn dns(self) -> Ipv4Addr {
        self.fixed(10)
    }

    /// The network's own address.
    pub fn address(self) -> Ipv4Addr {
        self.network
    }

    /// How many bits all addresses have in common.
    pub fn prefix_length(self) -> u8 {
        self.prefix_length
    }

    /// In the smallest networks it is the last one.
    fn fixed(self, position: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + position.min(self.host_bits() - 1))
    }

    /// Whether the two networks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let host_bits = self.host_bits() | other.host_bits();
        self.network.to_bits() & !host_bits == other.network.to_bits() & !host_bits
    }

    fn host_bits(self) -> u32 {
        u32::MAX >> self.prefix_length
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        let position = address.to_bits().wrapping_sub(self.network.to_bits());
        (1..self.host_bits()).contains(&position)
    }

    /// A free address, looked for from a drawn place on: of the upper part as long as there is one, since people choose
    /// fixed ones from the lower (KEP-3070).
    fn free(self, taken: &BTreeSet<Ipv4Addr>, draw: u32) -> Option<Ipv4Addr> {
        let last = self.host_bits() - 1;
        let fixed = (last / 16).clamp(16, 256).min(last);
        let address = |position: u32| Ipv4Addr::from_bits(self.network.to_bits() + position);
        let count = last - fixed;
        let upper = (0..count).map(|step| fixed + 1 + (draw % count.max(1) + step) % count);
        upper.chain(1..=fixed).map(address).find(|address| !taken.contains(address))
    }
}

impl fmt::Display for ServiceNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.prefix_length)
    }
}

/// Takes over what the Service was given before: a client that writes it back without that means no change. One that
/// becomes a name of something else gives its address up.
pub fn keep(service: &mut Service, old: Option<&Service>) {
    let (Some(spec), Some(old)) = (&mut service.spec, old.and_then(|old| old.spec.as_ref())) else { return };
    if spec.type_.as_deref() == Some("ExternalName") {
        if old.cluster_ip == spec.cluster_ip {
            (spec.cluster_ip, spec.cluster_ips, spec.ip_families, spec.ip_family_policy) = (None, None, None, None);
        }
        return;
    }
    if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
        spec.cluster_ip.clone_from(&old.cluster_ip);
    }
    if spec.ip_family_policy.is_none() {
        spec.ip_family_policy.clone_from(&old.ip_family_policy);
        spec.ip_families = spec.ip_families.take().or_else(|| old.ip_families.clone());
    }
    if !has_node_ports(spec) {
        return;
    }
    for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
        let same =
            old.ports.iter().flatten().find(|other| (other.port, &other.protocol) == (port.port, &port.protocol));
        port.node_port = same.and_then(|same| same.node_port);
    }
}

/// Gives a Service what it asks for, or what is free, and states its families (apiserver,
/// `pkg/registry/core/service/storage/alloc.go`). What it has already stays.
pub fn assign(
    service: &mut Service,
    old: Option<&Service>,
    network: ServiceNetwork,
    taken: &Taken,
    draw: u32,
) -> Result<(), FieldError> {
    let Some(spec) = service.spec.as_mut().filter(|spec| spec.type_.as_deref() != Some("ExternalName")) else {
        return Ok(());
    };
    let old = old.and_then(|old| old.spec.as_ref());
    assign_families(spec)?;
    if spec.cluster_ip.as_deref() != Some("None") {
        assign_address(spec, old, network, taken, draw)?;
    }
    if has_node_ports(spec) { assign_node_ports(spec, old, taken, draw) } else { Ok(()) }
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
}

fn assign_families(spec: &mut ServiceSpec) -> Result<(), FieldError> {
    let is_for_nobody =
        spec.cluster_ip.as_deref() == Some("None") && spec.selector.as_ref().is_none_or(BTreeMap::is_empty);
    let usual = if is_for_nobody { "RequireDualStack" } else { "SingleStack" };
    let policy = spec.ip_family_policy.get_or_insert_with(|| usual.to_owned()).clone();
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push("IPv4".to_owned());
    }
    if is_for_nobody {
        if policy != "SingleStack" && families.len() == 1 {
            let other = if families.iter().any(|family| family == "IPv4") { "IPv6" } else { "IPv4" };
            families.push(other.to_owned());
        }
        return Ok(());
    }
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(invalid("spec.ipFamilyPolicy", policy, detail));
    }
    match families.iter().position(|family| family != "IPv4") {
        Some(index) => {
            let family = families.swap_remove(index);
            Err(invalid(&format!("spec.ipFamilies[{index}]"), family, "not configured on this cluster"))
        }
        None => Ok(()),
    }
}

fn assign_address(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    network: ServiceNetwork,
    taken: &Taken,
    draw: u32,
) -> Result<(), FieldError> {
    let wanted = spec.cluster_ip.clone().filter(|text| !text.is_empty());
    let has_it = old.is_some_and(|old| wanted.is_some() && old.cluster_ip == wanted);
    let failed = |why: String| {
        let list: Vec<String> = wanted.iter().cloned().collect();
        invalid("spec.clusterIPs", list, &why)
    };
    let address = match wanted.as_deref().map(str::parse::<Ipv4Addr>) {
        // Validation has refused it already.
        Some(Err(_invalid)) => return Ok(()),
        Some(Ok(address)) if has_it => address,
        Some(Ok(address)) if !network.contains(address) => {
            return Err(failed(format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of \
                 valid IPs is {network}"
            )));
        }
        Some(Ok(address)) if taken.addresses.contains(&address) => {
            return Err(failed(format!("failed to allocate IP {address}: provided IP is already allocated")));
        }
        Some(Ok(address)) => address,
        None => {
            let free = network.free(&taken.addresses, draw);
            free.ok_or_else(|| failed(format!("failed to allocate IP: range {network} is full")))?
        }
    };
    spec.cluster_ip = Some(address.to_string());
    spec.cluster_ips = Some(vec![address.to_string()]);
    Ok(())
}

fn assign_node_ports(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    taken: &Taken,
    draw: u32,
) -> Result<(), FieldError> {
    let may_draw = spec.allocate_load_balancer_node_ports != Some(false);
    let mut own = Taken::default();
    if let Some(old) = old {
        own.add(old);
    }
    let count = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let start = i32::try_from(draw % 2768).unwrap_or_default();
    let mut taken_now = taken.node_ports.clone();
    for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
        let wanted = port.node_port.unwrap_or(0);
        let failed = |why: &str| Err(invalid(&format!("spec.ports[{index}].nodePort"), wanted, why));
        if wanted == 0 {
            let mut all = (0..count).map(|step| NODE_PORTS.start() + (start + step) % count);
            if may_draw {
                port.node_port = all.find(|number| !taken_now.contains(number) && !own.node_ports.contains(number));
            }
        } else if own.node_ports.contains(&wanted) {
            // It has had it.
        } else if !NODE_PORTS.contains(&wanted) {
            return failed("provided port is not in the valid range. The range of valid ports is 30000-32767");
        } else if taken.node_ports.contains(&wanted) {
            return failed("provided port is already allocated");
        }
        taken_now.extend(port.node_port);
    }
    Ok(())
}

fn invalid(field: &str, value: impl Into<Value>, detail: &str) -> FieldError {
    let (field, detail) = (field.to_owned(), detail.to_owned());
    FieldError { field, reason: FieldReason::Invalid, value: value.into(), detail }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network() -> ServiceNetwork {
        ServiceNetwork::parse("10.96.0.0/24").unwrap()
    }

    fn assigned(spec: Value, old: Option<Value>) -> Result<Value, String> {
        let service = |spec: Value| serde_json::from_value::<Service>(json!({ "metadata": {}, "spec": spec })).unwrap();
        let mut taken = Taken::default();
        let other = json!({"clusterIP": "10.96.0.17", "ports": [{"port": 1, "nodePort": 30_000}]});
        taken.add(service(other).spec.as_ref().unwrap());
        let (mut wanted, old) = (service(spec), old.map(service));
        keep(&mut wanted, old.as_ref());
        let outcome = assign(&mut wanted, old.as_ref(), network(), &taken, 0);
        outcome.map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(wanted.spec).unwrap())
    }

    #[test]
    fn a_service_gets_a_free_address_and_keeps_it() {
        let made = assigned(json!({"type": "ClusterIP", "ports": [{"port": 80}]}), None).unwrap();
        // 16 are left for people; the first above them is another's.
        assert_eq!((&made["clusterIP"], &made["clusterIPs"]), (&json!("10.96.0.18"), &json!(["10.96.0.18"])));
        assert_eq!((&made["ipFamilies"], &made["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
        let again = assigned(json!({"type": "ClusterIP", "ports": [{"port": 81}]}), Some(made.clone())).unwrap();
        assert_eq!(again["clusterIP"], made["clusterIP"]);
        let name = json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.96.0.18"});
        assert_eq!(assigned(name, Some(made)).unwrap(), json!({"type": "ExternalName", "externalName": "x"}));
    }

    #[test]
    fn who_wants_an_address_must_find_it_free_and_inside() {
        let wish = |address: &str| assigned(json!({"clusterIP": address, "ports": [{"port": 80}]}), None);
        assert_eq!(wish("10.96.0.5").unwrap()["clusterIP"], "10.96.0.5");
        for (address, why) in [
            ("10.96.0.17", "failed to allocate IP 10.96.0.17: provided IP is already allocated"),
            (
                "10.96.0.255",
                "the provided IP (10.96.0.255) is not in the valid range. The range of valid IPs is 10.96.0.0/24",
            ),
            ("10.85.0.1", "the provided IP (10.85.0.1) is not in the valid range."),
        ] {
            assert!(wish(address).unwrap_err().contains(why), "{address}");
        }
        let outside = json!({"clusterIP": "10.85.0.1", "ports": [{"port": 6440}]});
        assert!(assigned(outside.clone(), Some(outside)).is_ok(), "what it has it keeps");
    }

    #[test]
    fn headless_ones_have_families_but_no_address() {
        let headless = |selector: Value| assigned(json!({"clusterIP": "None", "selector": selector}), None).unwrap();
        let for_pods = headless(json!({"a": "b"}));
        assert_eq!((&for_pods["ipFamilies"], &for_pods["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
        assert_eq!(headless(Value::Null)["ipFamilies"], json!(["IPv4", "IPv6"]));
        let dual = assigned(json!({"ipFamilyPolicy": "RequireDualStack"}), None).unwrap_err();
        assert!(dual.contains("this cluster is not configured for dual-stack services"), "{dual}");
        let six = assigned(json!({"ipFamilies": ["IPv6"]}), None).unwrap_err();
        assert!(six.contains("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"), "{six}");
    }

    #[test]
    fn ports_of_the_node_are_drawn_and_kept() {
        let ports = json!([{"port": 80}, {"port": 81}]);
        let made = assigned(json!({"type": "NodePort", "ports": ports}), None).unwrap();
        assert_eq!(made["ports"], json!([{"port": 80, "nodePort": 30001}, {"port": 81, "nodePort": 30002}]));
        let fewer = assigned(json!({"type": "NodePort", "ports": [{"port": 81}]}), Some(made)).unwrap();
        assert_eq!(fewer["ports"], json!([{"port": 81, "nodePort": 30002}]));
        let wish = |port: i32| assigned(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}), None);
        assert!(wish(30_000).unwrap_err().contains("provided port is already allocated"));
        assert!(wish(80).unwrap_err().contains("not in the valid range"));
        let plain = assigned(json!({"type": "ClusterIP", "ports": [{"port": 80}]}), None).unwrap();
        assert_eq!(plain["ports"], json!([{"port": 80}]));
    }

    #[test]
    fn a_network_is_read_and_compared() {
        let parse = |text: &str| ServiceNetwork::parse(text);
        let smallest = parse("10.0.0.0/30").unwrap();
        let fixed = [parse("10.96.0.0/16").unwrap().api(), parse("10.96.0.0/16").unwrap().dns(), smallest.dns()];
        assert_eq!(fixed.map(|address| address.to_string()), ["10.96.0.1", "10.96.0.10", "10.0.0.2"]);
        assert!(parse("10.96.0.0/12").unwrap().overlaps(parse("10.99.0.0/16").unwrap()));
        assert!(!parse("10.96.0.0/16").unwrap().overlaps(parse("10.85.0.0/16").unwrap()));
        assert_eq!(parse("10.96.0.1/16").unwrap_err(), "bits are set behind its prefix: write 10.96.0.0/16");
        assert!(parse("10.96.0.0").is_err() && parse("10.0.0.0/31").is_err() && parse("fd00::/64").is_err());
        let full: BTreeSet<Ipv4Addr> = (1..=2).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect();
        assert_eq!(parse("10.0.0.0/30").unwrap().free(&full, 7), None);
    }
}
