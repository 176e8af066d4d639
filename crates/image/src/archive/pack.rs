//! Packs a directory tree as a tar stream: a root file system to be imported, or an unpacked layer to be saved. The same
//! tree always becomes the same bytes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layer::limits::PATH_DEPTH;
use layer::{OPAQUE, directory, is_kept_xattr};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

/// A file with holes of this size is packed without them.
const WORTH_A_HOLE: u64 = 1 << 20;
/// Hides what lower layers have of the name that follows (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Hides all that lower layers have in its directory.
const OPAQUE_WHITEOUT: &str = ".wh..wh..opq";

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Of a machine: what is mounted below it is not part of it (`/proc`), nor are devices.
    RootFs,
    /// A layer as overlay takes it: whiteouts become those of layer archives again.
    Layer,
}

/// Why a tree cannot be packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// A file of it cannot be read, or the archive not written.
    #[error("cannot pack {}", path.display())]
    File {
        /// Relative to the tree.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// It is too deep.
    #[error("it has more than {PATH_DEPTH} directories inside each other")]
    Depth,
}

/// Writes all of a tree, and tells how many sockets and devices were left out.
pub(crate) fn pack(root: &OwnedFd, content: Content, writer: impl Write) -> Result<u64, PackError> {
    let mut builder = tar::Builder::new(writer);
    builder.mode(tar::HeaderMode::Complete);
    let stat = rustix::fs::fstat(root).map_err(|error| unreadable(Path::new("."), error))?;
    let mut packing = Packing { builder, content, device: stat.st_dev, links: HashMap::new(), skipped: 0 };
    packing.directory(root.as_fd(), &stat, Path::new("."), 0)?;
    let skipped = packing.skipped;
    let finished = packing.builder.into_inner().and_then(|mut writer| writer.flush());
    finished.map_err(|source| PackError::File { path: PathBuf::from("."), source })?;
    Ok(skipped)
}

struct Packing<W: Write> {
    builder: tar::Builder<W>,
    content: Content,
    /// Of the root.
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
    ) -> Result<(), PackError> {
        let failed = |error: io::Error| PackError::File { path: path.to_owned(), source: error };
        if depth > PATH_DEPTH {
            return Err(PackError::Depth);
        }
        let mut header = header(stat, tar::EntryType::Directory);
        self.xattrs(directory).map_err(failed)?;
        let name = if depth == 0 { Path::new("./") } else { path };
        self.builder.append_data(&mut header, name, io::empty()).map_err(failed)?;
        if self.content == Content::RootFs && stat.st_dev != self.device {
            return Ok(());
        }
        if self.content == Content::Layer && is_opaque(directory) {
            self.whiteout(&name.join(OPAQUE_WHITEOUT))?;
        }
        let mut names = directory::names(directory).map_err(|error| failed(error.into()))?;
        spec::ordered::sort_by(&mut names, |(one, _), (other, _)| one.cmp(other));
        for (name, _) in names {
            let path = if depth == 0 { PathBuf::new() } else { path.to_owned() };
            self.entry(directory, &name, &path.join(OsStr::from_bytes(&name)), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &[u8], path: &Path, depth: usize) -> Result<(), PackError> {
        let failed = |error: io::Error| PackError::File { path: path.to_owned(), source: error };
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
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                if self.content == Content::Layer && holes(&stat) >= WORTH_A_HOLE {
                    let mut file = file;
                    return self.builder.append_file(path, &mut file).map_err(failed);
                }
                let mut header = header(&stat, tar::EntryType::Regular);
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
            FileType::CharacterDevice if self.content == Content::Layer && stat.st_rdev == 0 => {
                self.whiteout(&path.with_file_name(OsStr::from_bytes(&[WHITEOUT, name].concat())))
            }
            _ => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), PackError> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(0);
        let written = self.builder.append_data(&mut header, path, io::empty());
        written.map_err(|source| PackError::File { path: path.to_owned(), source })
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
            .filter(|name| self.content == Content::RootFs || is_kept_xattr(name.as_bytes()))
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

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0_u8; 1];
    matches!(rustix::fs::fgetxattr(directory, OPAQUE, &mut value), Ok(1)) && value == *b"y"
}

/// Bytes of a file that lie nowhere on the disk.
fn holes(stat: &Stat) -> u64 {
    let (size, blocks) = (u64::try_from(stat.st_size), u64::try_from(stat.st_blocks));
    size.unwrap_or_default().saturating_sub(blocks.unwrap_or_default().saturating_mul(512))
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

fn unreadable(path: &Path, error: rustix::io::Errno) -> PackError {
    PackError::File { path: path.to_owned(), source: error.into() }
}
