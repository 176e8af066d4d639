//! gRPC for the services of CRI, with messages that are bytes to it.
//!
//! The servers that tonic generates have all of gRPC in the program once for each call, since it is generic over the call's
//! messages: ten kilobytes for each of 43 calls. Here it is there once, and a call is an entry of a table, which knows its messages.

use std::convert::Infallible;
use std::future::ready;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Request, Response, Status};

use crate::proto::image_service_server::{self, ImageService};
use crate::proto::runtime_service_server::{self, RuntimeService};
use crate::service::Cri;

/// A message may hold what an `ExecSync` has printed twice over (16 MiB each), and what lists of many containers take.
const MESSAGE_LIMIT: usize = 64 << 20;

/// The messages of an answer.
type Messages = BoxStream<'static, Result<Vec<u8>, Status>>;

/// What answers a call.
type Call = fn(Cri, Bytes) -> BoxFuture<'static, Result<Response<Messages>, Status>>;

/// The call that a path of HTTP names, by its service and its own name.
fn find(path: &str) -> Option<Call> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    match service {
        runtime_service_server::SERVICE_NAME => runtime_call(name),
        image_service_server::SERVICE_NAME => image_call(name),
        _ => None,
    }
}

/// All calls of all services.
#[derive(Clone)]
pub(crate) struct Calls(pub(crate) Cri);

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match find(request.uri().path()) {
            Some(call) => answer(Called { cri: self.0.clone(), call }, request).map(Ok).boxed(),
            None => ready(Ok(Status::unimplemented("").into_http())).boxed(),
        }
    }
}

/// On the wire, an answer of one message is a stream of one.
async fn answer(called: Called, request: http::Request<Body>) -> http::Response<Body> {
    let mut grpc = Grpc::new(Plain).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
    grpc.server_streaming(called, request).await
}

/// A call that somebody makes.
struct Called {
    cri: Cri,
    call: Call,
}

impl ServerStreamingService<Bytes> for Called {
    type Response = Vec<u8>;
    type ResponseStream = Messages;
    type Future = BoxFuture<'static, Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        (self.call)(self.cri.clone(), request.into_inner())
    }
}

/// Bytes as they are.
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A request as its call takes it.
fn request<M: Message + Default>(bytes: Bytes) -> Result<Request<M>, Status> {
    // What tonic's own codec says.
    M::decode(bytes).map(Request::new).map_err(|error| Status::internal(error.to_string()))
}

fn one<M: Message>(reply: Response<M>) -> Response<Messages> {
    let message = reply.into_inner().encode_to_vec();
    Response::new(stream::once(ready(Ok(message))).boxed())
}

fn many<M: Message>(reply: Response<impl Stream<Item = Result<M, Status>> + Send + 'static>) -> Response<Messages> {
    Response::new(reply.into_inner().map(|message| message.map(|message| message.encode_to_vec())).boxed())
}

/// The calls of a service, by their names: those that are answered with `one` message, and those with `many`.
macro_rules! calls {
    ($find:ident: $service:ident; $($how:ident $call:ident => $method:ident,)*) => {
        fn $find(name: &str) -> Option<Call> {
            $(if name == stringify!($call) {
                return Some(|cri, bytes| {
                    async move { <Cri as $service>::$method(&cri, request(bytes)?).await.map($how) }.boxed()
                });
            })*
            None
        }
    };
}

calls! {
    runtime_call: RuntimeService;
    one Version => version,
    one RunPodSandbox => run_pod_sandbox,
    one StopPodSandbox => stop_pod_sandbox,
    one RemovePodSandbox => remove_pod_sandbox,
    one PodSandboxStatus => pod_sandbox_status,
    one ListPodSandbox => list_pod_sandbox,
    one CreateContainer => create_container,
    one StartContainer => start_container,
    one StopContainer => stop_container,
    one RemoveContainer => remove_container,
    one ListContainers => list_containers,
    one ContainerStatus => container_status,
    one UpdateContainerResources => update_container_resources,
    one ReopenContainerLog => reopen_container_log,
    one ExecSync => exec_sync,
    one Exec => exec,
    one Attach => attach,
    one PortForward => port_forward,
    one ContainerStats => container_stats,
    one ListContainerStats => list_container_stats,
    one PodSandboxStats => pod_sandbox_stats,
    one ListPodSandboxStats => list_pod_sandbox_stats,
    one UpdateRuntimeConfig => update_runtime_config,
    one Status => status,
    one CheckpointContainer => checkpoint_container,
    one CheckpointPod => checkpoint_pod,
    one RestorePod => restore_pod,
    one ListMetricDescriptors => list_metric_descriptors,
    one ListPodSandboxMetrics => list_pod_sandbox_metrics,
    one RuntimeConfig => runtime_config,
    one UpdatePodSandboxResources => update_pod_sandbox_resources,
    many StreamPodSandboxes => stream_pod_sandboxes,
    many StreamContainers => stream_containers,
    many StreamContainerStats => stream_container_stats,
    many StreamPodSandboxStats => stream_pod_sandbox_stats,
    many GetContainerEvents => get_container_events,
    many StreamPodSandboxMetrics => stream_pod_sandbox_metrics,
}

calls! {
    image_call: ImageService;
    one ListImages => list_images,
    one ImageStatus => image_status,
    one PullImage => pull_image,
    one RemoveImage => remove_image,
    one ImageFsInfo => image_fs_info,
    many StreamImages => stream_images,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the protocol has, from what is generated of it.
    fn paths_of(service: &str) -> Vec<String> {
        let of_service = format!("\"/{service}/");
        let parts = include_str!("proto.rs").split(of_service.as_str()).skip(1);
        parts.map(|rest| format!("/{service}/{}", rest.split('"').next().unwrap())).collect()
    }

    #[test]
    fn each_call_of_the_protocol_is_answered() {
        let runtime = paths_of(runtime_service_server::SERVICE_NAME);
        let images = paths_of(image_service_server::SERVICE_NAME);
        assert_eq!((runtime.len(), images.len()), (37, 6));
        for path in runtime.iter().chain(&images) {
            assert!(find(path).is_some(), "{path}");
        }
        for path in ["/", "/Version", "/runtime.v1.RuntimeService", "/runtime.v1.ImageService/Version"] {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
