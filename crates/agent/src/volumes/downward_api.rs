//! `downwardAPI`: files that tell the pod of itself.

use std::path::PathBuf;

use spec::downward::{FieldPath, resource_field_value};
use spec::k8s_openapi::api::core::v1::DownwardAPIVolumeFile;
use spec::resources::Amounts;

use super::chain;
use super::payload::file_mode;
use crate::atomic_writer::{Payload, PayloadFile};
use crate::desired::DesiredPod;

/// The files, or what is wrong with the first one that cannot be had.
pub(super) fn payload(
    files: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    desired: &DesiredPod,
    allocatable: Amounts,
) -> Result<Payload, String> {
    let file = |file: &DownwardAPIVolumeFile| {
        let content = content(file, desired, allocatable)?.into_bytes();
        Ok((PathBuf::from(&file.path), PayloadFile { content, mode: file_mode(file.mode, default_mode), user: None }))
    };
    files.iter().map(file).collect()
}

fn content(file: &DownwardAPIVolumeFile, desired: &DesiredPod, allocatable: Amounts) -> Result<String, String> {
    if let Some(selector) = &file.field_ref {
        let field = FieldPath::parse(&selector.field_path).ok().filter(|field| field.is_for_volume());
        let field = field.ok_or_else(|| format!("unsupported fieldPath: {}", selector.field_path))?;
        return Ok(field.value(&desired.object));
    }
    let (Some(selector), Some(container)) = (&file.resource_field_ref, desired.app_containers().first()) else {
        return Err(format!("file {:?} has no source", file.path));
    };
    resource_field_value(&desired.object, container, selector, allocatable).map_err(|error| chain(&error))
}
