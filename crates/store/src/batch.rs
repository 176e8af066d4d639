//! One batch of writes: what the objects look like after those before, and what is to be committed.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;

use crate::ballast::Room;
use crate::error::StoreError;
use crate::events::EVENTS;
use crate::memory::Memory;
use crate::object::{MAX_VALUE_BYTES, ObjectKey, StoredObject, WatchEvent, WatchKind};
use crate::value::ObjectValue;

/// So much of a buffer is kept between batches.
const BUFFER_BYTES: usize = 64 << 10;

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
    pub(crate) objects: HashMap<Arc<ObjectKey>, Option<StoredObject>>,
    /// Those of them that stay in memory.
    pub(crate) unwritten: HashSet<Arc<ObjectKey>>,
    /// Each change, in the order of revisions.
    pub(crate) events: Vec<WatchEvent>,
    pub(crate) records: Vec<(&'static str, String, Option<Vec<u8>>)>,
    /// The newest revision given out.
    pub(crate) revision: u64,
    /// Encoded values that are to be written.
    pub(crate) bytes: usize,
    /// What may be written.
    pub(crate) room: Room,
    encoder: &'a mut Encoder,
}

impl<'a> Batch<'a> {
    /// Starts after `revision`.
    pub(crate) fn new(
        memory: &'a Memory,
        directory: &'a Path,
        revision: u64,
        room: Room,
        encoder: &'a mut Encoder,
    ) -> Self {
        let (objects, events, records) = (HashMap::new(), Vec::new(), Vec::new());
        let unwritten = HashSet::new();
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
        key: &Arc<ObjectKey>,
        value: Value,
        present: Option<StoredObject>,
    ) -> Result<StoredObject, StoreError> {
        let kind = if present.is_some() { WatchKind::Modified } else { WatchKind::Added };
        let encoded = self.encoder.encode(key, value, self.revision + 1, kind)?;
        if let Some(present) = present.as_ref().filter(|present| encoded.says_the_same_as(present)) {
            return Ok(present.clone());
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
        if encoded.json().len() > MAX_VALUE_BYTES {
            let (what, bytes) = (key.to_string(), encoded.json().len());
            return Err(StoreError::TooLarge { what, bytes, limit: MAX_VALUE_BYTES });
        }
        let (object, line) = encoded.finish();
        self.apply(WatchEvent { kind, object: object.clone(), previous: present, line });
        Ok(object)
    }

    /// Says where the next change of the object goes. What another write of this batch takes to the disk goes there.
    pub(crate) fn place(&mut self, key: &Arc<ObjectKey>, place: Place) {
        match place {
            Place::Disk => drop(self.unwritten.remove(key)),
            Place::Memory if self.objects.contains_key(key) => {}
            Place::Memory => drop(self.unwritten.insert(Arc::clone(key))),
        }
    }

    /// Removes an object; gives it back with the revision of its removal.
    pub(crate) fn delete(&mut self, present: StoredObject) -> Result<StoredObject, StoreError> {
        let value = Value::clone(&present.value);
        let kind = WatchKind::Deleted;
        let (object, line) = self.encoder.encode(&present.key, value, self.revision + 1, kind)?.finish();
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

    fn apply(&mut self, mut event: WatchEvent) {
        event.previous = event.previous.map(StoredObject::unread);
        self.revision = event.object.revision;
        let after = (event.kind != WatchKind::Deleted).then(|| event.object.clone());
        self.bytes += after.as_ref().map_or(0, |object| object.json.len());
        self.objects.insert(Arc::clone(&event.object.key), after);
        self.events.push(event);
    }
}

/// Makes objects as they are stored.
#[derive(Default)]
pub(crate) struct Encoder {
    /// A buffer that serves for many.
    line: Vec<u8>,
}

impl Encoder {
    /// Lets a buffer go that is larger than most objects need.
    pub(crate) fn end_batch(&mut self) {
        if self.line.capacity() > BUFFER_BYTES {
            self.line = Vec::new();
        }
    }

    /// Writes an object as it is stored.
    pub(crate) fn encode<'a>(
        &'a mut self,
        key: &'a Arc<ObjectKey>,
        mut value: Value,
        revision: u64,
        kind: WatchKind,
    ) -> Result<Encoded<'a>, StoreError> {
        set_revision(key, &mut value, revision)?;
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(b"{\"type\":\"");
        line.extend_from_slice(kind.name().as_bytes());
        line.extend_from_slice(b"\",\"object\":");
        let begin = line.len();
        serde_json::to_writer(&mut *line, &value).map_err(|_impossible| StoreError::InvalidObject {
            key: ObjectKey::clone(key),
            why: "it cannot be written as JSON",
        })?;
        let end = line.len();
        line.extend_from_slice(b"}\n");
        Ok(Encoded { key, value, revision, line, json: begin..end })
    }
}

/// An object that was written, before it is kept.
pub(crate) struct Encoded<'a> {
    key: &'a Arc<ObjectKey>,
    value: Value,
    revision: u64,
    /// The line that tells watchers of it, of which its JSON is a part.
    line: &'a [u8],
    json: Range<usize>,
}

impl Encoded<'_> {
    fn json(&self) -> &[u8] {
        self.line.get(self.json.clone()).unwrap_or_default()
    }

    /// Whether nothing but the revision is another one. The same tree is always written in the same way, so no tree has to be
    /// looked at for that.
    fn says_the_same_as(&self, present: &StoredObject) -> bool {
        let (ours, theirs) = (self.json(), &present.json);
        around_revision(ours, self.revision) == around_revision(theirs, present.revision)
    }

    /// The object, and the line that tells watchers of it.
    pub(crate) fn finish(self) -> (StoredObject, Bytes) {
        // It is kept as long as the object, so it gets no more than it needs.
        let line = Bytes::copy_from_slice(self.line);
        let json = line.slice(self.json);
        // There are more events than anything else, and they are written to be read by people: as JSON.
        let value = match self.key.resource.as_str() {
            EVENTS => ObjectValue::of_json(json.clone()),
            _ => ObjectValue::of_both(json.clone(), self.value),
        };
        (StoredObject { key: Arc::clone(self.key), revision: self.revision, value, json }, line)
    }
}

/// What stands before and after the revision of an object. Quotes within texts are escaped, so what is found is a field; should
/// it be another one of this name and value, objects differ that do not.
fn around_revision(json: &[u8], revision: u64) -> Option<(&[u8], &[u8])> {
    let field = format!("\"resourceVersion\":\"{revision}\"");
    let begin = memmem::find(json, field.as_bytes())?;
    let (before, rest) = json.split_at_checked(begin)?;
    Some((before, rest.get(field.len()..)?))
}

fn set_revision(key: &ObjectKey, value: &mut Value, revision: u64) -> Result<(), StoreError> {
    let invalid = |why| StoreError::InvalidObject { key: key.clone(), why };
    let object = value.as_object_mut().ok_or_else(|| invalid("the value is no JSON object"))?;
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    let metadata = metadata.as_object_mut().ok_or_else(|| invalid("metadata is no JSON object"))?;
    metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    Ok(())
}
