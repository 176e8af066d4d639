//! An action as a Pod writes it, with names of ports looked up and addresses filled in.

use std::net::IpAddr;
use std::time::Duration;

use spec::k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use spec::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{GrpcCheck, HttpGet};

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Run a command in the container.
    Exec(Vec<String>),
    /// Ask a web server.
    Http(HttpGet),
    /// Open a connection.
    Tcp {
        /// Name or address.
        host: String,
        /// Where it listens.
        port: u16,
    },
    /// Ask a gRPC health service.
    Grpc(GrpcCheck),
    /// Do nothing for so long.
    Sleep(Duration),
}

/// Why an action cannot be done, whatever the container does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAction {
    /// No port of the container has the name, and it is no number either; Go's words, as the kubelet shows them.
    #[error("strconv.Atoi: parsing {0:?}: invalid syntax")]
    NoSuchPort(String),
    /// It is no port.
    #[error("invalid port number: {0}")]
    PortNumber(i64),
    /// The Pod has no address yet.
    #[error("the pod has no address")]
    NoAddress,
    /// Its parts make no request.
    #[error("invalid request: {0}")]
    Request(String),
    /// It names nothing that can be done, such as a hook that opens a connection.
    #[error("invalid handler: {0}")]
    Handler(&'static str),
}

/// Who asks, for `User-Agent`.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Probe,
    Hook,
}

impl Asker {
    fn user_agent(self) -> &'static str {
        match self {
            Self::Probe => "kube-probe/1.37",
            Self::Hook => "kube-lifecycle/1.37",
        }
    }
}

impl Action {
    /// What a probe of the container does.
    pub(crate) fn of_probe(
        probe: &Probe,
        container: &Container,
        address: Option<IpAddr>,
    ) -> Result<Self, InvalidAction> {
        if let Some(exec) = &probe.exec {
            Ok(Self::exec(exec))
        } else if let Some(get) = &probe.http_get {
            Self::http(get, container, address, Asker::Probe)
        } else if let Some(socket) = &probe.tcp_socket {
            Self::tcp(socket, container, address)
        } else if let Some(check) = &probe.grpc {
            Self::grpc(check, address)
        } else {
            Err(InvalidAction::Handler("a probe without an action"))
        }
    }

    /// What a hook of the container does.
    pub(crate) fn of_hook(
        hook: &LifecycleHandler,
        container: &Container,
        address: Option<IpAddr>,
    ) -> Result<Self, InvalidAction> {
        if let Some(exec) = &hook.exec {
            Ok(Self::exec(exec))
        } else if let Some(get) = &hook.http_get {
            Self::http(get, container, address, Asker::Hook)
        } else if let Some(SleepAction { seconds }) = hook.sleep {
            Ok(Self::Sleep(Duration::from_secs(u64::try_from(seconds).unwrap_or_default())))
        } else {
            // The API takes it, and it never worked (KEP and API comment of `LifecycleHandler.tcpSocket`).
            Err(InvalidAction::Handler("a hook runs a command, sends a request or sleeps"))
        }
    }

    fn exec(exec: &ExecAction) -> Self {
        Self::Exec(exec.command.clone().unwrap_or_default())
    }

    fn http(
        get: &HTTPGetAction,
        container: &Container,
        address: Option<IpAddr>,
        asker: Asker,
    ) -> Result<Self, InvalidAction> {
        let host = host_or_address(get.host.as_deref(), address)?;
        let port = port_number(&get.port, container)?;
        HttpGet::new(get, &host, port, asker.user_agent()).map(Self::Http)
    }

    fn tcp(socket: &TCPSocketAction, container: &Container, address: Option<IpAddr>) -> Result<Self, InvalidAction> {
        let host = host_or_address(socket.host.as_deref(), address)?;
        Ok(Self::Tcp { host, port: port_number(&socket.port, container)? })
    }

    fn grpc(check: &GRPCAction, address: Option<IpAddr>) -> Result<Self, InvalidAction> {
        let port = in_range(i64::from(check.port))?;
        let service = check.service.clone().unwrap_or_default();
        let host = host_or_address(None, address)?;
        Ok(Self::Grpc(GrpcCheck { host, port, service, user_agent: Asker::Probe.user_agent() }))
    }
}

fn host_or_address(host: Option<&str>, address: Option<IpAddr>) -> Result<String, InvalidAction> {
    match host.filter(|host| !host.is_empty()) {
        Some(host) => Ok(host.to_owned()),
        None => address.map(|address| address.to_string()).ok_or(InvalidAction::NoAddress),
    }
}

/// A name is that of a port of the same container, else a number in quotes.
fn port_number(port: &IntOrString, container: &Container) -> Result<u16, InvalidAction> {
    match port {
        IntOrString::Int(number) => in_range((*number).into()),
        IntOrString::String(name) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            match ports.iter().find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => in_range(port.container_port.into()),
                None => match name.parse::<i64>() {
                    Ok(number) => in_range(number),
                    Err(_no_number) => Err(InvalidAction::NoSuchPort(name.clone())),
                },
            }
        }
    }
}

fn in_range(number: i64) -> Result<u16, InvalidAction> {
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or(InvalidAction::PortNumber(number))
}
