//! The journal: what is acknowledged before it is in the objects file.
//!
//! A commit of the objects file alters some ten pages all over it, and waits for all of them. Here a commit is one frame,
//! written by one call that returns when it is durable, into blocks that the file has had from the start: no metadata is
//! written, and a full disk is no matter. The file is used in a ring; what is in the objects file, too, is written over.
//!
//! A frame begins at a block: [`MAGIC`], the number of the commit, the length of its changes, a checksum of all of it, the
//! changes. Which frames matter is seen by their numbers alone: those that follow the newest commit of the objects file. So
//! nothing has to be written when the journal's content has become superfluous, and an objects file that opens as it was
//! some commits ago is caught up with as long as the frames are there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl};
use zlib_rs::crc32::crc32;

use crate::ballast::Ballast;
use crate::database::{Changes, key_of};
use crate::directory::open_private;
use crate::object::{ObjectKey, StoredObject};
use crate::value::ObjectValue;

/// The size of the file. What is in it alone is written to the objects file later, from the reserve if the disk has become
/// full meanwhile, so it is much smaller than that.
pub(crate) const JOURNAL_BYTES: usize = 2 << 20;
/// A commit that is longer goes to the objects file at once.
pub(crate) const FRAME_BYTES: usize = JOURNAL_BYTES / 4;

/// What a disk writes at once, at least (O_DIRECT wants it, too): no write touches a block of another frame.
const BLOCK: usize = 4096;
/// Also says how the changes are encoded. Its beginning is in no text, so none within a frame looks like another frame.
const MAGIC: [u8; 8] = *b"\xff\xfejourn\x01";
const HEADER: usize = 24;
/// A file that is longer than this is none of ours.
const READ_BYTES: u64 = 64 << 20;

/// The tags of changes.
mod tag {
    pub(super) const PUT_OBJECT: u8 = 1;
    pub(super) const DELETE_OBJECT: u8 = 2;
    pub(super) const PUT_RECORD: u8 = 3;
    pub(super) const DELETE_RECORD: u8 = 4;
    pub(super) const RESERVE: u8 = 5;
}

/// The journal as it is written to.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) path: PathBuf,
    file: File,
    ballast: Arc<Ballast>,
    blocks: usize,
    /// Where the next frame goes.
    head: usize,
    /// The last frame, kept for its memory.
    buffer: Vec<u8>,
}

/// What the journal holds when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What the objects file lacks, in order.
    pub(crate) frames: Vec<Frame>,
    /// The newest commit that is a frame, whether the objects file has it or not.
    newest: Option<(u64, usize)>,
}

/// One commit.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    /// Where it begins and ends, in blocks.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) changes: Kept,
}

/// Changes that are kept until the objects file has them. Of several changes of one thing the last counts.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) objects: BTreeMap<ObjectKey, Option<StoredObject>>,
    /// By table, then by key.
    pub(crate) records: BTreeMap<Cow<'static, str>, BTreeMap<String, Option<Vec<u8>>>>,
    pub(crate) reserved_revision: Option<u64>,
}

impl Kept {
    pub(crate) fn put_record(&mut self, table: Cow<'static, str>, key: String, value: Option<Vec<u8>>) {
        self.records.entry(table).or_default().insert(key, value);
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len() + self.records.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Takes over later changes.
    pub(crate) fn add(&mut self, later: Self) {
        self.objects.extend(later.objects);
        for (table, records) in later.records {
            self.records.entry(table).or_default().extend(records);
        }
        self.reserved_revision = later.reserved_revision.or(self.reserved_revision);
    }

    pub(crate) fn changes(&self) -> Changes<'_> {
        let records = self.records.iter().flat_map(|(table, records)| {
            records.iter().map(move |(key, value)| (&**table, key.as_str(), value.as_deref()))
        });
        Changes {
            objects: self.objects.iter().map(|(key, object)| (key, object.as_ref())).collect(),
            records: records.collect(),
            reserved_revision: self.reserved_revision,
        }
    }
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It cannot be read.
    Access(io::Error),
    /// Something in it is spoilt.
    Damaged(String),
    /// The objects file has not come as far as it goes back.
    Behind(String),
}

/// Reads what the objects file lacks, whose newest commit is `commits`. `None` if there is no journal.
///
/// The end of the newest frame may never have been written: then nobody has had an answer, and it is left out. A gap is
/// damage.
pub(crate) fn read(path: &Path, commits: u64) -> Result<Option<Found>, Unusable> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(READ_BYTES).read_to_end(&mut bytes).map_err(Unusable::Access)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unusable::Access(error)),
    };
    find(&bytes, commits).map(Some)
}

fn find(bytes: &[u8], commits: u64) -> Result<Found, Unusable> {
    let mut frames = BTreeMap::new();
    let mut newest = None;
    let mut block = 0;
    while let Some(rest) = bytes.get(block * BLOCK..).filter(|rest| !rest.is_empty()) {
        let Some((number, changes)) = checked(rest) else {
            block += 1;
            continue;
        };
        let (begin, end) = (block, block + blocks_of(HEADER + changes.len()));
        block = end;
        newest = newest.max(Some((number, end)));
        if number <= commits {
            continue;
        }
        let unreadable = || Unusable::Damaged(format!("commit {number} in it cannot be read"));
        let changes = decode(changes).ok_or_else(unreadable)?;
        if frames.insert(number, Frame { number, begin, end, changes }).is_some() {
            return Err(Unusable::Damaged(format!("commit {number} is in it twice")));
        }
    }
    for (Frame { number, .. }, expected) in frames.values().zip(commits + 1..) {
        if *number != expected && expected == commits + 1 {
            let why = format!("it is as after commit {commits}, but the journal goes on with commit {number}");
            return Err(Unusable::Behind(why));
        }
        if *number != expected {
            let why = format!("commit {number} is in it, but commit {expected} is not");
            return Err(Unusable::Damaged(why));
        }
    }
    Ok(Found { frames: frames.into_values().collect(), newest })
}

/// The frame at the beginning of `bytes`: its number and changes, if it is one and whole.
fn checked(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut reader = Reader(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let (number, length, checksum) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let changes = reader.take(usize::try_from(length).ok()?)?;
    (checksum == checksum_of(number, length, changes)).then_some((number, changes))
}

fn checksum_of(number: u64, length: u32, changes: &[u8]) -> u32 {
    let header = crc32(crc32(0, &number.to_le_bytes()), &length.to_le_bytes());
    crc32(header, changes)
}

fn blocks_of(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK)
}

impl Journal {
    /// Has the whole file on the disk, with what is in it; or a fresh one, if what is in it must never count again.
    pub(crate) fn make_ready(path: &Path, ballast: Arc<Ballast>, found: Option<&Found>) -> io::Result<Self> {
        let mut file = open_private(path, OFlags::DSYNC)?;
        let metadata = file.metadata()?;
        let long_enough = metadata.len() >= JOURNAL_BYTES as u64 && metadata.len() % BLOCK as u64 == 0;
        // A sparse file (restored from a copy) would want space later.
        let real = metadata.blocks().saturating_mul(512) >= metadata.len();
        let bytes = match found {
            Some(_) if long_enough && real => None,
            Some(_) => {
                let mut bytes = Vec::new();
                Read::by_ref(&mut file).take(READ_BYTES).read_to_end(&mut bytes)?;
                bytes.resize(bytes.len().next_multiple_of(BLOCK).max(JOURNAL_BYTES), 0);
                Some(bytes)
            }
            None => {
                file.set_len(0)?;
                Some(vec![0; JOURNAL_BYTES])
            }
        };
        if let Some(bytes) = bytes {
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
        }
        // It is read once. Pages of it in memory would only have to be thrown out by each write.
        if let Err(error) = fadvise(&file, 0, None, Advice::DontNeed) {
            tracing::debug!(journal = %path.display(), %error, "its pages stay in memory");
        }
        // Past the page cache, where a write waits behind those of others. Not every file system can do it.
        if let Err(error) = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::DIRECT)) {
            tracing::debug!(journal = %path.display(), %error, "it is written through the page cache");
        }
        let blocks = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)? / BLOCK;
        let head = found.and_then(|found| found.newest).map_or(0, |(_, end)| end);
        Ok(Self { path: path.to_owned(), file, ballast, blocks, head, buffer: Vec::new() })
    }

    /// Where a frame of `blocks` blocks can go, if all from `tail` to the last frame written must stay.
    pub(crate) fn place(&self, blocks: usize, tail: Option<usize>) -> Option<usize> {
        let fits = |at: usize, limit: usize| (at + blocks <= limit).then_some(at);
        match tail {
            Some(tail) if self.head <= tail => fits(self.head, tail),
            tail => fits(self.head, self.blocks).or_else(|| fits(0, tail.unwrap_or(self.blocks))),
        }
    }

    /// Encodes a commit as a frame, which is then written by [`Journal::write`]. Gives its length in blocks; `None` if it is
    /// too long for the journal.
    pub(crate) fn encode(&mut self, number: u64, changes: &Changes<'_>) -> Option<usize> {
        let length = length_of(changes);
        let (frame, payload) = ((HEADER + length).next_multiple_of(BLOCK), u32::try_from(length).ok()?);
        if frame > FRAME_BYTES {
            return None;
        }
        let buffer = &mut self.buffer;
        buffer.clear();
        // Memory for O_DIRECT begins at a block, too; it does not move any more.
        buffer.reserve_exact(frame + BLOCK);
        let begin = buffer.as_ptr().align_offset(BLOCK);
        buffer.resize(begin, 0);
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(&number.to_le_bytes());
        buffer.extend_from_slice(&payload.to_le_bytes());
        let checksum_at = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        encode(changes, buffer);
        let checksum = checksum_of(number, payload, buffer.get(checksum_at + 4..)?);
        buffer.get_mut(checksum_at..checksum_at + 4)?.copy_from_slice(&checksum.to_le_bytes());
        buffer.resize(begin + frame, 0);
        Some(frame / BLOCK)
    }

    /// Writes the frame that was encoded last, durably. After an error nobody knows what is on the disk.
    pub(crate) fn write(&mut self, block: usize) -> io::Result<()> {
        let begin = self.buffer.as_ptr().align_offset(BLOCK);
        let frame = self.buffer.get(begin..).unwrap_or_default();
        // Only a file system that copies on write can be full here.
        self.ballast.with_reserve(frame.len() as u64, || write_at(&self.file, frame, (block * BLOCK) as u64))?;
        self.head = block + frame.len() / BLOCK;
        if self.buffer.capacity() > FRAME_BYTES / 4 {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

fn write_at(file: &File, frame: &[u8], offset: u64) -> io::Result<()> {
    match file.write_all_at(frame, offset) {
        // open(2), "O_DIRECT": what does not suit the device or file system is refused, and nothing is written.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            fcntl_setfl(file, fcntl_getfl(file)? - OFlags::DIRECT)?;
            file.write_all_at(frame, offset)
        }
        written => written,
    }
}

fn length_of(changes: &Changes<'_>) -> usize {
    let text = |text: &str| 4 + text.len();
    let object = |(key, object): &(&ObjectKey, Option<&StoredObject>)| {
        let namespace = key.namespace.as_deref().unwrap_or("");
        let id = 1 + text(&key.resource) + text(namespace) + text(&key.name);
        id + object.map_or(0, |object| 8 + 4 + object.json.len())
    };
    let record = |(table, key, value): &(&str, &str, Option<&[u8]>)| {
        1 + text(table) + text(key) + value.map_or(0, |v| 4 + v.len())
    };
    changes.objects.iter().map(object).sum::<usize>()
        + changes.records.iter().map(record).sum::<usize>()
        + changes.reserved_revision.map_or(0, |_| 9)
}

fn encode(changes: &Changes<'_>, out: &mut Vec<u8>) {
    for (key, object) in &changes.objects {
        out.push(if object.is_some() { tag::PUT_OBJECT } else { tag::DELETE_OBJECT });
        for text in [key.resource.as_str(), key.namespace.as_deref().unwrap_or(""), key.name.as_str()] {
            encode_bytes(text.as_bytes(), out);
        }
        if let Some(object) = object {
            out.extend_from_slice(&object.revision.to_le_bytes());
            encode_bytes(&object.json, out);
        }
    }
    for (table, key, value) in &changes.records {
        out.push(if value.is_some() { tag::PUT_RECORD } else { tag::DELETE_RECORD });
        encode_bytes(table.as_bytes(), out);
        encode_bytes(key.as_bytes(), out);
        if let Some(value) = value {
            encode_bytes(value, out);
        }
    }
    if let Some(revision) = changes.reserved_revision {
        out.push(tag::RESERVE);
        out.extend_from_slice(&revision.to_le_bytes());
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // The length of a frame fits, so that of its parts does.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let mut reader = Reader(bytes);
    let mut kept = Kept::default();
    while !reader.0.is_empty() {
        match reader.u8()? {
            tag::PUT_OBJECT => {
                let (key, revision) = (reader.key()?, reader.u64()?);
                let json = Bytes::copy_from_slice(reader.bytes()?);
                let value = ObjectValue::read(json.clone()).ok()?;
                kept.objects.insert(key.clone(), Some(StoredObject { key, revision, value, json }));
            }
            tag::DELETE_OBJECT => drop(kept.objects.insert(reader.key()?, None)),
            tag::PUT_RECORD => {
                let (table, key) = (reader.text()?.to_owned(), reader.text()?.to_owned());
                kept.put_record(table.into(), key, Some(reader.bytes()?.to_owned()));
            }
            tag::DELETE_RECORD => {
                let (table, key) = (reader.text()?.to_owned(), reader.text()?.to_owned());
                kept.put_record(table.into(), key, None);
            }
            tag::RESERVE => kept.reserved_revision = Some(reader.u64()?),
            _ => return None,
        }
    }
    Some(kept)
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn key(&mut self) -> Option<ObjectKey> {
        Some(key_of((self.text()?, self.text()?, self.text()?)))
    }
}
