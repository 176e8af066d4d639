//! Header blocks: names and values, deflated by one zlib stream per direction for the whole connection, which starts with
//! a dictionary (§2.6.10).

use std::collections::HashMap;
use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The dictionary of SPDY/3 (§2.6.10.1).
static DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// What a block may hold when it is inflated.
const LIMIT: usize = 64 * 1024;

/// Reads blocks in the order in which they came.
pub struct HeaderReader(Decompress);

/// Writes blocks.
pub struct HeaderWriter(Compress);

impl HeaderReader {
    /// For a new connection.
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of a block.
    pub fn read(&mut self, block: &[u8]) -> io::Result<HashMap<String, String>> {
        parse(&self.inflate(block)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn inflate(&mut self, mut block: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(4096);
        loop {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let status = match self.0.decompress_vec(block, &mut plain, FlushDecompress::Sync) {
                Ok(status) => status,
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
                    Status::Ok
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            };
            let taken = usize::try_from(self.0.total_in() - before_in).map_err(io::Error::other)?;
            block = block.get(taken..).unwrap_or_default();
            let idle = taken == 0 && self.0.total_out() == before_out;
            if block.is_empty() && plain.len() < plain.capacity() {
                return Ok(plain);
            }
            if status == Status::StreamEnd || plain.len() >= LIMIT || (idle && plain.len() < plain.capacity()) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            plain.reserve(4096);
        }
    }
}

impl HeaderWriter {
    /// For a new connection.
    pub fn new() -> io::Result<Self> {
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
        Ok(Self(deflate))
    }

    /// A block without headers: all that is ever answered to a new stream.
    pub fn empty(&mut self) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(64);
        self.0.compress_vec(&0_u32.to_be_bytes(), &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(block)
    }
}

/// `u32 count, (u32 length, name, u32 length, value)*`
fn parse(mut plain: &[u8]) -> Option<HashMap<String, String>> {
    let mut headers = HashMap::new();
    for _ in 0..number(&mut plain)? {
        let (name, value) = (text(&mut plain)?, text(&mut plain)?);
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Some(headers)
}

fn number(plain: &mut &[u8]) -> Option<usize> {
    let (number, rest) = plain.split_first_chunk::<4>()?;
    *plain = rest;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

fn text(plain: &mut &[u8]) -> Option<String> {
    let length = number(plain)?;
    let (text, rest) = plain.split_at_checked(length)?;
    *plain = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// A block as a client writes it.
#[cfg(test)]
pub fn client_block(deflate: &mut HeaderWriter, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        plain.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        plain.extend_from_slice(text.as_bytes());
    }
    let mut block = Vec::with_capacity(plain.len() + 128);
    deflate.0.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_in_their_order() {
        let (mut writer, mut reader) = (HeaderWriter::new().unwrap(), HeaderReader::new());
        for port in ["8080", "81"] {
            let long = "x".repeat(10_000);
            let block = client_block(&mut writer, &[("streamtype", "data"), ("Port", port), ("long", &long)]);
            let headers = reader.read(&block).unwrap();
            assert_eq!((headers["streamtype"].as_str(), headers["port"].as_str()), ("data", port));
            assert_eq!(headers["long"].len(), 10_000);
        }
        let empty = writer.empty().unwrap();
        assert!(reader.read(&empty).unwrap().is_empty());
    }

    #[test]
    fn nonsense_and_bombs_are_refused() {
        assert!(HeaderReader::new().read(b"nonsense").is_err());
        let mut writer = HeaderWriter::new().unwrap();
        let bomb = "0".repeat(10 << 20);
        let block = client_block(&mut writer, &[("a", &bomb)]);
        assert!(HeaderReader::new().read(&block).is_err());
        let mut writer = HeaderWriter::new().unwrap();
        let mut cut = client_block(&mut writer, &[("a", "b")]);
        cut.truncate(8);
        assert!(HeaderReader::new().read(&cut).is_err());
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_specification() {
        let mut deflate = Compress::new(Compression::fast(), true);
        assert_eq!(deflate.set_dictionary(DICTIONARY).unwrap(), 0xe3c6_a7c2);
    }
}
