//! The two services of CRI: each call of the protocol, and where it leads.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use image::ImageStore;
use runtime::Runtime;
use tokio::net::{UnixListener, UnixStream};
use tonic::{Request, Response, Status};

use crate::errors::unsupported;
use crate::grpc::Calls;
use crate::proto;
use crate::proto::image_service_server::ImageService;
use crate::proto::runtime_service_server::RuntimeService;
use crate::sandbox_files::SandboxFiles;
use crate::streaming::StreamingServer;

/// What the services need to know.
#[derive(Debug, Clone)]
pub struct CriConfig {
    /// What is kept over reboots.
    pub data_dir: PathBuf,
    /// The machine's host name, for Pods in its network.
    pub hostname: String,
    /// The network of Pods, for a kubelet that says what it should be.
    pub pod_cidr: String,
    /// The engine's version.
    pub version: String,
}

impl CriConfig {
    /// Logs that no caller reads.
    pub(crate) fn logs(&self) -> PathBuf {
        self.data_dir.join("cri").join("logs")
    }
}

/// Why the services ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory of sandboxes' files.
    #[error("cannot keep files of sandboxes below {}", path.display())]
    Files {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The server failed.
    #[error("cannot serve CRI")]
    Server(#[source] tonic::transport::Error),
}

/// The services; cheap to clone.
#[derive(Clone)]
pub struct Cri(pub(crate) Arc<Shared>);

impl std::fmt::Debug for Cri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cri").field("config", &self.0.config).finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    pub(crate) config: CriConfig,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: ImageStore,
    pub(crate) files: SandboxFiles,
    pub(crate) streams: StreamingServer,
}

impl Cri {
    /// Takes over what an earlier daemon left.
    pub async fn open(
        config: CriConfig,
        runtime: Arc<dyn Runtime>,
        images: ImageStore,
        streams: StreamingServer,
    ) -> Result<Self, ServeError> {
        let path = config.data_dir.join("cri").join("sandboxes");
        let live: Vec<_> = runtime.list_pod_sandboxes().await.into_iter().map(|sandbox| sandbox.id).collect();
        let opened = SandboxFiles::open(&path).and_then(|files| files.retain(&live).map(|()| files));
        let files = opened.map_err(|source| ServeError::Files { path, source })?;
        let containers = runtime.list_containers().await;
        let holders = containers.into_iter().map(|container| container.id.to_string()).collect();
        images.retain_holders(&holders);
        Ok(Self(Arc::new(Shared { config, runtime, images, files, streams })))
    }
}

/// Serves on a socket until `end`.
pub async fn serve(cri: Cri, listener: UnixListener, end: impl Future<Output = ()>) -> Result<(), ServeError> {
    let connections = stream::unfold(listener, |listener| async {
        let accepted: io::Result<UnixStream> = listener.accept().await.map(|(connection, _)| connection);
        Some((accepted, listener))
    });
    let server = tonic::transport::Server::builder();
    server.serve_with_incoming_shutdown(Calls(cri), connections, end).await.map_err(ServeError::Server)
}

/// Runs what must not stop in the middle when the caller goes away.
pub(crate) async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

/// A stream that tells what a list holds, one message for each.
fn one_by_one<T: Send + 'static>(items: Vec<T>) -> Messages<T> {
    stream::iter(items.into_iter().map(Ok)).boxed()
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for Cri {
    async fn version(&self, _request: Request<proto::VersionRequest>) -> Reply<proto::VersionResponse> {
        Ok(Response::new(Cri::version(self)))
    }

    async fn status(&self, _request: Request<proto::StatusRequest>) -> Reply<proto::StatusResponse> {
        Ok(Response::new(Cri::status()))
    }

    async fn runtime_config(
        &self,
        _request: Request<proto::RuntimeConfigRequest>,
    ) -> Reply<proto::RuntimeConfigResponse> {
        Ok(Response::new(Cri::runtime_config()))
    }

    async fn update_runtime_config(
        &self,
        request: Request<proto::UpdateRuntimeConfigRequest>,
    ) -> Reply<proto::UpdateRuntimeConfigResponse> {
        Cri::update_runtime_config(self, request.into_inner())?;
        Ok(Response::new(proto::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<proto::RunPodSandboxRequest>,
    ) -> Reply<proto::RunPodSandboxResponse> {
        let pod_sandbox_id = self.run_sandbox(request.into_inner()).await?;
        Ok(Response::new(proto::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<proto::StopPodSandboxRequest>,
    ) -> Reply<proto::StopPodSandboxResponse> {
        self.stop_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(proto::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<proto::RemovePodSandboxRequest>,
    ) -> Reply<proto::RemovePodSandboxResponse> {
        self.remove_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(proto::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<proto::PodSandboxStatusRequest>,
    ) -> Reply<proto::PodSandboxStatusResponse> {
        Ok(Response::new(self.sandbox_status(request.into_inner()).await?))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<proto::ListPodSandboxRequest>,
    ) -> Reply<proto::ListPodSandboxResponse> {
        let items = self.list_sandboxes(request.into_inner().filter).await;
        Ok(Response::new(proto::ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = Messages<proto::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<proto::StreamPodSandboxesRequest>,
    ) -> Reply<Self::StreamPodSandboxesStream> {
        let items = self.list_sandboxes(request.into_inner().filter).await;
        let messages = items.into_iter().map(|item| proto::StreamPodSandboxesResponse { pod_sandboxes: vec![item] });
        Ok(Response::new(one_by_one(messages.collect())))
    }

    async fn create_container(
        &self,
        request: Request<proto::CreateContainerRequest>,
    ) -> Reply<proto::CreateContainerResponse> {
        let container_id = self.create(request.into_inner()).await?;
        Ok(Response::new(proto::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<proto::StartContainerRequest>,
    ) -> Reply<proto::StartContainerResponse> {
        self.start(&request.into_inner().container_id).await?;
        Ok(Response::new(proto::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<proto::StopContainerRequest>,
    ) -> Reply<proto::StopContainerResponse> {
        let proto::StopContainerRequest { container_id, timeout } = request.into_inner();
        self.stop(&container_id, timeout).await?;
        Ok(Response::new(proto::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<proto::RemoveContainerRequest>,
    ) -> Reply<proto::RemoveContainerResponse> {
        Cri::remove_container(self, &request.into_inner().container_id).await?;
        Ok(Response::new(proto::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<proto::ListContainersRequest>,
    ) -> Reply<proto::ListContainersResponse> {
        let containers = self.list(request.into_inner().filter).await;
        Ok(Response::new(proto::ListContainersResponse { containers }))
    }

    type StreamContainersStream = Messages<proto::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<proto::StreamContainersRequest>,
    ) -> Reply<Self::StreamContainersStream> {
        let items = self.list(request.into_inner().filter).await;
        let messages = items.into_iter().map(|item| proto::StreamContainersResponse { containers: vec![item] });
        Ok(Response::new(one_by_one(messages.collect())))
    }

    async fn container_status(
        &self,
        request: Request<proto::ContainerStatusRequest>,
    ) -> Reply<proto::ContainerStatusResponse> {
        let container = self.find_container(&request.into_inner().container_id).await?;
        let status = Some(crate::container_status::status(&container));
        Ok(Response::new(proto::ContainerStatusResponse { status, info: [].into() }))
    }

    async fn update_container_resources(
        &self,
        request: Request<proto::UpdateContainerResourcesRequest>,
    ) -> Reply<proto::UpdateContainerResourcesResponse> {
        self.update(request.into_inner()).await?;
        Ok(Response::new(proto::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<proto::ReopenContainerLogRequest>,
    ) -> Reply<proto::ReopenContainerLogResponse> {
        self.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(proto::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<proto::ExecSyncRequest>) -> Reply<proto::ExecSyncResponse> {
        Ok(Response::new(Cri::exec_sync(self, request.into_inner()).await?))
    }

    async fn exec(&self, request: Request<proto::ExecRequest>) -> Reply<proto::ExecResponse> {
        let url = Cri::exec(self, request.into_inner()).await?;
        Ok(Response::new(proto::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<proto::AttachRequest>) -> Reply<proto::AttachResponse> {
        let url = Cri::attach(self, request.into_inner()).await?;
        Ok(Response::new(proto::AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<proto::PortForwardRequest>) -> Reply<proto::PortForwardResponse> {
        let url = Cri::port_forward(self, request.into_inner()).await?;
        Ok(Response::new(proto::PortForwardResponse { url }))
    }

    async fn container_stats(
        &self,
        request: Request<proto::ContainerStatsRequest>,
    ) -> Reply<proto::ContainerStatsResponse> {
        let stats = Some(self.stats_of_container(&request.into_inner().container_id).await?);
        Ok(Response::new(proto::ContainerStatsResponse { stats }))
    }

    async fn list_container_stats(
        &self,
        request: Request<proto::ListContainerStatsRequest>,
    ) -> Reply<proto::ListContainerStatsResponse> {
        let stats = self.stats_of_containers(request.into_inner().filter).await?;
        Ok(Response::new(proto::ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Messages<proto::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<proto::StreamContainerStatsRequest>,
    ) -> Reply<Self::StreamContainerStatsStream> {
        let items = self.stats_of_containers(request.into_inner().filter).await?;
        let messages =
            items.into_iter().map(|item| proto::StreamContainerStatsResponse { container_stats: vec![item] });
        Ok(Response::new(one_by_one(messages.collect())))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<proto::PodSandboxStatsRequest>,
    ) -> Reply<proto::PodSandboxStatsResponse> {
        let stats = Some(self.stats_of_sandbox(&request.into_inner().pod_sandbox_id).await?);
        Ok(Response::new(proto::PodSandboxStatsResponse { stats }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<proto::ListPodSandboxStatsRequest>,
    ) -> Reply<proto::ListPodSandboxStatsResponse> {
        let stats = self.stats_of_sandboxes(request.into_inner().filter).await?;
        Ok(Response::new(proto::ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Messages<proto::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<proto::StreamPodSandboxStatsRequest>,
    ) -> Reply<Self::StreamPodSandboxStatsStream> {
        let items = self.stats_of_sandboxes(request.into_inner().filter).await?;
        let messages =
            items.into_iter().map(|item| proto::StreamPodSandboxStatsResponse { pod_sandbox_stats: vec![item] });
        Ok(Response::new(one_by_one(messages.collect())))
    }

    type GetContainerEventsStream = Messages<proto::ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _request: Request<proto::GetEventsRequest>,
    ) -> Reply<Self::GetContainerEventsStream> {
        Ok(Response::new(self.watch().await.boxed()))
    }

    /// A sandbox' cgroup is the caller's, which has set its limits already.
    async fn update_pod_sandbox_resources(
        &self,
        request: Request<proto::UpdatePodSandboxResourcesRequest>,
    ) -> Reply<proto::UpdatePodSandboxResourcesResponse> {
        self.find_sandbox(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(proto::UpdatePodSandboxResourcesResponse {}))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<proto::CheckpointContainerRequest>,
    ) -> Reply<proto::CheckpointContainerResponse> {
        Err(unsupported("CheckpointContainer", "containers are not checkpointed here"))
    }

    async fn checkpoint_pod(
        &self,
        _request: Request<proto::CheckpointPodRequest>,
    ) -> Reply<proto::CheckpointPodResponse> {
        Err(unsupported("CheckpointPod", "pods are not checkpointed here"))
    }

    async fn restore_pod(&self, _request: Request<proto::RestorePodRequest>) -> Reply<proto::RestorePodResponse> {
        Err(unsupported("RestorePod", "pods are not checkpointed here"))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<proto::ListMetricDescriptorsRequest>,
    ) -> Reply<proto::ListMetricDescriptorsResponse> {
        Err(unsupported("ListMetricDescriptors", "use ListPodSandboxStats"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<proto::ListPodSandboxMetricsRequest>,
    ) -> Reply<proto::ListPodSandboxMetricsResponse> {
        Err(unsupported("ListPodSandboxMetrics", "use ListPodSandboxStats"))
    }

    type StreamPodSandboxMetricsStream = Messages<proto::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<proto::StreamPodSandboxMetricsRequest>,
    ) -> Reply<Self::StreamPodSandboxMetricsStream> {
        Err(unsupported("StreamPodSandboxMetrics", "use StreamPodSandboxStats"))
    }
}

#[tonic::async_trait]
impl ImageService for Cri {
    async fn list_images(&self, request: Request<proto::ListImagesRequest>) -> Reply<proto::ListImagesResponse> {
        let images = Cri::list_images(self, request.into_inner().filter);
        Ok(Response::new(proto::ListImagesResponse { images }))
    }

    type StreamImagesStream = Messages<proto::StreamImagesResponse>;

    async fn stream_images(&self, request: Request<proto::StreamImagesRequest>) -> Reply<Self::StreamImagesStream> {
        let items = Cri::list_images(self, request.into_inner().filter);
        let messages = items.into_iter().map(|item| proto::StreamImagesResponse { images: vec![item] });
        Ok(Response::new(one_by_one(messages.collect())))
    }

    async fn image_status(&self, request: Request<proto::ImageStatusRequest>) -> Reply<proto::ImageStatusResponse> {
        let image = Cri::image_status(self, request.into_inner().image)?;
        Ok(Response::new(proto::ImageStatusResponse { image, info: [].into() }))
    }

    async fn pull_image(&self, request: Request<proto::PullImageRequest>) -> Reply<proto::PullImageResponse> {
        let image_ref = self.pull(request.into_inner()).await?;
        Ok(Response::new(proto::PullImageResponse { image_ref }))
    }

    async fn remove_image(&self, request: Request<proto::RemoveImageRequest>) -> Reply<proto::RemoveImageResponse> {
        Cri::remove_image(self, request.into_inner().image).await?;
        Ok(Response::new(proto::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _request: Request<proto::ImageFsInfoRequest>) -> Reply<proto::ImageFsInfoResponse> {
        Ok(Response::new(self.image_fs().await?))
    }
}
