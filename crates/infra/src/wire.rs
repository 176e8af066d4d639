//! Frames on a SOCK_SEQPACKET socket: a CBOR message and the descriptors that belong to it (unix(7), `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use minicbor::{Decode, Encode};
use rustix::fs::{FileType, MemfdFlags, fstat, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, sendmsg,
};

/// Larger messages travel in a memfd, which is then the last descriptor: a socket's buffer bounds a message.
const INLINE_LIMIT: usize = 64 * 1024;
/// Bound of a message in a memfd: ten times what etcd lets an object hold.
const MESSAGE_LIMIT: u64 = 16 * 1024 * 1024;
/// Descriptors in one message (`SCM_MAX_FD`, unix(7)).
pub const MAX_DESCRIPTORS: usize = 253;

/// A message and its descriptors, as received.
#[derive(Debug)]
pub struct Frame {
    /// 0 for events.
    pub id: u64,
    message: Vec<u8>,
    body: usize,
    /// Descriptors that came with it, in order.
    pub descriptors: Vec<OwnedFd>,
}

impl Frame {
    /// The body, as far as this build knows its kind.
    pub fn body<'a, T: Decode<'a, ()>>(&'a self) -> Option<T> {
        minicbor::decode(self.message.get(self.body..)?).ok()
    }
}

/// Encodes a frame, to be sent with [`send`] as often as needed.
pub fn encode<T: Encode<()>>(id: u64, body: &T) -> Vec<u8> {
    let mut message = Vec::with_capacity(256);
    let mut encoder = minicbor::Encoder::new(&mut message);
    // Writing to a Vec cannot fail, and our types encode without conditions.
    let _infallible = encoder.array(2).and_then(|e| e.u64(id)).and_then(|e| e.encode(body)).is_ok();
    message
}

/// Sends an encoded frame. `EAGAIN` on a non-blocking socket whose buffer is full.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() <= INLINE_LIMIT {
        return send_inline(socket.as_fd(), message, descriptors);
    }
    let mut memfd = std::fs::File::from(memfd_create("message", MemfdFlags::CLOEXEC)?);
    memfd.write_all(message)?;
    memfd.rewind()?;
    let mut descriptors = descriptors.to_vec();
    descriptors.push(memfd.as_fd());
    send_inline(socket.as_fd(), &[], &descriptors)
}

fn send_inline(socket: BorrowedFd<'_>, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    }
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(descriptors).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    }
    // A message in a memfd has one byte of its own, since an empty one would read as the end.
    let payload: &[u8] = if message.is_empty() { &[0] } else { message };
    sendmsg(socket, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a frame; `None` when the other side has closed. Descriptors are close-on-exec.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Frame>> {
    // Asking for the size first keeps 64 KiB of zeroes out of a small process' memory.
    let peek = || recv(socket.as_fd(), &mut [0_u8; 0], RecvFlags::PEEK | RecvFlags::TRUNC);
    let (_, waiting) = match peek() {
        // The other side has closed with something unread. The kernel says so once, and before what was sent to us is read.
        Err(Errno::CONNRESET) => peek()?,
        peeked => peeked?,
    };
    let mut buffer = vec![0_u8; waiting.clamp(1, INLINE_LIMIT)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    buffer.truncate(received.bytes);
    if buffer == [0] {
        let memfd = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
        // Reading anything else might wait for ever.
        if FileType::from_raw_mode(fstat(&memfd)?.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidData.into());
        }
        buffer.clear();
        let read = std::fs::File::from(memfd).take(MESSAGE_LIMIT + 1).read_to_end(&mut buffer)?;
        if read as u64 > MESSAGE_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let mut decoder = minicbor::Decoder::new(&buffer);
    let (Ok(_), Ok(id)) = (decoder.array(), decoder.u64()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let body = decoder.position();
    Ok(Some(Frame { id, message: buffer, body, descriptors }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Reply, Request};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn small_and_large_messages_arrive_with_their_descriptors() {
        let (a, b) = pair();
        for length in [1, 1000, INLINE_LIMIT, 3 * 1024 * 1024] {
            let file = std::fs::File::open("/dev/null").unwrap();
            let request = Request::OpenTmpfs { volume: "v".repeat(length) };
            send(&a, &encode(7, &request), &[file.as_fd()]).unwrap();
            let frame = receive(&b).unwrap().unwrap();
            assert_eq!((frame.id, frame.descriptors.len()), (7, 1));
            match frame.body::<Request>() {
                Some(Request::OpenTmpfs { volume }) => assert_eq!(volume.len(), length),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_last_word_of_one_who_has_not_listened_is_heard() {
        let (a, b) = pair();
        send(&b, &encode(1, &Request::Shutdown), &[]).unwrap();
        send(&a, &encode(2, &Reply::Done), &[]).unwrap();
        drop(a);
        assert_eq!(receive(&b).unwrap().unwrap().id, 2);
        assert!(receive(&b).unwrap().is_none());
    }

    #[test]
    fn a_message_of_a_later_version_keeps_its_id() {
        let (a, b) = pair();
        let mut message = Vec::new();
        minicbor::Encoder::new(&mut message)
            .array(2)
            .unwrap()
            .u64(9)
            .unwrap()
            .array(2)
            .unwrap()
            .u32(9999)
            .unwrap()
            .array(0)
            .unwrap();
        send(&a, &message, &[]).unwrap();
        let frame = receive(&b).unwrap().unwrap();
        assert_eq!(frame.id, 9);
        assert!(frame.body::<Request>().is_none());
        assert!(frame.body::<Reply>().is_none());
    }

    /// What is no frame is an error, what is none of our messages has no body, and nothing of it panics or waits.
    #[test]
    fn garbage_is_an_error_or_unknown() {
        let plan = Request::Attach { id: "c".repeat(40), stdin: true, stdout: false, stderr: true };
        let whole = encode(7, &plan);
        let mut messages: Vec<Vec<u8>> = (1..whole.len()).map(|length| whole[..length].to_vec()).collect();
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[index] ^= 1 << bit;
                messages.push(changed);
            }
        }
        // Arrays in arrays, lengths beyond all memory, indefinite ones, a tag, text that is none.
        messages.push([vec![0x82, 1], vec![0x81; 60_000]].concat());
        messages.push(vec![0x82, 1, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        messages.push(vec![0x82, 1, 0x82, 5, 0x84, 0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        messages.push(vec![0x82, 1, 0x82, 3, 0x9f, 0x9f, 0x9f]);
        messages.push(vec![0xc6, 0x82, 1, 0x62, 0xff, 0xfe]);
        for message in messages {
            let (a, b) = pair();
            send_inline(a.as_fd(), &message, &[]).unwrap();
            if let Ok(Some(frame)) = receive(&b) {
                let _some_or_none: (Option<Request>, Option<Reply>) = (frame.body(), frame.body());
            }
        }
    }

    #[test]
    fn a_long_message_is_in_a_file_and_nothing_else_is_read() {
        let (a, b) = pair();
        let (never_written, _writer) = rustix::pipe::pipe().unwrap();
        send_inline(a.as_fd(), &[], &[never_written.as_fd()]).unwrap();
        assert_eq!(receive(&b).unwrap_err().kind(), io::ErrorKind::InvalidData);
        send_inline(a.as_fd(), &[], &[]).unwrap();
        assert_eq!(receive(&b).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_closed_socket_is_the_end() {
        let (a, b) = pair();
        drop(a);
        assert!(receive(&b).unwrap().is_none());
    }
}
