//! Service, EndpointSlice and Endpoints: objects and their rules; Services get addresses.

use serde_json::{Value, json};
use spec::Timestamp;
use spec::decode::Writable as _;
use spec::defaults::{default_endpoint_slice, default_endpoints, default_service};
use spec::k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort, ServiceSpec};
use spec::k8s_openapi::api::discovery::v1::EndpointSlice;
use spec::service_network;
use spec::service_network::Taken;
use spec::validation::{
    NameForm, validate_endpoint_slice, validate_endpoints, validate_object_meta, validate_object_meta_update,
    validate_service,
};
use store::Store;

use crate::fields::{at, items_at, number_at, text_at};
use crate::kinds::admission::{Admission, AdmissionError, Admitted, admit, stored};
use crate::kinds::plain::{Rules, admit_by};
use crate::kinds::{FieldReader, Kind, Subresource};
use crate::table::{AGE, Column, NAME, Row, age, name, text, text_or};

/// `v1` Service.
pub static SERVICE: Kind = Kind {
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "proxy",
            kind: "ServiceProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Subresource::status("Service"),
    ],
    fields: &[("spec.clusterIP", FieldReader::Text("/spec/clusterIP")), ("spec.type", FieldReader::Text("/spec/type"))],
    columns: &[
        NAME,
        Column::text("Type", "How it is reached."),
        Column::text("Cluster-IP", "Its address."),
        Column::text("External-IP", "Its address for others."),
        Column::text("Port(s)", "Its ports."),
        AGE,
        Column::wide("Selector", "The labels of its Pods."),
    ],
    row: service_row,
    ..Kind::namespaced("", "services", "service", "Service", admit_service)
};

/// Decodes, completes and validates; what is right gets the addresses and ports that it lacks.
fn admit_service(value: Value, admission: &Admission<'_>) -> Result<Admitted, AdmissionError> {
    let old = stored::<Service>(admission.old)?;
    let complete = |service: &mut Service| {
        default_service(service);
        service_network::keep(service, old.as_ref());
        drop_outdated(service, old.as_ref());
    };
    let mut admitted = admit(value, complete, |service| {
        let mut errors = match &old {
            None => validate_object_meta(&service.metadata, true, NameForm::Label),
            Some(old) => validate_object_meta_update(&service.metadata, &old.metadata),
        };
        errors.extend(validate_service(service, old.as_ref()));
        errors
    })?;
    let Some(mut service) = stored::<Service>(Some(&admitted.object))?.filter(|_| admitted.errors.is_empty()) else {
        return Ok(admitted);
    };
    let taken = taken_by_others(&service, admission.store)?;
    let network = admission.service_network;
    match service_network::assign(&mut service, old.as_ref(), network, &taken, rand::random()) {
        Ok(()) => admitted.object = service.write()?,
        Err(fault) => admitted.errors.push(fault),
    }
    Ok(admitted)
}

/// Lets go of what the Service had as another type and its writer did not touch (apiserver, `dropTypeDependentFields`).
fn drop_outdated(service: &mut Service, old: Option<&Service>) {
    let (Some(spec), Some(old)) = (&mut service.spec, old.and_then(|old| old.spec.as_ref())) else { return };
    let is_balanced = |spec: &ServiceSpec| spec.type_.as_deref() == Some("LoadBalancer");
    let is_on_nodes = |spec: &ServiceSpec| is_balanced(spec) || spec.type_.as_deref() == Some("NodePort");
    let is_checked = |spec: &ServiceSpec| is_balanced(spec) && spec.external_traffic_policy.as_deref() == Some("Local");
    if is_checked(old) && !is_checked(spec) {
        drop_same(&mut spec.health_check_node_port, old.health_check_node_port.as_ref());
    }
    if is_balanced(old) && !is_balanced(spec) {
        drop_same(&mut spec.allocate_load_balancer_node_ports, old.allocate_load_balancer_node_ports.as_ref());
        drop_same(&mut spec.load_balancer_class, old.load_balancer_class.as_ref());
    }
    if is_on_nodes(old) && !is_on_nodes(spec) {
        drop_same(&mut spec.external_traffic_policy, old.external_traffic_policy.as_ref());
        let had = |port: &ServicePort| old.ports.iter().flatten().any(|other| other.node_port == port.node_port);
        let is_free = |port: &ServicePort| port.node_port.unwrap_or(0) == 0;
        if spec.ports.iter().flatten().all(|port| is_free(port) || had(port)) {
            spec.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
        }
    }
    if spec.type_.as_deref() == Some("ExternalName") && old.type_.as_deref() != Some("ExternalName") {
        if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
            drop_same(&mut spec.cluster_ips, old.cluster_ips.as_ref());
        }
        drop_same(&mut spec.ip_families, old.ip_families.as_ref());
        drop_same(&mut spec.ip_family_policy, old.ip_family_policy.as_ref());
    }
}

fn drop_same<T: PartialEq>(new: &mut Option<T>, old: Option<&T>) {
    if new.as_ref() == old {
        *new = None;
    }
}

/// What all other Services have. Whoever asks keeps them from changing until his own is stored ([`Call::turn`]).
///
/// [`Call::turn`]: crate::context::Call::turn
fn taken_by_others(service: &Service, store: &Store) -> Result<Taken, AdmissionError> {
    let own = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
    let mut taken = Taken::default();
    for object in store.list(SERVICE.resource, None).objects {
        if (object.key.namespace.as_deref(), Some(object.key.name.as_str())) != own
            && let Some(spec) = stored::<Service>(Some(&object.value))?.and_then(|other| other.spec)
        {
            taken.add(&spec);
        }
    }
    Ok(taken)
}

/// `discovery.k8s.io/v1` EndpointSlice.
pub static ENDPOINT_SLICE: Kind = Kind {
    columns: &[
        NAME,
        Column::text("AddressType", "What its addresses are."),
        Column::text("Ports", "Its ports."),
        Column::text("Endpoints", "Its addresses."),
        AGE,
    ],
    row: slice_row,
    ..Kind::namespaced("discovery.k8s.io", "endpointslices", "endpointslice", "EndpointSlice", |value, admission| {
        let (complete, validate) = (default_endpoint_slice, validate_endpoint_slice);
        admit_by::<EndpointSlice>(&Rules { complete, validate, ..Rules::NONE }, value, admission)
    })
};

/// `v1` Endpoints.
pub static ENDPOINTS: Kind = Kind {
    short_names: &["ep"],
    columns: &[NAME, Column::text("Endpoints", "Its addresses with their ports."), AGE],
    row: |object, now| Row::new(vec![name(object), json!(endpoints(object)), age(object, now)]),
    ..Kind::namespaced("", "endpoints", "endpoints", "Endpoints", |value, admission| {
        let (complete, validate) = (default_endpoints, validate_endpoints);
        admit_by::<Endpoints>(&Rules { complete, validate, ..Rules::NONE }, value, admission)
    })
};

fn service_row(object: &Value, now: Timestamp) -> Row {
    let external = match text_at(object, "/spec/type") {
        "ExternalName" => text_or(object, "/spec/externalName", "<none>"),
        "LoadBalancer" => json!("<pending>"),
        _ => json!("<none>"),
    };
    let ports: Vec<String> = items_at(object, "/spec/ports")
        .map(|port| {
            let number = number_at(port, "/port").unwrap_or_default();
            let node = number_at(port, "/nodePort").filter(|node| *node > 0);
            let node = node.map(|node| format!(":{node}")).unwrap_or_default();
            format!("{number}{node}/{}", text_at(port, "/protocol"))
        })
        .collect();
    let selector: Vec<String> = at(object, "/spec/selector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    Row::new(vec![
        name(object),
        text(object, "/spec/type"),
        text_or(object, "/spec/clusterIP", "<none>"),
        external,
        json!(or_none(&ports.join(","))),
        age(object, now),
        json!(or_none(&selector.join(","))),
    ])
}

fn slice_row(object: &Value, now: Timestamp) -> Row {
    let ports = items_at(object, "/ports").map(|port| number_at(port, "/port").unwrap_or_default().to_string());
    let addresses = items_at(object, "/endpoints").flat_map(|endpoint| items_at(endpoint, "/addresses"));
    let addresses = addresses.map(|address| address.as_str().unwrap_or_default().to_owned());
    let cell = |list: Vec<String>, empty: &str| if list.is_empty() { empty.to_owned() } else { some_of(&list) };
    Row::new(vec![
        name(object),
        text(object, "/addressType"),
        json!(cell(ports.collect(), "<unset>")),
        json!(cell(addresses.collect(), "<unset>")),
        age(object, now),
    ])
}

fn endpoints(object: &Value) -> String {
    let list: Vec<String> = items_at(object, "/subsets")
        .flat_map(|subset| {
            let ports: Vec<i64> = items_at(subset, "/ports").filter_map(|port| number_at(port, "/port")).collect();
            items_at(subset, "/addresses").flat_map(move |address| {
                let ip = text_at(address, "/ip").to_owned();
                match ports.as_slice() {
                    [] => vec![ip],
                    ports => ports.iter().map(|port| format!("{ip}:{port}")).collect(),
                }
            })
        })
        .collect();
    or_none(&some_of(&list)).to_owned()
}

/// The first three, and how many more there are.
fn some_of(list: &[String]) -> String {
    let shown = list.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    if list.len() > 3 { format!("{shown} + {} more...", list.len() - 3) } else { shown }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_endpoints_show_their_ports() {
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        let service = json!({
            "metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "NodePort", "selector": {"a": "b"},
                     "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
        });
        let cells = service_row(&service, now).cells;
        assert_eq!(cells, ["s", "NodePort", "<none>", "<none>", "80:30080/TCP,53/UDP", "5s", "a=b"]);
        let addresses: Vec<Value> = (1..=4).map(|last| json!({"ip": format!("10.0.0.{last}")})).collect();
        let object = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(endpoints(&object), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...");
        assert_eq!(endpoints(&json!({})), "<none>");
    }
}
