//! Takes the bytes of one layer as they come from an archive or a registry, and unpacks them while it verifies them.

use std::io::{self, BufRead, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};
use spec::Digest;

use crate::LayerError;
use crate::compression::{Compression, decompress};
use crate::limits::LayerLimits;
use crate::tar_stream::{Skip, TarReader};
use crate::trash::Trash;
use crate::unpack::{UnpackCounts, UnpackError, unpack};
use crate::verify::Hashing;

const CHUNK: usize = 256 * 1024;
/// Chunks on the way from the reading to the writing thread.
const CHUNKS_AHEAD: usize = 4;

/// The bytes of a layer, and what they must be.
pub struct LayerBlob<'a> {
    /// The layer as stored: a tar archive, plain or compressed.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Digest of the bytes as they come, where a manifest names it.
    pub digest: Option<Digest>,
    /// Their number, where a manifest names it.
    pub size: Option<u64>,
    /// Digest of the decompressed archive, as the image config names it; `None` only where the config is yet to be made.
    pub diff_id: Option<Digest>,
}

/// What became of a layer.
#[derive(Debug)]
pub struct UnpackedLayer {
    pub diff_id: Digest,
    /// Bytes of the decompressed archive.
    pub size: u64,
    pub counts: UnpackCounts,
}

/// Unpacks a layer into the empty directory `root`. Only if this is `Ok` is what lies there what the digests say.
///
/// One thread reads, hashes and decompresses; this one hashes what comes out and writes it.
pub fn unpack_blob(
    blob: LayerBlob<'_>,
    root: OwnedFd,
    limits: &LayerLimits,
    trash: &Trash,
) -> Result<UnpackedLayer, LayerError> {
    let expected = blob.diff_id.clone();
    std::thread::scope(|scope| {
        let (full_sender, full) = sync_channel(CHUNKS_AHEAD);
        let (empty_sender, empty) = sync_channel(CHUNKS_AHEAD + 2);
        let conveyor = Conveyor { full: full_sender, empty };
        let reading = scope.spawn(move || read_blob(blob, &conveyor, limits.bytes));
        let chunks = Chunks { full, empty: empty_sender, current: Vec::new(), used: 0, hasher: Sha256::new(), size: 0 };
        let (counts, content) = write_layer(chunks, root, limits, trash);
        let raw =
            reading.join().map_err(|_panic| LayerError::Read(io::Error::other("the reading thread panicked")))??;
        let counts = counts.map_err(|error| LayerError::Unpack(Box::new(error)));
        let (Some(raw), Some(content)) = (raw, content) else {
            return Err(counts.err().unwrap_or_else(|| LayerError::Read(io::ErrorKind::UnexpectedEof.into())));
        };
        let diff_id = if raw.compression == Compression::None { raw.digest } else { content.digest };
        match expected {
            // A wrong digest explains a bad archive, not the other way round; so it is what is told.
            Some(expected) if expected != diff_id => Err(LayerError::DiffId { expected, found: diff_id }),
            _ => Ok(UnpackedLayer { diff_id, size: content.size, counts: counts? }),
        }
    })
}

/// What the bytes of a blob turned out to be.
struct RawBlob {
    digest: Digest,
    compression: Compression,
}

/// Reads all of a blob; `None` if nobody wants the rest, since writing failed.
fn read_blob(blob: LayerBlob<'_>, conveyor: &Conveyor, limit: u64) -> Result<Option<RawBlob>, LayerError> {
    let mut raw = Hashing::new(blob.reader);
    let sent = send_decompressed(&mut raw, conveyor, limit);
    if let Ok(None) = sent {
        return Ok(None);
    }
    let (found, size) = raw.finish().map_err(LayerError::Read)?;
    match (blob.size, blob.digest) {
        (Some(expected), _) if expected != size => Err(LayerError::Size { expected, found: size }),
        (_, Some(expected)) if expected != found => Err(LayerError::Digest { expected, found }),
        _ => Ok(sent?.map(|compression| RawBlob { digest: found, compression })),
    }
}

fn send_decompressed(
    raw: &mut (impl Read + Send),
    conveyor: &Conveyor,
    limit: u64,
) -> Result<Option<Compression>, LayerError> {
    let (compression, mut decompressed) = decompress(raw).map_err(LayerError::Read)?;
    let mut total = 0_u64;
    loop {
        let mut chunk = conveyor.empty.try_recv().unwrap_or_else(|_none_is_back_yet| Vec::with_capacity(CHUNK));
        chunk.clear();
        decompressed.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).map_err(LayerError::Read)?;
        if chunk.is_empty() {
            return Ok(Some(compression));
        }
        total += chunk.len() as u64;
        if total > limit {
            let error = UnpackError::Limit { what: "bytes when decompressed", limit };
            return Err(LayerError::Unpack(Box::new(error)));
        }
        if conveyor.full.send((compression, chunk)).is_err() {
            return Ok(None);
        }
    }
}

/// What the decompressed archive turned out to be. The digest covers it only if it was compressed.
struct Content {
    digest: Digest,
    size: u64,
}

/// Writes the layer. The archive is read to its end, also if it is bad, so that its digest is known.
fn write_layer(
    chunks: Chunks,
    root: OwnedFd,
    limits: &LayerLimits,
    trash: &Trash,
) -> (Result<UnpackCounts, UnpackError>, Option<Content>) {
    let mut archive = TarReader::new(chunks);
    let counts = unpack(&mut archive, root, limits, trash);
    let is_read = matches!(counts, Ok(_) | Err(UnpackError::Archive(_)));
    let chunks = archive.into_source();
    (counts, is_read.then(|| chunks.finish()))
}

/// The reading thread's end: full chunks go out, empty ones come back.
struct Conveyor {
    full: SyncSender<(Compression, Vec<u8>)>,
    empty: Receiver<Vec<u8>>,
}

/// The writing thread's end, as a stream.
struct Chunks {
    full: Receiver<(Compression, Vec<u8>)>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    used: usize,
    hasher: Sha256,
    size: u64,
}

impl Chunks {
    /// Takes the next chunk; false at the end.
    fn advance(&mut self) -> bool {
        let Ok((compression, chunk)) = self.full.recv() else { return false };
        // The reading thread has hashed what is not compressed.
        if compression != Compression::None {
            self.hasher.update(&chunk);
        }
        self.size += chunk.len() as u64;
        self.used = 0;
        let old = std::mem::replace(&mut self.current, chunk);
        // Nobody takes it back when the reading thread is done.
        drop(self.empty.try_send(old));
        true
    }

    fn finish(mut self) -> Content {
        while self.advance() {}
        Content { digest: Digest::sha256(self.hasher.finalize().into()), size: self.size }
    }

    fn left(&self) -> &[u8] {
        self.current.get(self.used..).unwrap_or_default()
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left().is_empty() && self.advance() {}
        Ok(self.left())
    }

    fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.current.len());
    }
}

impl Skip for Chunks {
    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let left = self.fill_buf()?.len();
            if left == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let skipped = usize::try_from(count).unwrap_or(usize::MAX).min(left);
            self.consume(skipped);
            count -= skipped as u64;
        }
        Ok(())
    }
}
