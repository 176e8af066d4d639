//! Maps of sparse files: which parts of a file an archive holds.

use super::header::{self, BLOCK};
use super::number;
use crate::limits::SPARSE_SEGMENTS;

const BAD: &str = "its sparse map is no list of numbers";

/// A part of a file that is no hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where its bytes belong in the file.
    pub offset: u64,
    /// Their number.
    pub length: u64,
}

/// What a PAX header says of a sparse file.
#[derive(Default)]
pub(super) struct PaxSparse {
    pub(super) version: (u64, u64),
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) segments: Vec<Segment>,
}

/// Segments come in order, lie inside the file, and together are the body.
pub(super) fn check(segments: &[Segment], size: u64, body: u64) -> Result<(), &'static str> {
    if segments.len() > SPARSE_SEGMENTS {
        return Err("a sparse file of too many segments");
    }
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in segments {
        let next = segment.offset.checked_add(segment.length).filter(|&next| next <= size && segment.offset >= end);
        end = next.ok_or("its sparse map overlaps or leaves the file")?;
        total += segment.length;
    }
    if total == body { Ok(()) } else { Err("its sparse map does not fit its size") }
}

/// Whether blocks with more of the map follow a header of type `S`.
pub(super) fn header_goes_on(block: &[u8; BLOCK]) -> bool {
    header::bytes(block, 482, 1) != [0]
}

/// Whether yet another block follows.
pub(super) fn extension_goes_on(block: &[u8; BLOCK]) -> bool {
    header::bytes(block, 504, 1) != [0]
}

/// The map and the real size of a header of type `S`: 4 segments in the header, 21 in each block after it.
pub(super) fn old_gnu(block: &[u8; BLOCK], more: &[[u8; BLOCK]]) -> Result<(Vec<Segment>, u64), &'static str> {
    let number = |bytes: &[u8]| number::field(bytes).and_then(|number| u64::try_from(number).ok()).ok_or(BAD);
    let lists =
        std::iter::once(header::bytes(block, 386, 96)).chain(more.iter().map(|block| header::bytes(block, 0, 504)));
    let mut segments = Vec::new();
    for pair in lists.flat_map(|list| list.as_chunks::<24>().0) {
        let (offset, length) = pair.split_at(12);
        // An unused place ends the list.
        if offset.first() == Some(&0) {
            break;
        }
        segments.push(Segment { offset: number(offset)?, length: number(length)? });
    }
    // The last segment may be empty and only marks the end of the file.
    Ok((segments, number(header::bytes(block, 483, 12))?))
}

/// The map of PAX version 1.0, fed byte by byte: a count, then that many offsets and lengths, one a line.
#[derive(Default)]
pub(super) struct TextMap {
    line: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl TextMap {
    pub(super) fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() == count * 2)
    }

    pub(super) fn push(&mut self, byte: u8) -> Result<(), &'static str> {
        if byte != b'\n' {
            self.line.push(byte);
            return if self.line.len() <= 20 { Ok(()) } else { Err(BAD) };
        }
        let number = number::decimal(&self.line).ok_or(BAD)?;
        self.line.clear();
        if self.count.is_some() {
            self.numbers.push(number);
            return Ok(());
        }
        let count = usize::try_from(number).ok().filter(|&count| count <= SPARSE_SEGMENTS);
        self.count = Some(count.ok_or("a sparse file of too many segments")?);
        Ok(())
    }

    pub(super) fn into_segments(self) -> Vec<Segment> {
        self.numbers.as_chunks::<2>().0.iter().map(|&[offset, length]| Segment { offset, length }).collect()
    }
}
