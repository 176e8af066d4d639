//! What a new Pod takes over from its ServiceAccount (the API server's admission plug-in of that name): secrets to pull
//! with, and the volume by which its containers speak to the API.

use serde_json::Value;
use spec::k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, LocalObjectReference,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use store::ObjectKey;

use crate::fields::{items_at, text_at};
use crate::kinds::SERVICE_ACCOUNT;
use crate::kinds::admission::{Admission, AdmissionError};
use crate::standing::ROOT_CA;
use crate::verbs::generate_name;

/// Where client libraries look.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How the volume's name begins.
const VOLUME_PREFIX: &str = "kube-api-access-";

/// Completes a new Pod from its account; refuses one whose account is not there.
pub fn take_service_account(pod: &mut Pod, admission: &Admission<'_>) -> Result<(), AdmissionError> {
    let pod_namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    let name = spec.service_account_name.clone().unwrap_or_default();
    let key = ObjectKey::namespaced(SERVICE_ACCOUNT.resource, pod_namespace.as_str(), name.as_str());
    let account = admission.store.get(&key).ok_or_else(|| {
        AdmissionError::Forbidden(format!(
            "error looking up service account {pod_namespace}/{name}: serviceaccount {name:?} not found"
        ))
    })?;
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        let secrets: Vec<LocalObjectReference> = items_at(&account.value, "/imagePullSecrets")
            .map(|secret| LocalObjectReference { name: text_at(secret, "/name").to_owned() })
            .collect();
        spec.image_pull_secrets = (!secrets.is_empty()).then_some(secrets);
    }
    let of_account = account.value.get("automountServiceAccountToken").and_then(Value::as_bool);
    if spec.automount_service_account_token.or(of_account).unwrap_or(true) {
        mount_token(spec);
    }
    Ok(())
}

/// Every container that mounts nothing there gets the token, the authority's certificate and the name of its namespace.
fn mount_token(spec: &mut PodSpec) {
    let volumes = spec.volumes.iter().flatten();
    let present = volumes.map(|volume| &volume.name).find(|name| name.starts_with(VOLUME_PREFIX)).cloned();
    let name = present.clone().unwrap_or_else(|| generate_name(VOLUME_PREFIX));
    let mut is_mounted = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
            continue;
        }
        mounts.push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
        is_mounted = true;
    }
    if present.is_none() && is_mounted {
        spec.volumes.get_or_insert_default().push(token_volume(name));
    }
}

fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(agent::AUTOMATIC_SECONDS),
        ..ServiceAccountTokenProjection::default()
    };
    let key = KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), ..KeyToPath::default() };
    let ca = ConfigMapProjection { name: ROOT_CA.to_owned(), items: Some(vec![key]), ..ConfigMapProjection::default() };
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "metadata.namespace".to_owned() };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(field),
        ..DownwardAPIVolumeFile::default()
    };
    let namespace = DownwardAPIProjection { items: Some(vec![namespace]) };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(ca), ..VolumeProjection::default() },
        VolumeProjection { downward_api: Some(namespace), ..VolumeProjection::default() },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources), ..Default::default() };
    Volume { name, projected: Some(projected), ..Volume::default() }
}
