//! The calls of a kubelet in their order, over the runtime without a kernel.

use std::path::Path;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use image::{ImageStore, ImportConfig};
use jiff::Timestamp;
use prost::Message;
use runtime::fake::{FakeRuntime, OnExec};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;
use tonic::{Code, Request, Status};

use crate::grpc::Calls;
use crate::proto::image_service_server::ImageService;
use crate::proto::runtime_service_server::RuntimeService;
use crate::proto::{self, ContainerState, PodSandboxState};
use crate::streaming::StreamingServer;
use crate::{Cri, CriConfig};

struct Node {
    runtime: Arc<FakeRuntime>,
    images: ImageStore,
    cri: Cri,
    directory: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = store::Store::open(&directory.path().join("store")).unwrap();
        let images = ImageStore::open(&directory.path().join("images"), store).unwrap();
        let rootfs = directory.path().join("rootfs.tar");
        let mut archive = tar::Builder::new(std::fs::File::create(&rootfs).unwrap());
        archive.append_dir("bin", directory.path()).unwrap();
        archive.finish().unwrap();
        let config = ImportConfig { cmd: vec!["serve".into()], user: "web:web".into(), ..ImportConfig::default() };
        images.import_rootfs(&rootfs, "tools:1", config).await.unwrap();
        let runtime = Arc::new(FakeRuntime::new(directory.path().join("tmpfs"), Timestamp::now));
        let cri = Self::open(&directory, &runtime, &images).await;
        Self { runtime, images, cri, directory }
    }

    /// A daemon, the first one or one that takes over.
    async fn open(directory: &tempfile::TempDir, runtime: &Arc<FakeRuntime>, images: &ImageStore) -> Cri {
        let config = CriConfig {
            data_dir: directory.path().to_owned(),
            hostname: "node".into(),
            pod_cidr: "10.86.0.0/16".into(),
            version: "1".into(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let runtime: Arc<dyn runtime::Runtime> = Arc::clone(runtime) as _;
        let streams = StreamingServer::start(listener, Arc::clone(&runtime), CancellationToken::new()).unwrap();
        Cri::open(config, runtime, images.clone(), streams).await.unwrap()
    }

    async fn run_sandbox(&self) -> Result<String, Status> {
        let request = proto::RunPodSandboxRequest { config: Some(pod()), ..Default::default() };
        let reply = self.cri.run_pod_sandbox(Request::new(request)).await?;
        Ok(reply.into_inner().pod_sandbox_id)
    }

    async fn create(&self, sandbox: &str, image: &str) -> Result<String, Status> {
        let request = proto::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(container(image)),
            sandbox_config: Some(pod()),
        };
        Ok(self.cri.create_container(Request::new(request)).await?.into_inner().container_id)
    }

    async fn status(&self, id: &str) -> Result<proto::ContainerStatus, Status> {
        let request = proto::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(self.cri.container_status(Request::new(request)).await?.into_inner().status.unwrap())
    }

    async fn exec(&self, id: &str, program: &str) -> Result<proto::ExecSyncResponse, Status> {
        let cmd = vec![program.to_owned()];
        let request = proto::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 1 };
        self.cri.exec_sync(request).await
    }

    async fn remove_image(&self, image: &str) -> Result<(), Status> {
        self.cri.remove_image(Some(spec_of(image))).await
    }
}

fn spec_of(image: &str) -> proto::ImageSpec {
    proto::ImageSpec { image: image.to_owned(), ..Default::default() }
}

fn pod() -> proto::PodSandboxConfig {
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: "web".into(),
            uid: "u1".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        annotations: [("note".to_owned(), "kept".to_owned())].into(),
        dns_config: Some(proto::DnsConfig { servers: vec!["10.0.0.10".into()], ..Default::default() }),
        ..Default::default()
    }
}

fn container(image: &str) -> proto::ContainerConfig {
    proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(spec_of(image)),
        envs: vec![proto::KeyValue { key: "PASSWORD".into(), value: b"hunter2".to_vec() }],
        log_path: "main/0.log".into(),
        labels: [("tier".to_owned(), "front".to_owned())].into(),
        ..Default::default()
    }
}

/// A call as it comes over the wire: its gRPC status, and the messages of its answer, each behind a flag and its length.
async fn call(cri: &Cri, name: &str, message: &impl Message) -> (String, Vec<u8>) {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    let body = [&[0][..], &length.to_be_bytes(), &message].concat();
    let body = tonic::body::Body::new(http_body_util::Full::new(body.into()));
    let request = http::Request::post(format!("/runtime.v1.RuntimeService/{name}"));
    let request = request.header("content-type", "application/grpc").body(body).unwrap();
    let answer = Calls(cri.clone()).call(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let early = answer.headers().get("grpc-status").cloned();
    let whole = answer.into_body().collect().await.unwrap();
    let late = whole.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
    (early.or(late).unwrap().to_str().unwrap().to_owned(), whole.to_bytes().to_vec())
}

#[tokio::test]
async fn a_call_over_the_wire_is_answered_with_one_message_or_with_many_or_refused() {
    let node = Node::start().await;
    let (status, answer) = call(&node.cri, "Version", &proto::VersionRequest::default()).await;
    let version = proto::VersionResponse::decode(&answer[5..]).unwrap();
    assert_eq!((status.as_str(), version.runtime_version.as_str()), ("0", "1"));

    let sandbox = node.run_sandbox().await.unwrap();
    let (status, answer) = call(&node.cri, "StreamPodSandboxes", &proto::StreamPodSandboxesRequest::default()).await;
    let told = proto::StreamPodSandboxesResponse::decode(&answer[5..]).unwrap();
    assert_eq!((status.as_str(), &told.pod_sandboxes[0].id), ("0", &sandbox));
    let missing = proto::PodSandboxStatusRequest { pod_sandbox_id: "none".into(), verbose: false };
    let not_found = (Code::NotFound as i32).to_string();
    assert_eq!(call(&node.cri, "PodSandboxStatus", &missing).await, (not_found, Vec::new()));
    let unknown = (Code::Unimplemented as i32).to_string();
    assert_eq!(call(&node.cri, "Unknown", &missing).await, (unknown, Vec::new()));
    // Its second field is a message, not a text that is none.
    let nonsense = proto::StopContainerRequest { container_id: "c".into(), timeout: 1 };
    let internal = (Code::Internal as i32).to_string();
    assert_eq!(call(&node.cri, "CreateContainer", &nonsense).await.0, internal);
}

#[tokio::test]
async fn a_container_lives_and_ends_as_the_kubelet_asks() {
    let node = Node::start().await;
    let sandbox = node.run_sandbox().await.unwrap();
    assert_eq!(node.run_sandbox().await.unwrap_err().code(), Code::AlreadyExists);
    let resolver = node.directory.path().join("cri/sandboxes").join(&sandbox).join("resolv.conf");
    assert_eq!(std::fs::read_to_string(&resolver).unwrap(), "nameserver 10.0.0.10\n");

    assert_eq!(node.create(&sandbox, "missing:1").await.unwrap_err().code(), Code::NotFound);
    let id = node.create(&sandbox, "tools:1").await.unwrap();
    assert_eq!(node.create(&sandbox, "tools:1").await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(node.status(&id).await.unwrap().state(), ContainerState::ContainerCreated);
    assert_eq!(node.exec(&id, "true").await.unwrap_err().code(), Code::FailedPrecondition);

    node.cri.start(&id).await.unwrap();
    assert_eq!(node.cri.start(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    // The beginning of an identifier is enough, as crictl shows it.
    let status = node.status(id.get(..13).unwrap()).await.unwrap();
    assert_eq!(
        (status.state(), status.labels.len(), status.image.unwrap().image.as_str()),
        (ContainerState::ContainerRunning, 1, "tools:1")
    );
    assert!(Path::new(&status.log_path).ends_with("main/0.log"), "{}", status.log_path);

    let output = node.exec(&id, "true").await.unwrap();
    assert_eq!((output.exit_code, output.stdout.as_slice()), (0, b"true\n".as_slice()));
    node.runtime.on_exec("sleep", OnExec::Hangs);
    assert_eq!(node.exec(&id, "sleep").await.unwrap_err().code(), Code::DeadlineExceeded);

    let held = node.remove_image("tools:1").await.unwrap_err();
    assert_eq!(held.code(), Code::FailedPrecondition, "a container has it: {held}");
    node.cri.stop(&id, 0).await.unwrap();
    assert_eq!(node.status(&id).await.unwrap().state(), ContainerState::ContainerExited);
    node.cri.stop_sandbox(&sandbox).await.unwrap();
    let sandboxes = node.cri.list_sandboxes(None).await;
    assert_eq!(sandboxes.iter().map(proto::PodSandbox::state).collect::<Vec<_>>(), [PodSandboxState::SandboxNotready]);
    assert_eq!(sandboxes.first().unwrap().annotations["note"], "kept");

    let unread = node.directory.path().join("cri/logs/u1");
    std::fs::create_dir_all(unread.join("main")).unwrap();
    // Removing what is gone succeeds.
    for _ in 0..2 {
        node.cri.remove_sandbox(&sandbox).await.unwrap();
        node.cri.stop_sandbox(&sandbox).await.unwrap();
    }
    assert!(node.cri.list(None).await.is_empty() && !resolver.exists() && !unread.exists());
    node.remove_image("tools:1").await.unwrap();
    node.remove_image("tools:1").await.unwrap();
    assert!(node.images.list().is_empty());
}

#[tokio::test]
async fn a_daemon_that_starts_anew_tells_the_same() {
    let node = Node::start().await;
    let sandbox = node.run_sandbox().await.unwrap();
    let id = node.create(&sandbox, "tools:1").await.unwrap();
    node.cri.start(&id).await.unwrap();
    let before = (node.status(&id).await.unwrap(), node.cri.list_sandboxes(None).await);
    let stray = node.directory.path().join("cri/sandboxes/stray");
    std::fs::create_dir(&stray).unwrap();

    let again = Node { cri: Node::open(&node.directory, &node.runtime, &node.images).await, ..node };
    assert_eq!((again.status(&id).await.unwrap(), again.cri.list_sandboxes(None).await), before);
    assert!(!stray.exists(), "files of no sandbox");
    assert_eq!(again.remove_image("tools:1").await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn an_image_says_who_its_process_is_and_secrets_are_not_kept() {
    let node = Node::start().await;
    let image = node.cri.image_status(Some(spec_of("tools:1"))).unwrap().unwrap();
    assert_eq!((image.username.as_str(), image.uid), ("web", None));
    assert_eq!(node.cri.image_status(Some(spec_of("other:1"))).unwrap(), None);
    let listed = ImageService::list_images(&node.cri, Request::new(proto::ListImagesRequest::default())).await.unwrap();
    assert_eq!(listed.into_inner().images, [image]);

    let sandbox = node.run_sandbox().await.unwrap();
    let id = node.create(&sandbox, "tools:1").await.unwrap();
    let container = runtime::Runtime::list_containers(&*node.runtime).await.into_iter().find(|it| it.id.as_str() == id);
    let kept: proto::ContainerConfig = crate::kept::kept(&container.unwrap().labels);
    assert!(kept.envs.is_empty() && kept.labels.contains_key("tier"));
}
