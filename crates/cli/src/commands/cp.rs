//! `cp`: files and directories into and out of containers, by the container's own tar.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use clap::Args;
use tokio::sync::mpsc;

use crate::commands::exec::{choose_container, exec_path};
use crate::context::Context;
use crate::errors::{ExitStatus, Failure};
use crate::output::note;
use crate::resources::PODS;
use crate::session;

/// How many pieces of the archive may be on their way.
const DEPTH: usize = 4;
const CHUNK: usize = 64 * 1024;

/// Arguments of `cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// A local path, or `POD:PATH`, or `NAMESPACE/POD:PATH`
    #[arg(value_name = "FROM")]
    from: String,
    /// The same; one of the two is in a Pod
    #[arg(value_name = "TO")]
    to: String,
    /// The container; without it the Pod's first one
    #[arg(short, long)]
    container: Option<String>,
    /// Do not keep owners and modes in the container
    #[arg(long)]
    no_preserve: bool,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Local(PathBuf),
    Remote { pod_namespace: Option<String>, pod: String, path: String },
}

/// A container, found.
struct Inside {
    pod_namespace: String,
    pod: String,
    container: String,
}

/// Copies.
pub async fn cp(arguments: &CpArgs, context: &mut Context) -> Result<()> {
    match (parse_place(&arguments.from)?, parse_place(&arguments.to)?) {
        (Place::Local(from), Place::Remote { pod_namespace, pod, path }) => {
            let inside = find(arguments, context, pod_namespace, pod).await?;
            copy_in(arguments, context, &from, &inside, &path).await
        }
        (Place::Remote { pod_namespace, pod, path }, Place::Local(to)) => {
            let inside = find(arguments, context, pod_namespace, pod).await?;
            copy_out(context, &inside, &path, &to).await
        }
        (Place::Local(_), Place::Local(_)) => {
            Err(Failure::new("neither end is in a Pod").hint("write one as POD:PATH, such as `web:/tmp/file`").into())
        }
        (Place::Remote { .. }, Place::Remote { .. }) => {
            Err(Failure::new("both ends are in Pods").hint("copy to this machine first, and from there").into())
        }
    }
}

/// A colon after the first slash, or after a dot at the beginning, belongs to a file name.
fn parse_place(text: &str) -> Result<Place, Failure> {
    let empty = || Failure::new(format!("{text:?} names no path")).hint("write POD:PATH, or a local path");
    let Some((place, path)) = text.split_once(':').filter(|_| !text.starts_with(['.', '/'])) else {
        return if text.is_empty() { Err(empty()) } else { Ok(Place::Local(PathBuf::from(text))) };
    };
    let (pod_namespace, pod) = match place.split('/').collect::<Vec<_>>().as_slice() {
        [pod] => (None, (*pod).to_owned()),
        [pod_namespace, pod] => (Some((*pod_namespace).to_owned()), (*pod).to_owned()),
        _ => return Ok(Place::Local(PathBuf::from(text))),
    };
    if pod.is_empty() || path.is_empty() {
        return Err(empty());
    }
    Ok(Place::Remote { pod_namespace, pod, path: path.to_owned() })
}

async fn find(arguments: &CpArgs, context: &Context, pod_namespace: Option<String>, pod: String) -> Result<Inside> {
    let pod_namespace = pod_namespace.unwrap_or_else(|| context.namespace().to_owned());
    let object = context.client.get(&PODS.object(&pod_namespace, &pod)).await?;
    let container = match &arguments.container {
        Some(container) => container.clone(),
        None => choose_container(&object, false)?,
    };
    Ok(Inside { pod_namespace, pod, container })
}

impl Inside {
    /// Runs a program in the container with these streams.
    async fn run(
        &self,
        context: &Context,
        command: &[&str],
        input: Option<mpsc::Receiver<Vec<u8>>>,
        output: mpsc::Sender<Vec<u8>>,
    ) -> Result<()> {
        let command: Vec<String> = command.iter().map(ToString::to_string).collect();
        let mut streams = vec![("stdout", "true"), ("stderr", "true")];
        if input.is_some() {
            streams.push(("stdin", "true"));
        }
        let path = exec_path(&self.pod_namespace, &self.pod, &self.container, &command, &streams);
        session::pipe(context.client.connect(&path).await?, input, output).await
    }

    /// What went wrong with tar.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let Inside { pod, container, .. } = self;
        match error.downcast_ref() {
            Some(ExitStatus(status)) => {
                Failure::new(format!("tar in container {container:?} of pod {pod:?} ended with status {status}")).into()
            }
            None => error.context(Failure::new(format!("cannot run tar in container {container:?} of pod {pod:?}"))),
        }
    }
}

async fn copy_in(arguments: &CpArgs, context: &Context, from: &Path, inside: &Inside, to: &str) -> Result<()> {
    fs::symlink_metadata(from)
        .map_err(|error| Failure::new(format!("cannot read {}", from.display())).because(error))?;
    let trimmed = if to == "/" { to } else { to.trim_end_matches('/') };
    let (silence, _nobody) = mpsc::channel(1);
    let is_directory = inside.run(context, &["test", "-d", trimmed], None, silence.clone()).await.is_ok();
    let own = from.file_name().map(|name| name.to_string_lossy().into_owned());
    let target = match own {
        Some(own) if is_directory => format!("{}/{own}", trimmed.trim_end_matches('/')),
        _ => trimmed.to_owned(),
    };
    let (directory, name) = target.rsplit_once('/').unwrap_or((".", &target));
    let directory = if directory.is_empty() { "/" } else { directory };
    let mut command = vec!["tar"];
    if arguments.no_preserve {
        command.extend(["--no-same-permissions", "--no-same-owner"]);
    }
    command.extend(["-xmf", "-", "-C", directory]);
    let (sender, receiver) = mpsc::channel(DEPTH);
    let (source, name) = (from.to_owned(), name.to_owned());
    let packing = std::thread::spawn(move || pack(&source, &name, Chunks::new(sender)));
    let (output, mut said) = mpsc::channel::<Vec<u8>>(DEPTH);
    let listening = tokio::spawn(async move { while said.recv().await.is_some() {} });
    let unpacked = inside.run(context, &command, Some(receiver), output).await;
    listening.abort();
    // A tar that ended early has said why; then the archive has no taker.
    unpacked.map_err(|error| inside.explain(error))?;
    let packed = packing.join().map_err(|_panic| Failure::new("reading the files broke off"))?;
    packed.map_err(|error| Failure::new(format!("cannot read {}", from.display())).because(error).into())
}

/// Writes a file or a tree as an archive in which it has this name.
fn pack(from: &Path, name: &str, chunks: Chunks) -> io::Result<()> {
    let mut archive = tar::Builder::new(chunks);
    archive.follow_symlinks(false);
    if fs::symlink_metadata(from)?.is_dir() {
        archive.append_dir_all(name, from)?;
    } else {
        archive.append_path_with_name(from, name)?;
    }
    archive.into_inner()?.flush()
}

async fn copy_out(context: &Context, inside: &Inside, from: &str, to: &Path) -> Result<()> {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let (from_path, target) = (from.to_owned(), to.to_owned());
    let unpacking = std::thread::spawn(move || unpack(Pieces::new(receiver), &from_path, &target));
    let packed = inside.run(context, &["tar", "cf", "-", from], None, sender).await;
    let unpacked = unpacking.join().map_err(|_panic| Failure::new("writing the files broke off"))?;
    let skipped = unpacked.map_err(|error| Failure::new(format!("cannot write to {}", to.display())).because(error));
    match skipped {
        Err(failure) => return Err(failure.into()),
        Ok(0) => {}
        Ok(count) => note(&format!(
            "warning: {count} symbolic links and special files were not copied; with them: \
             `monopod exec {} -c {} -- tar cf - {from} | tar xf -`",
            inside.pod, inside.container
        )),
    }
    packed.map_err(|error| inside.explain(error))
}

/// Writes what the archive holds below the place that it was read from; answers how many entries were left out.
fn unpack(pieces: Pieces, from: &str, to: &Path) -> io::Result<usize> {
    let prefix = clean(Path::new(from));
    let into = if to.is_dir() { prefix.file_name().map(|name| to.join(name)) } else { None };
    let mut skipped = 0;
    for entry in tar::Archive::new(pieces).entries()? {
        let mut entry = entry?;
        let name = clean(&entry.path()?);
        let Ok(rest) = name.strip_prefix(&prefix) else {
            return Err(io::Error::other(format!("the archive holds {}, which was not asked for", name.display())));
        };
        let target = match (&into, rest.as_os_str().is_empty()) {
            // A single file goes into a directory under its own name.
            (Some(into), true) if entry.header().entry_type().is_file() => into.clone(),
            (_, true) => to.to_owned(),
            (_, false) => to.join(rest),
        };
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&target)?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                let mode = entry.header().mode()? & 0o777;
                let mut file = File::create(&target)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", target.display())))?;
                io::copy(&mut entry, &mut file)?;
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            _ => skipped += 1,
        }
    }
    Ok(skipped)
}

/// The path as names alone: no root, no `.`, and nothing that leads up.
fn clean(path: &Path) -> PathBuf {
    let mut names = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                names.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    names
}

/// Hands pieces of an archive to a session.
struct Chunks {
    sender: mpsc::Sender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Chunks {
    fn new(sender: mpsc::Sender<Vec<u8>>) -> Self {
        Self { sender, buffer: Vec::with_capacity(CHUNK) }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        if full.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(full).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads an archive from the pieces of a session.
struct Pieces {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { receiver, piece: io::Cursor::default() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_kubectl_reads_them() {
        let remote = |pod_namespace: Option<&str>, pod: &str, path: &str| Place::Remote {
            pod_namespace: pod_namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.to_owned(),
        };
        for (text, place) in [
            ("web:/tmp/a", remote(None, "web", "/tmp/a")),
            ("shop/web:a", remote(Some("shop"), "web", "a")),
            ("a/b/c:d", Place::Local("a/b/c:d".into())),
            ("./a:b", Place::Local("./a:b".into())),
            ("/a:b", Place::Local("/a:b".into())),
            ("file", Place::Local("file".into())),
        ] {
            assert_eq!(parse_place(text).unwrap(), place, "{text}");
        }
        assert!(parse_place("web:").is_err() && parse_place(":/a").is_err() && parse_place("").is_err());
    }

    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Pieces {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            // Past the crate's own check of names.
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let (sender, receiver) = mpsc::channel(bytes.len());
        for piece in bytes.chunks(100) {
            sender.try_send(piece.to_vec()).unwrap();
        }
        Pieces::new(receiver)
    }

    #[test]
    fn nothing_is_written_outside_of_the_target() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("to");
        let good = archive(&[("srv/", Directory, b""), ("srv/a/b", Regular, b"1"), ("srv/link", Symlink, b"")]);
        assert_eq!(unpack(good, "/srv/", &to).unwrap(), 1, "the link");
        assert_eq!(fs::read(to.join("a/b")).unwrap(), b"1");
        assert_eq!(fs::metadata(to.join("a/b")).unwrap().permissions().mode() & 0o777, 0o755);
        for name in ["srv/../../evil", "../evil", "/evil", "other/evil"] {
            let error = unpack(archive(&[(name, Regular, b"!")]), "/srv", &to).unwrap_err();
            assert!(error.to_string().contains("was not asked for"), "{name}: {error}");
        }
        assert!(!directory.path().join("evil").exists());
        // A single file, into a directory and under another name.
        assert_eq!(unpack(archive(&[("etc/hostname", Regular, b"h")]), "/etc/hostname", &to).unwrap(), 0);
        assert_eq!(fs::read(to.join("hostname")).unwrap(), b"h");
        unpack(archive(&[("etc/hostname", Regular, b"h")]), "/etc/hostname", &to.join("name")).unwrap();
        assert_eq!(fs::read(to.join("name")).unwrap(), b"h");
    }
}
