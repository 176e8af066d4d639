//! Rules for the ports of containers, and for those of the node that a Pod wants.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

use super::{names, pod};
use crate::field::{Errors, Path};

/// The ports of one container.
pub(super) fn ports(errors: &mut Errors, path: &Path<'_>, ports: &[ContainerPort]) {
    let mut names_seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let faults = names::port_name(name);
            if faults.is_empty() && !names_seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
            for fault in faults {
                errors.invalid(&path.child("name"), name, fault);
            }
        }
        if port.container_port == 0 {
            errors.required(&path.child("containerPort"), "");
        } else {
            for fault in names::port_number(port.container_port.into()) {
                errors.invalid(&path.child("containerPort"), port.container_port, fault);
            }
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            for fault in names::port_number(number.into()) {
                errors.invalid(&path.child("hostPort"), number, fault);
            }
        }
        if let Some(address) = port.host_ip.as_deref().filter(|address| !address.is_empty()) {
            for fault in names::ip_address(address) {
                errors.invalid(&path.child("hostIP"), address, fault);
            }
        }
        pod::one_of(errors, &path.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    }
}

/// Ports of the node: each once in a Pod (init containers, which run one after another, do not count), and with the
/// node's network the very ports of the containers.
pub(super) fn host_ports(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let sidecars: Vec<(usize, &Container)> = spec.init_containers.iter().flatten().enumerate().collect();
    let sidecars = sidecars.into_iter().filter(|(_, init)| init.restart_policy.as_deref() == Some("Always"));
    let apps = spec.containers.iter().enumerate();
    let lists = apps.map(|found| ("containers", found)).chain(sidecars.map(|found| ("initContainers", found)));
    let mut seen = HashSet::new();
    for (list, (index, container)) in lists {
        let list_path = path.child(list);
        let container_path = list_path.index(index);
        let ports_path = container_path.child("ports");
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let port_path = ports_path.index(index);
            let number = port.host_port.unwrap_or_default();
            if spec.host_network == Some(true) && number != port.container_port {
                let fault = "must match `hostPort` when `hostNetwork` is true";
                errors.invalid(&port_path.child("containerPort"), port.container_port, fault);
            }
            let protocol = port.protocol.as_deref().unwrap_or_default();
            let key = format!("{protocol}/{}/{number}", port.host_ip.as_deref().unwrap_or_default());
            if number != 0 && !seen.insert(key.clone()) {
                errors.duplicate(&port_path.child("hostPort"), key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn faults(spec: &Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec.clone()).unwrap();
        let mut errors = Errors::default();
        let path = Path::root("spec");
        host_ports(&mut errors, &path, &spec);
        let container_path = path.child("containers");
        for (index, container) in spec.containers.iter().enumerate() {
            let container_path = container_path.index(index);
            ports(&mut errors, &container_path.child("ports"), container.ports.as_deref().unwrap_or_default());
        }
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_port_of_the_node_is_taken_once() {
        let port = |number: i32| json!({"containerPort": 80, "hostPort": number, "protocol": "TCP"});
        let at = |address: &str| json!({"containerPort": 80, "hostPort": 8080, "hostIP": address, "protocol": "TCP"});
        let spec = |one: Value, other: Value| json!({"containers": [{"name": "a", "ports": [one]}, {"name": "b", "ports": [other]}]});
        let table: &[(Value, &[&str])] = &[
            (spec(port(8080), port(8081)), &[]),
            (spec(at("127.0.0.1"), at("192.0.2.1")), &[]),
            (spec(port(0), port(0)), &[]),
            (spec(port(8080), port(8080)), &["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//8080\""]),
            (
                spec(port(70000), at("localhost")),
                &[
                    "spec.containers[0].ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                    "spec.containers[1].ports[0].hostIP: Invalid value: \"localhost\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(faults(spec), *expected, "{spec}");
        }
        let init = json!([{"name": "i", "ports": [port(8080)]}, {"name": "s", "restartPolicy": "Always", "ports": [port(8080)]}]);
        let spec = json!({"containers": [{"name": "a", "ports": [port(8080)]}], "initContainers": init});
        assert_eq!(faults(&spec), ["spec.initContainers[1].ports[0].hostPort: Duplicate value: \"TCP//8080\""]);
    }

    #[test]
    fn with_the_nodes_network_ports_are_the_nodes() {
        let port = json!({"containerPort": 80, "hostPort": 8080, "protocol": "TCP"});
        let spec = json!({"hostNetwork": true, "containers": [{"name": "a", "ports": [port]}]});
        let expected = "spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when \
            `hostNetwork` is true";
        assert_eq!(faults(&spec), [expected]);
    }
}
