//! Opening: from a directory to a store that answers.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use redb::backends::FileBackend;

use crate::ballast::{Ballast, ReservedFile};
use crate::database::{Contents, DatabaseFile};
use crate::directory::{Directory, open_private};
use crate::error::OpenStoreError;
use crate::events::{EventAges, open_events, spawn_events_writer};
use crate::memory::Memory;
use crate::store::OpenStore;
use crate::writer::{Job, Writer};

/// Pages of the objects file that redb keeps; the objects themselves are in memory anyway.
const CACHE_BYTES: usize = 8 << 20;

/// Opens or makes the store in a directory:
///
/// 1. lock the directory, before any file in it is touched;
/// 2. have the reserve, which opening the objects file on a full disk may need;
/// 3. open the objects file; make it only where there was never one;
/// 4. open the events file, whatever its state;
/// 5. start the threads.
pub(crate) fn open_store(path: &Path) -> Result<OpenStore, OpenStoreError> {
    let mut directory = Directory::lock(path)?;
    let ballast_path = directory.ballast();
    let ballast = Ballast::open(&ballast_path).map_err(|cause| OpenStoreError::Access { path: ballast_path, cause })?;
    let ballast = Arc::new(ballast);
    let (file, contents) = open_objects(&mut directory, &ballast)?;
    let file = Arc::new(file);
    let (events_file, events) = open_events(&directory.events());

    let mut ages = EventAges::default();
    let now = Instant::now();
    for event in &events {
        ages.note(&event.key, Some(event.revision), now);
    }
    let Contents { reserved_revision, mut objects } = contents;
    objects.extend(events);
    // Normally the reserved one; more only if one of the files comes from elsewhere.
    let revision = objects.iter().map(|object| object.revision).fold(reserved_revision, u64::max);
    let memory = Arc::new(Memory::new(revision, objects));

    let thread = |cause| OpenStoreError::Thread { directory: path.to_owned(), cause };
    let (changed_events, events_thread) =
        spawn_events_writer(directory.events(), events_file, Arc::clone(&memory)).map_err(thread)?;
    let commits = Arc::new(AtomicU64::new(0));
    let writer = Writer {
        directory: path.into(),
        file: Arc::clone(&file),
        memory: Arc::clone(&memory),
        ballast,
        ages,
        changed_events,
        reserved_revision,
        commits: Arc::clone(&commits),
        failed: None,
    };
    let (jobs, queue) = channel();
    let writer_thread = spawn_writer(writer, queue).map_err(thread)?;
    let threads = vec![writer_thread, events_thread];
    Ok(OpenStore { memory, file, commits, jobs: Some(jobs), threads, directory })
}

fn spawn_writer(writer: Writer, queue: Receiver<Job>) -> io::Result<JoinHandle<()>> {
    Builder::new().name("store-writer".into()).spawn(move || writer.run(&queue))
}

fn open_objects(directory: &mut Directory, ballast: &Arc<Ballast>) -> Result<(DatabaseFile, Contents), OpenStoreError> {
    let path = directory.objects();
    let access = |cause| OpenStoreError::Access { path: path.clone(), cause };
    let found = match std::fs::symlink_metadata(&path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(access(error)),
    };
    match found {
        // redb takes an empty file as a new one.
        Some(metadata) if metadata.len() == 0 => {
            let cause: Box<dyn std::error::Error + Send + Sync> = "it is empty".into();
            return Err(OpenStoreError::Damaged { path, cause: cause.into() });
        }
        None if directory.in_use() => return Err(OpenStoreError::Missing { path }),
        None => make_objects(directory, ballast)?,
        Some(_) => {}
    }
    directory.mark_in_use().map_err(access)?;
    open_file(&path, &path, ballast)
}

/// Makes the objects file under another name first, so that a crash never leaves half of one.
fn make_objects(directory: &Directory, ballast: &Arc<Ballast>) -> Result<(), OpenStoreError> {
    let (unfinished, path) = (directory.objects_unfinished(), directory.objects());
    let access = |cause| OpenStoreError::Access { path: unfinished.clone(), cause };
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(access(error)),
        Ok(()) | Err(_) => {}
    }
    drop(open_file(&unfinished, &path, ballast)?);
    std::fs::rename(&unfinished, &path).and_then(|()| directory.sync()).map_err(access)
}

/// Opens `path`, which errors call `name`.
fn open_file(path: &Path, name: &Path, ballast: &Arc<Ballast>) -> Result<(DatabaseFile, Contents), OpenStoreError> {
    let access = |cause| OpenStoreError::Access { path: path.to_owned(), cause };
    let file = open_private(path).map_err(access)?;
    let file = FileBackend::new(file).map_err(|error| access(io::Error::other(error)))?;
    DatabaseFile::open(name, ReservedFile { file, ballast: Arc::clone(ballast) }, CACHE_BYTES, QUICK_REPAIR)
}

/// Opening after a crash must not depend on how much is stored.
const QUICK_REPAIR: bool = true;
