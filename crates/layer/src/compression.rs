//! Decompresses a stream whose compression is told by its first bytes, never by a name or media type.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

const READ_BUFFER: usize = 128 * 1024;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, as far as its first bytes tell.
    None,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878, one or more frames, skippable ones among them (as zstd:chunked layers have).
    Zstd,
}

/// Reads the first bytes of `reader` and returns what gives the decompressed stream.
pub fn decompress<'a>(mut reader: impl Read + Send + 'a) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut first = Vec::with_capacity(6);
    reader.by_ref().take(6).read_to_end(&mut first)?;
    let compression = detect(&first)?;
    let whole = Cursor::new(first).chain(reader);
    let decoded: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_BUFFER, whole))),
        Compression::Zstd => Box::new(ZstdFrames::new(BufReader::with_capacity(READ_BUFFER, whole))),
    };
    Ok((compression, decoded))
}

fn detect(first: &[u8]) -> io::Result<Compression> {
    let unsupported = |name| {
        let why = format!("it is compressed with {name}; none, gzip and zstd are supported");
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    };
    match first {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        // A frame, or a skippable frame (RFC 8878, 3.1.2) in front of the first one.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0x00] => unsupported("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => unsupported("bzip2"),
        _ => Ok(Compression::None),
    }
}

/// All frames of a zstd stream, one after the other; `ruzstd` itself decodes one frame.
struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: Read> ZstdFrames<R> {
    fn new(source: R) -> Self {
        // The default limit of the window (128 MiB) stays: it bounds the memory that a layer can ask for.
        Self { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame; false at the end of the stream.
    fn begin_frame(&mut self) -> io::Result<bool> {
        loop {
            let mut first = Vec::with_capacity(1);
            self.source.by_ref().take(1).read_to_end(&mut first)?;
            if first.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(Cursor::new(first).chain(&mut self.source)) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(corrupt_zstd(&error)),
            }
        }
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.begin_frame()? {
                return Ok(0);
            }
            self.in_frame = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| corrupt_zstd(&error))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.in_frame = false;
        }
    }
}

fn corrupt_zstd(error: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("corrupt zstd stream: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        compress_to_vec(data, CompressionLevel::Fastest)
    }

    fn decompressed(data: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let (compression, mut reader) = decompress(data)?;
        let mut all = Vec::new();
        reader.read_to_end(&mut all)?;
        Ok((compression, all))
    }

    #[test]
    fn each_compression_is_told_by_its_first_bytes() {
        let data = vec![7_u8; 300_000];
        assert_eq!(decompressed(&data).unwrap(), (Compression::None, data.clone()));
        assert_eq!(decompressed(&gzip(&data)).unwrap(), (Compression::Gzip, data.clone()));
        assert_eq!(decompressed(&zstd(&data)).unwrap(), (Compression::Zstd, data));
        assert_eq!(decompressed(b"").unwrap(), (Compression::None, Vec::new()));
    }

    #[test]
    fn members_and_frames_follow_each_other_and_skippable_frames_are_skipped() {
        let twice = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decompressed(&twice).unwrap().1, b"one two");
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frames = [skippable.clone(), zstd(b"one "), skippable.clone(), zstd(b"two"), skippable].concat();
        assert_eq!(decompressed(&frames).unwrap(), (Compression::Zstd, b"one two".to_vec()));
    }

    #[test]
    fn a_cut_or_unsupported_stream_is_an_error() {
        let data: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for whole in [gzip(&data), zstd(&data)] {
            for cut in [whole.len() - 1, whole.len() / 2, 20] {
                assert!(decompressed(&whole[..cut]).is_err(), "{cut} of {} bytes must be refused", whole.len());
            }
        }
        let xz = decompressed(&[0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4]).unwrap_err();
        assert_eq!(xz.to_string(), "it is compressed with xz; none, gzip and zstd are supported");
    }
}
