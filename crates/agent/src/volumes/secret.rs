//! `secret`: one file for each key of a Secret, in memory only.

use spec::k8s_openapi::api::core::v1::SecretVolumeSource;
use spec::ordered::map_of;

use super::payload::{Keys, select};
use crate::atomic_writer::Payload;
use crate::config_objects::{ConfigObjects, secret_not_found};

/// The files, or the kubelet's complaint.
pub(super) fn payload(source: &SecretVolumeSource, objects: &dyn ConfigObjects) -> Result<Payload, String> {
    let keys = Keys { items: source.items.as_deref(), default_mode: source.default_mode, optional: source.optional };
    files(source.secret_name.as_deref().unwrap_or_default(), keys, objects)
}

/// The files of the Secret of that name.
pub(super) fn files(name: &str, keys: Keys<'_>, objects: &dyn ConfigObjects) -> Result<Payload, String> {
    let secret = match objects.secret(name) {
        Some(secret) => secret,
        None if keys.optional == Some(true) => return Ok(Payload::new()),
        None => return Err(secret_not_found(name)),
    };
    let data = map_of(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)));
    select(data, keys, |key| format!("references non-existent secret key: {key}"))
}
