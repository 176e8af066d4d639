//! `configMap`: one file for each key of a `ConfigMap`.

use spec::k8s_openapi::api::core::v1::ConfigMapVolumeSource;
use spec::ordered::map_of;

use super::payload::{Keys, select};
use crate::atomic_writer::Payload;
use crate::config_objects::{ConfigObjects, config_map_not_found};

/// Directory name of the volumes of this kind.
pub(super) const PLUGIN: &str = "kubernetes.io~configmap";

/// The files, or the kubelet's complaint.
pub(super) fn payload(source: &ConfigMapVolumeSource, objects: &dyn ConfigObjects) -> Result<Payload, String> {
    let keys = Keys { items: source.items.as_deref(), default_mode: source.default_mode, optional: source.optional };
    files(&source.name, keys, objects)
}

/// The files of the `ConfigMap` of that name.
pub(super) fn files(name: &str, keys: Keys<'_>, objects: &dyn ConfigObjects) -> Result<Payload, String> {
    let map = match objects.config_map(name) {
        Some(map) => map,
        None if keys.optional == Some(true) => return Ok(Payload::new()),
        None => return Err(config_map_not_found(name)),
    };
    let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    select(map_of(text.chain(binary)), keys, |key| format!("configmap references non-existent config key: {key}"))
}
