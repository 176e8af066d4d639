//! A redb file of ours: made, opened with its schema checked, loaded, and committed to.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    TableError, WriteTransaction,
};

use crate::copy::Entry;
use crate::error::{OpenStoreError, StoreError};
use crate::object::{ObjectKey, StoredObject};
use crate::value::ObjectValue;

/// The schema that this code writes. An older file would be converted here; a newer one is refused.
const SCHEMA: u64 = 1;

/// Counters by name.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Resource, namespace (empty: none) and name to revision and JSON.
const OBJECTS: TableDefinition<(&str, &str, &str), (u64, &[u8])> = TableDefinition::new("objects");
/// Table and key to JSON.
const RECORDS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("records");

const META_SCHEMA: &str = "schema";
/// Every revision up to this one may have been given out.
const META_RESERVED: &str = "reserved-revision";

/// The number of the newest commit.
const META_COMMITS: &str = "commits";
/// The same, as it was written by a version that knows the journal. Where they differ, an earlier version has written since,
/// and what is in the journal does not follow.
const META_JOURNALED: &str = "journaled";

const ALTERED: &str = "a page is not what was written";

/// An open redb file.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    pub(crate) path: PathBuf,
    database: Database,
    commits: AtomicU64,
}

/// What a file holds when it is opened.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) reserved_revision: u64,
    /// The number of the newest commit.
    pub(crate) commits: u64,
    /// Whether a journal may go on from there.
    pub(crate) journaled: bool,
    pub(crate) objects: Vec<StoredObject>,
}

/// What one commit changes.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    pub(crate) objects: Vec<(&'a ObjectKey, Option<&'a StoredObject>)>,
    pub(crate) records: Vec<(&'a str, &'a str, Option<&'a [u8]>)>,
    pub(crate) reserved_revision: Option<u64>,
}

impl DatabaseFile {
    /// Opens a file, or makes it where the backend is empty (the caller knows whether that may be), and loads it.
    ///
    /// Every page is checked, after a crash or not, at 1 ms for each MiB: redb trusts what it reads otherwise, and would
    /// show what was altered behind its back. What it writes for a quick repair would not be used then.
    pub(crate) fn open(
        path: &Path,
        backend: impl StorageBackend,
        cache_bytes: usize,
    ) -> Result<(Self, Contents), OpenStoreError> {
        let open = || {
            let bytes = backend.len().map_err(redb::Error::Io)?;
            let mut builder = Database::builder();
            let builder = builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
            let database = builder.create_with_backend(backend).map_err(redb::Error::from)?;
            let file = Self { path: path.to_owned(), database, commits: AtomicU64::new(0) };
            if bytes == 0 {
                file.make_tables()?;
            }
            file.check_schema()?;
            let contents = file.load()?;
            file.commits.store(contents.commits, Ordering::Relaxed);
            Ok((file, contents))
        };
        // redb reports damage as an error, but a page that was altered behind its back may also make it panic.
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(result) => result.map_err(|why: Unreadable| why.at(path)),
            Err(_panic) => Err(Unreadable::Content(ALTERED.into()).at(path)),
        }
    }

    /// Commits durably, as the next number; gives it. After an error the state of the file is unknown and it takes no more
    /// commits. One thread at a time.
    pub(crate) fn commit(&self, changes: &Changes<'_>) -> Result<u64, redb::Error> {
        self.commit_up_to(self.commits.load(Ordering::Relaxed) + 1, changes)
    }

    /// The same for all commits up to a number that it has not yet.
    pub(crate) fn commit_up_to(&self, number: u64, changes: &Changes<'_>) -> Result<u64, redb::Error> {
        let commit = || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            stage(&transaction, changes)?;
            {
                let mut meta = transaction.open_table(META)?;
                meta.insert(META_COMMITS, number)?;
                meta.insert(META_JOURNALED, number)?;
            }
            Ok(transaction.commit()?)
        };
        unpanicked(commit)?;
        self.commits.store(number, Ordering::Relaxed);
        Ok(number)
    }

    /// The number of its newest commit.
    pub(crate) fn newest(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Has a journal go on from here.
    pub(crate) fn begin_journal(&self) -> Result<(), OpenStoreError> {
        self.commit(&Changes::default()).map_err(|error| Unreadable::Redb(error).at(&self.path))?;
        Ok(())
    }

    /// What a failed commit leads to.
    pub(crate) fn failed(&self, error: redb::Error) -> StoreError {
        StoreError::failed(&self.path, Arc::new(error))
    }

    /// The file as it is now, whatever is committed later.
    pub(crate) fn now(&self) -> Result<Now, redb::Error> {
        unpanicked(|| Ok(Now(self.database.begin_read()?)))
    }

    /// One record.
    pub(crate) fn record(&self, table: &str, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        unpanicked(|| {
            let records = self.database.begin_read()?.open_table(RECORDS)?;
            Ok(records.get((table, key))?.map(|value| value.value().to_owned()))
        })
    }

    /// Hands out all objects, then all records, of one moment; gives the reserved revision of that moment.
    pub(crate) fn copy(&self, take: &mut dyn FnMut(Entry)) -> Result<u64, redb::Error> {
        unpanicked(|| self.read_all(take))
    }

    fn read_all(&self, take: &mut dyn FnMut(Entry)) -> Result<u64, redb::Error> {
        let transaction = self.database.begin_read()?;
        for entry in transaction.open_table(OBJECTS)?.iter()? {
            let (id, value) = entry?;
            let (revision, json) = value.value();
            take(Entry::Object { key: key_of(id.value()), revision, json: Bytes::copy_from_slice(json) });
        }
        for entry in transaction.open_table(RECORDS)?.iter()? {
            let (id, value) = entry?;
            let (table, key) = id.value();
            let json = Bytes::copy_from_slice(value.value());
            take(Entry::Record { table: table.to_owned(), key: key.to_owned(), json });
        }
        let reserved = transaction.open_table(META)?.get(META_RESERVED)?;
        Ok(reserved.map_or(0, |revision| revision.value()))
    }

    fn check_schema(&self) -> Result<(), Unreadable> {
        let found = match self.database.begin_read().map_err(redb::Error::from)?.open_table(META) {
            Ok(meta) => meta.get(META_SCHEMA).map_err(redb::Error::from)?.map(|version| version.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(redb::Error::from(error).into()),
        };
        match found {
            Some(SCHEMA) => Ok(()),
            Some(found) if found > SCHEMA => Err(Unreadable::Newer(found)),
            Some(_) | None => Err(Unreadable::Content("it has no schema version".into())),
        }
    }

    fn make_tables(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_SCHEMA, SCHEMA)?;
            // Not 0, which clients send for "any version".
            meta.insert(META_RESERVED, 1)?;
            meta.insert(META_JOURNALED, 0)?;
            transaction.open_table(OBJECTS)?;
            transaction.open_table(RECORDS)?;
        }
        Ok(transaction.commit()?)
    }

    fn load(&self) -> Result<Contents, Unreadable> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let meta = transaction.open_table(META).map_err(redb::Error::from)?;
        let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|number| number.value()));
        let (reserved, commits) = (number(META_RESERVED)?, number(META_COMMITS)?.unwrap_or(0));
        let journaled = number(META_JOURNALED)? == Some(commits);
        let table = transaction.open_table(OBJECTS).map_err(redb::Error::from)?;
        let mut objects = Vec::new();
        for entry in table.iter().map_err(redb::Error::from)? {
            let (key, value) = entry.map_err(redb::Error::from)?;
            let (revision, json) = value.value();
            objects.push(decode_object(key.value(), revision, json)?);
        }
        let reserved_revision = reserved.ok_or_else(|| Unreadable::Content("it has no revision".into()))?;
        Ok(Contents { reserved_revision, commits, journaled, objects })
    }
}

/// A file at one moment.
pub(crate) struct Now(ReadTransaction);

impl Now {
    /// The records of one table, sorted by key.
    pub(crate) fn records(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        unpanicked(|| self.read_records(table))
    }

    fn read_records(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let records = self.0.open_table(RECORDS)?;
        let mut found = Vec::new();
        for entry in records.range((table, "")..)? {
            let (key, value) = entry?;
            let (of, key) = key.value();
            if of != table {
                break;
            }
            found.push((key.to_owned(), value.value().to_owned()));
        }
        Ok(found)
    }
}

/// A page that was altered while the file is open may make redb panic; that ends nothing but what was asked of it.
fn unpanicked<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_panic| Err(redb::Error::Corrupted(ALTERED.to_owned())))
}

fn stage(transaction: &WriteTransaction, changes: &Changes<'_>) -> Result<(), redb::Error> {
    if !changes.objects.is_empty() {
        let mut objects = transaction.open_table(OBJECTS)?;
        for (key, object) in &changes.objects {
            let id = (key.resource.as_str(), key.namespace.as_deref().unwrap_or(""), key.name.as_str());
            match object {
                Some(object) => drop(objects.insert(id, (object.revision, object.json.as_ref()))?),
                None => drop(objects.remove(id)?),
            }
        }
    }
    if !changes.records.is_empty() {
        let mut records = transaction.open_table(RECORDS)?;
        for (table, key, value) in &changes.records {
            match value {
                Some(value) => drop(records.insert((*table, *key), *value)?),
                None => drop(records.remove((*table, *key))?),
            }
        }
    }
    if let Some(revision) = changes.reserved_revision {
        transaction.open_table(META)?.insert(META_RESERVED, revision)?;
    }
    Ok(())
}

fn decode_object(id: (&str, &str, &str), revision: u64, json: &[u8]) -> Result<StoredObject, Unreadable> {
    let key = Arc::new(key_of(id));
    let json = Bytes::copy_from_slice(json);
    match ObjectValue::read(json.clone()) {
        Ok(value) => Ok(StoredObject { key, revision, value, json }),
        Err(error) => Err(Unreadable::Content(format!("{key}: {error}"))),
    }
}

pub(crate) fn key_of((resource, namespace, name): (&str, &str, &str)) -> ObjectKey {
    let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    ObjectKey { resource: resource.to_owned(), namespace, name: name.to_owned() }
}

/// Why a file's content cannot be used.
enum Unreadable {
    Redb(redb::Error),
    Newer(u64),
    Content(String),
}

impl From<redb::Error> for Unreadable {
    fn from(error: redb::Error) -> Self {
        Self::Redb(error)
    }
}

impl Unreadable {
    fn at(self, path: &Path) -> OpenStoreError {
        let path = path.to_owned();
        match self {
            Self::Newer(found) => OpenStoreError::Newer { path, found, supported: SCHEMA },
            Self::Content(why) => OpenStoreError::damaged(path, why),
            // What redb says of a file that is not its own, or too short.
            Self::Redb(redb::Error::Io(cause))
                if !matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                OpenStoreError::Access { path, cause }
            }
            Self::Redb(cause) => OpenStoreError::Damaged { path, cause: Arc::new(cause) },
        }
    }
}
