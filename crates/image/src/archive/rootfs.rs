//! Images made from a bare root file system: one layer, and a config that we write.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Arch;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use serde::{Deserialize, Serialize};
use spec::image_ref::ImageReference;

use super::{ParsedConfig, UnpackedImage};
use crate::directory;
use crate::error::LoadCause;
use crate::layer::LayerBlob;
use crate::layers::{Layers, PinnedLayer};
use crate::limits::PATH_DEPTH;

/// How containers of an imported root file system are run, in the words of Dockerfiles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// More arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where it starts; `/` if empty.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; root if empty.
    pub user: String,
    /// Free text about the image.
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`: ports that it listens on, for information.
    pub exposed_ports: Vec<String>,
    /// Signal that asks it to stop; SIGTERM if empty.
    pub stop_signal: String,
    /// RFC 3339; without it the same root file system always becomes the same image.
    pub created: Option<spec::Timestamp>,
}

/// Unpacks the root file system at `path` and makes its config.
pub(crate) fn import(
    path: &Path,
    name: ImageReference,
    config: &ImportConfig,
    layers: &Arc<Layers>,
) -> Result<UnpackedImage, LoadCause> {
    // Opening a FIFO would wait for its writer (fifo(7)).
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(LoadCause::Open)?;
    let kind = file.metadata().map_err(LoadCause::Open)?.file_type();
    let layer = if kind.is_dir() {
        import_directory(&file.into(), layers)?
    } else if kind.is_file() {
        ingest(file, layers)?
    } else {
        return Err(LoadCause::NotAFile);
    };
    let json = config_json(config, &layer).map_err(|source| LoadCause::Json {
        name: name.canonical(),
        what: "config",
        source,
    })?;
    let config = ParsedConfig::parse("config", json, None)?;
    Ok(UnpackedImage { config, layers: vec![layer], names: vec![name], manifests: Vec::new() })
}

fn ingest(reader: impl Read + Send, layers: &Arc<Layers>) -> Result<PinnedLayer, LoadCause> {
    let blob = LayerBlob { reader: Box::new(reader), digest: None, size: None, diff_id: None };
    layers.ingest(blob).map_err(LoadCause::Rootfs)
}

fn config_json(config: &ImportConfig, layer: &PinnedLayer) -> Result<Vec<u8>, serde_json::Error> {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let ports: BTreeMap<&String, serde_json::Map<_, _>> =
        config.exposed_ports.iter().map(|port| (port, serde_json::Map::new())).collect();
    let mut run = serde_json::json!({
        "Entrypoint": some(&config.entrypoint),
        "Cmd": some(&config.cmd),
        "Env": some(&config.env),
        "WorkingDir": text(&config.working_dir),
        "User": text(&config.user),
        "StopSignal": text(&config.stop_signal),
        "Labels": (!config.labels.is_empty()).then_some(&config.labels),
        "ExposedPorts": (!ports.is_empty()).then_some(ports),
    });
    if let Some(fields) = run.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let mut image = serde_json::json!({
        "architecture": Arch::default().to_string(),
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id()] },
        "history": [{ "created_by": "monopod image import" }],
    });
    if let (Some(created), Some(fields)) = (config.created, image.as_object_mut()) {
        fields.insert("created".to_owned(), created.to_string().into());
    }
    serde_json::to_vec(&image)
}

/// Packs a directory as a tar stream, and unpacks that as every other layer.
fn import_directory(root: &OwnedFd, layers: &Arc<Layers>) -> Result<PinnedLayer, LoadCause> {
    let (reader, writer) = io::pipe().map_err(LoadCause::Open)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || pack(root, io::BufWriter::with_capacity(64 * 1024, writer)));
        let layer = ingest(reader, layers);
        match packing.join().map_err(|_panic| LoadCause::Panicked)? {
            // The unpacking side gave up first, and knows why.
            Err(LoadCause::ReadFile { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => layer,
            // What was unpacked is not all: the layer goes away again.
            Err(error) => Err(error),
            Ok(()) => layer,
        }
    })
}

fn pack(root: &OwnedFd, writer: impl Write) -> Result<(), LoadCause> {
    let mut builder = tar::Builder::new(writer);
    builder.mode(tar::HeaderMode::Complete);
    let stat = rustix::fs::fstat(root).map_err(|error| unreadable(Path::new("."), error))?;
    let mut packing = Packing { builder, device: stat.st_dev, links: HashMap::new(), skipped: 0 };
    packing.directory(root.as_fd(), &stat, Path::new("."), 0)?;
    if packing.skipped > 0 {
        tracing::warn!(files = packing.skipped, "left sockets and device nodes of the root file system out");
    }
    let finished = packing.builder.into_inner().and_then(|mut writer| writer.flush());
    finished.map_err(|source| LoadCause::ReadFile { path: PathBuf::from("."), source })
}

struct Packing<W: Write> {
    builder: tar::Builder<W>,
    /// Of the root: what is mounted below it is not part of it (`/proc` of a live system).
    device: u64,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    skipped: u64,
}

impl<W: Write> Packing<W> {
    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        stat: &Stat,
        path: &Path,
        depth: usize,
    ) -> Result<(), LoadCause> {
        let failed = |error: io::Error| LoadCause::ReadFile { path: path.to_owned(), source: error };
        if depth > PATH_DEPTH {
            return Err(LoadCause::TooMany { what: "directories inside each other", found: depth, limit: PATH_DEPTH });
        }
        let mut header = header(stat, tar::EntryType::Directory);
        self.xattrs(directory).map_err(failed)?;
        let name = if depth == 0 { Path::new("./") } else { path };
        self.builder.append_data(&mut header, name, io::empty()).map_err(failed)?;
        if stat.st_dev != self.device {
            return Ok(());
        }
        let mut names = directory::names(directory).map_err(|error| failed(error.into()))?;
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (name, _) in names {
            let path = if depth == 0 { PathBuf::new() } else { path.to_owned() };
            self.entry(directory, &name, &path.join(OsStr::from_bytes(&name)), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &Path, depth: usize) -> Result<(), LoadCause> {
        let failed = |error: io::Error| LoadCause::ReadFile { path: path.to_owned(), source: error };
        let kernel = |error| unreadable(path, error);
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(kernel)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let open =
            |flags| openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(kernel);
        if kind == FileType::Directory {
            let inner = open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            return self.directory(inner.as_fd(), &stat, path, depth + 1);
        }
        if stat.st_nlink > 1 && kind != FileType::Symlink {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = header(&stat, tar::EntryType::Link);
                header.set_size(0);
                return self.builder.append_link(&mut header, path, first).map_err(failed);
            }
            if matches!(kind, FileType::RegularFile | FileType::Fifo) {
                self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
            }
        }
        match kind {
            FileType::RegularFile => {
                let file = File::from(open(OFlags::RDONLY | OFlags::NONBLOCK)?);
                self.xattrs(file.as_fd()).map_err(failed)?;
                let mut header = header(&stat, tar::EntryType::Regular);
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                header.set_size(size);
                let mut whole = Exactly { file, left: size };
                self.builder.append_data(&mut header, path, &mut whole).map_err(failed)
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new()).map_err(kernel)?;
                let mut header = header(&stat, tar::EntryType::Symlink);
                self.builder.append_link(&mut header, path, OsStr::from_bytes(target.as_bytes())).map_err(failed)
            }
            FileType::Fifo => {
                let mut header = header(&stat, tar::EntryType::Fifo);
                self.builder.append_data(&mut header, path, io::empty()).map_err(failed)
            }
            _ => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    /// Puts the attributes of a file in front of it; which ones an image keeps, unpacking decides.
    fn xattrs(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        let mut list = vec![0; rustix::fs::flistxattr_query(file).unwrap_or_default()];
        let length = rustix::fs::flistxattr(file, list.as_mut_slice()).unwrap_or_default();
        list.truncate(length);
        let mut records = Vec::new();
        for name in list
            .split(|&byte| byte == 0)
            .filter_map(|name| std::str::from_utf8(name).ok())
            .filter(|name| !name.is_empty())
        {
            let mut value = vec![0; rustix::fs::fgetxattr_query(file, name)?];
            let length = rustix::fs::fgetxattr(file, name, value.as_mut_slice())?;
            value.truncate(length);
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        self.builder.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }
}

/// A file of the size that its header says, although others may write to it.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.file.read(buffer)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn header(stat: &Stat, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    // Before 1970 is 1970.
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    header.set_size(0);
    header
}

fn unreadable(path: &Path, error: rustix::io::Errno) -> LoadCause {
    LoadCause::ReadFile { path: path.to_owned(), source: error.into() }
}
