//! `projected`: files of several objects in one directory.

use std::path::PathBuf;

use spec::k8s_openapi::api::core::v1::{
    Container, ProjectedVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};
use spec::ordered::map_of;
use spec::resources::Amounts;

use super::payload::{Keys, file_mode};
use super::{config_map, downward_api, secret};
use crate::atomic_writer::{Payload, PayloadFile};
use crate::config_objects::ConfigObjects;
use crate::desired::DesiredPod;

/// Mode of a token that is for somebody.
const PRIVATE: u32 = 0o600;

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
    if let Some(source) = &projection.service_account_token {
        return token_file(source, default_mode, desired, objects);
    }
    Ok(Payload::new())
}

/// Others than root may read it where they are known: the user of all containers owns it, `fsGroup` may read it
/// (kubelet, `collectData`).
fn token_file(
    source: &ServiceAccountTokenProjection,
    default_mode: Option<i32>,
    desired: &DesiredPod,
    objects: &dyn ConfigObjects,
) -> Result<Payload, String> {
    let (user, group) = (only_user(desired), super::fs_group(desired));
    let is_for_some = user.is_some() || group.is_some();
    let mode = if is_for_some { PRIVATE } else { file_mode(None, default_mode) };
    let content = objects.token(source)?.into_bytes();
    Ok(map_of([(PathBuf::from(&source.path), PayloadFile { content, mode, user })]))
}

/// The user that the Pod says all its containers run as.
fn only_user(desired: &DesiredPod) -> Option<u32> {
    let of_pod = desired.spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let user_of =
        |container: &Container| container.security_context.as_ref().and_then(|own| own.run_as_user).or(of_pod);
    let mut users = desired.containers().map(|(_, container)| user_of(container));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(())?;
    u32::try_from(first).ok()
}
