//! Where the blobs of an archive lie: members of a tar file, or files below a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use layer::limits::SpaceCheck;
use layer::{Compression, EntryKind, TarError, TarReader, decompress};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};

use crate::error::LoadCause;
use crate::limits;

/// Symlinks from one member to another.
const LINKS: usize = 8;

/// An opened archive.
pub(super) enum BlobSource {
    /// A tar file and where its members lie.
    Tar { file: Arc<File>, members: HashMap<String, Member> },
    /// An OCI layout, or an unpacked archive.
    Directory(OwnedFd),
}

/// A member of a tar file.
pub(super) enum Member {
    Bytes {
        offset: u64,
        size: u64,
    },
    /// `docker save` of old links equal layers to each other.
    Link(String),
}

/// One member, to be read once.
pub(super) struct Blob {
    pub(super) reader: FileRange,
    pub(super) size: u64,
}

impl BlobSource {
    /// Opens the file or directory at `path`. A compressed file is decompressed into `staging`, without a name: its
    /// members are read in their own order, several at a time.
    pub(super) fn open(path: &Path, staging: &OwnedFd) -> Result<Self, LoadCause> {
        // Opening a FIFO would wait for its writer (fifo(7)).
        let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
        let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(LoadCause::Open)?;
        let kind = file.metadata().map_err(LoadCause::Open)?.file_type();
        if kind.is_dir() {
            return Ok(Self::Directory(file.into()));
        }
        if !kind.is_file() {
            return Err(LoadCause::NotAFile);
        }
        if let Some(decompressed) = spool(&file, staging)? {
            file = decompressed;
        }
        file.rewind().map_err(LoadCause::Open)?;
        let members = index(&file)?;
        Ok(Self::Tar { file: Arc::new(file), members })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.open_member(name).is_ok()
    }

    /// Opens a member to be read.
    pub(super) fn open_member(&self, name: &str) -> Result<Blob, LoadCause> {
        match self {
            Self::Tar { file, members } => {
                let (offset, size) = find(members, name).ok_or_else(|| LoadCause::Missing { name: name.to_owned() })?;
                Ok(Blob { reader: FileRange { file: Arc::clone(file), offset, left: size }, size })
            }
            Self::Directory(directory) => {
                let failed = |source: io::Error| match source.kind() {
                    io::ErrorKind::NotFound => LoadCause::Missing { name: name.to_owned() },
                    _ => LoadCause::Read { name: name.to_owned(), source },
                };
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file =
                    openat2(directory, name, flags, Mode::empty(), resolve).map_err(|error| failed(error.into()))?;
                let file = File::from(file);
                let metadata = file.metadata().map_err(failed)?;
                if !metadata.is_file() {
                    return Err(failed(io::Error::other("it is no regular file")));
                }
                let size = metadata.size();
                Ok(Blob { reader: FileRange { file: Arc::new(file), offset: 0, left: size }, size })
            }
        }
    }

    /// A whole member that is small by its nature.
    pub(super) fn read_metadata(&self, name: &str) -> Result<Vec<u8>, LoadCause> {
        let mut blob = self.open_member(name)?;
        if blob.size > limits::METADATA_BYTES {
            let (size, limit) = (blob.size, limits::METADATA_BYTES);
            return Err(LoadCause::TooLarge { name: name.to_owned(), size, limit });
        }
        let mut all = Vec::new();
        blob.reader.read_to_end(&mut all).map_err(|source| LoadCause::Read { name: name.to_owned(), source })?;
        Ok(all)
    }
}

/// A part of a file, read without moving the file's own position.
pub(super) struct FileRange {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for FileRange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let read = self.file.read_at(buffer, self.offset)?;
        if read == 0 {
            // The file became shorter while it was read.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The decompressed archive as a file without a name; `None` if it is not compressed.
fn spool(file: &File, staging: &OwnedFd) -> Result<Option<File>, LoadCause> {
    let (compression, mut decompressed) = decompress(file).map_err(LoadCause::Open)?;
    if compression == Compression::None {
        return Ok(None);
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let spooled =
        openat(staging, ".", flags, Mode::RUSR | Mode::WUSR).map_err(|error| LoadCause::Spool(error.into()))?;
    let mut spooled = File::from(spooled);
    let mut space = SpaceCheck::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = decompressed.read(&mut buffer).map_err(LoadCause::Open)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        space.before_write(staging.as_fd(), read as u64).map_err(LoadCause::Spool)??;
        spooled.write_all(bytes).map_err(LoadCause::Spool)?;
    }
    Ok(Some(spooled))
}

/// Reads the headers of a tar file and passes over the bodies.
fn index(file: &File) -> Result<HashMap<String, Member>, LoadCause> {
    let length = file.metadata().map_err(LoadCause::Open)?.size();
    // A small buffer: between two headers lies a whole layer.
    let mut reader = TarReader::new(BufReader::with_capacity(4096, file));
    let mut members = HashMap::new();
    while let Some(entry) = reader.next_entry()? {
        let name = member_name(&entry.path);
        let member = match entry.kind {
            EntryKind::File if entry.segments.is_none() => {
                let (offset, size) = (reader.position(), reader.body_left());
                if offset.saturating_add(size) > length {
                    return Err(LoadCause::CutOff { name });
                }
                Member::Bytes { offset, size }
            }
            EntryKind::HardLink => Member::Link(member_name(&entry.link)),
            EntryKind::Symlink => Member::Link(beside(&name, &entry.link)),
            _ => continue,
        };
        members.insert(name, member);
        if members.len() > limits::ARCHIVE_MEMBERS {
            let (found, limit) = (members.len(), limits::ARCHIVE_MEMBERS);
            return Err(LoadCause::TooMany { what: "members in an image archive", found, limit });
        }
    }
    if !reader.is_closed() {
        return Err(LoadCause::Archive(TarError::Truncated { position: length }));
    }
    Ok(members)
}

fn find(members: &HashMap<String, Member>, name: &str) -> Option<(u64, u64)> {
    let mut name = name.to_owned();
    for _ in 0..LINKS {
        match members.get(&member_name(name.as_bytes()))? {
            Member::Bytes { offset, size } => return Some((*offset, *size)),
            Member::Link(target) => name.clone_from(target),
        }
    }
    None
}

/// Names differ by `./` and slashes only.
fn member_name(path: &[u8]) -> String {
    let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    String::from_utf8_lossy(&names.join(&b'/')).into_owned()
}

/// The target of a symlink, as a name in the archive.
fn beside(name: &str, target: &[u8]) -> String {
    let target = String::from_utf8_lossy(target);
    let mut names: Vec<&str> = name.split('/').collect();
    names.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            part => names.push(part),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_members_are_followed_a_few_times() {
        let members = HashMap::from([
            ("a/layer.tar".to_owned(), Member::Bytes { offset: 512, size: 7 }),
            ("b/layer.tar".to_owned(), Member::Link(beside("b/layer.tar", b"../a/layer.tar"))),
            ("x".to_owned(), Member::Link("y".to_owned())),
            ("y".to_owned(), Member::Link("x".to_owned())),
        ]);
        assert_eq!(find(&members, "./b/layer.tar"), Some((512, 7)));
        assert_eq!(find(&members, "x"), None);
        assert_eq!(find(&members, "z"), None);
    }
}
