//! All images in memory: what the records say, ready to be asked.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::ImageConfiguration;
use spec::image_ref::{ImageReference, InvalidImageReference};
use spec::ordered::set_of;
use spec::{Digest, Timestamp};

use crate::records::{ImageRecord, LayerRecord};

/// An image on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of its config.
    pub id: Digest,
    /// Canonical names with tags, sorted.
    pub references: Vec<String>,
    /// `name@digest` of its manifests, where the archive or registry told them.
    pub repo_digests: Vec<String>,
    /// Bytes of its layers, unpacked.
    pub size: u64,
    /// What its maker says about running it.
    pub config: ImageConfiguration,
    /// Diff ids, lowest first.
    pub layers: Vec<Digest>,
    /// Whether it came from a registry, and could come again.
    pub pulled: bool,
    /// When it was made, if its maker says so.
    pub created: Option<Timestamp>,
}

/// A name or id, looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: Digest,
    /// The canonical name, if it was found by a tag.
    pub(crate) tag: Option<String>,
}

/// Shortest part of an id that stands for the whole.
const SHORT_ID: usize = 12;

#[derive(Debug, Default)]
pub(crate) struct Catalog {
    images: BTreeMap<Digest, Entry>,
    references: BTreeMap<String, Digest>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: ImageRecord,
    config: ImageConfiguration,
    references: BTreeSet<String>,
    holders: BTreeSet<String>,
}

impl Entry {
    pub(crate) fn new(record: ImageRecord, config: ImageConfiguration) -> Self {
        Self { record, config, references: BTreeSet::new(), holders: BTreeSet::new() }
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = &String> {
        self.references.iter()
    }

    pub(crate) fn layers(&self) -> impl DoubleEndedIterator<Item = &Digest> {
        self.record.layers.iter().map(|layer| &layer.diff_id)
    }
}

impl Catalog {
    pub(crate) fn get(&self, id: &Digest) -> Option<Image> {
        let entry = self.images.get(id)?;
        Some(Image {
            id: id.clone(),
            references: entry.references.iter().cloned().collect(),
            repo_digests: entry.record.repo_digests.clone(),
            size: entry.record.layers.iter().map(|LayerRecord { size, .. }| size).sum(),
            config: entry.config.clone(),
            layers: entry.layers().cloned().collect(),
            pulled: entry.record.pulled,
            created: entry.config.created().as_ref().and_then(|created| created.parse().ok()),
        })
    }

    pub(crate) fn entry(&self, id: &Digest) -> Option<&Entry> {
        self.images.get(id)
    }

    pub(crate) fn ids(&self) -> Vec<Digest> {
        self.images.keys().cloned().collect()
    }

    /// Finds an image by id, by a unique beginning of its id, by `name@digest`, by name and tag.
    pub(crate) fn find(&self, text: &str) -> Result<Option<Found>, InvalidImageReference> {
        let whole_id = if text.len() == 64 { format!("sha256:{text}").parse() } else { text.parse() };
        if let Ok(digest) = whole_id {
            return Ok(self.find_digest(&digest).map(|id| Found { id, tag: None }));
        }
        let parsed: Result<ImageReference, _> = text.parse();
        if let Ok(reference) = &parsed
            && let Some(found) = self.find_reference(reference)
        {
            return Ok(Some(found));
        }
        match self.find_short_id(text) {
            Some(id) => Ok(Some(Found { id, tag: None })),
            None => parsed.map(|_reference| None),
        }
    }

    fn find_digest(&self, digest: &Digest) -> Option<Digest> {
        if self.images.contains_key(digest) {
            return Some(digest.clone());
        }
        let suffix = format!("@{digest}");
        let has_it = |entry: &Entry| entry.record.repo_digests.iter().any(|pinned| pinned.ends_with(&suffix));
        self.images.iter().find(|(_, entry)| has_it(entry)).map(|(id, _)| id.clone())
    }

    fn find_reference(&self, reference: &ImageReference) -> Option<Found> {
        // A digest pins; the tag beside it is a comment.
        if let Some(digest) = reference.digest() {
            let pinned = format!("{}@{digest}", reference.name());
            let (id, _) = self.images.iter().find(|(_, entry)| entry.record.repo_digests.contains(&pinned))?;
            return Some(Found { id: id.clone(), tag: None });
        }
        let tag = reference.canonical();
        let id = self.references.get(&tag)?.clone();
        Some(Found { id, tag: Some(tag) })
    }

    fn find_short_id(&self, text: &str) -> Option<Digest> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() < SHORT_ID || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut matching = self.images.keys().filter(|id| id.hex().starts_with(hex));
        matching.next().filter(|_| matching.next().is_none()).cloned()
    }

    pub(crate) fn insert(&mut self, id: Digest, entry: Entry) {
        for reference in &entry.references {
            self.references.insert(reference.clone(), id.clone());
        }
        self.images.insert(id, entry);
    }

    /// Replaces the record of an image that is there.
    pub(crate) fn update(&mut self, id: &Digest, record: ImageRecord) {
        if let Some(entry) = self.images.get_mut(id) {
            entry.record = record;
        }
    }

    /// Gives an image a name, which another image loses if it had it.
    pub(crate) fn tag(&mut self, reference: &str, id: &Digest) {
        self.untag(reference);
        if let Some(entry) = self.images.get_mut(id) {
            entry.references.insert(reference.to_owned());
            self.references.insert(reference.to_owned(), id.clone());
        }
    }

    pub(crate) fn untag(&mut self, reference: &str) {
        if let Some(id) = self.references.remove(reference)
            && let Some(entry) = self.images.get_mut(&id)
        {
            entry.references.remove(reference);
        }
    }

    /// Takes an image out, unless it is held: then the holders are the answer.
    pub(crate) fn take_unheld(&mut self, id: &Digest) -> Result<Option<Entry>, Vec<String>> {
        match self.images.get(id) {
            Some(entry) if !entry.holders.is_empty() => Err(entry.holders.iter().cloned().collect()),
            _ => {
                self.references.retain(|_, image| image != id);
                Ok(self.images.remove(id))
            }
        }
    }

    /// Whether anybody needs it.
    pub(crate) fn is_held(&self, id: &Digest) -> bool {
        self.images.get(id).is_some_and(|entry| !entry.holders.is_empty())
    }

    /// False if it was held by that holder already; `None` if there is no such image.
    pub(crate) fn hold(&mut self, id: &Digest, holder: &str) -> Option<bool> {
        Some(self.images.get_mut(id)?.holders.insert(holder.to_owned()))
    }

    pub(crate) fn unhold(&mut self, id: &Digest, holder: &str) {
        if let Some(entry) = self.images.get_mut(id) {
            entry.holders.remove(holder);
        }
    }

    /// Holds whose holder is chosen.
    pub(crate) fn holds(&self, choose: impl Fn(&str) -> bool) -> BTreeSet<(Digest, String)> {
        let all = self.images.iter().flat_map(|(id, entry)| entry.holders.iter().map(move |holder| (id, holder)));
        set_of(all.filter(|(_, holder)| choose(holder)).map(|(id, holder)| (id.clone(), holder.clone())))
    }
}
