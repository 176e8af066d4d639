//! `projected`: files of several objects in one directory.

use spec::k8s_openapi::api::core::v1::{ProjectedVolumeSource, VolumeProjection};
use spec::resources::Amounts;

use super::payload::Keys;
use super::{config_map, downward_api, secret};
use crate::atomic_writer::Payload;
use crate::config_objects::ConfigObjects;
use crate::desired::DesiredPod;

/// The files of all sources, or all complaints at once, as the kubelet lists them. Paths that the pod names twice are
/// refused when it is created; of two whole objects with a key of the same name the later one wins, as in Kubernetes.
pub(super) fn payload(
    source: &ProjectedVolumeSource,
    desired: &DesiredPod,
    objects: &dyn ConfigObjects,
    allocatable: Amounts,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    let mut complaints = Vec::new();
    for projection in source.sources.iter().flatten() {
        match files(projection, source.default_mode, desired, objects, allocatable) {
            Ok(files) => payload.extend(files),
            Err(complaint) => complaints.push(complaint),
        }
    }
    match complaints.as_slice() {
        [] => Ok(payload),
        [complaint] => Err(complaint.clone()),
        complaints => Err(format!("[{}]", complaints.join(", "))),
    }
}

fn files(
    projection: &VolumeProjection,
    default_mode: Option<i32>,
    desired: &DesiredPod,
    objects: &dyn ConfigObjects,
    allocatable: Amounts,
) -> Result<Payload, String> {
    if let Some(source) = &projection.secret {
        let keys = Keys { items: source.items.as_deref(), default_mode, optional: source.optional };
        return secret::files(&source.name, keys, objects);
    }
    if let Some(source) = &projection.config_map {
        let keys = Keys { items: source.items.as_deref(), default_mode, optional: source.optional };
        return config_map::files(&source.name, keys, objects);
    }
    if let Some(source) = &projection.downward_api {
        let files = source.items.as_deref().unwrap_or_default();
        return downward_api::payload(files, default_mode, desired, allocatable);
    }
    Ok(Payload::new())
}
