//! How endpoints are spread over slices, so that a change of one Pod writes one slice: pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use spec::Timestamp;
use spec::k8s_openapi::api::core::v1::Service;
use spec::k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use spec::ordered::{map_of, sort_by};

use super::desired::{Group, endpoint_port, families, port_entry, slice_labels};
use crate::metadata::{controlled_by, generated};

/// Endpoints in one slice (controller manager, `--max-endpoints-per-slice`).
const MOST_ENDPOINTS: usize = 100;

/// What is to be done with one slice.
#[derive(Debug, Clone, PartialEq)]
pub enum SliceChange {
    Create(EndpointSlice),
    /// With the revision that it was seen at.
    Update(EndpointSlice),
    Delete(EndpointSlice),
}

/// What makes the slices that there are those that there should be. An endpoint stays in its slice; a Service without
/// any has one empty slice.
pub fn pack(
    service: &Service,
    mut wanted: BTreeMap<Group, Vec<Endpoint>>,
    present: Vec<EndpointSlice>,
    now: Timestamp,
) -> Vec<SliceChange> {
    let labels = slice_labels(service);
    let families = families(service);
    for family in &families {
        if wanted.keys().all(|(other, _)| other != family) {
            wanted.insert((family.clone(), Vec::new()), Vec::new());
        }
    }
    let mut changes = Vec::new();
    let mut groups: BTreeMap<Group, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in present.into_iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()) {
        let group = group_of(&slice);
        if wanted.contains_key(&group) && is_owned(&slice, service) {
            groups.entry(group).or_default().push(slice);
        } else {
            changes.push(SliceChange::Delete(slice));
        }
    }
    for (group, endpoints) in wanted {
        let slices = groups.remove(&group).unwrap_or_default();
        changes.extend(pack_group(service, &group, endpoints, slices, &labels, now));
    }
    changes
}

fn group_of(slice: &EndpointSlice) -> Group {
    let mut ports: Vec<_> = slice.ports.iter().flatten().map(port_entry).collect();
    sort_by(&mut ports, Ord::cmp);
    (slice.address_type.clone(), ports)
}

/// A slice of a former Service of the same name goes with that one.
fn is_owned(slice: &EndpointSlice, service: &Service) -> bool {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    slice.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Service" && owner.uid == uid)
}

fn pack_group(
    service: &Service,
    group: &Group,
    endpoints: Vec<Endpoint>,
    slices: Vec<EndpointSlice>,
    labels: &BTreeMap<String, String>,
    now: Timestamp,
) -> Vec<SliceChange> {
    let mut missing = map_of(endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)));
    let keep = |slice: EndpointSlice| {
        let stay =
            slice.endpoints.iter().flatten().filter_map(|endpoint| missing.remove(&identity(endpoint))).collect();
        Packed { before: Some(slice), endpoints: stay }
    };
    let mut packed: Vec<Packed> = slices.into_iter().map(keep).collect();
    // Those that are written anyway come first, then the fullest.
    spec::ordered::sort_by_key(&mut packed, |packed| (!packed.has_changed(), Reverse(packed.endpoints.len())));
    let mut missing = missing.into_values();
    for packed in &mut packed {
        let room = MOST_ENDPOINTS.saturating_sub(packed.endpoints.len());
        packed.endpoints.extend(missing.by_ref().take(room));
    }
    loop {
        let endpoints: Vec<Endpoint> = missing.by_ref().take(MOST_ENDPOINTS).collect();
        if endpoints.is_empty() && !packed.is_empty() {
            break;
        }
        packed.push(Packed { before: None, endpoints });
    }
    // One slice stays even when it is empty.
    spec::ordered::sort_by_key(&mut packed, |packed| packed.endpoints.is_empty());
    let kept = packed.iter().filter(|packed| !packed.endpoints.is_empty()).count().max(1);
    let changes = packed.into_iter().enumerate().filter_map(|(place, Packed { before, endpoints })| match before {
        Some(before) if place >= kept => Some(SliceChange::Delete(before)),
        None => {
            let mut slice = new_slice(service, group, now);
            (slice.metadata.labels, slice.endpoints) = (Some(labels.clone()), Some(endpoints));
            Some(SliceChange::Create(slice))
        }
        Some(before) => {
            let mut after = before.clone();
            after.metadata.labels = Some(labels.clone());
            if before.endpoints.as_deref().unwrap_or_default() != endpoints {
                after.endpoints = Some(endpoints);
                after.metadata.generation = before.metadata.generation.map(|generation| generation + 1);
            }
            (after != before).then_some(SliceChange::Update(after))
        }
    });
    changes.collect()
}

/// A slice, as it was and as it is to be.
struct Packed {
    before: Option<EndpointSlice>,
    endpoints: Vec<Endpoint>,
}

impl Packed {
    fn has_changed(&self) -> bool {
        self.before.as_ref().is_none_or(|before| before.endpoints.as_deref().unwrap_or_default() != self.endpoints)
    }
}

/// A Pod, and its addresses: another Pod may have had them before.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.join(" "))
}

fn new_slice(service: &Service, (family, ports): &Group, now: Timestamp) -> EndpointSlice {
    let owner = &service.metadata;
    let prefix = format!("{}-", owner.name.as_deref().unwrap_or_default());
    let mut metadata = generated(&prefix, owner.namespace.as_deref().unwrap_or_default(), now);
    metadata.owner_references = Some(vec![controlled_by("v1", "Service", owner)]);
    EndpointSlice {
        metadata,
        address_type: family.clone(),
        endpoints: None,
        ports: Some(ports.iter().map(endpoint_port).collect()),
    }
}
