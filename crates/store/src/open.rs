//! Opening: from a directory to a store that answers.

use std::collections::BTreeMap;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, Builder, JoinHandle};
use std::time::Instant;

use redb::backends::FileBackend;
use rustix::fs::OFlags;

use crate::ballast::{self, Ballast, ReservedFile, Room};
use crate::batch::Encoder;
use crate::database::{Changes, Contents, DatabaseFile};
use crate::directory::{Acknowledged, Directory, open_private};
use crate::error::{OpenStoreError, RestoreError};
use crate::events::{EventAges, open_events, spawn_events_writer};
use crate::jobs::Jobs;
use crate::journal::{self, Found, Frame, Journal, Unusable};
use crate::memory::Memory;
use crate::object::{ObjectKey, StoredObject};
use crate::pending::Pending;
use crate::store::{Disk, Ground, OpenStore};
use crate::writer::Writer;

/// Pages of the objects file that redb keeps; the objects themselves are in memory anyway.
const CACHE_BYTES: usize = 1 << 20;

/// Opens or makes the store in a directory:
///
/// 1. lock the directory, before any file in it is touched;
/// 2. have the reserve, which opening the objects file on a full disk may need;
/// 3. open the objects file; make it only where there was never one; read the journal meanwhile;
/// 4. find what the journal has beyond it;
/// 5. see that nothing is missing that was acknowledged;
/// 6. have the journal as it must be, for what comes;
/// 7. open the events file, whatever its state;
/// 8. start the threads.
pub(crate) fn open_store(path: &Path) -> Result<OpenStore, OpenStoreError> {
    let mut directory = Directory::lock(path)?;
    let ballast_path = directory.ballast();
    let ballast = Ballast::open(&ballast_path).map_err(|cause| OpenStoreError::Access { path: ballast_path, cause })?;
    let ballast = Arc::new(ballast);
    let journal_path = directory.journal();
    // Beside no objects file there is nothing that it could go on from.
    let go_on = directory.objects().exists();
    let (objects, journal) = thread::scope(|scope| {
        // It was written past the page cache, so it comes from the disk.
        let read = || if go_on { journal::read(&journal_path) } else { Ok(None) };
        let reading = Builder::new().spawn_scoped(scope, read);
        let objects = open_objects(&mut directory, &ballast);
        let journal = reading.and_then(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        (objects, journal)
    });
    let (file, contents) = objects?;
    let journal = journal.map_err(|cause| OpenStoreError::Access { path: journal_path, cause })?;
    let found = find_journal(&directory, &contents, journal.as_deref())?;
    let newest = found.as_ref().and_then(|found| found.frames.last()).map_or(contents.commits, |frame| frame.number);
    let acknowledged = open_acknowledged(&directory, newest)?;
    let journal = open_journal(&directory, &ballast, found.as_ref())?;
    if journal.is_some() && !contents.journaled {
        file.begin_journal()?;
    }
    let frames = found.map(|found| found.frames).unwrap_or_default();
    start(Opened { directory, ballast, file, contents, journal, frames, acknowledged })
}

/// Finds what the objects file lacks. `None` means that no journal goes on from it.
fn find_journal(
    directory: &Directory,
    contents: &Contents,
    journal: Option<&[u8]>,
) -> Result<Option<Found>, OpenStoreError> {
    let Some(bytes) = journal else { return Ok(None) };
    if !contents.journaled {
        tracing::warn!("an earlier version has written to the store since; the journal begins anew");
        return Ok(None);
    }
    let found = journal::find(bytes, contents.commits).map_err(|unusable| match unusable {
        Unusable::Damaged(why) => OpenStoreError::damaged(directory.journal(), why),
        // The frames are whole: it is the objects file that is behind them.
        Unusable::Behind(why) => OpenStoreError::damaged(directory.objects(), why),
    })?;
    Ok(Some(found))
}

/// Makes a journal where there is none, or none that counts. Without room for it there is none.
fn open_journal(
    directory: &Directory,
    ballast: &Arc<Ballast>,
    found: Option<&Found>,
) -> Result<Option<Journal>, OpenStoreError> {
    let path = directory.journal();
    let made = match found {
        None if ballast.room() != Room::Ample => Err(io::ErrorKind::StorageFull.into()),
        _ => Journal::make_ready(&path, Arc::clone(ballast), found),
    };
    let access = |cause| OpenStoreError::Access { path: path.clone(), cause };
    match made {
        Ok(journal) => {
            if found.is_none() {
                directory.sync().map_err(access)?;
            }
            Ok(Some(journal))
        }
        Err(error) if ballast::is_full(&error) => {
            tracing::warn!(journal = %path.display(), "no room for a journal: each commit goes to the objects file");
            // What is in it must not come back later.
            if found.is_none() {
                remove_if_there(&path)?;
                directory.sync().map_err(access)?;
            }
            Ok(None)
        }
        Err(cause) => Err(access(cause)),
    }
}

/// Refuses a store that lacks what was acknowledged; `newest` is the newest commit that it has.
fn open_acknowledged(directory: &Directory, newest: u64) -> Result<Acknowledged, OpenStoreError> {
    let path = directory.acknowledged();
    let (acknowledged, expected) = match Acknowledged::open(&path) {
        Ok(opened) => opened,
        Err(cause) => return Err(OpenStoreError::Access { path, cause }),
    };
    if newest < expected {
        let why = format!("it is as after commit {newest}, but {expected} were acknowledged");
        return Err(OpenStoreError::damaged(directory.objects(), why));
    }
    Ok(acknowledged)
}

/// A store without its threads.
struct Opened {
    directory: Directory,
    ballast: Arc<Ballast>,
    file: DatabaseFile,
    contents: Contents,
    journal: Option<Journal>,
    frames: Vec<Frame>,
    acknowledged: Acknowledged,
}

fn start(opened: Opened) -> Result<OpenStore, OpenStoreError> {
    let Opened { directory, ballast, file, contents, journal, frames, acknowledged } = opened;
    let directory = Arc::new(directory);
    let file = Arc::new(file);
    let (events_file, events) = open_events(&directory.events());
    let mut ages = EventAges::default();
    let now = Instant::now();
    for event in &events {
        ages.note(&event.key, Some(event.revision), now);
    }
    let Contents { mut reserved_revision, mut objects, .. } = contents;
    if !frames.is_empty() {
        tracing::info!(commits = frames.len(), "the journal has what the objects file lacks");
    }
    let mut changed: BTreeMap<Arc<ObjectKey>, Option<StoredObject>> = BTreeMap::new();
    for Frame { changes, .. } in &frames {
        changed.extend(changes.objects.iter().map(|(key, object)| (key.clone(), object.clone())));
        reserved_revision = changes.reserved_revision.unwrap_or(reserved_revision);
    }
    objects.retain(|object| !changed.contains_key(&object.key));
    objects.extend(changed.into_values().flatten());
    objects.extend(events);
    // Normally the reserved one; more only if one of the files comes from elsewhere.
    let revision = objects.iter().map(|object| object.revision).fold(reserved_revision, u64::max);
    let memory = Arc::new(Memory::new(revision, objects));

    let failed = |cause| OpenStoreError::Thread { directory: directory.path.clone(), cause };
    let (changed_events, events_thread) =
        spawn_events_writer(Arc::clone(&directory), events_file, Arc::clone(&memory)).map_err(failed)?;
    let commits = Arc::new(AtomicU64::new(0));
    let pending = Arc::new(Pending::new(Arc::clone(&file), frames));
    let jobs = Arc::new(Jobs::default());
    let writer = Writer {
        jobs: Arc::clone(&jobs),
        file: Arc::clone(&file),
        journal,
        pending: Arc::clone(&pending),
        memory: Arc::clone(&memory),
        acknowledged,
        ballast,
        ages,
        encoder: Encoder::default(),
        changed_events,
        reserved_revision,
        trim_due: None,
        commits: Arc::clone(&commits),
        failed: None,
        directory: Arc::clone(&directory),
    };
    let pending_thread = pending.spawn(Arc::clone(&directory)).map_err(failed)?;
    let writer_thread = spawn_writer(writer).map_err(failed)?;
    let threads = vec![writer_thread, events_thread, pending_thread];
    let disk = Disk { file, pending, commits, jobs, threads, directory };
    Ok(OpenStore { memory, ground: Ground::Disk(disk) })
}

fn spawn_writer(writer: Writer) -> io::Result<JoinHandle<()>> {
    Builder::new().name("store-writer".into()).spawn(move || writer.run())
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
        Some(metadata) if metadata.len() == 0 => return Err(OpenStoreError::damaged(path, "it is empty")),
        None if directory.in_use() => return Err(OpenStoreError::Missing { path }),
        None => make_objects(directory, ballast)?,
        Some(_) => {}
    }
    directory.mark_in_use().map_err(access)?;
    open_file(&path, &path, ballast)
}

fn make_objects(directory: &Directory, ballast: &Arc<Ballast>) -> Result<(), OpenStoreError> {
    drop(begin_objects(directory, ballast)?);
    finish_objects(directory)
}

/// Makes the objects file with all that it is to hold.
pub(crate) fn fill_objects(
    directory: &Directory,
    ballast: &Arc<Ballast>,
    changes: &Changes<'_>,
) -> Result<(), RestoreError> {
    let file = begin_objects(directory, ballast)?;
    file.commit(changes).map_err(|cause| RestoreError::Write { path: file.path.clone(), cause: Arc::new(cause) })?;
    drop(file);
    Ok(finish_objects(directory)?)
}

/// An empty objects file under another name, so that a crash never leaves half of one.
fn begin_objects(directory: &Directory, ballast: &Arc<Ballast>) -> Result<DatabaseFile, OpenStoreError> {
    let unfinished = directory.objects_unfinished();
    remove_if_there(&unfinished)?;
    Ok(open_file(&unfinished, &directory.objects(), ballast)?.0)
}

fn finish_objects(directory: &Directory) -> Result<(), OpenStoreError> {
    let (unfinished, path) = (directory.objects_unfinished(), directory.objects());
    // They tell of a file that is no more, and must never be seen beside the new one.
    remove_if_there(&directory.acknowledged())?;
    remove_if_there(&directory.journal())?;
    let renamed = directory.sync().and_then(|()| std::fs::rename(&unfinished, path)).and_then(|()| directory.sync());
    renamed.map_err(|cause| OpenStoreError::Access { path: unfinished, cause })
}

fn remove_if_there(path: &Path) -> Result<(), OpenStoreError> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(OpenStoreError::Access { path: path.to_owned(), cause })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes back what [`fill_objects`] could not finish.
pub(crate) fn remove_unfinished(directory: &Directory) {
    if let Err(error) = std::fs::remove_file(directory.objects_unfinished())
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "half a store file is left");
    }
}

/// Opens `path`, which errors call `name`.
fn open_file(path: &Path, name: &Path, ballast: &Arc<Ballast>) -> Result<(DatabaseFile, Contents), OpenStoreError> {
    let access = |cause| OpenStoreError::Access { path: path.to_owned(), cause };
    let file = open_private(path, OFlags::empty()).map_err(access)?;
    let file = FileBackend::new(file).map_err(|error| access(io::Error::other(error)))?;
    DatabaseFile::open(name, ReservedFile { file, ballast: Arc::clone(ballast) }, CACHE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use serde_json::json;

    use super::*;
    use crate::{Change, Store, StoreError, WriteError};

    /// A disk whose fsync can be made to fail.
    #[derive(Debug)]
    struct FailingDisk {
        memory: InMemoryBackend,
        failing: Arc<AtomicBool>,
    }

    impl StorageBackend for FailingDisk {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.memory.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            if self.failing.load(Ordering::SeqCst) { Err(io::Error::other("bad sector")) } else { Ok(()) }
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.memory.write(offset, data)
        }
    }

    /// A store on such a disk; its journal is on a real one.
    fn open_on(disk: FailingDisk, home: &Path, with_journal: bool) -> Opened {
        let directory = Directory::lock(home).unwrap();
        let ballast = Arc::new(Ballast::open(&directory.ballast()).unwrap());
        let (file, contents) = DatabaseFile::open(&directory.objects(), disk, CACHE_BYTES).unwrap();
        let (acknowledged, _newest) = Acknowledged::open(&directory.acknowledged()).unwrap();
        let journal = if with_journal { open_journal(&directory, &ballast, None).unwrap() } else { None };
        Opened { directory, ballast, file, contents, journal, frames: Vec::new(), acknowledged }
    }

    async fn write(store: &Store, name: &str) -> Result<(), WriteError<()>> {
        let key = ObjectKey::namespaced("pods", "default", name);
        store.write(key, |_| Ok((Change::Put(json!({})), ()))).await.map(drop)
    }

    async fn fails(store: &Store, name: &str, file: &str, cause: &str) {
        let Err(WriteError::Store(error @ StoreError::Failed { .. })) = write(store, name).await else {
            panic!("{name} was answered as if it were durable");
        };
        assert!(error.to_string().contains(&format!("{file} failed; the daemon must restart")), "{error}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains(cause), "{error:?}");
        assert!(matches!(store.delete_record("sandboxes", "a").await, Err(StoreError::Failed { .. })));
    }

    #[tokio::test]
    async fn a_failed_fsync_is_final_and_what_it_covered_is_never_seen() {
        let home = tempfile::tempdir().unwrap();
        let failing = Arc::new(AtomicBool::new(false));
        let disk = FailingDisk { memory: InMemoryBackend::new(), failing: Arc::clone(&failing) };
        let store = Store::from_open(start(open_on(disk, home.path(), false)).unwrap());
        write(&store, "before").await.unwrap();
        let before = store.list("pods", None);
        let mut watch = store.watch("pods", None).unwrap();

        failing.store(true, Ordering::SeqCst);
        for (name, repaired) in [("first", false), ("second", false), ("third", true)] {
            // A disk that works again changes nothing: what is on it is not known.
            failing.store(!repaired, Ordering::SeqCst);
            fails(&store, name, "objects.redb", "bad sector").await;
        }
        assert_eq!(store.list("pods", None), before);
        drop(store);
        assert_eq!(watch.next().await, None, "a write that failed was announced");
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_written_is_final_and_what_it_was_to_hold_is_never_seen() {
        let home = tempfile::tempdir().unwrap();
        let disk = FailingDisk { memory: InMemoryBackend::new(), failing: Arc::default() };
        let mut opened = open_on(disk, home.path(), true);
        // Writes to it fail from the first on.
        let journal = opened.journal.as_mut().unwrap();
        journal.file = std::fs::File::open(&journal.path).unwrap();
        let store = Store::from_open(start(opened).unwrap());
        let mut watch = store.watch("pods", None).unwrap();
        for name in ["first", "second"] {
            fails(&store, name, "journal", "Bad file descriptor").await;
        }
        assert_eq!((store.list("pods", None).objects.len(), store.commits()), (0, 0));
        drop(store);
        assert_eq!(watch.next().await, None, "a write that failed was announced");
    }

    #[tokio::test]
    async fn an_objects_file_that_cannot_take_what_the_journal_has_is_final_and_nothing_is_lost() {
        let home = tempfile::tempdir().unwrap();
        let failing = Arc::new(AtomicBool::new(false));
        let disk = FailingDisk { memory: InMemoryBackend::new(), failing: Arc::clone(&failing) };
        let store = Store::from_open(start(open_on(disk, home.path(), true)).unwrap());
        failing.store(true, Ordering::SeqCst);
        // In the journal they are durable. The first one waits for the second, so that both are one commit.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = store.write(ObjectKey::namespaced("pods", "default", "a"), move |_| {
            held.recv().unwrap();
            Ok::<_, ()>((Change::Put(json!({})), ()))
        });
        let second = async {
            let queued = store.put_record("things", "b", &1);
            release.send(()).unwrap();
            queued.await
        };
        let (first, second) = tokio::join!(first, second);
        first.unwrap();
        second.unwrap();
        let before = store.list("pods", None);
        let error = store.copy(&mut |_| panic!("it has nothing")).unwrap_err();
        assert!(error.to_string().contains("objects.redb failed; the daemon must restart"), "{error}");
        failing.store(false, Ordering::SeqCst);
        fails(&store, "c", "objects.redb", "bad sector").await;
        assert_eq!(store.list("pods", None), before);
        assert_eq!(store.records::<u64>("things").unwrap(), [("b".to_owned(), 1)]);
        drop(store);

        // The next start begins with what the disk has.
        let bytes = journal::read(&home.path().join("journal")).unwrap().unwrap();
        let frames = journal::find(&bytes, 0).unwrap().frames;
        let disk = FailingDisk { memory: InMemoryBackend::new(), failing };
        let mut opened = open_on(disk, home.path(), false);
        opened.frames = frames;
        let store = Store::from_open(start(opened).unwrap());
        assert_eq!(store.list("pods", None).objects, before.objects);
        assert_eq!(store.records::<u64>("things").unwrap(), [("b".to_owned(), 1)]);
        write(&store, "c").await.unwrap();
        assert_eq!(store.commits(), 1);
    }
}
