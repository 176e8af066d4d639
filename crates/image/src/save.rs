//! Images out of the store again: an archive that is both docker's (`manifest.json`) and an OCI layout (`index.json`).
//!
//! Layers are kept unpacked, so they are packed anew, each time to the same bytes: whoever loads the archive and saves it
//! again has the same digests. They differ from those of the archive that the image once came in, and so does its id.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use layer::{digest_of, directory};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spec::Digest;

use crate::archive::pack::{Content, PackError, pack};
use crate::catalog::Found;
use crate::image_store::ImageStore;
use crate::layers::PinnedLayer;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Layers are written by many small writes.
const BUFFER: usize = 256 * 1024;

/// Why images cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Nothing was named.
    #[error("no image is named")]
    Nothing,
    /// The text names nothing.
    #[error(transparent)]
    InvalidReference(#[from] spec::image_ref::InvalidImageReference),
    /// No image has this name or id.
    #[error("image {reference:?} not found")]
    NotFound {
        /// As it was given.
        reference: String,
    },
    /// Its config is no JSON object any more.
    #[error("the config of image {reference:?} is damaged")]
    Config {
        /// As it was given.
        reference: String,
    },
    /// A layer cannot be read.
    #[error("cannot pack layer {diff_id}")]
    Layer {
        /// As the image's config names it.
        diff_id: Digest,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A bug of ours.
    #[error("the thread that packed it panicked")]
    Panicked,
}

/// Images that are ready to be written: all is known but the bytes of the layers, which stay on disk while this lives.
#[derive(Debug)]
pub struct SavedImages {
    /// By the digest that they have when packed.
    layers: BTreeMap<Digest, SavedLayer>,
    /// Configs, manifests, and the lists of them: member names and content.
    documents: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug)]
struct SavedLayer {
    pinned: PinnedLayer,
    size: u64,
}

/// An image to be saved.
struct Chosen {
    reference: String,
    id: Digest,
    config: String,
    layers: Vec<PinnedLayer>,
    /// Canonical names.
    names: Vec<String>,
}

impl ImageStore {
    /// Reads through the images that are named, so that their archive can be written. Each has the names by which it was
    /// named, and none if that was its id.
    pub async fn save(&self, references: &[String]) -> Result<SavedImages, SaveError> {
        if references.is_empty() {
            return Err(SaveError::Nothing);
        }
        // In the order in which they were named, whatever digests they have.
        let mut chosen: Vec<Chosen> = Vec::new();
        for reference in references {
            let Found { id, tag } = self.choose(reference)?;
            match chosen.iter_mut().find(|image| image.id == id) {
                Some(image) => image.names.extend(tag.filter(|tag| !image.names.contains(tag))),
                None => chosen.push(self.pin(reference, id, tag)?),
            }
        }
        let measure = move || SavedImages::measure(chosen);
        tokio::task::spawn_blocking(measure).await.map_err(|_panic| SaveError::Panicked)?
    }

    fn choose(&self, reference: &str) -> Result<Found, SaveError> {
        let found = self.find(reference)?;
        found.ok_or_else(|| SaveError::NotFound { reference: reference.to_owned() })
    }

    fn pin(&self, reference: &str, id: Digest, tag: Option<String>) -> Result<Chosen, SaveError> {
        // Removed meanwhile, if a part of it is gone.
        let gone = || SaveError::NotFound { reference: reference.to_owned() };
        let (config, layers) = self.config_and_layers(&id).ok_or_else(gone)?;
        let layers = layers.iter().map(|diff_id| self.layers().pin(diff_id).ok_or_else(gone));
        let (layers, names) = (layers.collect::<Result<_, _>>()?, tag.into_iter().collect());
        Ok(Chosen { reference: reference.to_owned(), id, config, layers, names })
    }
}

impl SavedImages {
    /// Packs each layer once, into nothing, to know its digest and size.
    fn measure(chosen: Vec<Chosen>) -> Result<Self, SaveError> {
        let mut saved = Self { layers: BTreeMap::new(), documents: BTreeMap::new() };
        let mut known: BTreeMap<Digest, Digest> = BTreeMap::new();
        let (mut listed, mut described) = (Vec::new(), Vec::new());
        for image in chosen {
            let mut digests = Vec::new();
            for pinned in image.layers {
                let digest = match known.get(pinned.diff_id()) {
                    Some(digest) => digest.clone(),
                    None => saved.measure_layer(&mut known, pinned)?,
                };
                digests.push(digest);
            }
            let config = config_with(&image.config, &digests)
                .ok_or_else(|| SaveError::Config { reference: image.reference.clone() })?;
            let config = saved.document(CONFIG_TYPE, config);
            listed.push(json!({
                "Config": member_of(&config), "RepoTags": (!image.names.is_empty()).then_some(&image.names),
                "Layers": digests.iter().map(blob_name).collect::<Vec<_>>(),
            }));
            let manifest = saved.manifest(&config, &digests);
            described.extend(descriptors(&manifest, &image.names));
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": described});
        saved.documents.insert("index.json".to_owned(), index.to_string().into_bytes());
        saved.documents.insert("manifest.json".to_owned(), Value::from(listed).to_string().into_bytes());
        saved.documents.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        Ok(saved)
    }

    fn measure_layer(
        &mut self,
        known: &mut BTreeMap<Digest, Digest>,
        pinned: PinnedLayer,
    ) -> Result<Digest, SaveError> {
        let mut measured = Measured::new(io::sink());
        pack_layer(&pinned, &mut measured)?;
        let (digest, size) = measured.finish();
        known.insert(pinned.diff_id().clone(), digest.clone());
        self.layers.insert(digest.clone(), SavedLayer { pinned, size });
        Ok(digest)
    }

    fn manifest(&mut self, config: &Value, layers: &[Digest]) -> Value {
        let size = |digest| self.layers.get(digest).map(|layer| layer.size);
        let layers: Vec<Value> = layers
            .iter()
            .map(|digest| json!({"mediaType": LAYER_TYPE, "digest": digest, "size": size(digest)}))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers});
        self.document(MANIFEST_TYPE, manifest.to_string().into_bytes())
    }

    /// Keeps a document under its digest; the answer is its descriptor.
    fn document(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let digest = digest_of(&content);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        self.documents.insert(blob_name(&digest), content);
        descriptor
    }

    /// Writes the archive. This blocks; it is for threads that may.
    pub fn write_to(&self, writer: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(BUFFER, writer));
        for directory in ["blobs/", "blobs/sha256/"] {
            archive.append_data(&mut member_header(tar::EntryType::Directory, 0o755, 0), directory, io::empty())?;
        }
        for (name, content) in &self.documents {
            let mut header = member_header(tar::EntryType::Regular, 0o644, content.len() as u64);
            archive.append_data(&mut header, name, content.as_slice())?;
        }
        for (digest, layer) in &self.layers {
            let mut header = member_header(tar::EntryType::Regular, 0o644, layer.size);
            header.set_path(blob_name(digest))?;
            header.set_cksum();
            let writer = archive.get_mut();
            writer.write_all(header.as_bytes())?;
            let mut measured = Measured::new(writer);
            pack_layer(&layer.pinned, &mut measured).map_err(io::Error::other)?;
            let found = measured.finish();
            if found != (digest.clone(), layer.size) {
                let why = format!("layer {} changed while it was packed", layer.pinned.diff_id());
                return Err(io::Error::other(why));
            }
            // Members of a tar archive begin at multiples of a block; a packed layer ends at one.
        }
        archive.into_inner()?.flush()
    }
}

fn pack_layer(pinned: &PinnedLayer, writer: impl Write) -> Result<(), SaveError> {
    let failed = |source| SaveError::Layer { diff_id: pinned.diff_id().clone(), source };
    let root: OwnedFd =
        directory::open(&pinned.directory()).map_err(|error| failed(Box::new(io::Error::from(error))))?;
    match pack(&root, Content::Layer, writer) {
        Ok(_skipped) => Ok(()),
        Err(error @ (PackError::File { .. } | PackError::Depth)) => Err(failed(Box::new(error))),
    }
}

/// The config with other layers; if they are the same, byte by byte as it was.
fn config_with(json: &str, layers: &[Digest]) -> Option<Vec<u8>> {
    let mut config: Value = serde_json::from_str(json).ok()?;
    let diff_ids = config.pointer_mut("/rootfs/diff_ids")?;
    let layers = json!(layers);
    if *diff_ids == layers {
        return Some(json.as_bytes().to_vec());
    }
    *diff_ids = layers;
    Some(config.to_string().into_bytes())
}

/// One for each name, since a layout names an image by its descriptor.
fn descriptors(manifest: &Value, names: &[String]) -> Vec<Value> {
    if names.is_empty() {
        return vec![manifest.clone()];
    }
    let with_name = names.iter().map(|name| {
        let mut descriptor = manifest.clone();
        let annotations = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
        descriptor.as_object_mut().map(|fields| fields.insert("annotations".to_owned(), annotations));
        descriptor
    });
    with_name.collect()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn member_of(descriptor: &Value) -> Option<String> {
    Some(descriptor.get("digest")?.as_str()?.replacen("sha256:", "blobs/sha256/", 1))
}

/// Without a time, so that equal images are equal archives.
fn member_header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// A writer that hashes and counts what passes through it.
struct Measured<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Measured<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    fn finish(self) -> (Digest, u64) {
        (Digest::sha256(self.hasher.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        if let Some(bytes) = bytes.get(..written) {
            self.hasher.update(bytes);
        }
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
