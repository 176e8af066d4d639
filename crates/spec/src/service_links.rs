//! The variables by which containers find Services (kubelet, `envvars.FromServices`), named after docker's links.

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// `WEB_SERVICE_HOST`, `WEB_SERVICE_PORT`, `WEB_PORT_80_TCP` and the rest for each Service that has an address.
pub fn variables<'a>(services: impl IntoIterator<Item = &'a Service>) -> Vec<(String, String)> {
    services.into_iter().filter_map(of_service).flatten().collect()
}

/// Whether the Service has an address of its own: it is neither headless nor a name of something else.
pub fn address(service: &Service) -> Option<&str> {
    let address = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!address.is_empty() && address != "None").then_some(address)
}

fn of_service(service: &Service) -> Option<Vec<(String, String)>> {
    let address = address(service)?;
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let first = ports.first()?;
    let prefix = upper(service.metadata.name.as_deref().unwrap_or_default());
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    let named = ports.iter().filter_map(|port| Some((port.name.as_deref().filter(|name| !name.is_empty())?, port)));
    variables
        .extend(named.map(|(name, port)| (format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string())));
    variables.push((format!("{prefix}_PORT"), url(address, first)));
    variables.extend(ports.iter().flat_map(|port| links(&prefix, address, port)));
    Some(variables)
}

fn links(prefix: &str, address: &str, port: &ServicePort) -> [(String, String); 4] {
    let start = format!("{prefix}_PORT_{}_{}", port.port, protocol(port).to_uppercase());
    [
        (start.clone(), url(address, port)),
        (format!("{start}_PROTO"), protocol(port).to_lowercase()),
        (format!("{start}_PORT"), port.port.to_string()),
        (format!("{start}_ADDR"), address.to_owned()),
    ]
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn url(address: &str, port: &ServicePort) -> String {
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("{}://{address}:{}", protocol(port).to_lowercase(), port.port)
}

fn upper(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(name: &str, spec: &Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_service_with_an_address_is_found_by_the_variables_of_the_kubelet() {
        let services = [
            service(
                "my-db",
                &json!({"clusterIP": "10.0.0.7", "ports": [
                    {"name": "sql-main", "port": 5432}, {"name": "stats", "port": 9, "protocol": "UDP"},
                ]}),
            ),
            service("headless", &json!({"clusterIP": "None", "ports": [{"port": 1}]})),
            service("elsewhere", &json!({"externalName": "db.example", "ports": [{"port": 1}]})),
            service("six", &json!({"clusterIP": "fd00::7", "ports": [{"port": 80}]})),
        ];
        let found: Vec<String> =
            variables(&services).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "MY_DB_SERVICE_HOST=10.0.0.7",
            "MY_DB_SERVICE_PORT=5432",
            "MY_DB_SERVICE_PORT_SQL_MAIN=5432",
            "MY_DB_SERVICE_PORT_STATS=9",
            "MY_DB_PORT=tcp://10.0.0.7:5432",
            "MY_DB_PORT_5432_TCP=tcp://10.0.0.7:5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_ADDR=10.0.0.7",
            "MY_DB_PORT_9_UDP=udp://10.0.0.7:9",
            "MY_DB_PORT_9_UDP_PROTO=udp",
            "MY_DB_PORT_9_UDP_PORT=9",
            "MY_DB_PORT_9_UDP_ADDR=10.0.0.7",
            "SIX_SERVICE_HOST=fd00::7",
            "SIX_SERVICE_PORT=80",
            "SIX_PORT=tcp://[fd00::7]:80",
            "SIX_PORT_80_TCP=tcp://[fd00::7]:80",
            "SIX_PORT_80_TCP_PROTO=tcp",
            "SIX_PORT_80_TCP_PORT=80",
            "SIX_PORT_80_TCP_ADDR=fd00::7",
        ];
        assert_eq!(found, expected);
    }
}
