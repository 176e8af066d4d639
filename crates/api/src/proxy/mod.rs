//! proxy: requests and upgraded connections, carried to a server in a Pod, or behind a Service, and back, as the API server of Kubernetes does
//! it (`apimachinery/pkg/util/proxy`).
//!
//! What the client sent to be known by this server goes no further; what the Pod's server says of places of its own is
//! rewritten, so that a browser finds them.

mod headers;
mod links;
pub mod node;
mod page;
mod target;

use std::io;
use std::time::Duration;

use http::header::{CONNECTION, HOST, LOCATION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::context::Call;
use crate::http::reply::{self, Reply};
use crate::http::status::{ApiError, chain};
use crate::proxy::links::Links;
use crate::proxy::target::Target;

/// A Pod that takes no connection for so long is not there (Go's default dialer of the API server).
const DIAL: Duration = Duration::from_secs(30);

/// Carries a request for `.../pods/ID/proxy/PATH`, or for one of `.../services/ID/proxy/PATH`.
pub async fn proxy(call: &Call, id: &str, mut request: Request<Incoming>) -> Result<Reply, ApiError> {
    let target = Target::find(call, id)?;
    let (prefix, path) = target::split(request.uri().path()).ok_or_else(ApiError::no_such_resource)?;
    let (prefix, path) = (prefix.to_owned(), path.to_owned());
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let upgrades = headers::upgrade(request.headers());
    if path.is_empty() && upgrades.is_none() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return moved(&format!("{prefix}/{query}"));
    }
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let client = upgrades.is_some().then(|| hyper::upgrade::on(&mut request));

    let (mut head, body) = request.into_parts();
    headers::clean_request(&mut head.headers, &format!("{prefix}{path}"));
    if let Some(protocol) = &upgrades {
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, protocol.clone());
    }
    head.uri = format!("{path}{query}").parse::<Uri>().map_err(|error| ApiError::bad_request(error.to_string()))?;
    head.version = http::Version::HTTP_11;
    let outgoing = Request::from_parts(head, body);
    let links = Links { prefix, own_host: target.host(), asked_host: host };
    let stream = connect(&target).await?;
    let shutdown = call.context.shutdown.clone();
    let mut answer = if target.tls {
        let secured = agent::secure_unverified(stream, &target.address.ip().to_string()).await;
        exchange(secured.map_err(|error| unreachable(&error.to_string()))?, outgoing, &shutdown).await?
    } else {
        exchange(stream, outgoing, &shutdown).await?
    };
    match client {
        Some(client) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let server = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move { shutdown.run_until_cancelled(tunnel(client, server)).await });
            let (head, _body) = answer.into_parts();
            let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
            *reply.headers_mut() = head.headers;
            Ok(reply)
        }
        Some(_) if answer.status().as_u16() < 400 => {
            let code = answer.status().as_u16();
            Err(ApiError::internal_text(&format!("invalid upgrade response: status code {code}")))
        }
        Some(_) | None => hand_back(answer, &links).await,
    }
}

async fn connect(target: &Target) -> Result<TcpStream, ApiError> {
    let address = target.address;
    let failed = |error: &io::Error| unreachable(&format!("dial tcp {address}: connect: {}", word_of(error)));
    let connected = tokio::time::timeout(DIAL, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_elapsed| unreachable(&format!("dial tcp {address}: i/o timeout")))?;
    let stream = stream.map_err(|error| failed(&error))?;
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    Ok(stream)
}

/// The kernel's word without the number that std adds.
fn word_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error ").map_or(text.as_str(), |(word, _number)| word).to_lowercase()
}

fn unreachable(why: &str) -> ApiError {
    let message = format!("error trying to reach service: {why}");
    ApiError::plain(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
}

/// Sends the request on a connection of its own.
async fn exchange<S>(
    stream: S,
    request: Request<Incoming>,
    shutdown: &CancellationToken,
) -> Result<Response<Incoming>, ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&chain(&error)))?;
    let carried = shutdown.clone().run_until_cancelled_owned(connection.with_upgrades());
    tokio::spawn(async move {
        if let Some(Err(error)) = carried.await {
            tracing::debug!(error = chain(&error), "a proxied connection ended");
        }
    });
    sender.send_request(request).await.map_err(|error| unreachable(&chain(&error)))
}

/// Both sides speak until both have ended.
async fn tunnel(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    let carried = async {
        let (client, server) = tokio::try_join!(client, server).map_err(io::Error::other)?;
        copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(error = error.to_string(), "a proxied connection ended");
    }
}

/// The answer with its places rewritten.
async fn hand_back(answer: Response<Incoming>, links: &Links) -> Result<Reply, ApiError> {
    let (mut head, body) = answer.into_parts();
    headers::clean_answer(&mut head.headers);
    let location = head.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    if let Some(rewritten) = location.and_then(|location| links.rewrite(location)) {
        let rewritten = HeaderValue::from_str(&rewritten).map_err(|error| ApiError::internal(&error))?;
        head.headers.insert(LOCATION, rewritten);
    } else if location.is_none() && page::is_html(&head.headers) {
        return Ok(page::rewrite(head, body, links).await);
    }
    Ok(Response::from_parts(head, body.map_err(io::Error::other).boxed_unsync()))
}

fn moved(to: &str) -> Result<Reply, ApiError> {
    let mut reply = reply::empty(StatusCode::MOVED_PERMANENTLY);
    let to = HeaderValue::from_str(to).map_err(|error| ApiError::bad_request(error.to_string()))?;
    reply.headers_mut().insert(LOCATION, to);
    Ok(reply)
}
