//! Which server is meant: `[http:|https:]POD[:PORT]`, or the same with a Service.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::context::Call;
use crate::fields::{items_at, text_at};
use crate::http::status::ApiError;
use crate::kinds::{ENDPOINT_SLICE, SERVICE};

/// A server in a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether its port was named, or found.
    has_port: bool,
}

impl Target {
    /// Finds the Pod, and the port: the one that is named, or else the first that the Pod declares.
    pub fn find(call: &Call, id: &str) -> Result<Self, ApiError> {
        let (scheme, name, port) = split_id(id)
            .ok_or_else(|| ApiError::bad_request(format!("invalid {} request {id:?}", call.kind.singular)))?;
        let found = call.context.store.get(&call.key(name)).ok_or_else(|| ApiError::not_found(call.kind, name))?;
        if call.kind.resource != SERVICE.resource {
            return Self::of(&found.value, scheme == "https", port);
        }
        let slices = call.context.store.list(ENDPOINT_SLICE.resource, call.pod_namespace.as_deref()).objects;
        let slices: Vec<&Value> = slices.iter().map(|slice| slice.value.as_ref()).collect();
        Self::behind(&found.value, &slices, scheme == "https", port)
    }

    /// One of the endpoints of a Service that take connections, drawn anew each time. A port is named by its name or number
    /// in the Service; the only one needs no name.
    fn behind(service: &Value, slices: &[&Value], tls: bool, port: &str) -> Result<Self, ApiError> {
        let name = text_at(service, "/metadata/name");
        let unavailable =
            |message: String| ApiError::plain(http::StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        let port_name = match port.parse::<u64>() {
            Ok(number) => {
                let mut ports = items_at(service, "/spec/ports");
                let found = ports.find(|port| port.get("port").and_then(Value::as_u64) == Some(number));
                let missing = || unavailable(format!("no service port {number} found for service {name:?}"));
                text_at(found.ok_or_else(missing)?, "/name")
            }
            Err(_name) => port,
        };
        let of = |slice: &Value| slice.pointer("/metadata/labels/kubernetes.io~1service-name").cloned();
        let own = slices.iter().filter(|slice| of(slice) == Some(Value::from(name)));
        let candidates: Vec<SocketAddr> = own
            .flat_map(|slice| {
                let mut ports = items_at(slice, "/ports");
                let port = ports.find(|port| text_at(port, "/name") == port_name);
                let number = port.and_then(|port| port.get("port")?.as_u64()).and_then(|port| u16::try_from(port).ok());
                let ready = items_at(slice, "/endpoints")
                    .filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)));
                let first =
                    ready.filter_map(|endpoint| endpoint.pointer("/addresses/0")?.as_str()?.parse::<IpAddr>().ok());
                first.filter_map(move |address| Some(SocketAddr::new(address, number?)))
            })
            .collect();
        let Some(address) = candidates.get(rand::random_range(0..candidates.len().max(1))) else {
            return Err(unavailable(format!("no endpoints available for service {name:?}")));
        };
        if !is_global_unicast(address.ip()) {
            return Err(ApiError::bad_request("address not allowed"));
        }
        Ok(Self { address: *address, tls, has_port: true })
    }

    fn of(pod: &Value, tls: bool, port: &str) -> Result<Self, ApiError> {
        let declared = || {
            let mut ports = items_at(pod, "/spec/containers").filter_map(|container| container.pointer("/ports/0"));
            ports.find_map(|port| port.get("containerPort")?.as_u64()).map(|port| port.to_string())
        };
        let port = if port.is_empty() { declared() } else { Some(port.to_owned()) };
        let has_port = port.is_some();
        let default = if tls { 443 } else { 80 };
        let number = port.map_or(Ok(default), |port| port.parse::<u16>());
        let number = number.map_err(|error| ApiError::bad_request(format!("invalid port: {error}")))?;
        // One that has ended keeps its address in its status; another Pod may have it by now.
        let has_ended = matches!(text_at(pod, "/status/phase"), "Succeeded" | "Failed");
        let address: Option<IpAddr> = text_at(pod, "/status/podIP").parse().ok().filter(|_| !has_ended);
        // What a Pod says of itself must not lead to the machine's own loopback.
        let address = address.filter(|address| is_global_unicast(*address));
        let address = address.ok_or_else(|| ApiError::bad_request("address not allowed"))?;
        Ok(Self { address: SocketAddr::new(address, number), tls, has_port })
    }

    /// As a URL of the server names it.
    pub fn host(&self) -> String {
        match (self.has_port, self.address.ip()) {
            (true, _) => self.address.to_string(),
            (false, IpAddr::V6(ip)) => format!("[{ip}]"),
            (false, IpAddr::V4(ip)) => ip.to_string(),
        }
    }
}

/// Scheme, name and port; the last two are told apart from a scheme by their number.
fn split_id(id: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (!name.is_empty() && ["", "http", "https"].contains(&scheme)).then_some((scheme, name, port))
}

/// Go's `IP.IsGlobalUnicast`: private networks are among them.
fn is_global_unicast(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_link_local)
}

/// A path of the API up to `proxy`, and what follows as the client wrote it.
pub fn split(path: &str) -> Option<(&str, &str)> {
    // `/api/v1/namespaces/N/pods/P/proxy`: seven segments, between which slashes may stand twice.
    let mut found = 0;
    let mut is_inside = false;
    for (index, byte) in path.bytes().enumerate() {
        match (byte, is_inside) {
            (b'/', true) if found == 7 => return path.split_at_checked(index),
            (b'/', _) => is_inside = false,
            (_, false) => {
                is_inside = true;
                found += 1;
            }
            (_, true) => {}
        }
    }
    (found == 7 && is_inside).then_some((path, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_server_is_named_as_on_a_cluster() {
        let pod = |address: &str| {
            json!({
                "spec": {"containers": [{}, {"ports": [{"containerPort": 8080}]}]}, "status": {"podIP": address},
            })
        };
        let found = |pod: &Value, id: &str| {
            let (scheme, _, port) = split_id(id)?;
            let target = Target::of(pod, scheme == "https", port).ok()?;
            Some(format!("{}{}", if target.tls { "https " } else { "" }, target.host()))
        };
        let table = [
            ("web", Some("10.85.0.2:8080")),
            ("web:90", Some("10.85.0.2:90")),
            ("http:web:90", Some("10.85.0.2:90")),
            ("https:web:90", Some("https 10.85.0.2:90")),
            ("https:web:", Some("https 10.85.0.2:8080")),
            ("ftp:web:90", None),
            ("a:b:c:d", None),
            (":90", None),
            ("web:http", None),
        ];
        for (id, expected) in table {
            assert_eq!(found(&pod("10.85.0.2"), id).as_deref(), expected, "{id}");
        }
        for address in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "::1", "fe80::1", ""] {
            assert_eq!(found(&pod(address), "web"), None, "{address}");
        }
        let mut ended = pod("10.85.0.2");
        ended["status"]["phase"] = json!("Succeeded");
        assert_eq!(found(&ended, "web"), None);
        let bare = json!({"spec": {"containers": [{}]}, "status": {"podIP": "10.85.0.2"}});
        let target = Target::of(&bare, true, "").unwrap();
        assert_eq!((target.address.port(), target.host().as_str()), (443, "10.85.0.2"));
    }

    #[test]
    fn a_service_leads_to_an_endpoint_that_is_ready() {
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}, {"name": "x", "port": 81}]}});
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "s"}}, "ports": [{"name": "web", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.85.0.2"], "conditions": {"ready": false}}, {"addresses": ["10.85.0.3"], "conditions": {}},
            ],
        });
        let other = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "t"}}, "ports": [{"name": "x", "port": 1}],
            "endpoints": [{"addresses": ["10.85.0.9"]}],
        });
        let found = |port: &str| {
            Target::behind(&service, &[&slice, &other], false, port)
                .map(|target| target.host())
                .map_err(|e| e.to_string())
        };
        assert_eq!(found("80").unwrap(), "10.85.0.3:8080");
        assert_eq!(found("web").unwrap(), "10.85.0.3:8080");
        assert_eq!(found("81").unwrap_err(), "no endpoints available for service \"s\"");
        assert_eq!(found("").unwrap_err(), "no endpoints available for service \"s\"");
        assert_eq!(found("82").unwrap_err(), "no service port 82 found for service \"s\"");
    }

    #[test]
    fn what_follows_proxy_is_kept_as_it_is_written() {
        let table = [
            ("/api/v1/namespaces/n/pods/p/proxy", Some("")),
            ("/api/v1/namespaces/n/pods/p/proxy/", Some("/")),
            ("/api/v1/namespaces/n/pods/p/proxy/a%2Fb//c/", Some("/a%2Fb//c/")),
            ("/api//v1/namespaces/n/pods/p/proxy/proxy", Some("/proxy")),
            ("/api/v1/namespaces/n/pods/p", None),
        ];
        for (path, expected) in table {
            assert_eq!(split(path).map(|(_, rest)| rest), expected, "{path}");
        }
    }
}
