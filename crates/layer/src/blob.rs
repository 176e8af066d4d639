//! Takes the bytes of one layer as they come from an archive or a registry, and unpacks them while it verifies them.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use sha2::{Digest as _, Sha256};
use spec::Digest;

use crate::LayerError;
use crate::compression::{Compression, decompress};
use crate::conveyor::{Chunks, Filling, Unwanted, conveyor};
use crate::limits::LayerLimits;
use crate::tar_stream::TarReader;
use crate::trash::Trash;
use crate::unpack::{UnpackCounts, UnpackError, unpack};
use crate::verify::Hashing;

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
/// One thread reads and hashes, one decompresses, which takes the longest; this one hashes what comes out and writes it.
pub fn unpack_blob(
    blob: LayerBlob<'_>,
    root: OwnedFd,
    limits: &LayerLimits,
    trash: &Trash,
) -> Result<UnpackedLayer, LayerError> {
    let LayerBlob { reader, digest, size, diff_id: expected } = blob;
    let known = &Known::default();
    let mut content = Content { hasher: Sha256::new(), size: 0 };
    let (raw_filling, raw_chunks) = conveyor(|_chunk: &[u8]| {});
    let (filling, chunks) = conveyor(|chunk: &[u8]| content.add(chunk, known));
    let (counts, raw, decompressed) = std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_raw(reader, &raw_filling, known));
        let decompressing = scope.spawn(move || send_decompressed(raw_chunks, &filling, limits.bytes, known));
        let counts = write_layer(chunks, root, limits, trash);
        let decompressed = joined(decompressing);
        (counts, joined(reading), decompressed)
    });
    let is_whole = is_read_whole(&counts);
    let counts = counts.map_err(|error| LayerError::Unpack(Box::new(error)));
    if known.is_unwanted()
        && let Err(error) = counts
    {
        return Err(error);
    }
    let (found, found_size) = raw?;
    match (size, digest) {
        (Some(expected), _) if expected != found_size => {
            return Err(LayerError::Size { expected, found: found_size });
        }
        (_, Some(expected)) if expected != found => return Err(LayerError::Digest { expected, found }),
        _ => decompressed?,
    }
    if !is_whole && let Err(error) = counts {
        return Err(error);
    }
    let size = content.size;
    let diff_id = if known.is_compressed() { Digest::sha256(content.hasher.finalize().into()) } else { found };
    match expected {
        // A wrong digest explains a bad archive, not the other way round; so it is what is told.
        Some(expected) if expected != diff_id => Err(LayerError::DiffId { expected, found: diff_id }),
        _ => Ok(UnpackedLayer { diff_id, size, counts: counts? }),
    }
}

/// What one of the threads has found out that others must know.
#[derive(Default)]
struct Known {
    /// Set before any of the content is sent.
    compression: OnceLock<Compression>,
    /// The layer cannot be written, so nobody needs the rest of it.
    unwanted: AtomicBool,
}

impl Known {
    fn is_compressed(&self) -> bool {
        self.compression.get().is_some_and(|compression| *compression != Compression::None)
    }

    fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Relaxed)
    }
}

/// The decompressed archive.
struct Content {
    hasher: Sha256,
    size: u64,
}

impl Content {
    fn add(&mut self, chunk: &[u8], known: &Known) {
        // What is not compressed is hashed where it is read.
        if known.is_compressed() {
            self.hasher.update(chunk);
        }
        self.size += chunk.len() as u64;
    }
}

/// Reads all of a blob, also if it cannot be decompressed, so that its digest is known.
fn read_raw(reader: impl Read, filling: &Filling, known: &Known) -> Result<(Digest, u64), LayerError> {
    let mut raw = Hashing::new(reader);
    while let Some(chunk) = filling.fill(&mut raw).map_err(LayerError::Read)? {
        if filling.send(chunk).is_err() {
            break;
        }
    }
    if known.is_unwanted() {
        return Err(LayerError::Read(io::ErrorKind::BrokenPipe.into()));
    }
    raw.finish().map_err(LayerError::Read)
}

fn send_decompressed<L: FnMut(&[u8]) + Send>(
    raw: Chunks<L>,
    filling: &Filling,
    limit: u64,
    known: &Known,
) -> Result<(), LayerError> {
    let (compression, mut decompressed) = decompress(raw).map_err(LayerError::Read)?;
    known.compression.get_or_init(|| compression);
    let mut total = 0_u64;
    while let Some(chunk) = filling.fill(&mut decompressed).map_err(LayerError::Read)? {
        total += chunk.len() as u64;
        if total > limit {
            let error = UnpackError::Limit { what: "bytes when decompressed", limit };
            return Err(LayerError::Unpack(Box::new(error)));
        }
        if let Err(Unwanted) = filling.send(chunk) {
            known.unwanted.store(true, Ordering::Relaxed);
            break;
        }
    }
    Ok(())
}

/// Writes the layer. The archive is read to its end, also if it is bad.
fn write_layer<L: FnMut(&[u8])>(
    chunks: Chunks<L>,
    root: OwnedFd,
    limits: &LayerLimits,
    trash: &Trash,
) -> Result<UnpackCounts, UnpackError> {
    let mut archive = TarReader::new(chunks);
    let counts = unpack(&mut archive, root, limits, trash);
    if is_read_whole(&counts) {
        archive.into_source().drain();
    }
    counts
}

/// Whether the archive was read to its end, so that its digest is known: unless it could not be written.
fn is_read_whole(counts: &Result<UnpackCounts, UnpackError>) -> bool {
    matches!(counts, Ok(_) | Err(UnpackError::Archive(_)))
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, LayerError>>) -> Result<T, LayerError> {
    thread.join().unwrap_or_else(|_panic| Err(LayerError::Read(io::Error::other("a thread panicked"))))
}
