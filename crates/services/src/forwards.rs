//! Where packets to a Service go: pure. Which endpoints count is as kube-proxy has it.

use std::net::{Ipv4Addr, SocketAddrV4};

use network::{Entrance, ServiceForward, ServiceProtocol, WithoutServers};
use spec::k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use crate::catalog::{Catalog, Endpoint, Kind, kind};

/// Seconds for which a client is remembered, where the Service does not say (three hours).
const AFFINITY_SECONDS: u32 = 10_800;

/// Of all Services; an older one comes first.
pub fn forwards(catalog: &Catalog, node_name: &str) -> Vec<ServiceForward> {
    let of_service = |(key, service)| of_service(service, &catalog.endpoints(key), node_name);
    catalog.services().flat_map(of_service).collect()
}

fn of_service(service: &Service, endpoints: &[&Endpoint], node_name: &str) -> Vec<ServiceForward> {
    let (Kind::Address(own), Some(spec)) = (kind(service), &service.spec) else { return Vec::new() };
    spec.ports.iter().flatten().flat_map(|port| of_port(own, spec, port, endpoints, node_name)).collect()
}

fn of_port(
    own: Ipv4Addr,
    spec: &ServiceSpec,
    port: &ServicePort,
    endpoints: &[&Endpoint],
    node_name: &str,
) -> Vec<ServiceForward> {
    let protocol_name = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = match protocol_name {
        "UDP" => ServiceProtocol::Udp,
        "SCTP" => ServiceProtocol::Sctp,
        _ => ServiceProtocol::Tcp,
    };
    let Ok(number) = u16::try_from(port.port) else { return Vec::new() };
    let name = port.name.as_deref().unwrap_or_default();
    let servers: Vec<Server<'_>> = endpoints
        .iter()
        .flat_map(|endpoint| {
            let ports = endpoint.ports.iter();
            let same = ports.filter(|port| port.name == name && port.protocol == protocol_name);
            same.map(|port| Server { at: SocketAddrV4::new(endpoint.address, port.port), endpoint })
        })
        .collect();
    let forward = |entrance: Entrance, is_local_only: bool| {
        let (to, without_servers) = chosen(&servers, is_local_only.then_some(node_name));
        ServiceForward { entrance, protocol, to, affinity_seconds: affinity_seconds(spec), without_servers }
    };
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let from_inside = is_local(&spec.internal_traffic_policy);
    // Whoever asks from this machine by an outer address is served by all, as by the inner one.
    let from_outside = is_local(&spec.external_traffic_policy);
    let mut forwards = vec![forward(Entrance::Cluster(SocketAddrV4::new(own, number)), from_inside)];
    for address in spec.external_ips.iter().flatten().filter_map(|address| address.parse().ok()) {
        forwards.push(forward(Entrance::External(SocketAddrV4::new(address, number)), from_outside));
    }
    let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    forwards.extend(node_port.map(|port| forward(Entrance::NodePort(port), from_outside)));
    forwards
}

struct Server<'a> {
    at: SocketAddrV4,
    endpoint: &'a Endpoint,
}

/// Those that are ready; without any, those that still answer while they end. With the traffic policy Local only those
/// on this node count, and a client that finds none there is not refused: other nodes may serve it.
fn chosen(servers: &[Server<'_>], only_on: Option<&str>) -> (Vec<SocketAddrV4>, WithoutServers) {
    let is_here = |server: &&Server<'_>| only_on.is_none_or(|node| server.endpoint.node_name.as_deref() == Some(node));
    let is_ready = |server: &&Server<'_>| server.endpoint.ready;
    let is_last_resort = |server: &&Server<'_>| server.endpoint.serving && server.endpoint.terminating;
    let mut to: Vec<SocketAddrV4> = servers.iter().filter(is_here).filter(is_ready).map(|server| server.at).collect();
    if to.is_empty() {
        to = servers.iter().filter(is_here).filter(is_last_resort).map(|server| server.at).collect();
    }
    to.sort_unstable();
    to.dedup();
    let any = servers.iter().any(|server| is_ready(&server) || is_last_resort(&server));
    (to, if any { WithoutServers::Drop } else { WithoutServers::Refuse })
}

fn affinity_seconds(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    Some(seconds.filter(|seconds| *seconds > 0).unwrap_or(AFFINITY_SECONDS))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::catalog::EndpointPort;

    fn endpoint(last: u8, change: impl FnOnce(&mut Endpoint)) -> Endpoint {
        let port = |name: &str, protocol: &str, port| EndpointPort {
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            port,
        };
        let mut endpoint = Endpoint {
            address: Ipv4Addr::new(10, 85, 0, last),
            ports: vec![port("http", "TCP", 8080), port("dns", "UDP", 53)],
            ready: true,
            serving: true,
            terminating: false,
            hostname: None,
            node_name: Some("edge".to_owned()),
        };
        change(&mut endpoint);
        endpoint
    }

    fn told(spec: &Value, endpoints: &[Endpoint]) -> Vec<String> {
        let mut service = json!({"metadata": {}, "spec": {
            "clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
        service["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let service: Service = serde_json::from_value(service).unwrap();
        let endpoints: Vec<&Endpoint> = endpoints.iter().collect();
        let tell = |forward: ServiceForward| {
            let at = match forward.entrance {
                Entrance::Cluster(at) => at.to_string(),
                Entrance::External(at) => format!("external {at}"),
                Entrance::NodePort(port) => format!("node {port}"),
            };
            let to: Vec<String> = forward.to.iter().map(ToString::to_string).collect();
            let affinity = forward.affinity_seconds.map(|seconds| format!(" for {seconds} s")).unwrap_or_default();
            let to = if to.is_empty() { format!("{:?}", forward.without_servers) } else { to.join(" ") };
            format!("{at} {:?} → {to}{affinity}", forward.protocol)
        };
        of_service(&service, &endpoints, "edge").into_iter().map(tell).collect()
    }

    #[test]
    fn each_port_leads_to_the_endpoints_that_have_it() {
        let ports = json!({"type": "NodePort", "externalIPs": ["192.0.2.9"], "ports": [
            {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "none", "port": 9, "protocol": "TCP"}]});
        let only_dns = endpoint(3, |endpoint| endpoint.ports.retain(|port| port.name == "dns"));
        assert_eq!(
            told(&ports, &[endpoint(2, |_| ()), only_dns]),
            [
                "10.96.0.7:80 Tcp → 10.85.0.2:8080",
                "external 192.0.2.9:80 Tcp → 10.85.0.2:8080",
                "node 30080 Tcp → 10.85.0.2:8080",
                "10.96.0.7:53 Udp → 10.85.0.2:53 10.85.0.3:53",
                "external 192.0.2.9:53 Udp → 10.85.0.2:53 10.85.0.3:53",
                "10.96.0.7:9 Tcp → Refuse",
                "external 192.0.2.9:9 Tcp → Refuse",
            ]
        );
        assert_eq!(told(&json!({"clusterIP": "None"}), &[endpoint(2, |_| ())]), Vec::<String>::new());
        let alias = json!({"type": "ExternalName", "externalName": "x.example"});
        assert_eq!(told(&alias, &[endpoint(2, |_| ())]), Vec::<String>::new());
    }

    #[test]
    fn who_is_not_ready_serves_only_as_the_last_resort() {
        let not_ready = |last| endpoint(last, |endpoint| (endpoint.ready, endpoint.serving) = (false, false));
        let ending = |last| endpoint(last, |endpoint| (endpoint.ready, endpoint.terminating) = (false, true));
        let table: [(&[Endpoint], &str); 4] = [
            (&[endpoint(2, |_| ()), not_ready(3), ending(4)], "10.85.0.2:8080"),
            (&[not_ready(3), ending(4)], "10.85.0.4:8080"),
            (&[not_ready(3)], "Refuse"),
            (&[], "Refuse"),
        ];
        for (endpoints, expected) in table {
            assert_eq!(told(&json!({}), endpoints), [format!("10.96.0.7:80 Tcp → {expected}")]);
        }
    }

    #[test]
    fn local_traffic_stays_on_the_node() {
        let elsewhere = || endpoint(9, |endpoint| endpoint.node_name = None);
        let local = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Cluster", "type": "NodePort",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]});
        assert_eq!(
            told(&local, &[endpoint(2, |_| ()), elsewhere()]),
            ["10.96.0.7:80 Tcp → 10.85.0.2:8080", "node 30080 Tcp → 10.85.0.2:8080 10.85.0.9:8080"]
        );
        assert_eq!(told(&local, &[elsewhere()])[0], "10.96.0.7:80 Tcp → Drop");
        assert_eq!(told(&local, &[])[0], "10.96.0.7:80 Tcp → Refuse");
    }

    #[test]
    fn clients_are_remembered_for_as_long_as_the_service_says() {
        let sticky =
            |config: Value| told(&json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}), &[]);
        assert_eq!(sticky(Value::Null), ["10.96.0.7:80 Tcp → Refuse for 10800 s"]);
        assert_eq!(sticky(json!({"clientIP": {"timeoutSeconds": 5}})), ["10.96.0.7:80 Tcp → Refuse for 5 s"]);
    }
}
