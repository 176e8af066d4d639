//! One batch of writes: what the objects look like after those before, and what is to be committed.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use crate::ballast::Room;
use crate::error::StoreError;
use crate::events::EVENTS;
use crate::memory::Memory;
use crate::object::{MAX_VALUE_BYTES, ObjectKey, StoredObject, WatchEvent, WatchKind};
use crate::value::{ObjectValue, Trees};

/// Where a change goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// To the disk, as all but few do.
    Disk,
    /// Nowhere but into memory.
    Memory,
}

/// Changes on top of the visible state; nobody sees them before they are durable.
pub(crate) struct Batch<'a> {
    memory: &'a Memory,
    directory: &'a Path,
    /// Each changed object as it is after the batch.
    pub(crate) objects: HashMap<ObjectKey, Option<StoredObject>>,
    /// Those of them that stay in memory.
    pub(crate) unwritten: HashSet<ObjectKey>,
    /// Each change, in the order of revisions.
    pub(crate) events: Vec<WatchEvent>,
    pub(crate) records: Vec<(&'static str, String, Option<Vec<u8>>)>,
    /// The newest revision given out.
    pub(crate) revision: u64,
    /// Encoded values that are to be written.
    pub(crate) bytes: usize,
    /// What may be written.
    pub(crate) room: Room,
    encoder: Encoder,
}

impl<'a> Batch<'a> {
    /// Starts after `revision`.
    pub(crate) fn new(memory: &'a Memory, directory: &'a Path, revision: u64, room: Room) -> Self {
        let (objects, events, records) = (HashMap::new(), Vec::new(), Vec::new());
        let unwritten = HashSet::new();
        let encoder = Encoder::default();
        Self { memory, directory, objects, unwritten, events, records, revision, bytes: 0, room, encoder }
    }

    /// The object after the writes of this batch so far.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<StoredObject> {
        match self.objects.get(key) {
            Some(changed) => changed.clone(),
            None => self.memory.get(key),
        }
    }

    /// Creates or replaces an object; gives back what is there afterwards.
    pub(crate) fn put(
        &mut self,
        key: &ObjectKey,
        mut value: Value,
        present: Option<StoredObject>,
    ) -> Result<StoredObject, StoreError> {
        if let Some(present) = &present {
            set_revision(key, &mut value, present.revision)?;
            if value == *present.value {
                return Ok(present.clone());
            }
        }
        let allowed = match self.room {
            Room::Ample => true,
            Room::Scarce => present.is_some(),
            Room::Last => false,
        };
        // Events are no reason to refuse anything: their file has no part in the reserve.
        if !allowed && key.resource != EVENTS {
            return Err(StoreError::DiskFull { directory: self.directory.to_owned() });
        }
        let kind = if present.is_some() { WatchKind::Modified } else { WatchKind::Added };
        let (object, line) = self.encoder.encode(key, value, self.revision + 1, kind)?;
        if object.json.len() > MAX_VALUE_BYTES {
            let (what, bytes) = (key.to_string(), object.json.len());
            return Err(StoreError::TooLarge { what, bytes, limit: MAX_VALUE_BYTES });
        }
        self.apply(WatchEvent { kind, object: object.clone(), previous: present, line });
        Ok(object)
    }

    /// Says where the next change of the object goes. What another write of this batch takes to the disk goes there.
    pub(crate) fn place(&mut self, key: &ObjectKey, place: Place) {
        match place {
            Place::Disk => drop(self.unwritten.remove(key)),
            Place::Memory if self.objects.contains_key(key) => {}
            Place::Memory => drop(self.unwritten.insert(key.clone())),
        }
    }

    /// Removes an object; gives it back with the revision of its removal.
    pub(crate) fn delete(&mut self, present: StoredObject) -> Result<StoredObject, StoreError> {
        let value = Value::clone(&present.value);
        let kind = WatchKind::Deleted;
        let (object, line) = self.encoder.encode(&present.key, value, self.revision + 1, kind)?;
        self.apply(WatchEvent { kind, object: object.clone(), previous: Some(present), line });
        Ok(object)
    }

    /// Writes a record.
    pub(crate) fn put_record(&mut self, table: &'static str, key: String, value: Vec<u8>) -> Result<(), StoreError> {
        if self.room == Room::Last {
            return Err(StoreError::DiskFull { directory: self.directory.to_owned() });
        }
        self.bytes += value.len();
        self.records.push((table, key, Some(value)));
        Ok(())
    }

    /// Removes a record, if there is one.
    pub(crate) fn delete_record(&mut self, table: &'static str, key: String) {
        self.records.push((table, key, None));
    }

    /// Trees that the new ones have taken the place of.
    pub(crate) fn take_old_trees(&mut self) -> Trees {
        std::mem::take(&mut self.encoder.old_trees)
    }

    fn apply(&mut self, mut event: WatchEvent) {
        event.previous = event.previous.map(StoredObject::unread);
        self.revision = event.object.revision;
        let after = (event.kind != WatchKind::Deleted).then(|| event.object.clone());
        self.bytes += after.as_ref().map_or(0, |object| object.json.len());
        self.objects.insert(event.object.key.clone(), after);
        self.events.push(event);
    }
}

/// Makes objects as they are stored.
#[derive(Default)]
pub(crate) struct Encoder {
    /// A buffer that serves for many.
    line: Vec<u8>,
    old_trees: Trees,
}

impl Encoder {
    /// An object as it is stored, and the line that tells watchers of it; its JSON is a part of the line.
    pub(crate) fn encode(
        &mut self,
        key: &ObjectKey,
        mut value: Value,
        revision: u64,
        kind: WatchKind,
    ) -> Result<(StoredObject, Bytes), StoreError> {
        set_revision(key, &mut value, revision)?;
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(b"{\"type\":\"");
        line.extend_from_slice(kind.name().as_bytes());
        line.extend_from_slice(b"\",\"object\":");
        let begin = line.len();
        serde_json::to_writer(&mut *line, &value).map_err(|_impossible| StoreError::InvalidObject {
            key: key.clone(),
            why: "it cannot be written as JSON",
        })?;
        let end = line.len();
        line.extend_from_slice(b"}\n");
        // It is kept as long as the object, so it gets no more than it needs.
        let line = Bytes::copy_from_slice(line);
        let json = line.slice(begin..end);
        // There are more events than anything else, and they are written to be read by people: as JSON.
        let value = match key.resource.as_str() {
            EVENTS => ObjectValue::of_json(json.clone()),
            _ => ObjectValue::of_both(json.clone(), value, &mut self.old_trees),
        };
        Ok((StoredObject { key: key.clone(), revision, value, json }, line))
    }
}

fn set_revision(key: &ObjectKey, value: &mut Value, revision: u64) -> Result<(), StoreError> {
    let invalid = |why| StoreError::InvalidObject { key: key.clone(), why };
    let object = value.as_object_mut().ok_or_else(|| invalid("the value is no JSON object"))?;
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    let metadata = metadata.as_object_mut().ok_or_else(|| invalid("metadata is no JSON object"))?;
    metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    Ok(())
}
