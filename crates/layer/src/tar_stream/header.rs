//! One 512-byte header block of a tar archive.

use super::number;
use super::until_nul;

/// Everything in a tar archive is padded to this.
pub(super) const BLOCK: usize = 512;

/// The fields of a header that we use, before extended headers are applied.
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) modified: i64,
    pub(super) type_flag: u8,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        if !checksum_is_right(block) {
            return Err("its checksum is wrong; this is not a tar archive, or it is damaged");
        }
        let number = |at, length, why| number::field(bytes(block, at, length)).ok_or(why);
        let size = number(124, 12, "its size is no number")?;
        let mode = number(100, 8, "its mode is no number")?;
        Ok(Self {
            path: path(block),
            link: until_nul(bytes(block, 157, 100)).to_vec(),
            // Some writers put the file type above the permission bits.
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            uid: number(108, 8, "its user id is no number")?,
            gid: number(116, 8, "its group id is no number")?,
            size: u64::try_from(size).map_err(|_negative| "its size is negative")?,
            modified: number(136, 12, "its time is no number")?,
            type_flag: bytes(block, 156, 1).first().copied().unwrap_or_default(),
        })
    }
}

/// `length` bytes of the block from `at`.
pub(super) fn bytes(block: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

/// POSIX headers have a prefix for names beyond 100 bytes; GNU's keep other things there.
fn path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(bytes(block, 0, 100));
    let prefix = until_nul(bytes(block, 345, 155));
    if bytes(block, 257, 6) != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// The sum of all bytes, the checksum itself taken as spaces; some old writers summed signed bytes.
fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let Some(stored) = number::field(bytes(block, 148, 8)) else { return false };
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    stored == unsigned || stored == signed
}
