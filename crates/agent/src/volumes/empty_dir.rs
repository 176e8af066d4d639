//! `emptyDir`: a directory or a piece of memory that lives as long as the pod.

use spec::k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use spec::quantity::Quantity;

use super::VolumeKind;
use crate::desired::DesiredPod;

/// Directory name of the volumes of this kind.
pub(super) const PLUGIN: &str = "kubernetes.io~empty-dir";

/// On the disk, or in memory: then as large as the smaller of `sizeLimit` and the pod's memory limit (KEP-1967).
pub(super) fn plan(desired: &DesiredPod, source: &EmptyDirVolumeSource) -> VolumeKind {
    if source.medium.as_deref() != Some("Memory") {
        return VolumeKind::EmptyDir;
    }
    let bytes = |limit: i64| u64::try_from(limit).ok().filter(|&limit| limit > 0);
    let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok()?.value().ok());
    let memory = spec::resources::pod_resources(&desired.object).limits.memory_bytes;
    let size = [limit.and_then(bytes), memory.and_then(bytes)].into_iter().flatten().min();
    VolumeKind::Memory { size }
}
