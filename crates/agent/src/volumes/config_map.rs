//! `configMap`: one file for each key of a `ConfigMap`.

use std::collections::BTreeMap;

use spec::k8s_openapi::api::core::v1::ConfigMapVolumeSource;

use super::payload::select;
use crate::atomic_writer::Payload;
use crate::config_objects::{ConfigObjects, config_map_not_found};

/// Directory name of the volumes of this kind.
pub(super) const PLUGIN: &str = "kubernetes.io~configmap";

/// The files, or the kubelet's complaint.
pub(super) fn payload(source: &ConfigMapVolumeSource, objects: &dyn ConfigObjects) -> Result<Payload, String> {
    let optional = source.optional == Some(true);
    let map = match objects.config_map(&source.name) {
        Some(map) => map,
        None if optional => return Ok(Payload::new()),
        None => return Err(config_map_not_found(&source.name)),
    };
    let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    let data: BTreeMap<_, _> = text.chain(binary).collect();
    select(data, source.items.as_deref(), source.default_mode, optional, |key| {
        format!("configmap references non-existent config key: {key}")
    })
}
