//! What is known of Services and their endpoints, in the form that forwarding and names need.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use spec::decode::read;
use spec::k8s_openapi::api::core::v1::Service;
use spec::k8s_openapi::api::discovery::v1::EndpointSlice;
use store::StoredObject;

/// Namespace and name of a Service.
pub type ServiceKey = (String, String);

/// All Services with their endpoints, and the namespaces that there are.
#[derive(Debug, Default)]
pub struct Catalog {
    services: BTreeMap<ServiceKey, Service>,
    /// Slices by their own name, of each Service.
    slices: HashMap<ServiceKey, BTreeMap<String, Vec<Endpoint>>>,
    namespaces: BTreeSet<String>,
    /// Who has an address: Services by their own, and those of which it is an endpoint.
    by_address: HashMap<Ipv4Addr, BTreeSet<ServiceKey>>,
}

/// One server of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub ports: Vec<EndpointPort>,
    /// It takes new connections.
    pub ready: bool,
    /// It answers, though it may be about to end.
    pub serving: bool,
    pub terminating: bool,
    /// The host name that it is known by.
    pub hostname: Option<String>,
    pub node_name: Option<String>,
}

/// A port of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    pub name: String,
    pub protocol: String,
    pub port: u16,
}

/// What kind of Service it is, as far as names go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It has an address.
    Address(Ipv4Addr),
    /// It stands for its endpoints.
    Headless,
    /// It is another name for something.
    Alias(String),
}

impl Catalog {
    /// Takes a Service in, or its new content.
    pub fn put_service(&mut self, stored: &StoredObject) {
        let Some(key) = key_of(stored) else { return };
        let Ok(service) = read::<Service>(&stored.value) else { return };
        self.change(&key, |catalog| {
            catalog.services.insert(key.clone(), service);
        });
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, stored: &StoredObject) {
        let Some(key) = key_of(stored) else { return };
        self.change(&key, |catalog| {
            catalog.services.remove(&key);
        });
    }

    /// Takes an EndpointSlice in, or its new content.
    pub fn put_slice(&mut self, stored: &StoredObject) {
        let Some(key) = service_of(stored) else { return };
        let Ok(slice) = read::<EndpointSlice>(&stored.value) else { return };
        self.change(&key, |catalog| {
            catalog.slices.entry(key.clone()).or_default().insert(stored.key.name.clone(), endpoints_of(&slice));
        });
    }

    /// Forgets an EndpointSlice.
    pub fn remove_slice(&mut self, stored: &StoredObject) {
        let Some(key) = service_of(stored) else { return };
        self.change(&key, |catalog| {
            if let Some(slices) = catalog.slices.get_mut(&key) {
                slices.remove(&stored.key.name);
                if slices.is_empty() {
                    catalog.slices.remove(&key);
                }
            }
        });
    }

    /// Notes that there is, or no longer is, a namespace.
    pub fn note_namespace(&mut self, name: &str, is_there: bool) {
        if is_there {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
        }
    }

    /// All Services, the oldest first.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceKey, &Service)> {
        let mut all: Vec<_> = self.services.iter().collect();
        spec::ordered::sort_by_key(&mut all, |(_, service)| {
            service.metadata.creation_timestamp.as_ref().map(|time| time.0)
        });
        all.into_iter()
    }

    /// One Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// The endpoints of a Service, each once for each set of ports.
    pub fn endpoints(&self, key: &ServiceKey) -> Vec<&Endpoint> {
        let mut endpoints: Vec<&Endpoint> =
            self.slices.get(key).into_iter().flat_map(BTreeMap::values).flatten().collect();
        spec::ordered::sort_by_key(&mut endpoints, |endpoint| endpoint.address);
        endpoints.dedup();
        endpoints
    }

    /// Services that have this address, or an endpoint with it.
    pub fn having(&self, address: Ipv4Addr) -> impl Iterator<Item = (&ServiceKey, &Service)> {
        let keys = self.by_address.get(&address).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.services.get(key)?)))
    }

    /// Whether there is such a namespace.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    fn change(&mut self, key: &ServiceKey, change: impl FnOnce(&mut Self)) {
        for address in self.addresses(key) {
            if let Some(keys) = self.by_address.get_mut(&address) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
        change(self);
        for address in self.addresses(key) {
            self.by_address.entry(address).or_default().insert(key.clone());
        }
    }

    fn addresses(&self, key: &ServiceKey) -> Vec<Ipv4Addr> {
        let own = self.services.get(key).map(kind);
        let own = own.and_then(|kind| if let Kind::Address(address) = kind { Some(address) } else { None });
        own.into_iter().chain(self.endpoints(key).into_iter().map(|endpoint| endpoint.address)).collect()
    }
}

/// What kind of Service this is. One whose address is missing or of another family is like one without endpoints.
pub fn kind(service: &Service) -> Kind {
    let Some(spec) = &service.spec else { return Kind::Headless };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Kind::Alias(spec.external_name.clone().unwrap_or_default());
    }
    let address = spec.cluster_ip.as_deref().and_then(|address| address.parse().ok());
    address.map_or(Kind::Headless, Kind::Address)
}

fn key_of(stored: &StoredObject) -> Option<ServiceKey> {
    Some((stored.key.namespace.clone()?, stored.key.name.clone()))
}

/// The Service that a slice is for.
fn service_of(stored: &StoredObject) -> Option<ServiceKey> {
    let labels = stored.value.pointer("/metadata/labels")?;
    Some((stored.key.namespace.clone()?, labels.get("kubernetes.io/service-name")?.as_str()?.to_owned()))
}

/// Of a slice of IPv4 addresses. What a condition does not say is as Kubernetes reads it: ready unless it is said
/// otherwise, and serving as it is ready.
fn endpoints_of(slice: &EndpointSlice) -> Vec<Endpoint> {
    if slice.address_type != "IPv4" || slice.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let ports: Vec<EndpointPort> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: u16::try_from(port.port?).ok()?,
            })
        })
        .collect();
    let read = |endpoint: &spec::k8s_openapi::api::discovery::v1::Endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        Some(Endpoint {
            // All addresses of one endpoint are the same server; the first one counts (kube-proxy does so too).
            address: endpoint.addresses.first()?.parse().ok()?,
            ports: ports.clone(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
            node_name: endpoint.node_name.clone(),
        })
    };
    slice.endpoints.iter().flatten().filter_map(read).collect()
}
