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
pub(crate) const FRAME_BYTES: usize = JOURNAL_BYTES / 2;

/// What a disk writes at once, at least (O_DIRECT wants it, too): no write touches a block of another frame.
const BLOCK: usize = 4096;
/// Also says how the changes are encoded. Its beginning is in no text, so none within a frame looks like another frame.
const MAGIC: [u8; 8] = *b"\xff\xfejourn\x01";
const HEADER: usize = 24;
/// What is beyond this in a file that somebody has made longer is not used.
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
    pub(crate) file: File,
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
    pub(crate) objects: BTreeMap<Arc<ObjectKey>, Option<StoredObject>>,
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
            objects: self.objects.iter().map(|(key, object)| (&**key, object.as_ref())).collect(),
            records: records.collect(),
            reserved_revision: self.reserved_revision,
        }
    }
}

/// Why a journal cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Something in it is spoilt.
    Damaged(String),
    /// The objects file has not come as far as it goes back.
    Behind(String),
}

/// All bytes of the file, or `None` if there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::with_capacity(JOURNAL_BYTES + 1);
    file.take(READ_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Finds what the objects file lacks, whose newest commit is `commits`.
///
/// The end of the newest frame may never have been written: then nobody has had an answer, and it is left out. A gap is
/// damage.
pub(crate) fn find(bytes: &[u8], commits: u64) -> Result<Found, Unusable> {
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
        let bytes = file.metadata()?.len().min(READ_BYTES);
        let blocks = usize::try_from(bytes).map_err(io::Error::other)? / BLOCK;
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
                let (key, revision) = (Arc::new(reader.key()?), reader.u64()?);
                let json = Bytes::copy_from_slice(reader.bytes()?);
                let value = ObjectValue::read(json.clone()).ok()?;
                kept.objects.insert(Arc::clone(&key), Some(StoredObject { key, revision, value, json }));
            }
            tag::DELETE_OBJECT => drop(kept.objects.insert(Arc::new(reader.key()?), None)),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::batch::Encoder;
    use crate::object::WatchKind;

    fn put(name: &str, revision: u64, size: usize) -> (Arc<ObjectKey>, Option<StoredObject>) {
        let key = Arc::new(ObjectKey::namespaced("pods", "default", name));
        let value = json!({"metadata": {"name": name}, "content": "x".repeat(size)});
        let mut encoder = Encoder::default();
        let (object, _line) = encoder.encode(&key, value, revision, WatchKind::Added).unwrap().finish();
        (key, Some(object))
    }

    /// A commit with a change of each kind.
    fn commit(number: u64, size: usize) -> Kept {
        let mut kept = Kept::default();
        kept.objects.extend([put(&format!("pod-{number}"), number, size)]);
        kept.objects.insert(Arc::new(ObjectKey::cluster("nodes", format!("node-{number}"))), None);
        kept.put_record("things".into(), number.to_string(), Some(vec![b'7'; size / 10]));
        kept.put_record("things".into(), (number - 1).to_string(), None);
        kept.reserved_revision = number.is_multiple_of(2).then_some(number + 4096);
        kept
    }

    fn open(directory: &Path) -> Journal {
        let ballast = Arc::new(Ballast::open(&directory.join("ballast")).unwrap());
        Journal::make_ready(&directory.join("journal"), ballast, None).unwrap()
    }

    fn write(journal: &mut Journal, number: u64, kept: &Kept, tail: Option<usize>) -> usize {
        let blocks = journal.encode(number, &kept.changes()).unwrap();
        let begin = journal.place(blocks, tail).unwrap();
        journal.write(begin).unwrap();
        begin
    }

    /// A journal with some commits, as it is on the disk, with where they begin, and where the last one ends.
    fn journal_of(commits: &[Kept]) -> (Vec<u8>, Vec<usize>) {
        let home = tempfile::tempdir().unwrap();
        let mut journal = open(home.path());
        let mut begins = Vec::new();
        for (kept, number) in commits.iter().zip(1..) {
            begins.push(write(&mut journal, number, kept, begins.first().copied()) * BLOCK);
        }
        begins.push(journal.head * BLOCK);
        (read(&journal.path).unwrap().unwrap(), begins)
    }

    fn same(found: &[Frame], commits: &[Kept]) -> bool {
        let content = |kept: &Kept| (kept.objects.clone(), kept.records.clone(), kept.reserved_revision);
        found.len() == commits.len()
            && found.iter().zip(commits).all(|(frame, kept)| content(&frame.changes) == content(kept))
    }

    #[test]
    fn what_was_written_is_found() {
        let commits = [commit(1, 10), commit(2, 20_000), commit(3, 4000)];
        let (bytes, begins) = journal_of(&commits);
        assert_eq!(bytes.len(), JOURNAL_BYTES);
        assert_eq!(begins, [0, BLOCK, BLOCK + 6 * BLOCK, BLOCK + 6 * BLOCK + 2 * BLOCK]);
        for have in 0..=3 {
            let found = find(&bytes, have).unwrap();
            assert!(same(&found.frames, &commits[usize::try_from(have).unwrap()..]), "after commit {have}");
            assert_eq!(found.newest, Some((3, 9)));
        }
        assert!(find(&bytes, 9).unwrap().frames.is_empty());
        assert!(find(&[], 0).unwrap().frames.is_empty());
    }

    #[test]
    fn a_last_frame_that_was_not_finished_is_left_out_wherever_it_ends() {
        let commits = [commit(1, 10), commit(2, 6000)];
        let (mut whole, begins) = journal_of(&commits);
        let begin = begins[1];
        let length = HEADER + length_of(&commits[1].changes());
        let mut older = journal_of(&[commit(1, 10), commit(2, 5000)]).0;
        whole.truncate(begins[2]);
        older.truncate(begins[2]);
        for end in 0..length {
            // Over zeros, over noise, and over another frame.
            for before in [0, 0xa5] {
                let mut torn = whole.clone();
                torn[begin + end..].fill(before);
                // The last bytes of a frame may be what was there before.
                let all_there = torn[begin..begin + length] == whole[begin..begin + length];
                let found = find(&torn, 0).unwrap().frames;
                assert!(same(&found, &commits[..=usize::from(all_there)]), "cut after {end} bytes");
            }
            let mut torn = older.clone();
            torn[begin..begin + end].copy_from_slice(&whole[begin..begin + end]);
            let one_of_them = torn == older || torn[begin..begin + length] == whole[begin..begin + length];
            let found = find(&torn, 0).unwrap().frames;
            assert!(same(&found[..1], &commits[..1]) && one_of_them == (found.len() == 2), "cut after {end} bytes");
        }
        whole.truncate(begin + length);
        assert!(same(&find(&whole, 0).unwrap().frames, &commits), "the rest of a block says nothing");
    }

    #[test]
    fn a_bit_that_is_another_is_noticed_or_changes_nothing() {
        let commits = [commit(1, 10), commit(2, 6000), commit(3, 10)];
        let (mut whole, begins) = journal_of(&commits);
        whole.truncate(begins[3] + BLOCK);
        for at in 0..begins[3] + BLOCK {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 1 << (at % 8);
            match find(&spoilt, 0) {
                Ok(found) => {
                    // Of the last one nobody knows here whether it was acknowledged.
                    let all = commits.len() - usize::from(found.frames.len() == 2 && at >= begins[2]);
                    assert!(same(&found.frames, &commits[..all]), "byte {at}");
                }
                Err(Unusable::Behind(why)) => {
                    assert!(at < begins[1], "byte {at}: {why}");
                    assert_eq!(why, "it is as after commit 0, but the journal goes on with commit 2");
                }
                Err(Unusable::Damaged(why)) => {
                    assert!((begins[1]..begins[2]).contains(&at), "byte {at}: {why}");
                    assert_eq!(why, "commit 3 is in it, but commit 2 is not");
                }
            }
        }
    }

    #[test]
    fn no_content_is_taken_for_a_frame() {
        let mut inner = journal_of(&[commit(1, 10)]).0;
        inner.truncate(BLOCK);
        // Whatever a client sends is JSON, and so text.
        let text = String::from_utf8_lossy(&inner).repeat(20);
        let mut kept = Kept::default();
        kept.put_record("things".into(), "a".to_owned(), Some(text.into_bytes()));
        let (mut bytes, begins) = journal_of(&[kept]);
        bytes[..BLOCK].fill(0);
        for shift in 0..BLOCK {
            assert!(find(&bytes[shift..begins[1]], 0).unwrap().frames.is_empty());
        }
    }

    #[test]
    fn the_ring_never_writes_over_what_must_stay() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = open(home.path());
        let (mut begins, mut kept) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
        let mut moved = 0;
        let mut full = 0;
        for number in 1..400 {
            let size = [10, 9000, 300_000, 60_000, 4100][usize::try_from(number * 7 % 5).unwrap()];
            let next = commit(number, size);
            let blocks = journal.encode(number, &next.changes()).unwrap();
            let begin = loop {
                let tail = begins.front().copied();
                if let Some(begin) = journal.place(blocks, tail) {
                    break begin;
                }
                full += 1;
                // Some go to the objects file.
                for _ in 0..=number % 4 {
                    moved += u64::from(begins.pop_front().is_some());
                    kept.pop_front();
                }
            };
            journal.write(begin).unwrap();
            begins.push_back(begin);
            kept.push_back(next);
            let found = find(&read(&journal.path).unwrap().unwrap(), moved).unwrap();
            assert!(same(&found.frames, kept.make_contiguous()), "after commit {number}");
            assert_eq!(found.newest, Some((number, journal.head)));
        }
        assert!(full > 20, "{full}");
    }

    #[test]
    fn a_commit_that_is_too_long_is_not_taken() {
        let home = tempfile::tempdir().unwrap();
        let mut journal = open(home.path());
        assert_eq!(journal.encode(1, &commit(1, FRAME_BYTES).changes()), None);
        let mut long = Kept::default();
        long.put_record("t".into(), "k".into(), Some(vec![b'1'; FRAME_BYTES - HEADER - 1 - 5 - 5 - 4]));
        assert_eq!(journal.encode(1, &long.changes()), Some(FRAME_BYTES / BLOCK));
    }

    #[test]
    fn a_journal_that_is_not_all_there_is_completed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal");
        let commits = [commit(1, 10), commit(2, 20_000)];
        let (bytes, begins) = journal_of(&commits);
        let ballast = Arc::new(Ballast::open(&home.path().join("ballast")).unwrap());
        // Cut short, and with a hole.
        for kept in [begins[2], begins[2] + 5, JOURNAL_BYTES] {
            std::fs::remove_file(&path).or_else(|_| File::create(&path).map(drop)).unwrap();
            let file = File::create(&path).unwrap();
            file.write_all_at(&bytes[..begins[2]], 0).unwrap();
            file.set_len(kept as u64).unwrap();
            let found = find(&read(&path).unwrap().unwrap(), 0).unwrap();
            let mut journal = Journal::make_ready(&path, Arc::clone(&ballast), Some(&found)).unwrap();
            assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= JOURNAL_BYTES as u64);
            write(&mut journal, 3, &commit(3, 10), Some(0));
            assert_eq!(find(&read(&path).unwrap().unwrap(), 0).unwrap().frames.len(), 3);
        }
    }
}
