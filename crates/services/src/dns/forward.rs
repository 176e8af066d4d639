//! Questions that are not the cluster's: passed on to the servers of the machine, and their answers back, unchanged.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query};
use spec::dns::ResolvConf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one server has for an answer; then the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Servers that are asked (resolv.conf(5), `MAXNS`).
const MOST_SERVERS: usize = 3;
/// The longest answer over UDP that is taken.
const LONGEST_ANSWER: usize = 4096;
const PORT: u16 = 53;
/// The same question so often at once is one that comes back to us: a server of the machine asks us.
const MOST_ALIKE: usize = 32;

/// Asks the servers of the machine.
#[derive(Debug)]
pub struct Forwarder {
    resolv_conf: PathBuf,
    own_addresses: Vec<Ipv4Addr>,
    under_way: Arc<Mutex<HashMap<Query, usize>>>,
}

impl Forwarder {
    /// `own_addresses` are never asked: they are us.
    pub fn new(resolv_conf: PathBuf, own_addresses: Vec<Ipv4Addr>) -> Self {
        Self { resolv_conf, own_addresses, under_way: Arc::default() }
    }

    /// The answer of the first server that gives one. Over TCP where the client came so: then it wants all of it.
    pub async fn ask(&self, question: &[u8], message: &Message, is_udp: bool) -> Option<Vec<u8>> {
        let query = message.queries.first()?;
        let _turn = self.turn(query)?;
        for server in self.servers().await {
            // A fresh port and number for each: an answer that somebody else makes up would have to guess both.
            let number: u16 = rand::random();
            let asked = numbered(question, number)?;
            let asked =
                if is_udp { ask_udp(server, &asked, number, query).await } else { ask_tcp(server, &asked).await };
            if let Some(answer) = asked.filter(|answer| is_answer(answer, number, query)) {
                return numbered(&answer, message.metadata.id);
            }
        }
        None
    }

    /// As the file says now; it is small, and the machine's own stub changes it when it moves to another network. A stub
    /// on the loopback is asked as the machine's programs ask it.
    async fn servers(&self) -> Vec<SocketAddr> {
        let text = tokio::fs::read_to_string(&self.resolv_conf).await.unwrap_or_default();
        let servers = ResolvConf::parse(&text).nameservers;
        let addresses = servers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
        let is_us = |address: &IpAddr| matches!(address, IpAddr::V4(own) if self.own_addresses.contains(own));
        addresses.filter(|address| !is_us(address)).take(MOST_SERVERS).map(|address| (address, PORT).into()).collect()
    }

    fn turn(&self, query: &Query) -> Option<Turn> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry(query.clone()).or_default();
        if *count >= MOST_ALIKE {
            return None;
        }
        *count += 1;
        Some(Turn { under_way: Arc::clone(&self.under_way), query: query.clone() })
    }
}

/// One of the questions under way.
struct Turn {
    under_way: Arc<Mutex<HashMap<Query, usize>>>,
    query: Query,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.get_mut(&self.query) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                under_way.remove(&self.query);
            }
        }
    }
}

/// A connected socket hears of nobody but the server.
async fn ask_udp(server: SocketAddr, question: &[u8], number: u16, query: &Query) -> Option<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { ([0; 8], 0).into() };
    let asked = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        socket.send(question).await?;
        let mut answer = vec![0; LONGEST_ANSWER];
        loop {
            let length = socket.recv(&mut answer).await?;
            if answer.get(..length).is_some_and(|answer| is_answer(answer, number, query)) {
                answer.truncate(length);
                return Ok::<_, std::io::Error>(answer);
            }
        }
    };
    timeout(PATIENCE, asked).await.ok()?.ok()
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(question.len()).ok()?;
    let asked = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    timeout(PATIENCE, asked).await.ok()?.ok()
}

/// Whether it answers this question.
fn is_answer(bytes: &[u8], number: u16, query: &Query) -> bool {
    Message::from_vec(bytes).is_ok_and(|answer| {
        answer.metadata.id == number
            && answer.metadata.message_type == MessageType::Response
            && answer.queries.first().is_none_or(|asked| asked == query)
    })
}

/// The message under another number (RFC 1035, 4.1.1: the first two bytes).
fn numbered(message: &[u8], number: u16) -> Option<Vec<u8>> {
    let rest = message.get(2..)?;
    Some([number.to_be_bytes().as_slice(), rest].concat())
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use hickory_proto::op::OpCode;
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn query(name: &str) -> Query {
        Query::query(Name::from_str(name).unwrap(), RecordType::A)
    }

    #[test]
    fn only_the_answer_to_the_question_is_taken() {
        let answer = |number, kind, name: &str| {
            let mut message = Message::new(number, kind, OpCode::Query);
            message.add_query(query(name));
            message.to_vec().unwrap()
        };
        let asked = query("example.com.");
        let is_taken = |bytes: &[u8]| is_answer(bytes, 7, &asked);
        assert!(is_taken(&answer(7, MessageType::Response, "example.com.")));
        assert!(!is_taken(&answer(8, MessageType::Response, "example.com.")), "another number");
        assert!(!is_taken(&answer(7, MessageType::Query, "example.com.")), "a question");
        assert!(!is_taken(&answer(7, MessageType::Response, "example.org.")), "another name");
        assert!(!is_taken(b"\x00\x07noise"));
    }

    /// A server that answers as it is asked, over UDP and TCP.
    async fn echo(address: SocketAddr) -> SocketAddr {
        let udp = UdpSocket::bind(address).await.unwrap();
        let address = udp.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
                let mut message = Message::from_vec(&buffer[..length]).unwrap();
                message.metadata.message_type = MessageType::Response;
                let right = message.to_vec().unwrap();
                // Somebody guesses first, and wrongly.
                let wrong = numbered(&right, message.metadata.id.wrapping_add(1)).unwrap();
                udp.send_to(&wrong, client).await.unwrap();
                udp.send_to(&right, client).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_wrong_answer_does_not_end_the_wait_for_the_right_one() {
        let server = echo("127.0.0.1:0".parse().unwrap()).await;
        let query = query("example.com.");
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(query.clone());
        let answer = ask_udp(server, &message.to_vec().unwrap(), 7, &query).await.unwrap();
        assert!(is_answer(&answer, 7, &query));
    }

    #[tokio::test]
    async fn our_own_address_is_not_asked_and_a_loop_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 10.85.0.1\nnameserver 127.0.0.53\n").unwrap();
        let forwarder = Forwarder::new(file, vec![Ipv4Addr::new(10, 85, 0, 1)]);
        let servers = forwarder.servers().await;
        assert_eq!(servers, ["127.0.0.53:53".parse().unwrap()]);
        let query = query("example.com.");
        let turns: Vec<Turn> = (0..MOST_ALIKE).map(|_| forwarder.turn(&query).unwrap()).collect();
        assert!(forwarder.turn(&query).is_none());
        drop(turns);
        assert!(forwarder.turn(&query).is_some());
    }
}
