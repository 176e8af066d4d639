//! `secret`: one file for each key of a Secret, in memory only.

use spec::k8s_openapi::api::core::v1::SecretVolumeSource;

use super::payload::select;
use crate::atomic_writer::Payload;
use crate::config_objects::{ConfigObjects, secret_not_found};

/// The files, or the kubelet's complaint.
pub(super) fn payload(source: &SecretVolumeSource, objects: &dyn ConfigObjects) -> Result<Payload, String> {
    let optional = source.optional == Some(true);
    let name = source.secret_name.as_deref().unwrap_or_default();
    let secret = match objects.secret(name) {
        Some(secret) => secret,
        None if optional => return Ok(Payload::new()),
        None => return Err(secret_not_found(name)),
    };
    let data = secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect();
    select(data, source.items.as_deref(), source.default_mode, optional, |key| {
        format!("references non-existent secret key: {key}")
    })
}
