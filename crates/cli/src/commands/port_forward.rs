//! `port-forward`: local ports that lead to ports of a Pod's `localhost`.
//!
//! Each connection has a WebSocket of its own with the channels of `v4.channel.k8s.io`: 0 is data, 1 the error. A message
//! `[255, 0]`, which the daemon knows beyond that protocol, ends our half.

use std::convert::Infallible;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Args;
use futures::{SinkExt as _, StreamExt as _};
use kube::client::Connection;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::chosen::{Chosen, Purpose, choose_pod};
use crate::client::Client;
use crate::context::Context;
use crate::errors::{Failure, render};
use crate::fields::{Fields as _, plain};
use crate::output::note;
use crate::resources::{PODS, with_query};

const DATA: u8 = 0;
const ERROR: u8 = 1;
const CLOSE: u8 = 255;
const CHUNK: usize = 32 * 1024;

/// Arguments of `port-forward`.
#[derive(Debug, Args)]
pub struct PortForwardArgs {
    /// The Pod, or a Service or workload, such as `svc/NAME`, for one of its Pods
    #[arg(value_name = "POD | KIND/NAME")]
    target: String,
    /// `LOCAL:REMOTE`, `REMOTE` for the same port here, or `:REMOTE` for a free one; REMOTE may be a port's name
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
    /// The addresses to listen on
    #[arg(long, value_delimiter = ',', default_value = "localhost", value_name = "ADDRESSES")]
    address: Vec<String>,
}

/// One local port, and where it leads.
#[derive(Debug, PartialEq, Eq)]
struct Forward {
    /// 0 is any free one.
    local: u16,
    remote: u16,
}

/// Listens and forwards until it is ended.
pub async fn port_forward(arguments: &PortForwardArgs, context: &mut Context) -> Result<()> {
    let Chosen { pod, through } = choose_pod(&arguments.target, Purpose::Door, context).await?;
    // Only a Service has ports of its own.
    let service = through.filter(|object| object.text("/kind") == "Service");
    let forwards = arguments.ports.iter().map(|port| parse_port(port, &pod, service.as_ref()));
    let forwards = forwards.collect::<Result<Vec<_>, _>>()?;
    let phase = pod.text("/status/phase");
    if phase != "Running" {
        return Err(Failure::new(format!("pod {:?} is not running: its phase is {phase}", pod.name())).into());
    }
    let mut listeners = Vec::new();
    for forward in &forwards {
        for address in addresses(&arguments.address)? {
            let listener = TcpListener::bind((address, forward.local)).await;
            let listener = listener.map_err(|error| {
                Failure::new(format!("cannot listen on {address}:{}", forward.local)).because(error)
            })?;
            let local = listener.local_addr().context("cannot tell the port that was chosen")?;
            context.out.line(&format!("Forwarding from {local} -> {}", forward.remote))?;
            listeners.push((listener, forward.remote));
        }
    }
    context.out.flush()?;
    let path = format!("{}/portforward", PODS.object(pod.namespace(), pod.name()));
    let serving = listeners.into_iter().map(|(listener, remote)| {
        let (client, path) = (context.client.clone(), with_query(&path, &[("ports", &remote.to_string())]));
        Box::pin(async move { accept(&listener, &client, &path, remote).await })
    });
    match futures::future::select_all(serving).await.0 {
        Ok(never) => match never {},
        Err(error) => Err(error),
    }
}

fn parse_port(text: &str, pod: &Value, service: Option<&Value>) -> Result<Forward, Failure> {
    let (local, remote) = text.split_once(':').map_or((None, text), |(local, remote)| (Some(local), remote));
    let wrong = || {
        Failure::new(format!("{text:?} is not a port to forward")).hint("write 8080:80, 80, or :80 for any free port")
    };
    let through = match service {
        Some(service) => of_service(service, remote)?,
        None => remote.to_owned(),
    };
    let remote = match through.parse::<u16>() {
        Ok(number) if number > 0 => number,
        Ok(_) => return Err(wrong()),
        Err(_) => of_pod(pod, &through)?,
    };
    let local = match local {
        Some("") => 0,
        Some(local) => local.parse::<u16>().map_err(|_error| wrong())?,
        None => remote_or_given(text, remote),
    };
    Ok(Forward { local, remote })
}

/// Without a local port it is the one that was written, which for a Service is the Service's.
fn remote_or_given(text: &str, remote: u16) -> u16 {
    text.parse().unwrap_or(remote)
}

/// The port of its Pods that a Service's port leads to.
fn of_service(service: &Value, port: &str) -> Result<String, Failure> {
    let has = |candidate: &&Value| candidate.text("/name") == port || plain(candidate.at("/port")) == port;
    let found = service.items("/spec/ports").iter().find(has);
    let found = found.ok_or_else(|| Failure::new(format!("service {:?} has no port {port:?}", service.name())))?;
    Ok(match plain(found.at("/targetPort")) {
        target if target.is_empty() => plain(found.at("/port")),
        target => target,
    })
}

fn of_pod(pod: &Value, name: &str) -> Result<u16, Failure> {
    let ports = pod.items("/spec/containers").iter().flat_map(|container| container.items("/ports"));
    let found = ports.filter(|port| port.text("/name") == name).find_map(|port| port.integer("/containerPort"));
    found
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| Failure::new(format!("pod {:?} has no port named {name:?}", pod.name())))
}

fn addresses(words: &[String]) -> Result<Vec<IpAddr>, Failure> {
    let read = |word: &String| match word.as_str() {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        word => word.parse().map_err(|error| Failure::new(format!("{word:?} is not an address")).because(error)),
    };
    words.iter().map(read).collect()
}

async fn accept(listener: &TcpListener, client: &Client, path: &str, remote: u16) -> Result<Infallible> {
    loop {
        let (stream, _from) = listener.accept().await.context("cannot take a connection")?;
        let (client, path) = (client.clone(), path.to_owned());
        tokio::spawn(async move {
            let carried = match client.connect(&path).await {
                Ok(connection) => carry(stream, connection).await,
                Err(error) => Err(error),
            };
            // One connection that fails does not end the others.
            if let Err(error) = carried {
                note(&render(&error.context(format!("cannot forward a connection to port {remote}"))));
            }
        });
    }
}

/// Carries one connection until the Pod's side has ended.
async fn carry(mut stream: TcpStream, connection: Connection) -> Result<()> {
    let (mut sink, mut messages) = connection.into_stream().split();
    let (mut read, mut write) = stream.split();
    let up = async {
        let mut chunk = BytesMut::with_capacity(CHUNK + 1);
        loop {
            chunk.put_u8(DATA);
            if matches!(read.read_buf(&mut chunk).await, Ok(0) | Err(_)) {
                return sink.send(Message::Binary(Bytes::from_static(&[CLOSE, DATA]))).await;
            }
            sink.send(Message::Binary(chunk.split().freeze())).await?;
            chunk.reserve(CHUNK + 1);
        }
    };
    let down = async {
        // The first message on each channel tells its port.
        let mut has_begun = [false, false];
        while let Some(message) = messages.next().await {
            let Message::Binary(message) = message? else { continue };
            let Some((channel @ (DATA | ERROR), data)) = message.split_first().map(|(channel, data)| (*channel, data))
            else {
                continue;
            };
            if let Some(begun) = has_begun.get_mut(usize::from(channel))
                && !std::mem::replace(begun, true)
            {
                continue;
            }
            if channel == ERROR {
                return Err(Failure::new(String::from_utf8_lossy(data).trim().to_owned()).into());
            }
            // Nobody reads any more on this side.
            if write.write_all(data).await.is_err() {
                return Ok(());
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = down => ended?,
        // What is still on its way down is not lost when our side cannot send any more.
        never = async { let _gone = up.await.is_err(); std::future::pending::<Infallible>().await } => match never {},
    }
    // The client may have gone already.
    let _gone = stream.shutdown().await.is_err();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8000}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"port": 81}]}});
        let read = |text: &str, service| {
            parse_port(text, &pod, service)
                .map(|forward| (forward.local, forward.remote))
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("80", None), Ok((80, 80)));
        assert_eq!(read("8080:80", None), Ok((8080, 80)));
        assert_eq!(read(":80", None), Ok((0, 80)));
        assert_eq!(read("1:http", None), Ok((1, 8000)));
        assert_eq!(read("http", None), Ok((8000, 8000)));
        assert_eq!(read("80", Some(&service)), Ok((80, 8000)));
        assert_eq!(read("8080:web", Some(&service)), Ok((8080, 8000)));
        assert_eq!(read("81", Some(&service)), Ok((81, 81)));
        assert_eq!(read("7", Some(&service)).unwrap_err(), "service \"s\" has no port \"7\"");
        assert_eq!(read("x", None).unwrap_err(), "pod \"web\" has no port named \"x\"");
        for wrong in ["0", "x:80", "70000:80"] {
            assert!(read(wrong, None).is_err(), "{wrong}");
        }
    }
}
