//! Reads a tar archive as a stream: ustar, GNU and PAX, with xattrs and sparse files, in bounded memory.
//!
//! The `tar` crate splits PAX records at newlines, which a binary value such as a file capability may contain, and reads
//! long names of any length into memory; so layers, which strangers make, are read by this.
//! Sources: pax(1) ("ustar Interchange Format", "pax Header Block"), GNU tar's manual ("Basic Tar Format", "Sparse Formats").

mod header;
mod number;
mod pax;
mod sparse;

use std::io::{self, BufRead, BufReader, Read, Seek};

use header::{BLOCK, Header};
use pax::Pax;
pub use sparse::Segment;

use crate::limits::TAR_EXTENSION_BYTES;

/// What an entry of an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, with its extended headers applied. Its body is read from the [`TarReader`].
#[derive(Debug)]
pub struct Entry {
    pub kind: EntryKind,
    /// As it stands in the archive: it may be absolute, contain `..`, or end with a slash.
    pub path: Vec<u8>,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    /// Bytes of the file as its user sees it.
    pub size: u64,
    /// Where the body belongs in the file; `None` for a file without holes.
    pub segments: Option<Vec<Segment>>,
    /// Names and values of `SCHILY.xattr.*`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why a stream is not a tar archive that we read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream itself failed.
    #[error("cannot read the archive at byte {position}")]
    Read {
        /// Where in the decompressed archive.
        position: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The stream ends inside an entry.
    #[error("the archive is cut off at byte {position}")]
    Truncated {
        /// Where in the decompressed archive.
        position: u64,
    },
    /// A header breaks the format.
    #[error("bad tar header at byte {position}: {why}")]
    Header {
        /// Where in the decompressed archive the header starts.
        position: u64,
        /// Which rule it breaks.
        why: &'static str,
    },
}

/// A stream in which bytes can be passed over.
pub trait Skip: BufRead {
    /// Goes `count` bytes forward; a source that can seek may go past its end.
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

impl<R: Read + Seek> Skip for BufReader<R> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(count).map_err(io::Error::other)?)
    }
}

/// A tar archive being read.
pub struct TarReader<R> {
    source: R,
    /// Bytes taken from the source.
    position: u64,
    /// Bytes of the present entry's body that were not read yet, and what pads it to whole blocks.
    body_left: u64,
    padding: u64,
    /// The block of zeros that closes an archive was there.
    is_closed: bool,
}

impl<R: Skip> TarReader<R> {
    pub fn new(source: R) -> Self {
        Self { source, position: 0, body_left: 0, padding: 0, is_closed: false }
    }

    /// Where in the archive the reader stands: after [`Self::next_entry`], where the entry's body starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the present entry's body that were not read yet.
    pub fn body_left(&self) -> u64 {
        self.body_left
    }

    /// Skips what is left of the present entry and reads the next one; `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pax = Pax::default();
        let mut long_path = None;
        let mut long_link = None;
        loop {
            self.skip_rest()?;
            let start = self.position;
            let bad = |why| TarError::Header { position: start, why };
            let Some(block) = self.read_header_block()? else { return Ok(None) };
            let header = Header::parse(&block).map_err(bad)?;
            match header.type_flag {
                b'x' => pax = Pax::parse(&self.read_extension(header.size)?).map_err(bad)?,
                b'L' => long_path = Some(until_nul(&self.read_extension(header.size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.read_extension(header.size)?).to_vec()),
                // Global headers hold comments (git archive); a volume label is no file.
                b'g' | b'V' => self.set_body(header.size)?,
                _ => return self.finish_entry(&block, header, pax, long_path, long_link, start).map(Some),
            }
        }
    }

    /// The next bytes of the present entry's body; empty at its end.
    pub fn body(&mut self) -> Result<&[u8], TarError> {
        if self.body_left == 0 {
            return Ok(&[]);
        }
        let position = self.position;
        let buffer = self.source.fill_buf().map_err(|source| TarError::Read { position, source })?;
        if buffer.is_empty() {
            return Err(TarError::Truncated { position });
        }
        let wanted = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(buffer.len());
        Ok(buffer.get(..wanted).unwrap_or_default())
    }

    /// Tells that `count` bytes of what [`Self::body`] gave were used.
    pub fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.position += count as u64;
        self.body_left = self.body_left.saturating_sub(count as u64);
    }

    /// Whether the end was marked as such. Many readers forgive its absence, which hides that an archive was cut off.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Gives the source back, to read what follows the archive.
    pub fn into_source(self) -> R {
        self.source
    }

    fn finish_entry(
        &mut self,
        block: &[u8; BLOCK],
        header: Header,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        start: u64,
    ) -> Result<Entry, TarError> {
        let bad = |why| TarError::Header { position: start, why };
        let path = pax.path.or(long_path).unwrap_or(header.path);
        let kind = kind_of(header.type_flag, &path).ok_or_else(|| bad("an entry type that we do not know"))?;
        // Only files have a body, whatever their size field says (pax(1), "size").
        let stored = if kind == EntryKind::File { pax.size.unwrap_or(header.size) } else { 0 };
        let mut entry = Entry {
            kind,
            path,
            link: pax.link.or(long_link).unwrap_or(header.link),
            mode: header.mode,
            uid: owner(pax.uid.unwrap_or(header.uid)).ok_or_else(|| bad("a user id outside 0 to 4294967294"))?,
            gid: owner(pax.gid.unwrap_or(header.gid)).ok_or_else(|| bad("a group id outside 0 to 4294967294"))?,
            modified: pax.modified.unwrap_or((header.modified, 0)),
            size: stored,
            segments: None,
            xattrs: pax.xattrs,
        };
        let old_gnu = header.type_flag == b'S';
        let more = if old_gnu { self.read_sparse_blocks(block)? } else { Vec::new() };
        self.set_body(stored)?;
        if old_gnu {
            (entry.segments, entry.size) =
                sparse::old_gnu(block, &more).map(|(map, size)| (Some(map), size)).map_err(bad)?;
        } else if let (Some(sparse), EntryKind::File) = (pax.sparse, kind) {
            if let Some(name) = sparse.name {
                entry.path = name;
            }
            let segments = match sparse.version {
                (1, 0) => self.read_sparse_map(start)?,
                _ => sparse.segments,
            };
            entry.size = sparse.real_size.ok_or_else(|| bad("a sparse file without its size"))?;
            entry.segments = Some(segments);
        }
        if let Some(segments) = &entry.segments {
            sparse::check(segments, entry.size, self.body_left).map_err(bad)?;
        }
        Ok(entry)
    }

    /// One header, or nothing at the end of the archive, which is a block of zeros or the end of the stream.
    fn read_header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let start = self.position;
        let read = self.read_up_to(&mut block)?;
        if read > 0 && read < BLOCK {
            return Err(TarError::Truncated { position: start + read as u64 });
        }
        self.is_closed = read == BLOCK && block.iter().all(|&byte| byte == 0);
        Ok((read == BLOCK && !self.is_closed).then_some(block))
    }

    /// The blocks after an old GNU header that go on with its sparse map.
    fn read_sparse_blocks(&mut self, block: &[u8; BLOCK]) -> Result<Vec<[u8; BLOCK]>, TarError> {
        let mut blocks = Vec::new();
        let mut goes_on = sparse::header_goes_on(block);
        while goes_on {
            let mut next = [0; BLOCK];
            if self.read_up_to(&mut next)? < BLOCK {
                return Err(TarError::Truncated { position: self.position });
            }
            goes_on = sparse::extension_goes_on(&next);
            blocks.push(next);
            if blocks.len() > crate::limits::SPARSE_SEGMENTS / 21 {
                return Err(TarError::Header { position: self.position, why: "a sparse file of too many segments" });
            }
        }
        Ok(blocks)
    }

    /// The sparse map that PAX version 1.0 puts in front of the body: decimal numbers, one a line, padded to a block.
    fn read_sparse_map(&mut self, start: u64) -> Result<Vec<Segment>, TarError> {
        let mut map = sparse::TextMap::default();
        let mut used = 0_usize;
        while !map.is_complete() {
            let buffer = self.body()?;
            let Some(&byte) = buffer.first() else {
                return Err(TarError::Header { position: start, why: "a sparse map that does not end" });
            };
            self.consume(1);
            used += 1;
            map.push(byte).map_err(|why| TarError::Header { position: start, why })?;
        }
        let mut left = used.next_multiple_of(BLOCK) - used;
        while left > 0 {
            let taken = self.body()?.len().min(left);
            if taken == 0 {
                return Err(TarError::Header { position: start, why: "a sparse map that does not end" });
            }
            self.consume(taken);
            left -= taken;
        }
        Ok(map.into_segments())
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > TAR_EXTENSION_BYTES {
            return Err(TarError::Header { position: self.position, why: "an extended header of more than 1 MiB" });
        }
        self.set_body(size)?;
        let mut all = Vec::new();
        while self.body_left > 0 {
            let bytes = self.body()?;
            let count = bytes.len();
            all.extend_from_slice(bytes);
            self.consume(count);
        }
        Ok(all)
    }

    fn set_body(&mut self, size: u64) -> Result<(), TarError> {
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .filter(|&padded| padded < 1 << 62)
            .ok_or(TarError::Header { position: self.position, why: "an impossible size" })?;
        self.body_left = size;
        self.padding = padded - size;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let count = self.body_left + self.padding;
        let position = self.position;
        self.source.skip(count).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated { position },
            _ => TarError::Read { position, source },
        })?;
        self.position += count;
        (self.body_left, self.padding) = (0, 0);
        Ok(())
    }

    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    self.position += read as u64;
                }
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { position: self.position, source }),
            }
        }
        Ok(filled)
    }
}

fn kind_of(type_flag: u8, path: &[u8]) -> Option<EntryKind> {
    match type_flag {
        // Archives from before ustar mark a directory by its slash.
        b'0' | 0 if path.ends_with(b"/") => Some(EntryKind::Directory),
        // '7': "contiguous", a plain file to all that know no better (pax(1)).
        b'0' | 0 | b'7' | b'S' => Some(EntryKind::File),
        b'1' => Some(EntryKind::HardLink),
        b'2' => Some(EntryKind::Symlink),
        b'3' => Some(EntryKind::CharacterDevice),
        b'4' => Some(EntryKind::BlockDevice),
        b'5' => Some(EntryKind::Directory),
        b'6' => Some(EntryKind::Fifo),
        _ => None,
    }
}

/// `u32::MAX` means "leave it as it is" to chown(2), so it is nobody's id.
fn owner(id: i64) -> Option<u32> {
    u32::try_from(id).ok().filter(|&id| id != u32::MAX)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
