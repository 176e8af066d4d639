//! The volumes of a pod: what each one is, made ready on this machine before the first container starts.
//!
//! Planning reads the API's objects and touches no disk; setting up touches the disk and no object. Secrets wait for the
//! sandbox, since they live in its memory only.

mod claim;
mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
mod local;
mod payload;
mod projected;
mod secret;
mod sub_path;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

pub use local::{GroupOfFiles, make_local_volume, remove_local_volume};
use runtime::{Mount, MountSource, PodTmpfs, Propagation};
pub use spec::chain;
use spec::k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};
use spec::ordered::map_of;
use spec::resources::Amounts;
use spec::{Digest, Timestamp, VolumeName};

use crate::atomic_writer::{Payload, WritePayloadError, directory_mode, write_payload};
use crate::config_objects::ConfigObjects;
use crate::desired::DesiredPod;
use crate::directories::{make_path, make_whole_below, open_directory};
use crate::environment::ContainerConfigError;

/// What a volume is, with all that is needed to set it up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlannedVolume {
    /// Its name in the pod.
    pub name: VolumeName,
    /// Its kind.
    pub kind: VolumeKind,
    /// `fsGroup`: whose files they are beside root's. It counts when a volume is made; all that are new with their pod need
    /// no `fsGroupChangePolicy`.
    pub group: Option<u32>,
    /// Whatever its mounts say.
    pub read_only: bool,
}

impl PlannedVolume {
    /// Whether [`set_up_on_disk`] has anything to do for it.
    pub fn is_on_disk(&self) -> bool {
        match self.kind {
            VolumeKind::EmptyDir
            | VolumeKind::HostPath { .. }
            | VolumeKind::Local { .. }
            | VolumeKind::FilesOnDisk(_) => true,
            VolumeKind::Memory { .. }
            | VolumeKind::HugePages { .. }
            | VolumeKind::FilesInMemory(_)
            | VolumeKind::Image => false,
        }
    }
}

/// The kinds of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VolumeKind {
    /// A directory of the pod.
    EmptyDir,
    /// Memory of the pod.
    Memory {
        /// Bytes.
        size: Option<u64>,
    },
    /// Huge pages of the machine.
    HugePages {
        /// Bytes of a page.
        page_size: u64,
        /// Bytes altogether.
        size: Option<u64>,
    },
    /// A path of the machine.
    HostPath {
        /// The path.
        path: PathBuf,
        /// `type`, checked before use.
        type_: String,
    },
    /// A directory of the machine that outlives the pod.
    Local {
        /// The directory.
        path: PathBuf,
        /// Whose its files become.
        group: Option<GroupOfFiles>,
    },
    /// The layers of an image, which is found or pulled when a container that mounts them starts.
    Image,
    /// Files that anybody may see: of a `ConfigMap`.
    FilesOnDisk(Payload),
    /// Files that the disk never sees: of Secrets, of the pod itself, of several objects.
    FilesInMemory(Payload),
}

/// The images of volumes, as they were found for one start of a container.
pub type VolumeImages = BTreeMap<VolumeName, Digest>;

/// Why a volume is not ready; the message is the kubelet's.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {:?} : {cause}", volume.as_str())]
pub struct VolumeError {
    /// The volume.
    pub volume: VolumeName,
    /// Why, in one sentence.
    pub cause: VolumeCause,
}

/// Why a volume cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum VolumeCause {
    /// An object or a key is missing, or a path is not what it should be.
    #[error("{0}")]
    Unmet(String),
    /// The directory of the volume cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// The files cannot be written.
    #[error("{}", chain(.0))]
    Write(WritePayloadError),
    /// The runtime does not give the pod's memory.
    #[error("{}", chain(.0))]
    Memory(runtime::RuntimeError),
    /// A volume source that is not built.
    #[error("this volume source is not supported")]
    Unsupported,
}

/// What each volume of the pod is, or why that is not known yet.
///
/// `allocatable` is what the node can give, for limits that are not set.
pub fn plan_volumes(
    desired: &DesiredPod,
    objects: &dyn ConfigObjects,
    allocatable: Amounts,
) -> Result<Vec<PlannedVolume>, VolumeError> {
    let volumes = desired.spec.volumes.iter().flatten();
    volumes.map(|volume| plan(desired, volume, objects, allocatable)).collect()
}

/// Whether its files come from what may change while containers run.
pub fn has_changeable_files(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

fn plan(
    desired: &DesiredPod,
    volume: &Volume,
    objects: &dyn ConfigObjects,
    allocatable: Amounts,
) -> Result<PlannedVolume, VolumeError> {
    let name = VolumeName::new(&volume.name);
    let unmet = |message| VolumeError { volume: name.clone(), cause: VolumeCause::Unmet(message) };
    let kind = if let Some(source) = &volume.empty_dir {
        empty_dir::plan(desired, source).map_err(unmet)?
    } else if let Some(source) = &volume.host_path {
        let type_ = source.type_.clone().unwrap_or_default();
        VolumeKind::HostPath { path: PathBuf::from(&source.path), type_ }
    } else if let Some(source) = &volume.config_map {
        VolumeKind::FilesOnDisk(config_map::payload(source, objects).map_err(unmet)?)
    } else if let Some(source) = &volume.secret {
        VolumeKind::FilesInMemory(secret::payload(source, objects).map_err(unmet)?)
    } else if let Some(source) = &volume.downward_api {
        let files = source.items.as_deref().unwrap_or_default();
        let payload = downward_api::payload(files, source.default_mode, desired, allocatable).map_err(unmet)?;
        VolumeKind::FilesInMemory(payload)
    } else if let Some(source) = &volume.projected {
        let payload = projected::payload(source, desired, objects, allocatable).map_err(unmet)?;
        VolumeKind::FilesInMemory(payload)
    } else if volume.image.is_some() {
        VolumeKind::Image
    } else if let Some(source) = &volume.persistent_volume_claim {
        claim::plan(desired, source, objects).map_err(unmet)?
    } else {
        return Err(VolumeError { volume: name, cause: VolumeCause::Unsupported });
    };
    let read_only = volume.persistent_volume_claim.as_ref().is_some_and(|source| source.read_only == Some(true));
    Ok(PlannedVolume { name, kind, group: fs_group(desired), read_only })
}

fn fs_group(desired: &DesiredPod) -> Option<u32> {
    let group = desired.spec.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The memory file systems that the pod's sandbox needs.
pub fn pod_tmpfs(planned: &[PlannedVolume]) -> Vec<PodTmpfs> {
    let tmpfs = |volume: &PlannedVolume| {
        let (size, mode, page_size) = match &volume.kind {
            VolumeKind::Memory { size } => (*size, open_mode(volume.group) | STICKY, None),
            VolumeKind::HugePages { page_size, size } => (*size, open_mode(volume.group), Some(*page_size)),
            VolumeKind::FilesInMemory(_) => (None, directory_mode(volume.group), None),
            VolumeKind::EmptyDir
            | VolumeKind::HostPath { .. }
            | VolumeKind::Local { .. }
            | VolumeKind::FilesOnDisk(_)
            | VolumeKind::Image => {
                return None;
            }
        };
        Some(PodTmpfs { volume: volume.name.clone(), size, mode, group: volume.group, page_size })
    };
    planned.iter().filter_map(tmpfs).collect()
}

/// Makes everything ready that lies on the disk. Blocks.
pub fn set_up_on_disk(planned: &[PlannedVolume], pod_dir: &Path, now: Timestamp) -> Result<(), VolumeError> {
    for volume in planned {
        let failed = |cause| VolumeError { volume: volume.name.clone(), cause };
        match &volume.kind {
            VolumeKind::EmptyDir => {
                let mode = open_mode(volume.group);
                volume_directory(pod_dir, empty_dir::PLUGIN, volume, mode).map_err(failed)?;
            }
            VolumeKind::HostPath { path, type_ } => host_path::check(path, type_).map_err(failed)?,
            VolumeKind::Local { path, group } => local::set_up(path, *group).map_err(failed)?,
            VolumeKind::FilesOnDisk(payload) => {
                let mode = directory_mode(volume.group);
                let directory = volume_directory(pod_dir, config_map::PLUGIN, volume, mode).map_err(failed)?;
                write_payload(directory.as_fd(), payload, volume.group, now)
                    .map_err(|error| failed(VolumeCause::Write(error)))?;
            }
            VolumeKind::Memory { .. }
            | VolumeKind::HugePages { .. }
            | VolumeKind::FilesInMemory(_)
            | VolumeKind::Image => {}
        }
    }
    Ok(())
}

/// Writes the files of a volume into the root of its memory. Blocks.
pub fn write_secret(
    volume: &VolumeName,
    payload: &Payload,
    group: Option<u32>,
    root: &OwnedFd,
    now: Timestamp,
) -> Result<bool, VolumeError> {
    write_payload(root.as_fd(), payload, group, now)
        .map_err(|error| VolumeError { volume: volume.clone(), cause: VolumeCause::Write(error) })
}

/// The mounts of one container's `volumeMounts`; `images` are those of its volumes, `variables` are those that its `subPathExpr` may name.
pub fn volume_mounts(
    container: &Container,
    planned: &[PlannedVolume],
    images: &VolumeImages,
    pod_dir: &Path,
    variables: &[(String, String)],
) -> Result<Vec<Mount>, ContainerConfigError> {
    let sources = map_of(planned.iter().map(|volume| (volume.name.as_str(), volume)));
    let mounts = container.volume_mounts.iter().flatten();
    let known = mounts.filter_map(|mount| Some((mount, *sources.get(mount.name.as_str())?)));
    let mount = |(mount, volume): (&VolumeMount, &PlannedVolume)| {
        let (source, always_read_only) = match &volume.kind {
            VolumeKind::EmptyDir => (on_disk(pod_dir, empty_dir::PLUGIN, &volume.name), false),
            VolumeKind::Memory { .. } | VolumeKind::HugePages { .. } => {
                (MountSource::PodTmpfs(volume.name.clone()), false)
            }
            VolumeKind::HostPath { path, .. } | VolumeKind::Local { path, .. } => {
                (MountSource::HostPath(path.clone()), volume.read_only)
            }
            VolumeKind::Image => {
                let image = images.get(&volume.name).cloned().ok_or_else(|| {
                    ContainerConfigError::new(format!("the image of volume {:?} is not here", volume.name.as_str()))
                })?;
                (MountSource::Image(image), true)
            }
            // Nobody but us writes these (CVE-2017-1002102 came from containers that could).
            VolumeKind::FilesOnDisk(_) => (on_disk(pod_dir, config_map::PLUGIN, &volume.name), true),
            VolumeKind::FilesInMemory(_) => (MountSource::PodTmpfs(volume.name.clone()), true),
        };
        Ok(Mount {
            source,
            target: Path::new("/").join(&mount.mount_path),
            read_only: always_read_only || mount.read_only == Some(true),
            recursive_read_only: is_recursive(mount),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
            volume: volume.name.clone(),
            sub_path: sub_path::of_mount(mount, variables)?,
        })
    };
    known.map(mount).collect()
}

/// Whether what is mounted below the volume is read-only, too. The kernel can since 5.12, so `IfPossible` is `Enabled`.
pub fn is_recursive(mount: &VolumeMount) -> bool {
    matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"))
}

fn on_disk(pod_dir: &Path, plugin: &str, name: &VolumeName) -> MountSource {
    MountSource::HostPath(pod_dir.join("volumes").join(plugin).join(name.as_str()))
}

/// A file system in memory begins with it (tmpfs(5)), and the kubelet leaves it so.
const STICKY: u32 = 0o1000;

/// Mode of a volume that all may write; new files get its group if it has one.
fn open_mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o2777 } else { 0o777 }
}

/// The directory of a volume, made below the pod's own, where no container can make a link.
fn volume_directory(pod_dir: &Path, plugin: &str, volume: &PlannedVolume, mode: u32) -> Result<OwnedFd, VolumeCause> {
    let parent = pod_dir.join("volumes").join(plugin);
    let failed = |source| VolumeCause::Directory { path: parent.clone(), source };
    make_path(&parent, 0o700).map_err(failed)?;
    let parent_fd = open_directory(&parent).map_err(failed)?;
    let name = volume.name.as_str();
    make_whole_below(parent_fd.as_fd(), name, mode, volume.group)
        .map_err(|source| VolumeCause::Directory { path: parent.join(name), source })
}

#[cfg(test)]
mod tests;
