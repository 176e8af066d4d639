//! One blob as a stream of bytes: fetched when the first byte is wanted, and resumed where a connection broke off.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{Method, StatusCode};
use spec::Digest;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::PullCause;
use super::http::HttpError;
use super::progress::{Board, LayerStage};
use super::session::{Session, Wanted};

/// Pieces, of some 8 to 400 kB, on their way from the network to the disk.
const PIECES_AHEAD: usize = 16;
/// A connection that brought less than this before it broke counts as a failure.
const WORTH_IT: u64 = 64 * 1024;

/// What to fetch, and whom to tell how far it is.
pub(super) struct Blob {
    pub(super) session: Arc<Session>,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) board: Board,
    /// Of the layer, on the board.
    pub(super) place: usize,
}

enum Piece {
    Data(Bytes),
    End,
    Failed(PullCause),
}

/// Reads a blob on a thread that may block. What it reads is not verified yet.
pub(super) struct BlobReader {
    state: State,
    current: Bytes,
}

enum State {
    Unasked { blob: Box<Blob>, runtime: Handle, stop: CancellationToken },
    Coming(mpsc::Receiver<Piece>),
    Over,
}

impl BlobReader {
    /// Nothing is fetched until the first read. `stop` ends it.
    pub(super) fn new(blob: Blob, stop: CancellationToken) -> Self {
        let state = State::Unasked { blob: Box::new(blob), runtime: Handle::current(), stop };
        Self { state, current: Bytes::new() }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.current.is_empty() {
            let mut coming = match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Ok(0),
                State::Coming(coming) => coming,
                State::Unasked { blob, runtime, stop } => {
                    let (pieces, coming) = mpsc::channel(PIECES_AHEAD);
                    runtime.spawn(stop.run_until_cancelled_owned(fetch(*blob, pieces)));
                    coming
                }
            };
            match coming.blocking_recv() {
                Some(Piece::Data(data)) => {
                    self.current = data;
                    self.state = State::Coming(coming);
                }
                Some(Piece::End) => return Ok(0),
                Some(Piece::Failed(cause)) => return Err(io::Error::other(cause)),
                None => return Err(io::Error::other(PullCause::GivenUp)),
            }
        }
        let length = buffer.len().min(self.current.len());
        let taken = self.current.split_to(length);
        if let Some(place) = buffer.get_mut(..length) {
            place.copy_from_slice(&taken);
        }
        Ok(length)
    }
}

/// Sends all of a blob, over as many connections as it takes.
async fn fetch(blob: Blob, pieces: mpsc::Sender<Piece>) {
    blob.board.change(blob.place, |layer| layer.stage = LayerStage::Pulling);
    let (mut offset, mut failures) = (0, 0);
    while offset < blob.size {
        let before = offset;
        match fetch_from(&blob, &mut offset, &pieces).await {
            Ok(()) => {}
            Err(PullCause::GivenUp) => return,
            Err(cause) => {
                failures = if offset - before >= WORTH_IT { 1 } else { failures + 1 };
                if failures > blob.session.retries() || !matches!(cause, PullCause::Http(_)) {
                    drop(pieces.send(Piece::Failed(cause)).await);
                    return;
                }
                tracing::debug!(blob = %blob.digest, offset, %cause, "a transfer broke off and is resumed");
                blob.session.pause(failures - 1).await;
            }
        }
    }
    drop(pieces.send(Piece::End).await);
}

/// Sends what one connection brings. It ends well when the blob does.
async fn fetch_from(blob: &Blob, offset: &mut u64, pieces: &mpsc::Sender<Piece>) -> Result<(), PullCause> {
    let session = &blob.session;
    let (what, path) = (format!("blob {}", blob.digest), format!("blobs/{}", blob.digest));
    let wanted = Wanted {
        method: Method::GET,
        what: &what,
        path: &path,
        accept: "application/octet-stream, */*",
        offset: *offset,
    };
    let mut answer = session.ask(&wanted).await?;
    // A server that does not know ranges sends all of it again.
    let is_rest = answer.response.status() == StatusCode::PARTIAL_CONTENT
        && range_start(answer.response.headers().get(CONTENT_RANGE)) == Some(*offset);
    let mut skip = if is_rest { 0 } else { *offset };
    while let Some(mut data) = session.http.next_bytes(&mut answer).await? {
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
        drop(data.split_to(skipped));
        skip -= skipped as u64;
        if data.is_empty() {
            continue;
        }
        *offset += data.len() as u64;
        let too_large = *offset > blob.size;
        blob.board.change(blob.place, |layer| layer.received = (*offset).min(blob.size));
        // What is too much goes along, so that the one who counts sees it.
        pieces.send(Piece::Data(data)).await.map_err(|_nobody_reads| PullCause::GivenUp)?;
        if too_large {
            return Ok(());
        }
    }
    if *offset >= blob.size {
        return Ok(());
    }
    // A body may end early without a fault of the connection: chunked, by a proxy that lost the server.
    Err(PullCause::Http(HttpError::Short { authority: answer.authority, expected: blob.size, found: *offset }))
}

/// `bytes 100-199/200`.
fn range_start(range: Option<&http::HeaderValue>) -> Option<u64> {
    let range = range?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}
