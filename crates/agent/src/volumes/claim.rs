//! `persistentVolumeClaim`: a volume that has an object of its own.

use std::path::PathBuf;

use spec::k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource;

use super::{GroupOfFiles, VolumeKind, fs_group};
use crate::config_objects::ConfigObjects;
use crate::desired::DesiredPod;

/// What the claim's volume is on this machine.
pub(super) fn plan(
    desired: &DesiredPod,
    source: &PersistentVolumeClaimVolumeSource,
    objects: &dyn ConfigObjects,
) -> Result<VolumeKind, String> {
    let claim = source.claim_name.as_str();
    let status = &desired.status;
    let runs = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let is_new = runs.into_iter().all(|run| run.container_id.is_none());
    let volume = objects
        .volume_of_claim(claim, is_new)
        .map_err(|why| format!("error processing PVC {}/{claim}: {why}", desired.pod.pod_namespace))?;
    let spec = volume.spec.unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("PVC {claim:?} has volumeMode Block, which is not supported here: claim a Filesystem"));
    }
    if let Some(local) = spec.local {
        let security = desired.spec.security_context.as_ref();
        let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
        let group = fs_group(desired).map(|group| GroupOfFiles {
            group,
            unless_root_has_it: policy == Some("OnRootMismatch"),
            read_only: source.read_only == Some(true),
        });
        return Ok(VolumeKind::Local { path: PathBuf::from(local.path), group });
    }
    let Some(host_path) = spec.host_path else {
        let name = volume.metadata.name.unwrap_or_default();
        return Err(format!(
            "volume {name:?} of PVC {claim:?} is neither local nor hostPath: no other can be mounted here"
        ));
    };
    Ok(VolumeKind::HostPath { path: PathBuf::from(host_path.path), type_: host_path.type_.unwrap_or_default() })
}
