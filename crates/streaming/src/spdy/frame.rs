//! Frames: eight bytes of head, then what they carry (§2.2).

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Larger frames are refused: Go's clients send 32 KiB at once.
const LIMIT: usize = 1 << 20;

const CONTROL: u32 = 0x8000_0000;
const VERSION: u32 = 3;
const FIN: u64 = 1;

const SYN_STREAM: u32 = 1;
const SYN_REPLY: u32 = 2;
const RST_STREAM: u32 = 3;
const PING: u32 = 6;

/// A frame from the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream, with its header block; with `fin` the client sends nothing on it.
    Open {
        /// The stream.
        id: u32,
        /// Deflated headers.
        block: Bytes,
        /// It is half-closed from the start.
        fin: bool,
    },
    /// Data, and perhaps the end of it.
    Data {
        /// The stream.
        id: u32,
        /// What it carries.
        data: Bytes,
        /// No more follows.
        fin: bool,
    },
    /// The client wants no more of a stream.
    Reset {
        /// The stream.
        id: u32,
    },
    /// To be sent back.
    Ping {
        /// Its number.
        id: u32,
    },
    /// Nothing that matters here: settings, windows, farewells.
    Other,
}

/// Reads the next frame; `None` when the client has ended.
pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0_u8; 8];
    match io.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map(drop)?,
    }
    // 32 bits of stream or version and type, 8 of flags, 24 of length.
    let head = u64::from_be_bytes(head);
    let length = usize::try_from(head & 0xff_ffff).map_err(io::Error::other)?;
    let fin = head >> 24 & FIN != 0;
    if length > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a SPDY frame is too large"));
    }
    let mut body = vec![0; length];
    io.read_exact(&mut body).await?;
    let id = u32::try_from(head >> 32).map_err(io::Error::other)?;
    if id & CONTROL == 0 {
        return Ok(Some(Frame::Data { id, data: body.into(), fin }));
    }
    control(id & !CONTROL, fin, &body.into()).map(Some)
}

fn control(version_and_kind: u32, fin: bool, body: &Bytes) -> io::Result<Frame> {
    let number = |at: usize| {
        let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff).ok_or(io::ErrorKind::InvalidData)
    };
    if version_and_kind >> 16 != VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not SPDY/3"));
    }
    Ok(match version_and_kind & 0xffff {
        // The stream, the associated one, priority and slot.
        SYN_STREAM if body.len() >= 10 => Frame::Open { id: number(0)?, block: body.slice(10..), fin },
        SYN_STREAM => return Err(io::ErrorKind::InvalidData.into()),
        RST_STREAM => Frame::Reset { id: number(0)? },
        PING => Frame::Ping { id: number(0)? },
        _ => Frame::Other,
    })
}

/// The head of a data frame; `length` bytes follow.
pub fn data_head(id: u32, fin: bool, length: usize) -> io::Result<[u8; 8]> {
    head(id, fin, length)
}

/// Accepts a stream.
pub fn reply(id: u32, block: &[u8]) -> io::Result<Vec<u8>> {
    write(SYN_REPLY, &[&id.to_be_bytes(), block].concat())
}

/// Ends a stream at once (§2.6.3).
pub fn reset(id: u32, status: u32) -> io::Result<Vec<u8>> {
    write(RST_STREAM, &[id.to_be_bytes(), status.to_be_bytes()].concat())
}

/// Answers a ping.
pub fn pong(id: u32) -> io::Result<Vec<u8>> {
    write(PING, &id.to_be_bytes())
}

fn write(kind: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    Ok([&head(CONTROL | VERSION << 16 | kind, false, body.len())?[..], body].concat())
}

fn head(first: u32, fin: bool, length: usize) -> io::Result<[u8; 8]> {
    let length = u64::try_from(length).map_err(io::Error::other)?;
    Ok((u64::from(first) << 32 | u64::from(fin) << 24 | length).to_be_bytes())
}

/// A new stream, as a client opens it.
#[cfg(test)]
pub fn open(id: u32, block: &[u8]) -> Vec<u8> {
    write(SYN_STREAM, &[&id.to_be_bytes()[..], &[0; 6], block].concat()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_and_written() {
        let head = data_head(7, true, 3).unwrap();
        let bytes = [
            &open(1, b"block")[..],
            &head,
            b"abc",
            &pong(9).unwrap(),
            &reset(7, 5).unwrap(),
            &write(7, &[0; 8]).unwrap(),
        ];
        let bytes = bytes.concat();
        let mut io = bytes.as_slice();
        let mut next = async || read(&mut io).await.unwrap();
        assert_eq!(next().await, Some(Frame::Open { id: 1, block: Bytes::from_static(b"block"), fin: false }));
        assert_eq!(next().await, Some(Frame::Data { id: 7, data: Bytes::from_static(b"abc"), fin: true }));
        assert_eq!(next().await, Some(Frame::Ping { id: 9 }));
        assert_eq!(next().await, Some(Frame::Reset { id: 7 }));
        assert_eq!(next().await, Some(Frame::Other));
        assert_eq!(next().await, None);
    }

    #[tokio::test]
    async fn what_is_too_large_or_cut_or_of_another_version_is_refused() {
        let cases: [&[u8]; 4] = [
            &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff],
            &[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1],
            &[0x80, 3, 0, 6, 0, 0, 0, 4, 0],
            &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0],
        ];
        for mut case in cases {
            assert!(read(&mut case).await.is_err(), "{case:?}");
        }
    }
}
