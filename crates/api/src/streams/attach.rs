//! attach: the streams of a container's first process on a WebSocket.

use hyper::Request;
use hyper::body::Incoming;

use crate::context::Call;
use crate::http::reply::Reply;
use crate::http::status::{ApiError, chain};
use crate::streams::websocket::Handshake;
use crate::streams::{container, session, websocket};

/// Answers 101 and connects to the process. Nothing that was written before is repeated.
pub fn attach(call: &Call, name: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    let (pod, container) = container::find(call, name)?;
    let streams = ["stdin", "stdout", "stderr"].map(|stream| call.query.flag(stream));
    let [stdin, stdout, stderr] = streams;
    if streams == [false; 3] {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let Handshake { protocol, reply, open } = websocket::accept(request)?;
    let (agent, shutdown) = (call.context.agent.clone(), call.context.shutdown.clone());
    let carry = async move {
        let Ok(socket) = open.await else { return };
        let outcome = match agent.attach(&pod, &container, stdin, stdout, stderr).await {
            Ok((attached, _tty)) => session::carry(socket, protocol, attached).await,
            Err(error) => session::refuse(socket, &chain(&error)).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%pod, %container, error = chain(&error), "an attach lost its client");
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(carry).await });
    Ok(reply)
}
