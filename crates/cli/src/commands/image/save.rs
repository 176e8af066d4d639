//! `image save`: an archive to a file or to standard output.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::IMAGES;
use crate::context::Context;
use crate::errors::{Failure, output_error};
use crate::resources::with_query;

/// Arguments of `image save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Names or identifiers; an image named by its identifier has no name in the archive
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The file to write; it appears when it is whole [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the archive.
pub async fn save(arguments: &SaveArgs, context: &mut Context) -> Result<()> {
    let to_stdout = arguments.output.as_deref().is_none_or(|path| path.as_os_str() == "-");
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::new("an archive is not for a terminal")
            .hint("write it to a file with `-o FILE`, or redirect standard output")
            .into());
    }
    let query: Vec<_> = arguments.images.iter().map(|image| ("reference", image.as_str())).collect();
    let mut archive = Box::pin(context.client.download(&with_query(&format!("{IMAGES}/save"), &query)).await?);
    let mut target = Target::open(arguments.output.as_deref().filter(|_| !to_stdout))?;
    let bar = progress_bar();
    while let Some(chunk) = archive.next().await {
        let chunk = chunk.map_err(|error| Failure::new("the daemon broke the archive off").because(error))?;
        target.write(&chunk)?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    target.finish()
}

/// Where the archive goes. A file is made beside its place and put there when it is whole.
enum Target<'a> {
    Stdout,
    File { path: &'a Path, half: PathBuf, file: File, finished: bool },
}

impl<'a> Target<'a> {
    fn open(path: Option<&'a Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        // A device or a pipe is written as it is.
        let is_special = path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir());
        let half = if is_special { path.to_owned() } else { beside(path) };
        let file = File::create(&half).map_err(|error| cannot_write(&half, error))?;
        Ok(Self::File { path, half, file, finished: is_special })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stdout => std::io::stdout().write_all(bytes).map_err(output_error),
            Self::File { half, file, .. } => file.write_all(bytes).map_err(|error| cannot_write(half, error)),
        }
    }

    fn finish(mut self) -> Result<()> {
        match &mut self {
            Self::Stdout => std::io::stdout().flush().map_err(output_error),
            Self::File { finished: true, .. } => Ok(()),
            Self::File { path, half, finished, .. } => {
                std::fs::rename(&*half, *path).map_err(|error| cannot_write(path, error))?;
                *finished = true;
                Ok(())
            }
        }
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if let Self::File { half, finished: false, .. } = self {
            // What is wrong with it was told already.
            drop(std::fs::remove_file(half));
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

fn cannot_write(path: &Path, error: std::io::Error) -> anyhow::Error {
    Failure::new(format!("cannot write {}", path.display())).because(error).into()
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} receiving {bytes} {bytes_per_sec}");
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target).with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
