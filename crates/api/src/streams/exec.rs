//! exec: one more process in a running container, with its streams.

use agent::ExecRequest;
use hyper::Request;
use hyper::body::Incoming;
use streaming::Wanted;

use crate::context::Call;
use crate::http::query::Query;
use crate::http::reply::Reply;
use crate::http::status::{ApiError, chain};
use crate::streams::{container, switched};

/// Answers 101 and starts the process behind it.
pub fn exec(call: &Call, name: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    let (pod, container) = container::find(call, name)?;
    let process = wanted_process(&call.query)?;
    let ExecRequest { stdin, stdout, stderr, tty, .. } = process;
    let agent = call.context.agent.clone();
    let start = async move {
        let started = agent.exec(&pod, &container, process).await;
        started.map_err(|error| format!("error executing command in container: {}", chain(&error)))
    };
    let wanted = Wanted { stdin, stdout, stderr, tty };
    switched(streaming::connect(request, wanted, call.context.shutdown.clone(), start))
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
