//! attach: the streams of a container's first process.

use hyper::Request;
use hyper::body::Incoming;
use streaming::Wanted;

use crate::context::Call;
use crate::http::reply::Reply;
use crate::http::status::{ApiError, chain};
use crate::streams::{container, switched};

/// Answers 101 and connects to the process. Nothing that was written before is repeated.
pub fn attach(call: &Call, name: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    let (pod, container) = container::find(call, name)?;
    let streams = ["stdin", "stdout", "stderr"].map(|stream| call.query.flag(stream));
    let [stdin, stdout, stderr] = streams;
    if streams == [false; 3] {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let tty = call.query.flag("tty");
    let agent = call.context.agent.clone();
    let start = async move {
        let attached = agent.attach(&pod, &container, stdin, stdout, stderr).await;
        let attached = attached.map(|(session, _tty)| session);
        attached.map_err(|error| format!("error attaching to container: {}", chain(&error)))
    };
    // A terminal has one output.
    let wanted = Wanted { stdin, stdout, stderr: stderr && !tty, tty };
    switched(streaming::connect(request, wanted, call.context.shutdown.clone(), start))
}
