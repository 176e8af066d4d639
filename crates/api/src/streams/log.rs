//! log: what a container has written, as plain text, flushed as it comes, or as messages over a WebSocket.

use agent::{LogError, LogOptions, Since, StreamFilter};
use futures::StreamExt as _;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::Value;
use spec::validation::{FieldError, FieldReason};

use crate::context::Call;
use crate::http::query::Query;
use crate::http::reply::{Reply, stream};
use crate::http::status::ApiError;
use crate::streams::{container, switched};

/// Answers with a chunked body, or with 101 and messages, that end with the log or, when following, with the container or the daemon.
pub fn log(call: &Call, name: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    let (pod, container) = container::find(call, name)?;
    let options = options(name, &call.query)?;
    let lines = call.context.agent.logs(&pod, &container, options).map_err(|error| match error {
        LogError::NoSuchPod { .. } => ApiError::not_found(call.kind, name),
        LogError::Open { .. } => ApiError::internal(&error),
        other => ApiError::bad_request(other.to_string()),
    })?;
    let shutdown = call.context.shutdown.clone().cancelled_owned();
    let lines = lines.take_until(shutdown);
    if streaming::is_websocket_wanted(request.headers()) {
        return switched(streaming::send_all(request, lines));
    }
    Ok(stream("text/plain", lines))
}

/// The parameters, judged as `ValidatePodLogOptions` does it.
fn options(name: &str, query: &Query) -> Result<LogOptions, ApiError> {
    let invalid = |field: &str, reason, value: Value, detail: &str| {
        let error = FieldError { field: field.to_owned(), reason, value, detail: detail.to_owned() };
        ApiError::invalid("PodLogOptions", "", name, &[error], "PodLogOptions")
    };
    let number = |field: &str, least: i64, fault: &str| match query.number::<i64>(field)? {
        Some(number) if number < least => Err(invalid(field, FieldReason::Invalid, number.into(), fault)),
        number => Ok(number.map(i64::unsigned_abs)),
    };
    let tail_lines = number("tailLines", 0, "must be greater than or equal to 0")?;
    let limit_bytes = number("limitBytes", 1, "must be greater than 0")?;
    let since = match (number("sinceSeconds", 1, "must be greater than 0")?, query.get("sinceTime")) {
        (Some(_), Some(_)) => {
            let fault = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            return Err(invalid("", FieldReason::Forbidden, Value::Null, fault));
        }
        (Some(seconds), None) => Some(Since::SecondsAgo(seconds)),
        (None, Some(time)) => Some(Since::Time(time.parse().map_err(|_no_time| {
            ApiError::bad_request(format!("sinceTime: Invalid value: {time:?}: must be a time in RFC 3339 format"))
        })?)),
        (None, None) => None,
    };
    let stream = match query.get("stream") {
        None | Some("All") => StreamFilter::All,
        Some("Stdout") => StreamFilter::Stdout,
        Some("Stderr") => StreamFilter::Stderr,
        Some(other) => {
            let supported = r#"supported values: "All", "Stderr", "Stdout""#;
            return Err(invalid("stream", FieldReason::NotSupported, other.into(), supported));
        }
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since,
        timestamps: query.flag("timestamps"),
        tail_lines,
        limit_bytes,
        stream,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_of_kubectl_are_understood() {
        let read = |text: &str| options("p", &Query::parse(Some(text)));
        let found =
            read("follow=true&previous=false&sinceSeconds=60&timestamps=true&tailLines=10&limitBytes=5").unwrap();
        assert_eq!((found.follow, found.previous, found.timestamps), (true, false, true));
        assert_eq!(
            (found.since, found.tail_lines, found.limit_bytes),
            (Some(Since::SecondsAgo(60)), Some(10), Some(5))
        );
        let since = read("sinceTime=2026-01-01T00:00:00Z").unwrap().since;
        assert_eq!(since, Some(Since::Time("2026-01-01T00:00:00Z".parse().unwrap())));
        assert_eq!(read("tailLines=0").unwrap().tail_lines, Some(0));
        let message = read("tailLines=-1").unwrap_err().to_string();
        let expected =
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0";
        assert_eq!(message, expected);
        for bad in [
            "sinceSeconds=0",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "sinceTime=noon",
            "limitBytes=0",
            "tailLines=-1",
            "stream=x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
