//! The files of a directory, and the kernel's word when they change (inotify(7)).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ten times what etcd lets an object hold.
const LARGEST: u64 = 16 << 20;
/// Ends of names that kubelets and we read; editors' and packages' leftovers have others.
const ENDS: [&str; 3] = [".yaml", ".yml", ".json"];

/// The text of each file in the directory, hidden ones aside, or why it cannot be read. Blocks.
pub fn texts(directory: &Path) -> io::Result<BTreeMap<PathBuf, io::Result<String>>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with('.') && ENDS.iter().any(|end| name.ends_with(end)) {
            let text = text(&path);
            // Gone since the list was made.
            if !matches!(&text, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                texts.insert(path, text);
            }
        }
    }
    Ok(texts)
}

fn text(path: &Path) -> io::Result<String> {
    // A pipe must not hold us up.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Tells when a file of a directory came, went, or was written to its end.
#[derive(Debug)]
pub struct Changes {
    inotify: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Listens from now on.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let wanted = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, directory, wanted)?;
        Ok(Self { inotify: watch_descriptor(inotify)? })
    }

    /// Is back when something changed; what comes together is told once.
    pub async fn next(&mut self) {
        let waited = self.inotify.async_io(Interest::READABLE, |inotify| {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(inotify, &mut buffer);
            let mut seen = false;
            loop {
                match reader.next() {
                    Ok(event) => seen |= !event.events().contains(ReadFlags::IGNORED),
                    Err(rustix::io::Errno::WOULDBLOCK) if seen => return Ok(()),
                    Err(error) => return Err(io::Error::from(error)),
                }
            }
        });
        if let Err(error) = waited.await {
            tracing::warn!(%error, "changes of static pods are seen late");
            std::future::pending::<()>().await;
        }
    }
}

#[expect(
    deprecated,
    reason = "the successor is unsafe for types that may close or swap their descriptor; OwnedFd does neither"
)]
fn watch_descriptor(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}
