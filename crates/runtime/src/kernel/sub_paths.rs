//! `subPath`: that each part of a volume is there, and in it, is settled before a container is made.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use image::ImageStore;
use infra::sub_path::{self, find_sub_path};
use spec::SandboxId;

use super::container::create_error;
use super::rootfs::{mount_image, open_part};
use super::user_ids::PodIds;
use super::{Kernel, START_LIMIT};
use crate::config::{ContainerConfig, Mount, MountSource};
use crate::error::{RuntimeError, word_of};

impl Kernel {
    /// What a volume lacks of the path is made; nothing in an image, and in memory by infra alone, which knows the Pod's ids.
    pub(super) async fn prepare_sub_paths(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        ids: Option<&PodIds>,
    ) -> Result<(), RuntimeError> {
        let mut parts = Vec::new();
        for mount in &config.mounts {
            let Some(path) = mount.sub_path.clone() else { continue };
            let memory = match &mount.source {
                MountSource::PodTmpfs(volume) => Some(self.open_tmpfs(sandbox, volume).await?),
                MountSource::HostPath(_) | MountSource::Image(_) => None,
            };
            parts.push((mount.clone(), path, memory));
        }
        if parts.is_empty() {
            return Ok(());
        }
        let (images, ids) = (self.images.clone(), ids.cloned());
        let prepare = move || {
            parts.into_iter().try_for_each(|(mount, path, memory)| {
                let prepared = prepare_sub_path(&mount.source, memory, &path, &images, ids.as_ref());
                prepared.map_err(|error| (mount, error))
            })
        };
        match tokio::time::timeout(START_LIMIT, tokio::task::spawn_blocking(prepare)).await {
            Ok(Ok(prepared)) => prepared.map_err(|(mount, error)| sub_path_error(config, &mount, error)),
            Ok(Err(join)) => Err(create_error(config, "open its volumes", join)),
            Err(elapsed) => Err(create_error(config, "open its volumes", elapsed)),
        }
    }
}

/// `memory`: the volume, where it is the sandbox's own tmpfs. Blocks.
fn prepare_sub_path(
    source: &MountSource,
    memory: Option<OwnedFd>,
    path: &Path,
    images: &ImageStore,
    ids: Option<&PodIds>,
) -> io::Result<()> {
    match source {
        MountSource::HostPath(volume) => open_part(volume, path).map(drop),
        MountSource::Image(id) => {
            let volume = mount_image(&images.layer_directories(id), &images.empty_directory(), ids)?;
            find_sub_path(volume.tree.as_fd(), path).map(drop)
        }
        MountSource::PodTmpfs(_) => match memory.map(|volume| find_sub_path(volume.as_fd(), path)) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Some(_) | None => Ok(()),
        },
    }
}

/// As the kubelet words it (`makeMounts`); of images a runtime does.
fn sub_path_error(config: &ContainerConfig, mount: &Mount, source: io::Error) -> RuntimeError {
    let volume = mount.volume.as_str();
    let step = sub_path::step(volume);
    let source = sub_path::explain(&step, source);
    match &mount.source {
        MountSource::Image(_) => {
            let path = mount.sub_path.as_deref().unwrap_or(Path::new("")).display();
            create_error(config, &format!("{step} {path}"), source)
        }
        MountSource::HostPath(_) | MountSource::PodTmpfs(_) => {
            let container = config.name.as_str();
            let message = format!(
                "failed to prepare subPath for volumeMount {volume:?} of container {container:?}: {}",
                word_of(&source)
            );
            RuntimeError::ContainerConfig { message }
        }
    }
}
