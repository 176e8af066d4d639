//! The archive of a backup: a tar file that any tool reads, with a checksum of each part in its last one.
//!
//! `manifest.json`, then `objects/*.jsonl` and `records/*.jsonl`, one to a line, `files/…` as they lie in the data
//! directory, and `SHA256SUMS` as sha256sum(1) reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use spec::Timestamp;
use spec::ordered::map_of;
use store::{Copy, Entry, ObjectKey, Store, StoreError};

use crate::backup::FILES;

/// The form of the archive that this code writes, and the newest that it reads.
const FORMAT: u64 = 1;
/// Lines are gathered to parts of about this size.
const PART_BYTES: usize = 1 << 20;

const MANIFEST: &str = "manifest.json";
const SUMS: &str = "SHA256SUMS";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the archive.
    pub format: u64,
    /// The version that wrote it.
    pub monopod: String,
    /// Of which node it is.
    pub node: String,
    /// When it was taken.
    pub taken: Timestamp,
    /// No revision given out until then is above this one.
    pub revision: u64,
}

/// A backup that was read and found whole.
#[derive(Debug)]
pub struct Backup {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The store.
    pub copy: Copy,
    /// Private files: paths below the data directory, and contents.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// Why there is no backup, or why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file of the daemon.
    #[error("cannot read {}", path.display())]
    ReadState {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The store.
    #[error("cannot read the store")]
    ReadStore(#[from] StoreError),
    /// The archive could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// No tar file, one that breaks off, or of something else.
    #[error("it is no backup of monopod, or only a part of one")]
    NotABackup(#[source] io::Error),
    /// Written by a later version.
    #[error("it has format {found}, but this monopod knows only up to {FORMAT}; use a newer monopod")]
    Newer {
        /// Its format.
        found: u64,
    },
    /// A part is not what was written, or is not there.
    #[error("it is damaged: {part:?} {why}")]
    Damaged {
        /// The part.
        part: String,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct ObjectLine<T> {
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    revision: u64,
    object: T,
}

#[derive(Serialize, Deserialize)]
struct RecordLine<T> {
    table: String,
    key: String,
    record: T,
}

impl Manifest {
    /// Of now; the revision is for whoever reads the store.
    pub fn new(version: &str, node: &str, taken: Timestamp) -> Self {
        Self { format: FORMAT, monopod: version.to_owned(), node: node.to_owned(), taken, revision: 0 }
    }
}

/// Gathers the parts of an archive.
#[derive(Default)]
pub struct Writer {
    parts: Vec<(String, Vec<u8>)>,
}

impl Writer {
    /// Adds all that a store holds; gives the revision up to which that is.
    pub fn add_store(&mut self, store: &Store) -> Result<u64, BackupError> {
        let mut failed = None;
        let revision = store.copy(&mut |entry| {
            if let Err(error) = self.add_entry(entry) {
                failed = Some(error);
            }
        })?;
        failed.map_or(Ok(revision), Err)
    }

    fn add_entry(&mut self, entry: Entry) -> Result<(), BackupError> {
        let (of, line) = match entry {
            Entry::Object { key, revision, json } => {
                let ObjectKey { resource, namespace, name } = key;
                let object: &RawValue = raw(&format!("{resource} {name}"), &json)?;
                ("objects", to_json(&ObjectLine { resource, namespace, name, revision, object })?)
            }
            Entry::Record { table, key, json } => {
                let record: &RawValue = raw(&format!("{table} {key}"), &json)?;
                ("records", to_json(&RecordLine { table, key, record })?)
            }
        };
        let goes_on =
            |(name, content): &&mut (String, Vec<u8>)| name.starts_with(of) && content.len() + line.len() < PART_BYTES;
        if let Some((_, content)) = self.parts.last_mut().filter(|part| goes_on(part)) {
            content.extend_from_slice(&line);
        } else {
            self.parts.push((format!("{of}/{:04}.jsonl", self.parts.len()), line));
        }
        Ok(())
    }

    /// Adds a file of the data directory.
    pub fn add_file(&mut self, name: &str, content: &[u8]) {
        self.parts.push((format!("files/{name}"), content.to_owned()));
    }

    /// The whole archive.
    pub fn finish(self, manifest: &Manifest) -> Result<Vec<u8>, BackupError> {
        let first = (MANIFEST.to_owned(), to_json(manifest)?);
        let mut sums = String::new();
        let bytes = self.parts.iter().map(|(_, content)| content.len() + 1024).sum::<usize>();
        let mut archive = tar::Builder::new(Vec::with_capacity(bytes + 8192));
        for (name, content) in std::iter::once(first).chain(self.parts) {
            append(&mut archive, &name, &content, manifest.taken).map_err(BackupError::Write)?;
            sum_line(&mut sums, &name, &content);
        }
        append(&mut archive, SUMS, sums.as_bytes(), manifest.taken).map_err(BackupError::Write)?;
        archive.into_inner().map_err(BackupError::Write)
    }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8], taken: Timestamp) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(taken.as_second()).unwrap_or(0));
    archive.append_data(&mut header, name, content)
}

/// Reads a backup to its end. Whatever is altered or missing in it is an error.
pub fn read_backup(input: impl Read) -> Result<Backup, BackupError> {
    let mut archive = tar::Archive::new(input);
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    let (mut sums, mut sealed) = (String::new(), false);
    for entry in archive.entries().map_err(BackupError::NotABackup)? {
        let mut entry = entry.map_err(BackupError::NotABackup)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if sealed {
            return Err(damaged(&name, "comes after the checksums"));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(BackupError::NotABackup)?;
        if name == SUMS {
            check_sums(&sums, &String::from_utf8_lossy(&content))?;
            sealed = true;
        } else {
            // One that is of a later form may be summed up otherwise, too.
            if name == MANIFEST {
                check_format(&content)?;
            }
            sum_line(&mut sums, &name, &content);
            parts.push((name, content));
        }
    }
    if !sealed {
        return Err(BackupError::NotABackup(io::Error::new(io::ErrorKind::UnexpectedEof, "it has no checksums")));
    }
    sort_out(parts)
}

fn check_format(manifest: &[u8]) -> Result<(), BackupError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    match serde_json::from_slice(manifest) {
        Ok(Format { format: found }) if found > FORMAT => Err(BackupError::Newer { found }),
        Ok(_) => Ok(()),
        Err(error) => Err(damaged(MANIFEST, &error.to_string())),
    }
}

fn check_sums(found: &str, written: &str) -> Result<(), BackupError> {
    if found == written {
        return Ok(());
    }
    let by_name = |sums: &str| -> BTreeMap<String, String> {
        let pairs = sums.lines().filter_map(|line| line.split_once("  "));
        map_of(pairs.map(|(sum, name)| (name.to_owned(), sum.to_owned())))
    };
    let (found, written) = (by_name(found), by_name(written));
    for (name, sum) in &written {
        match found.get(name) {
            None => return Err(damaged(name, "is missing")),
            Some(other) if other != sum => {
                return Err(damaged(name, "does not have the checksum that it was written with"));
            }
            Some(_) => {}
        }
    }
    let surplus = found.keys().find(|name| !written.contains_key(*name));
    Err(damaged(surplus.map_or(SUMS, String::as_str), "is not what was written"))
}

/// Parts whose checksums are right: what is wrong now was written so.
fn sort_out(parts: Vec<(String, Vec<u8>)>) -> Result<Backup, BackupError> {
    let mut manifest = None;
    let (mut objects, mut records, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (name, content) in parts {
        let lines = || content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let wrong = |error: serde_json::Error| damaged(&name, &error.to_string());
        if name == MANIFEST {
            manifest = Some(serde_json::from_slice(&content).map_err(wrong)?);
        } else if name.starts_with("objects/") {
            for line in lines() {
                let line: ObjectLine<Value> = serde_json::from_slice(line).map_err(wrong)?;
                let key = ObjectKey { resource: line.resource, namespace: line.namespace, name: line.name };
                objects.push((line.revision, key, line.object));
            }
        } else if name.starts_with("records/") {
            for line in lines() {
                let line: RecordLine<Box<RawValue>> = serde_json::from_slice(line).map_err(wrong)?;
                records.push((line.table, line.key, Bytes::copy_from_slice(line.record.get().as_bytes())));
            }
        } else if let Some(path) = FILES.into_iter().find(|file| name.strip_prefix("files/") == Some(file)) {
            files.push((path, content));
        } else {
            return Err(damaged(&name, "is not a part of a backup"));
        }
    }
    let manifest = manifest.ok_or_else(|| damaged(MANIFEST, "is missing"))?;
    spec::ordered::sort_by_key(&mut objects, |(revision, ..)| *revision);
    let objects = objects.into_iter().map(|(_, key, object)| (key, object)).collect();
    Ok(Backup { manifest, copy: Copy { objects, records }, files })
}

fn sum_line(sums: &mut String, name: &str, content: &[u8]) {
    for byte in Sha256::digest(content) {
        // A String takes all.
        let _written = write!(sums, "{byte:02x}");
    }
    let _written = writeln!(sums, "  {name}");
}

fn raw<'a>(what: &str, json: &'a [u8]) -> Result<&'a RawValue, BackupError> {
    serde_json::from_slice(json).map_err(|error| damaged(what, &error.to_string()))
}

/// One line.
fn to_json(value: &impl Serialize) -> Result<Vec<u8>, BackupError> {
    let mut line = serde_json::to_vec(value).map_err(|error| BackupError::Write(error.into()))?;
    line.push(b'\n');
    Ok(line)
}

fn damaged(part: &str, why: &str) -> BackupError {
    BackupError::Damaged { part: part.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::Change;

    use super::*;

    async fn archive(padding: usize) -> Vec<u8> {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        for name in ["a", "b"] {
            let value = json!({"metadata": {"name": name}, "data": {"k": "v".repeat(padding)}});
            let key = ObjectKey::namespaced("configmaps", "default", name);
            store.write(key, |_| Ok::<_, ()>((Change::Put(value), ()))).await.unwrap();
        }
        store.put_record("things", "t/1", &json!({"x": [1, 2]})).await.unwrap();
        let mut writer = Writer::default();
        let mut manifest = Manifest::new("0.1.0", "n1", "2026-01-01T00:00:00Z".parse().unwrap());
        manifest.revision = writer.add_store(&store).unwrap();
        for name in FILES {
            writer.add_file(name, name.as_bytes());
        }
        writer.finish(&manifest).unwrap()
    }

    /// All that matters of a backup.
    fn told(backup: &Backup) -> String {
        format!("{backup:?}")
    }

    #[tokio::test]
    async fn a_backup_is_read_as_it_was_written() {
        for padding in [3, 700_000] {
            let backup = read_backup(archive(padding).await.as_slice()).unwrap();
            assert_eq!(backup.manifest.node, "n1");
            let names: Vec<_> = backup.copy.objects.iter().map(|(key, _)| key.to_string()).collect();
            assert_eq!(names, ["configmaps default/a", "configmaps default/b"]);
            assert_eq!(backup.copy.objects[0].1["data"]["k"], "v".repeat(padding));
            let (table, key, record) = &backup.copy.records[0];
            assert_eq!((table.as_str(), key.as_str(), &**record), ("things", "t/1", br#"{"x":[1,2]}"#.as_slice()));
            let files: Vec<_> = backup.files.iter().map(|(name, content)| (*name, content.as_slice())).collect();
            assert_eq!(files, FILES.map(|name| (name, name.as_bytes())));
        }
    }

    #[tokio::test]
    async fn a_backup_that_was_altered_anywhere_is_refused_or_says_the_same() {
        let whole = archive(3).await;
        let expected = told(&read_backup(whole.as_slice()).unwrap());
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 1 << (at % 8);
            match read_backup(spoilt.as_slice()) {
                Ok(backup) => assert_eq!(told(&backup), expected, "byte {at}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 1000, "only {refused} of {} bytes matter", whole.len());
        for length in (0..whole.len() - 1024).step_by(97) {
            let error = read_backup(&whole[..length]).unwrap_err();
            assert!(matches!(error, BackupError::NotABackup(_) | BackupError::Damaged { .. }), "{length}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        let whole = archive(3).await;
        let message = |archive: &[u8]| read_backup(archive).unwrap_err().to_string();
        let at = whole.windows(4).position(|window| window == b"vvv\"").unwrap();
        let mut spoilt = whole.clone();
        spoilt[at] = b'w';
        let expected = "it is damaged: \"objects/0000.jsonl\" does not have the checksum that it was written with";
        assert_eq!(message(&spoilt), expected);
        assert_eq!(message(b"kind: Pod\n"), "it is no backup of monopod, or only a part of one");

        let mut writer = Writer::default();
        writer.add_file("../etc/passwd", b"x");
        let manifest = Manifest::new("0.1.0", "n1", Timestamp::UNIX_EPOCH);
        // The tar crate itself writes no such name.
        assert!(writer.finish(&manifest).is_err());
        let mut writer = Writer::default();
        writer.add_file("other", b"x");
        let foreign = writer.finish(&manifest).unwrap();
        assert_eq!(message(&foreign), "it is damaged: \"files/other\" is not a part of a backup");
        let newer = Writer::default().finish(&Manifest { format: 2, ..manifest }).unwrap();
        assert_eq!(message(&newer), "it has format 2, but this monopod knows only up to 1; use a newer monopod");
    }
}
