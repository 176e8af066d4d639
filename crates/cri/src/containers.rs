//! Containers: create, start, stop, remove, status, list, limits, logs.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use runtime::{ContainerState, ContainerStatus, MountSource, NetworkMode, PodSandboxState, RuntimeError};
use spec::ContainerId;
use tonic::Status;

use crate::container_config::{self, Surroundings, find_image};
use crate::container_status;
use crate::errors::{self, chain, invalid};
use crate::filter::{Filter, Listed};
use crate::kept::{keep, kept};
use crate::proto;
use crate::resources;
use crate::sandbox_config;
use crate::service::{Cri, finish};

impl Cri {
    pub(crate) async fn create(&self, request: proto::CreateContainerRequest) -> Result<String, Status> {
        let mut config = request.config.ok_or_else(|| invalid("config", "it is missing"))?;
        let sandbox = self.find_sandbox(&request.pod_sandbox_id).await?;
        if sandbox.state != PodSandboxState::Ready {
            return Err(Status::failed_precondition(format!(
                "sandbox {} of pod {} is not ready",
                sandbox.id, sandbox.pod
            )));
        }
        let of_pod: proto::PodSandboxConfig = kept(&sandbox.labels);
        let wanted_sandbox = sandbox_config::translate(&of_pod, &self.0.config.logs(), &self.0.config.hostname)?;
        let hostname = match wanted_sandbox.network {
            NetworkMode::Host => &self.0.config.hostname,
            NetworkMode::Pod => &wanted_sandbox.hostname,
        };
        let image = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = find_image(&self.0.images, &image)?;
        let files = self.0.files.list(&sandbox.id);
        let around = Surroundings { image: &image, images: &self.0.images, hostname, files };
        let mut wanted = container_config::translate(&config, &around)?;
        // What was mounted is told by its identity.
        for (told, mount) in config.mounts.iter_mut().rev().zip(wanted.mounts.iter().rev()) {
            if let (Some(image), MountSource::Image(id)) = (&mut told.image, &mount.source) {
                image.image = id.to_string();
                image.image_ref.clone_from(&image.image);
            }
        }
        wanted.labels = keep(&container_config::without_secrets(&config));
        self.refuse_a_second(&sandbox.id, &wanted).await?;
        let this = self.clone();
        let mounts = wanted.mounts.clone();
        finish(async move {
            // A path on dead storage blocks this thread alone.
            let looked = tokio::task::spawn_blocking(move || mounts.iter().filter_map(missing_directory).collect());
            let directories: Vec<PathBuf> = looked.await.map_err(|error| Status::internal(chain(&error)))?;
            for path in directories {
                let made = tokio::fs::create_dir_all(&path).await;
                made.map_err(|error| {
                    Status::unknown(format!("cannot make the directory {}: {error}", path.display()))
                })?;
            }
            this.create_held(&sandbox.id, wanted).await
        })
        .await
    }

    /// A kubelet that asks twice for the same is told so.
    async fn refuse_a_second(
        &self,
        sandbox: &spec::SandboxId,
        wanted: &runtime::ContainerConfig,
    ) -> Result<(), Status> {
        let containers = self.0.runtime.list_containers().await;
        let same = containers.iter().find(|container| {
            container.sandbox_id == *sandbox && container.name == wanted.name && container.attempt == wanted.attempt
        });
        match same {
            Some(same) => Err(Status::already_exists(format!("container {} has this name and attempt", same.id))),
            None => Ok(()),
        }
    }

    /// Its image must not go before it: held by the sandbox until the container has its identifier.
    async fn create_held(&self, sandbox: &spec::SandboxId, wanted: runtime::ContainerConfig) -> Result<String, Status> {
        let images = wanted.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Image(id) => Some(id.clone()),
            MountSource::HostPath(_) | MountSource::PodTmpfs(_) => None,
        });
        let images: Vec<_> = images.chain([wanted.image_id.clone()]).collect();
        let holder = format!("creating:{sandbox}:{}:{}", wanted.name, wanted.attempt);
        let created = async {
            for image in &images {
                self.0.images.hold(image, &holder).await.map_err(|error| Status::not_found(chain(&error)))?;
            }
            let id = self.0.runtime.create_container(sandbox, wanted).await.map_err(|error| errors::runtime(&error))?;
            for image in &images {
                if let Err(error) = self.0.images.hold(image, id.as_str()).await {
                    // Without its images it must not stay; a removal that fails is found again with its sandbox.
                    self.remove_now(&id).await?;
                    return Err(Status::unknown(chain(&error)));
                }
            }
            Ok(id.to_string())
        }
        .await;
        self.0.images.release(&holder);
        created
    }

    /// By its identifier, or the beginning of one that no other has.
    pub(crate) async fn find_container(&self, id: &str) -> Result<ContainerStatus, Status> {
        let containers = self.0.runtime.list_containers().await;
        let mut found =
            containers.into_iter().filter(|container| !id.is_empty() && container.id.as_str().starts_with(id));
        match (found.next(), found.next()) {
            (Some(container), None) => Ok(container),
            _ => Err(Status::not_found(format!("no container {id:?}"))),
        }
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), Status> {
        let container = self.find_container(id).await?;
        let state = match container.state {
            ContainerState::Created => {
                let this = self.clone();
                let started = async move { this.0.runtime.start_container(&container.id).await };
                return finish(async move { started.await.map_err(|error| errors::runtime(&error)) }).await;
            }
            ContainerState::Running { .. } => "runs",
            ContainerState::Exited(_) => "has ended",
        };
        Err(Status::failed_precondition(format!("container {} {state} already", container.id)))
    }

    pub(crate) async fn stop(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let Ok(container) = self.find_container(id).await else { return Ok(()) };
        let grace = Duration::from_secs(u64::try_from(timeout).unwrap_or(0));
        let this = self.clone();
        finish(async move {
            let stopped = this.0.runtime.stop_container(&container.id, None, grace).await;
            stopped.map_err(|error| errors::runtime(&error))
        })
        .await
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Status> {
        let Ok(container) = self.find_container(id).await else { return Ok(()) };
        let this = self.clone();
        finish(async move { this.remove_now(&container.id).await }).await
    }

    pub(crate) async fn remove_now(&self, id: &ContainerId) -> Result<(), Status> {
        self.0.runtime.remove_container(id).await.map_err(|error| errors::runtime(&error))?;
        self.0.images.release(id.as_str());
        Ok(())
    }

    pub(crate) async fn list(&self, filter: Option<proto::ContainerFilter>) -> Vec<proto::Container> {
        let filter = Filter::from(filter);
        let containers = self.0.runtime.list_containers().await;
        let mut items: Vec<proto::Container> = containers.iter().map(container_status::item).collect();
        items.retain(|item| {
            filter.takes(Listed {
                id: &item.id,
                sandbox: &item.pod_sandbox_id,
                state: item.state,
                labels: &item.labels,
            })
        });
        spec::ordered::sort_by_key(&mut items, |item| std::cmp::Reverse(item.created_at));
        items
    }

    pub(crate) async fn update(&self, request: proto::UpdateContainerResourcesRequest) -> Result<(), Status> {
        let container = self.find_container(&request.container_id).await?;
        let update = resources::translate(&request.linux.unwrap_or_default())?;
        let merged = resources::merge(&container.resources, &update);
        let updated = self.0.runtime.update_container_resources(&container.id, &merged).await;
        updated.map_err(|error| errors::runtime(&error))
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let container = self.find_container(id).await?;
        match self.0.runtime.reopen_container_log(&container.id).await {
            // It ended meanwhile, and nothing more is written.
            Err(RuntimeError::NotRunning { .. }) if matches!(container.state, ContainerState::Exited(_)) => Ok(()),
            reopened => reopened.map_err(|error| errors::runtime(&error)),
        }
    }
}

/// A path of the machine that is not there is made a directory, as other runtimes do it since docker did.
fn missing_directory(mount: &runtime::Mount) -> Option<PathBuf> {
    match &mount.source {
        MountSource::HostPath(path) => {
            let missing = fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            missing.then(|| path.clone())
        }
        MountSource::PodTmpfs(_) | MountSource::Image(_) => None,
    }
}
