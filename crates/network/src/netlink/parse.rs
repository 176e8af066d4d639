//! Takes netlink messages and attributes apart; what does not fit its frame ends the list (netlink(7)).

use super::uapi::NLA_TYPE_MASK;

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Message<'datagram> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'datagram [u8],
}

/// The messages of a datagram.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(datagram)?).ok()?;
        let payload = datagram.get(16..length)?;
        let message = Message {
            kind: half(datagram.get(4..)?)?,
            flags: half(datagram.get(6..)?)?,
            sequence: word(datagram.get(8..)?)?,
            payload,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message, after its header, or of a nest.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes)?);
        let kind = half(bytes.get(2..)?)? & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first 32 bits, in the machine's order.
pub fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A text up to its closing zero.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().copied().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_frames_end_the_list() {
        let cases: [&[u8]; 5] = [&[], &[1], &[3, 0, 1, 0], &[9, 0, 1, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 0]];
        for bytes in cases {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(attributes(&[5, 0, 1, 0x80, 7]).collect::<Vec<_>>(), [(1, &[7][..])], "padding may be missing");
    }
}
