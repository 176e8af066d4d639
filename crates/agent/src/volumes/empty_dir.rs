//! `emptyDir`: a directory or a piece of memory that lives as long as the pod.

use spec::huge_pages;
use spec::k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use spec::quantity::Quantity;

use super::VolumeKind;
use crate::desired::DesiredPod;

/// Directory name of the volumes of this kind.
pub(super) const PLUGIN: &str = "kubernetes.io~empty-dir";

/// On the disk, or in memory: then as large as the smaller of `sizeLimit` and the pod's memory limit (KEP-1967). Huge
/// pages are no memory in this sense: a limit of their own bounds them.
pub(super) fn plan(desired: &DesiredPod, source: &EmptyDirVolumeSource) -> Result<VolumeKind, String> {
    let medium = source.medium.as_deref().unwrap_or_default();
    let bytes = |limit: i64| u64::try_from(limit).ok().filter(|&limit| limit > 0);
    let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok()?.value().ok());
    let limit = limit.and_then(bytes);
    if huge_pages::is_medium(medium) {
        let page_size = huge_pages::page_size_of_medium(medium, &desired.object)?;
        // The kernel counts whole pages.
        let size = limit.map(|limit| limit.next_multiple_of(page_size));
        return Ok(VolumeKind::HugePages { page_size, size });
    }
    if medium != "Memory" {
        return Ok(VolumeKind::EmptyDir);
    }
    let memory = spec::resources::pod_resources(&desired.object).limits.memory_bytes;
    let size = [limit, memory.and_then(bytes)].into_iter().flatten().min();
    Ok(VolumeKind::Memory { size })
}
