//! portforward: TCP connections to ports of a Pod's `localhost`.

use agent::Agent;
use hyper::Request;
use hyper::body::Incoming;
use spec::PodRef;
use tokio::net::TcpStream;

use crate::context::Call;
use crate::http::query::Query;
use crate::http::reply::Reply;
use crate::http::status::{ApiError, chain};
use crate::streams::{container, switched};

/// Whose ports are meant.
#[derive(Clone)]
struct Target {
    agent: Agent,
    pod: PodRef,
}

impl streaming::Target for Target {
    fn pod(&self) -> String {
        self.pod.to_string()
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        self.agent.connect(&self.pod, port).await.map_err(|error| chain(&error))
    }
}

/// Answers 101 and forwards.
pub fn port_forward(call: &Call, name: &str, request: &mut Request<Incoming>) -> Result<Reply, ApiError> {
    let target = Target { agent: call.context.agent.clone(), pod: container::find_pod(call, name)? };
    // Over SPDY each stream names its port.
    let ports = if streaming::is_spdy_wanted(request.headers()) { Vec::new() } else { ports(&call.query)? };
    switched(streaming::port_forward(request, ports, target, call.context.shutdown.clone()))
}

/// `ports=80&ports=81`, or `ports=80,81`.
fn ports(query: &Query) -> Result<Vec<u16>, ApiError> {
    let words = query.all("ports").flat_map(|value| value.split(',')).filter(|word| !word.is_empty());
    let ports = words.map(|word| match word.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ApiError::bad_request(format!("unable to parse {word:?} as a port"))),
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_as_a_list_or_one_by_one() {
        let read = |text| ports(&Query::parse(Some(text)));
        assert_eq!(read("ports=80&ports=81,82").unwrap(), [80, 81, 82]);
        assert!(read("").unwrap().is_empty());
        assert!(read("ports=0").is_err() && read("ports=x").is_err() && read("ports=65536").is_err());
    }
}
