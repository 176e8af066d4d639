//! Images as an archive, written as the client reads it.

use std::io::{self, Write};
use std::sync::Arc;

use agent::{SaveError, SavedImages};
use bytes::Bytes;
use futures::StreamExt as _;
use http::StatusCode;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::http::query::Query;
use crate::http::reply::{self, Reply};
use crate::http::status::{ApiError, chain};

/// Bytes handed over at a time, and how many such pieces may be on their way.
const CHUNK: usize = 256 * 1024;
const DEPTH: usize = 4;

/// Answers with an archive of all images that `reference` names, once or several times.
pub async fn answer(context: &Arc<Context>, query: &Query) -> Result<Reply, ApiError> {
    let references: Vec<String> = query.all("reference").map(str::to_owned).collect();
    let images = context.agent.images().save(&references).await.map_err(|error| refused(&error))?;
    let (chunks, receiver) = mpsc::channel(DEPTH);
    // It ends when the client does: nobody takes its pieces any more.
    tokio::task::spawn_blocking(move || write(&images, &chunks));
    let archive = futures::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    let shutdown = context.shutdown.clone().cancelled_owned();
    Ok(reply::stream("application/x-tar", archive.take_until(shutdown).chain(cut_off(context))))
}

/// An archive that the end of the daemon cut off must not look whole: its stream ends with an error.
fn cut_off(context: &Arc<Context>) -> impl futures::Stream<Item = io::Result<Bytes>> + use<> {
    let shutdown = context.shutdown.clone();
    let check = move || shutdown.is_cancelled().then(|| Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
    futures::stream::iter(std::iter::once_with(check).flatten())
}

fn write(images: &SavedImages, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let mut writer = ChunkWriter { chunks: chunks.clone(), buffer: Vec::with_capacity(CHUNK) };
    if let Err(error) = images.write_to(&mut writer).and_then(|()| writer.flush()) {
        if !chunks.is_closed() {
            tracing::warn!(error = %chain(&error), "an archive of images broke off");
        }
        // Breaks the answer off, so that the client does not take half an archive for a whole one.
        drop(chunks.blocking_send(Err(error)));
    }
}

struct ChunkWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        if chunk.is_empty() {
            return Ok(());
        }
        let gone = |_closed| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone");
        self.chunks.blocking_send(Ok(chunk.into())).map_err(gone)
    }
}

fn refused(error: &SaveError) -> ApiError {
    match error {
        SaveError::Nothing | SaveError::InvalidReference(_) => ApiError::bad_request(chain(error)),
        SaveError::NotFound { .. } => ApiError::plain(StatusCode::NOT_FOUND, "NotFound", chain(error)),
        SaveError::Config { .. } | SaveError::Layer { .. } | SaveError::Panicked => {
            ApiError::internal_text(&chain(error))
        }
    }
}
