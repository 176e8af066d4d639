//! The server: takes connections, and leads each request to what its token stands for.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use streaming::Refusal;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::streaming::Shared;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// A head that takes longer, or a connection that asks for nothing for so long, is closed.
const HEAD_TIME: Duration = Duration::from_mins(1);

/// What a head may hold: nothing of the request is in it but the token.
const HEAD_SIZE: usize = 64 * 1024;

/// A peer that is silent for a minute is asked whether it lives, and then four times more.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(15);

/// How long accepting rests after an error: when no descriptor is left, one is free again once a connection ends.
const REST: Duration = Duration::from_millis(100);

/// An answer.
type Reply = Response<Full<Bytes>>;

/// Takes connections until the server ends.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let taking = async {
        loop {
            // It is never closed.
            let place = Arc::clone(&room).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _client)) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        serve(stream, shared).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = error.to_string(), "cannot accept a connection for a session now");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    };
    shared.shutdown.run_until_cancelled(taking).await;
}

/// One connection until it ends or is upgraded. What becomes of an upgraded one is the session's.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    if let Err(error) = tune(&stream) {
        tracing::debug!(error = error.to_string(), "a connection cannot be kept alive");
        return;
    }
    let shutdown = shared.shutdown.clone();
    let service = service_fn(move |request| {
        let reply = answer(request, &shared);
        async { Ok::<_, Infallible>(reply) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Some(Err(error)) = shutdown.run_until_cancelled(connection).await {
        // A client that goes away is nothing to tell of.
        tracing::debug!(error = error.to_string(), "a connection for a session ended");
    }
}

/// Keystrokes go out at once, and the end of a peer that said nothing more is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_PERIOD)?;
    Ok(sockopt::set_tcp_keepcnt(stream, 4)?)
}

fn answer(mut request: Request<Incoming>, shared: &Shared) -> Reply {
    let upgrade = request.headers().contains_key(UPGRADE);
    let mut reply = lead(&mut request, shared);
    // A refused upgrade ends the connection: nothing that the client sends next may be taken for a request
    // (CVE-2018-1002105).
    if upgrade && reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

fn lead(request: &mut Request<Incoming>, shared: &Shared) -> Reply {
    let path = request.uri().path().to_owned();
    let Some((door, token)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    };
    if !["exec", "attach", "portforward"].contains(&door) {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    }
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
    }
    let Some(asked) = shared.tokens.take(token).filter(|asked| asked.door() == door) else {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    };
    match asked.carry_out(request, Arc::clone(&shared.runtime), shared.shutdown.clone()) {
        Ok(head) => head.map(|()| Full::default()),
        Err(Refusal { code, message }) => text(code, &message),
    }
}

fn text(code: StatusCode, message: &str) -> Reply {
    let mut reply = Response::new(Full::from(format!("{message}\n")));
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}
