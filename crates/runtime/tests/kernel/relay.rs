//! An infra process of another version: the real one behind a relay that says and understands what that version does.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use infra::protocol::{Event, Reply, Request, VERSION};
use infra::wire::{Frame, encode, receive, send};
use minicbor::Encode;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen, shutdown,
    socket_with,
};

use super::protocol_v1 as v1;

/// Whose part the relay plays.
#[derive(Clone, Copy)]
pub enum Peer {
    /// Version 1: it reads messages by the types of that time, and so loses what came later.
    First,
    /// One version after ours, which says things that we have never heard.
    Next,
    /// One that we cannot understand at all.
    Far,
}

/// An event of [`Peer::Next`].
#[derive(Encode)]
enum UnheardOf {
    #[n(99)]
    Sang {
        #[n(0)]
        song: String,
    },
}

/// The state as [`Peer::Next`] tells it: with a field more.
#[derive(Encode)]
enum NextReply {
    #[n(1)]
    State {
        #[n(0)]
        version: u32,
        #[n(1)]
        booted: bool,
        #[n(2)]
        containers: Vec<infra::protocol::ContainerReport>,
        #[n(3)]
        ready: bool,
        #[n(4)]
        spare: bool,
        #[n(5)]
        mood: String,
    },
}

/// A relay in the place of an infra's socket.
pub struct Relay {
    socket: PathBuf,
    real: PathBuf,
}

impl Relay {
    /// Moves the socket away, and answers in its place until the test's process ends.
    pub fn before(socket: &Path, real: &Path, peer: Peer) -> Self {
        fs::rename(socket, real).unwrap();
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(socket).unwrap()).unwrap();
        listen(&listener, 16).unwrap();
        let relay = Self { socket: socket.to_owned(), real: real.to_owned() };
        let real = real.to_owned();
        std::thread::spawn(move || {
            while let Ok(client) = accept(&listener) {
                let (client, infra) = (Arc::new(client), Arc::new(dial(&real)));
                let (to_infra, to_client) = ((client.clone(), infra.clone()), (infra, client));
                std::thread::spawn(move || {
                    relay_all(&to_infra.0, &to_infra.1, |frame| request(peer, frame, &to_infra.0));
                });
                std::thread::spawn(move || relay_all(&to_client.0, &to_client.1, |frame| Some(answer(peer, frame))));
            }
        });
        relay
    }

    /// Puts the real socket back.
    pub fn take_away(self) {
        fs::rename(&self.real, &self.socket).unwrap();
    }
}

/// A connection to an infra process.
pub fn dial(path: &Path) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// Passes messages on until a side closes; none is a message that has been dealt with.
fn relay_all(from: &OwnedFd, to: &OwnedFd, translate: impl Fn(&Frame) -> Option<Vec<Vec<u8>>>) {
    while let Ok(Some(frame)) = receive(from) {
        let Some(messages) = translate(&frame) else { continue };
        let descriptors: Vec<BorrowedFd<'_>> = frame.descriptors.iter().map(AsFd::as_fd).collect();
        for (number, message) in messages.iter().enumerate() {
            if send(to, message, if number == 0 { &descriptors } else { &[] }).is_err() {
                break;
            }
        }
    }
    // It may be closed already.
    shutdown(to, Shutdown::Both).ok();
}

fn request(peer: Peer, frame: &Frame, client: &OwnedFd) -> Option<Vec<Vec<u8>>> {
    match peer {
        Peer::First => {
            let known = frame.body::<v1::Request>().map(|known| vec![encode(frame.id, &known)]);
            if known.is_none() {
                send(client, &encode(frame.id, &v1::Reply::Unknown), &[]).unwrap();
            }
            known
        }
        Peer::Next | Peer::Far => Some(vec![encode(frame.id, &frame.body::<Request>().unwrap())]),
    }
}

fn answer(peer: Peer, frame: &Frame) -> Vec<Vec<u8>> {
    let id = frame.id;
    if id == 0 {
        return match peer {
            Peer::First => frame.body::<v1::Event>().map(|event| encode(0, &event)).into_iter().collect(),
            Peer::Next | Peer::Far => vec![encode(0, &frame.body::<Event>().unwrap())],
        };
    }
    let unheard = encode(0, &UnheardOf::Sang { song: "of tomorrow".into() });
    match peer {
        Peer::First => {
            let mut reply = frame.body::<v1::Reply>().unwrap();
            if let v1::Reply::State { version, .. } = &mut reply {
                *version = v1::VERSION;
            }
            // No version is disturbed by what it never heard of.
            vec![encode(id, &reply), unheard]
        }
        Peer::Next => match frame.body::<Reply>().unwrap() {
            Reply::State { booted, containers, ready, spare, .. } => {
                let mood = "fine".into();
                let reply = NextReply::State { version: VERSION + 1, booted, containers, ready, spare, mood };
                vec![encode(id, &reply), unheard]
            }
            other => vec![encode(id, &other)],
        },
        Peer::Far => vec![encode(id, &UnheardOf::Sang { song: "of the day after".into() })],
    }
}
