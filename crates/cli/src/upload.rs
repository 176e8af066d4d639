//! Sends a large body to the daemon as it is read: files, standard input, or a directory as a tar archive.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::StreamExt as _;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Frame};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::archive::write_directory;
use crate::client::{status_of, unreachable};
use crate::errors::{Failure, Refusal};

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file as it is.
    File(PathBuf),
    /// Standard input as it is.
    Stdin,
    /// A directory, as a tar archive.
    Directory(PathBuf),
}

/// Bytes handed over at a time, and how many such pieces may be on their way.
const CHUNK: usize = 256 * 1024;
const DEPTH: usize = 4;

impl Source {
    /// What an argument means: `-`, a directory or a file.
    pub fn of(argument: &Path) -> Result<Self> {
        if argument.as_os_str() == "-" {
            return Ok(Self::Stdin);
        }
        let metadata = std::fs::metadata(argument)
            .map_err(|error| Failure::new(format!("cannot read {}", argument.display())).because(error))?;
        Ok(if metadata.is_dir() { Self::Directory(argument.to_owned()) } else { Self::File(argument.to_owned()) })
    }

    fn size(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len()),
            Self::Stdin | Self::Directory(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) | Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// Posts the source to a path of the daemon's API and returns its answer.
pub async fn post(socket: &Path, path: &str, source: Source) -> Result<Value> {
    let stream = UnixStream::connect(socket).await.map_err(|error| unreachable(socket, error.kind(), error))?;
    let bar = progress_bar(&source);
    let (chunks, mut receiver) = mpsc::channel::<io::Result<Bytes>>(DEPTH);
    let (done, read) = oneshot::channel();
    let name = source.to_string();
    std::thread::spawn(move || {
        let result = read_into(&source, &mut ChunkWriter { chunks: chunks.clone(), buffer: Vec::with_capacity(CHUNK) });
        if let Err(error) = &result {
            // Breaks the request off, so that the server does not take half an archive for a whole one.
            drop(chunks.blocking_send(Err(error.kind().into())));
        }
        drop(done.send(result));
    });
    let sent = bar.clone();
    let body = futures::stream::poll_fn(move |context| receiver.poll_recv(context)).map(move |chunk| {
        chunk.map(|chunk| {
            sent.inc(chunk.len() as u64);
            Frame::data(chunk)
        })
    });
    let answer = send(stream, path, StreamBody::new(body)).await;
    bar.finish_and_clear();
    match answer {
        Ok(answer) => Ok(answer),
        // An answer of the server says more than a body that it did not want to read to its end.
        Err(error) if error.downcast_ref::<Refusal>().is_some() => Err(error),
        Err(error) => match read.await {
            Ok(Err(cause)) if cause.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(format!("cannot read {name}")).because(cause).into())
            }
            Ok(_) | Err(_) => Err(error),
        },
    }
}

async fn send<B>(stream: UnixStream, path: &str, body: B) -> Result<Value>
where
    B: Body<Data = Bytes, Error = io::Error> + Send + 'static,
{
    let stream = TokioIo::new(KeepsListening { stream, is_heard: true });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.context("cannot talk to the daemon")?;
    tokio::spawn(connection);
    let request = Request::post(path)
        .header(http::header::HOST, "monopod")
        .header(http::header::CONTENT_TYPE, "application/octet-stream")
        .body(body)
        .context("cannot build the request")?;
    let response = sender.send_request(request).await.context("sending to the daemon broke off")?;
    let code = response.status();
    let body = response.into_body().collect().await.context("the daemon's answer broke off")?.to_bytes();
    if !code.is_success() {
        return Err(Refusal { status: status_of(&body, code.as_u16()) }.into());
    }
    serde_json::from_slice(&body).context("the server's answer is not JSON")
}

/// A connection that goes on reading when the other side reads no further: a server that wants no more of a body has said
/// why, or is about to. What is written meanwhile goes nowhere.
#[derive(Debug)]
struct KeepsListening {
    stream: UnixStream,
    is_heard: bool,
}

impl KeepsListening {
    /// What a write of `length` bytes came to.
    fn after(&mut self, written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.is_heard = false;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

impl AsyncRead for KeepsListening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for KeepsListening {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_heard {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.after(written, data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|piece| piece.len()).sum();
        if !self.is_heard {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.after(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_heard { Pin::new(&mut self.stream).poll_flush(context) } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_heard { Pin::new(&mut self.stream).poll_shutdown(context) } else { Poll::Ready(Ok(())) }
    }
}

fn read_into(source: &Source, writer: &mut ChunkWriter) -> io::Result<()> {
    match source {
        Source::File(path) => copy(&mut File::open(path)?, writer)?,
        Source::Stdin => copy(&mut io::stdin().lock(), writer)?,
        Source::Directory(path) => write_directory(path, writer)?,
    }
    writer.flush()
}

fn copy(reader: &mut impl Read, writer: &mut ChunkWriter) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => writer.write_all(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Hands what is written over to the request in large pieces.
struct ChunkWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl io::Write for ChunkWriter {
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
        let stopped = |_closed| io::Error::new(io::ErrorKind::BrokenPipe, "the server reads no further");
        self.chunks.blocking_send(Ok(chunk.into())).map_err(stopped)
    }
}

fn progress_bar(source: &Source) -> ProgressBar {
    let size = source.size();
    let template = match size {
        Some(_) => "{msg} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}",
        None => "{spinner} {msg} {bytes} {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(size, target).with_style(style);
    bar.set_message(format!("sending {}", crate::escape::one_line(&source.to_string())));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn the_answer_is_heard_though_the_server_reads_no_further() {
        let (client, server) = UnixStream::pair().unwrap();
        // Larger than what the kernel and hyper keep, so that the second is taken when the first was written.
        let (chunks, mut receiver) = mpsc::channel::<io::Result<Bytes>>(1);
        let body = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let body = StreamBody::new(body.map(|chunk| chunk.map(Frame::data)));
        let sending = tokio::spawn(send(client, "/load", body));
        let mut server = server.into_std().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut listening = UnixStream::from_std(server.try_clone().unwrap()).unwrap();
        assert!(listening.read(&mut [0; 64]).await.unwrap() > 0);
        server.shutdown(std::net::Shutdown::Read).unwrap();
        for _ in 0..3 {
            // Who gives up takes no more.
            drop(chunks.send(Ok(vec![0; 4 << 20].into())).await);
        }
        let status = r#"{"kind":"Status","status":"Failure","message":"the disk is full","code":507}"#;
        let head = format!("HTTP/1.1 507 Full\r\ncontent-length: {}\r\n\r\n", status.len());
        listening.write_all(format!("{head}{status}").as_bytes()).await.unwrap();
        let error = sending.await.unwrap().unwrap_err();
        assert!(error.downcast_ref::<Refusal>().is_some(), "{error:?}");
        server.flush().unwrap();
    }
}
