//! Names of Services: questions of Pods are answered from the catalogue, and all else is asked of the machine's servers.
//!
//! Each question of a Service is answered where it is read, within microseconds. Questions that are passed on wait in
//! tasks of which there are so many at most, for all clients and for each; who asks more is told to ask again later.

mod answer;
mod forward;
mod limits;
mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::{DnsConfig, ListenError, SharedCatalog};
use answer::Answered;
use forward::Forwarder;
use limits::Limits;

/// The largest question that is read over UDP; longer ones are nobody's.
const LONGEST_QUESTION: usize = 4096;
/// A client over TCP that says nothing for so long is left.
const IDLE: Duration = Duration::from_secs(10);
/// Wait after an error of a socket, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where questions come.
#[derive(Debug)]
pub struct DnsSockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl DnsSockets {
    /// Listens from now on, over UDP and TCP on one port: this one, or if another program has it any.
    pub async fn open(address: Ipv4Addr, port: u16) -> Result<Self, ListenError> {
        match Self::open_at(SocketAddr::new(address.into(), port)).await {
            Err(error) if error.cause.kind() == io::ErrorKind::AddrInUse => {
                Self::open_at(SocketAddr::new(address.into(), 0)).await
            }
            opened => opened,
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.tcp.local_addr().map_or(0, |address| address.port())
    }

    async fn open_at(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |cause| ListenError { address, cause };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        Ok(Self { udp, tcp })
    }
}

/// What all questions share.
struct Server {
    config: DnsConfig,
    catalog: SharedCatalog,
    forwarder: Forwarder,
    limits: Limits,
}

/// Answers for as long as it is polled.
pub async fn serve(sockets: DnsSockets, config: DnsConfig, catalog: SharedCatalog) {
    let forwarder = Forwarder::new(config.host_resolv_conf.clone(), config.own_addresses.clone());
    let server = Arc::new(Server { config, catalog, forwarder, limits: Limits::default() });
    let DnsSockets { udp, tcp } = sockets;
    tokio::join!(serve_udp(&server, Arc::new(udp)), serve_tcp(&server, tcp));
}

async fn serve_udp(server: &Arc<Server>, socket: Arc<UdpSocket>) {
    let mut tasks = tokio::task::JoinSet::new();
    let mut buffer = vec![0; LONGEST_QUESTION];
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            // The machine is short of something.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let question = buffer.get(..length).unwrap_or_default();
        match server.look(question, client.ip(), true) {
            Looked::Nothing => {}
            Looked::Answer(answer) => send(&socket, &answer, client).await,
            Looked::Forward(question) => {
                let (server, socket) = (Arc::clone(server), Arc::clone(&socket));
                tasks.spawn(async move {
                    let answer = server.forward(*question, client.ip(), true).await;
                    send(&socket, &answer, client).await;
                });
            }
        }
    }
}

/// Should the client be gone, nobody misses the answer.
async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, error = error.to_string(), "an answer could not be sent");
    }
}

async fn serve_tcp(server: &Arc<Server>, listener: TcpListener) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if let Some(place) = server.limits.connection(client.ip()) {
            let server = Arc::clone(server);
            tasks.spawn(async move {
                converse(&server, stream, client.ip()).await;
                drop(place);
            });
        }
    }
}

/// One question after the other, each with its length before it (RFC 1035, 4.2.2).
async fn converse(server: &Server, mut stream: TcpStream, client: IpAddr) {
    while let Ok(Ok(length)) = timeout(IDLE, stream.read_u16()).await {
        let mut question = vec![0; usize::from(length)];
        let Ok(Ok(_)) = timeout(IDLE, stream.read_exact(&mut question)).await else { return };
        let answer = match server.look(&question, client, false) {
            Looked::Nothing => return,
            Looked::Answer(answer) => answer,
            Looked::Forward(question) => server.forward(*question, client, false).await,
        };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        let framed = [length.to_be_bytes().as_slice(), &answer].concat();
        let Ok(Ok(())) = timeout(IDLE, stream.write_all(&framed)).await else { return };
    }
}

/// What is to be done about a question.
enum Looked {
    /// It is none, or nobody's that we answer.
    Nothing,
    Answer(Vec<u8>),
    /// Others know.
    Forward(Box<Question>),
}

/// A question that is passed on as it came.
struct Question {
    bytes: Vec<u8>,
    message: Message,
    /// What is known of it here: the beginning of a chain of names.
    alias: Option<Answered>,
}

impl Server {
    fn look(&self, bytes: &[u8], client: IpAddr, is_udp: bool) -> Looked {
        if !self.is_client(client) {
            return Looked::Nothing;
        }
        let Ok(message) = Message::from_vec(bytes) else { return Looked::Nothing };
        let [query] = message.queries.as_slice() else { return Looked::Nothing };
        if message.metadata.message_type != MessageType::Query {
            return Looked::Nothing;
        }
        if message.metadata.op_code != OpCode::Query {
            return Looked::Answer(answer::refusal(&message, ResponseCode::NotImp));
        }
        let answered = self.catalog.read(|catalog| zone::answer(catalog, &self.config, query));
        match answered {
            Answered::Elsewhere => Looked::Forward(Box::new(Question { bytes: bytes.to_vec(), message, alias: None })),
            Answered::Alias { .. } => {
                Looked::Forward(Box::new(Question { bytes: bytes.to_vec(), message, alias: Some(answered) }))
            }
            answered => Looked::Answer(answer::encode(&message, answered, &self.config.domain, is_udp)),
        }
    }

    async fn forward(&self, question: Question, client: IpAddr, is_udp: bool) -> Vec<u8> {
        let Some(_place) = self.limits.question(client) else {
            return answer::refusal(&question.message, ResponseCode::ServFail);
        };
        let Some(Answered::Alias { record, target }) = question.alias else {
            let passed = self.forwarder.ask(&question.bytes, &question.message, is_udp).await;
            return passed.unwrap_or_else(|| answer::refusal(&question.message, ResponseCode::ServFail));
        };
        // The target may be a Service again, or anybody's.
        let query = question.message.queries.first();
        let kind = query.map_or(RecordType::A, Query::query_type);
        let next = Query::query(target, kind);
        let local = self.catalog.read(|catalog| zone::answer(catalog, &self.config, &next));
        let mut records = vec![*record];
        match local {
            Answered::Records { answers, .. } => records.extend(answers),
            Answered::Elsewhere => {
                let mut asked = Message::query();
                asked.metadata.recursion_desired = true;
                asked.add_query(next);
                if let Ok(bytes) = asked.to_vec()
                    && let Some(passed) = self.forwarder.ask(&bytes, &asked, false).await
                    && let Ok(passed) = Message::from_vec(&passed)
                {
                    records.extend(passed.answers);
                }
            }
            Answered::NoSuchName | Answered::NoData | Answered::Alias { .. } => {}
        }
        let answered = Answered::Records { answers: records, additionals: Vec::new() };
        answer::encode(&question.message, answered, &self.config.domain, is_udp)
    }

    /// Pods, and the machine itself as Pods see it. Whoever else finds a way here gets nothing.
    fn is_client(&self, client: IpAddr) -> bool {
        let IpAddr::V4(client) = client else { return false };
        self.config.pods.contains(client) || self.config.own_addresses.contains(&client)
    }
}
