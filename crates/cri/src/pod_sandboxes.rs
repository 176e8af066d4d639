//! Pod sandboxes: run, stop, remove, status, list.

use runtime::{NetworkMode, PodSandboxState, PodSandboxStatus};
use spec::{PodUid, SandboxId, Timestamp};
use tonic::Status;

use crate::errors::{self, invalid};
use crate::filter::{Filter, Listed};
use crate::kept::kept;
use crate::proto::{self, PodSandboxConfig};
use crate::sandbox_config;
use crate::service::{Cri, finish};

impl Cri {
    pub(crate) async fn run_sandbox(&self, request: proto::RunPodSandboxRequest) -> Result<String, Status> {
        if !request.runtime_handler.is_empty() {
            let known = "there is one runtime here, whose handler is \"\"";
            return Err(invalid("runtime_handler", format!("{:?} is not known: {known}", request.runtime_handler)));
        }
        let config = request.config.ok_or_else(|| invalid("config", "it is missing"))?;
        let wanted = sandbox_config::translate(&config, &self.0.config.logs(), &self.0.config.hostname)?;
        let (present, _) = self.0.runtime.list_pod(&wanted.uid).await;
        if let Some(same) = present.iter().find(|sandbox| sandbox.attempt == wanted.attempt) {
            return Err(Status::already_exists(format!("pod {} has sandbox {} of this attempt", same.pod, same.id)));
        }
        let hostname = match wanted.network {
            NetworkMode::Host => self.0.config.hostname.clone(),
            NetworkMode::Pod => wanted.hostname.clone(),
        };
        let this = self.clone();
        // A caller that gives up leaves nothing half-made.
        finish(async move {
            let sandbox = this.0.runtime.run_pod_sandbox(wanted).await.map_err(|error| errors::runtime(&error))?;
            if let Err(error) = this.0.files.write(&sandbox, &config, &hostname) {
                this.remove(&sandbox.id).await?;
                return Err(Status::unknown(format!("cannot write the files of pod {}: {error}", sandbox.pod)));
            }
            Ok(sandbox.id.to_string())
        })
        .await
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let Ok(id) = self.find_sandbox(id).await.map(|sandbox| sandbox.id) else { return Ok(()) };
        let this = self.clone();
        finish(async move {
            match this.0.runtime.stop_pod_sandbox(&id).await {
                Err(runtime::RuntimeError::NoSuchSandbox(_)) => Ok(()),
                stopped => stopped.map_err(|error| errors::runtime(&error)),
            }
        })
        .await
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let Ok(id) = self.find_sandbox(id).await.map(|sandbox| sandbox.id) else { return Ok(()) };
        let this = self.clone();
        finish(async move { this.remove(&id).await }).await
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), Status> {
        let containers = self.0.runtime.list_containers().await;
        for container in containers.iter().filter(|container| container.sandbox_id == *id) {
            self.remove_now(&container.id).await?;
        }
        let uid = self.find_sandbox(id.as_str()).await.ok().map(|sandbox| sandbox.uid);
        self.0.runtime.remove_pod_sandbox(id).await.map_err(|error| errors::runtime(&error))?;
        self.0
            .files
            .remove(id)
            .map_err(|error| Status::unknown(format!("cannot remove the files of sandbox {id}: {error}")))?;
        match uid {
            Some(uid) => self.remove_unread_logs(&uid).await,
            None => Ok(()),
        }
    }

    /// Logs that the caller had no directory for go with the Pod's last sandbox.
    async fn remove_unread_logs(&self, uid: &PodUid) -> Result<(), Status> {
        if !self.0.runtime.list_pod(uid).await.0.is_empty() {
            return Ok(());
        }
        let directory = self.0.config.logs().join(uid.as_str());
        match tokio::fs::remove_dir_all(&directory).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Status::unknown(format!("cannot remove {}: {error}", directory.display())))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// By its identifier, or the beginning of one that no other has.
    pub(crate) async fn find_sandbox(&self, id: &str) -> Result<PodSandboxStatus, Status> {
        let sandboxes = self.0.runtime.list_pod_sandboxes().await;
        let mut found = sandboxes.into_iter().filter(|sandbox| !id.is_empty() && sandbox.id.as_str().starts_with(id));
        match (found.next(), found.next()) {
            (Some(sandbox), None) => Ok(sandbox),
            _ => Err(Status::not_found(format!("no pod sandbox {id:?}"))),
        }
    }

    pub(crate) async fn sandbox_status(
        &self,
        request: proto::PodSandboxStatusRequest,
    ) -> Result<proto::PodSandboxStatusResponse, Status> {
        let sandbox = self.find_sandbox(&request.pod_sandbox_id).await?;
        let containers = self.0.runtime.list_containers().await;
        let containers = containers.iter().filter(|container| container.sandbox_id == sandbox.id);
        Ok(proto::PodSandboxStatusResponse {
            containers_statuses: containers.map(crate::container_status::status).collect(),
            status: Some(status(&sandbox)),
            info: [].into(),
            timestamp: nanos(Timestamp::now()),
        })
    }

    pub(crate) async fn list_sandboxes(&self, filter: Option<proto::PodSandboxFilter>) -> Vec<proto::PodSandbox> {
        let filter = Filter::from(filter);
        let mut items: Vec<proto::PodSandbox> = self.0.runtime.list_pod_sandboxes().await.iter().map(item).collect();
        items.retain(|item| {
            filter.takes(Listed { id: &item.id, sandbox: &item.id, state: item.state, labels: &item.labels })
        });
        spec::ordered::sort_by_key(&mut items, |item| std::cmp::Reverse(item.created_at));
        items
    }
}

/// Nanoseconds since 1970.
pub fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

fn state(sandbox: &PodSandboxStatus) -> i32 {
    let state = match sandbox.state {
        // A kubelet that heard of a sandbox that is not ready would end it.
        PodSandboxState::Ready | PodSandboxState::Silent => proto::PodSandboxState::SandboxReady,
        PodSandboxState::NotReady => proto::PodSandboxState::SandboxNotready,
    };
    state as i32
}

/// As a list tells it.
fn item(sandbox: &PodSandboxStatus) -> proto::PodSandbox {
    let config: PodSandboxConfig = kept(&sandbox.labels);
    proto::PodSandbox {
        id: sandbox.id.to_string(),
        metadata: config.metadata,
        state: state(sandbox),
        created_at: nanos(sandbox.created_at),
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler: String::new(),
    }
}

/// As its own status tells it.
pub fn status(sandbox: &PodSandboxStatus) -> proto::PodSandboxStatus {
    let proto::PodSandbox { id, metadata, state, created_at, labels, annotations, runtime_handler } = item(sandbox);
    let config: PodSandboxConfig = kept(&sandbox.labels);
    let options = config.linux.and_then(|linux| linux.security_context?.namespace_options).unwrap_or_default();
    let mut addresses = sandbox.addresses.iter().map(ToString::to_string);
    let network = proto::PodSandboxNetworkStatus {
        ip: addresses.next().unwrap_or_default(),
        additional_ips: addresses.map(|ip| proto::PodIp { ip }).collect(),
    };
    proto::PodSandboxStatus {
        id,
        metadata,
        state,
        created_at,
        network: Some(network),
        linux: Some(proto::LinuxPodSandboxStatus { namespaces: Some(proto::Namespace { options: Some(options) }) }),
        labels,
        annotations,
        runtime_handler,
    }
}
