//! exec: one more process in a running container, with its streams on a WebSocket.

use agent::ExecRequest;
use hyper::Request;
use hyper::body::Incoming;

use crate::context::Call;
use crate::http::query::Query;
use crate::http::reply::Reply;
use crate::http::status::{ApiError, chain};
use crate::streams::websocket::Handshake;
use crate::streams::{container, session, websocket};

/// Answers 101 and starts the process behind it. What is wrong with the request is told before, by a Status; what is
/// wrong with the process after, on the status channel, since kubectl asks twice when an upgrade is refused.
pub fn exec(call: &Call, name: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    let (pod, container) = container::find(call, name)?;
    let wanted = wanted_process(&call.query)?;
    let Handshake { protocol, reply, open } = websocket::accept(request)?;
    let (agent, shutdown) = (call.context.agent.clone(), call.context.shutdown.clone());
    let carry = async move {
        let Ok(socket) = open.await else { return };
        let outcome = match agent.exec(&pod, &container, wanted).await {
            Ok(started) => session::carry(socket, protocol, started).await,
            Err(error) => session::refuse(socket, &chain(&error)).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%pod, %container, error = chain(&error), "an exec lost its client");
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(carry).await });
    Ok(reply)
}

fn wanted_process(query: &Query) -> Result<ExecRequest, ApiError> {
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    }
    let tty = query.flag("tty");
    let streams = ["stdin", "stdout", "stderr"].map(|stream| query.flag(stream));
    let [stdin, stdout, stderr] = streams;
    if streams == [false; 3] {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    // A terminal has one output.
    Ok(ExecRequest { command, stdin, stdout, stderr: stderr && !tty, tty })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_to_run_and_what_to_connect() {
        let wanted =
            wanted_process(&Query::parse(Some("command=sh&command=-c&command=a+b&stdin=true&stdout=1"))).unwrap();
        assert_eq!(wanted.command, ["sh", "-c", "a b"]);
        assert_eq!((wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty), (true, true, false, false));
        let terminal = wanted_process(&Query::parse(Some("command=sh&stdout=true&stderr=true&tty=true"))).unwrap();
        assert_eq!((terminal.stdout, terminal.stderr, terminal.tty), (true, false, true));
        assert!(wanted_process(&Query::parse(Some("stdout=true"))).is_err());
        assert!(wanted_process(&Query::parse(Some("command=sh&stdout=false"))).is_err());
    }
}
