//! Rotated logs that are packed with gzip. The end of a log is looked for from its end, so one that is read at all is
//! unpacked first, into a file without a name.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _};
use std::os::fd::OwnedFd;

use flate2::read::GzDecoder;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, openat};

/// Ending of a packed log's name.
pub(super) const PACKED: &str = ".gz";
/// More than twice of what a log has when it is rotated at the latest: a Pod with a hostPath on the log directory could put
/// there what unpacks to any size.
const LIMIT: u64 = 64 << 20;

/// A packed log.
#[derive(Debug)]
pub(super) struct PackedLog {
    file: File,
    directory: OwnedFd,
}

impl PackedLog {
    /// `directory` is where it lies.
    pub(super) fn new(file: File, directory: &OwnedFd) -> io::Result<Self> {
        Ok(Self { file, directory: directory.try_clone()? })
    }

    /// Its content, in a file that nobody else sees and that goes when it is closed: beside it on the disk, or in memory
    /// where the file system knows no such files or has no room.
    pub(super) fn unpack(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let beside = openat(&self.directory, ".", flags, Mode::from_raw_mode(0o600)).map_err(io::Error::from);
        let unpacked = beside.and_then(|file| self.unpack_into(file.into()));
        unpacked.or_else(|_| self.unpack_into(memfd_create("log", MemfdFlags::CLOEXEC)?.into()))
    }

    fn unpack_into(&self, mut plain: File) -> io::Result<File> {
        let mut packed = &self.file;
        packed.rewind()?;
        let mut decoder = GzDecoder::new(BufReader::new(packed)).take(LIMIT + 1);
        if io::copy(&mut decoder, &mut plain)? > LIMIT {
            let message = format!("a rotated log unpacks to more than {LIMIT} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(plain)
    }
}
