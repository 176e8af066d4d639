//! Hashes bytes while they are read, so that nothing is read twice to be verified.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use spec::Digest;

/// The digest of bytes that are in memory.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes).into())
}

/// A reader that hashes and counts all that passes through it.
pub struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    count: u64,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), count: 0 }
    }

    /// Reads what is left, then returns the digest and the length of the whole.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        let mut rest = vec![0; 64 * 1024];
        while self.read(&mut rest)? > 0 {}
        Ok((Digest::sha256(self.hasher.finalize().into()), self.count))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(bytes) = buffer.get(..read) {
            self.hasher.update(bytes);
        }
        self.count += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_what_nobody_read() {
        let mut hashing = Hashing::new(&b"abc"[..]);
        hashing.read_exact(&mut [0; 1]).unwrap();
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let (digest, count) = hashing.finish().unwrap();
        assert_eq!((digest.as_str(), count), (expected, 3));
        assert_eq!(digest_of(b"abc").as_str(), expected);
    }
}
