//! Chunks of bytes on their way from one thread to the next: full ones go out, empty ones come back to be filled again.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::tar_stream::Skip;

const CHUNK: usize = 256 * 1024;
/// Chunks on the way.
const AHEAD: usize = 4;

/// The end of the thread that fills chunks.
pub(crate) struct Filling {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

/// The end of the thread that uses them, as a stream.
pub(crate) struct Chunks<L> {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    used: usize,
    /// Sees each chunk when it is taken.
    look: L,
}

/// Nobody takes chunks any more.
pub(crate) struct Unwanted;

/// Both ends.
pub(crate) fn conveyor<L: FnMut(&[u8])>(look: L) -> (Filling, Chunks<L>) {
    let (full_sender, full) = sync_channel(AHEAD);
    let (empty_sender, empty) = sync_channel(AHEAD + 2);
    let chunks = Chunks { full, empty: empty_sender, current: Vec::new(), used: 0, look };
    (Filling { full: full_sender, empty }, chunks)
}

impl Filling {
    /// The next bytes of `source`, a whole chunk unless it ends; nothing at its end.
    pub(crate) fn fill(&self, source: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
        let mut chunk = self.empty.try_recv().unwrap_or_default();
        // One that comes back is as long as it was, so this clears memory only once.
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        while let Some(free) = chunk.get_mut(filled..).filter(|free| !free.is_empty()) {
            match source.read(free) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        chunk.truncate(filled);
        Ok((filled > 0).then_some(chunk))
    }

    /// Sends a chunk; waits while enough of them are on the way.
    pub(crate) fn send(&self, chunk: Vec<u8>) -> Result<(), Unwanted> {
        self.full.send(chunk).map_err(|_chunk| Unwanted)
    }
}

impl<L: FnMut(&[u8])> Chunks<L> {
    /// Looks at all that is left.
    pub(crate) fn drain(mut self) {
        while self.advance() {}
    }

    /// Takes the next chunk; false at the end.
    fn advance(&mut self) -> bool {
        let Ok(chunk) = self.full.recv() else { return false };
        (self.look)(&chunk);
        self.used = 0;
        let old = std::mem::replace(&mut self.current, chunk);
        // Nobody takes it back when the other thread is done.
        drop(self.empty.try_send(old));
        true
    }

    fn left(&self) -> &[u8] {
        self.current.get(self.used..).unwrap_or_default()
    }
}

impl<L: FnMut(&[u8])> Read for Chunks<L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<L: FnMut(&[u8])> BufRead for Chunks<L> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left().is_empty() && self.advance() {}
        Ok(self.left())
    }

    fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.current.len());
    }
}

impl<L: FnMut(&[u8])> Skip for Chunks<L> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_and_each_chunk_is_seen_once() {
        let bytes: Vec<u8> = (0..=3 * CHUNK).map(|number| u8::try_from(number % 251).unwrap_or_default()).collect();
        let mut seen = Vec::new();
        let (filling, mut chunks) = conveyor(|chunk: &[u8]| seen.push(chunk.len()));
        let mut all = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (filling, mut source) = (filling, bytes.as_slice());
                while let Ok(Some(chunk)) = filling.fill(&mut source) {
                    assert!(filling.send(chunk).is_ok());
                }
            });
            assert!(chunks.read_to_end(&mut all).is_ok());
        });
        drop(chunks);
        assert!(all == bytes, "{} bytes of {}, or others", all.len(), bytes.len());
        assert_eq!(seen, [CHUNK, CHUNK, CHUNK, 1]);
    }

    #[test]
    fn who_fills_chunks_is_told_that_nobody_wants_them() {
        let (filling, chunks) = conveyor(|_chunk: &[u8]| {});
        drop(chunks);
        assert!(filling.send(vec![1]).is_err());
    }
}
