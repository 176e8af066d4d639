//! Builds layers and image archives, good and bad ones.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use spec::Digest;
use store::Store;
use tar::EntryType;

use crate::layers::{Layers, PinnedLayer};
use crate::{Image, ImageStore};
use layer::digest_of;
use layer::limits::LayerLimits;
use layer::{LayerBlob, LayerError};

/// False, and a word about it, without the rights that unpacking needs.
pub(super) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root");
    }
    is_root
}

/// A tar archive that may say anything.
pub(super) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(super) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(super) fn entry(self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        self.entry_with(kind, name, link, data, |_| {})
    }

    /// The `tar` crate refuses `..` and absolute names, so names are written into the header by hand.
    pub(super) fn entry_with(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        if name.len() <= 100 {
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            change(&mut header);
            header.set_cksum();
            self.0.append(&header, data).unwrap();
        } else {
            change(&mut header);
            self.0.append_data(&mut header, name, data).unwrap();
        }
        self
    }

    pub(super) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", data)
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, b"")
    }

    /// Records for the entry that follows.
    pub(super) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A directory of layers, and what it needs.
pub(super) struct LayerStore {
    pub(super) directory: tempfile::TempDir,
    pub(super) layers: Arc<Layers>,
}

impl LayerStore {
    pub(super) fn new() -> Self {
        Self::with_limits(LayerLimits::default())
    }

    pub(super) fn with_limits(limits: LayerLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (layers, _) = Layers::open(directory.path(), limits, &[]).unwrap();
        Self { directory, layers }
    }

    /// Unpacks an archive as a layer whose digests are right.
    pub(super) fn unpack(&self, archive: Vec<u8>) -> Result<(PinnedLayer, PathBuf), LayerError> {
        let digest = digest_of(&archive);
        let (size, diff_id) = (Some(archive.len() as u64), Some(digest.clone()));
        let reader = Box::new(std::io::Cursor::new(archive));
        let layer = self.layers.ingest(LayerBlob { reader, digest: Some(digest), size, diff_id })?;
        let path = self.layers.directory(layer.diff_id());
        Ok((layer, path))
    }

    /// What is in a directory below the store's.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        names(&self.directory.path().join(directory))
    }
}

pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An image store in a directory of its own.
pub(super) struct Node {
    pub(super) directory: tempfile::TempDir,
    pub(super) images: ImageStore,
}

impl Node {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = open_images(directory.path());
        Self { directory, images }
    }

    /// As after kill -9: memory is lost, what is on disk stays.
    pub(super) fn restart(self) -> Self {
        let Self { directory, images } = self;
        drop(images);
        let images = open_images(directory.path());
        Self { directory, images }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, data).unwrap();
        path
    }

    pub(super) async fn load(&self, archive: &[u8]) -> Result<Vec<Image>, String> {
        let path = self.write("archive", archive);
        let loaded = self.images.load_archive(&path, None).await;
        loaded.map_err(|error| whole_message(&error).replace(&path.display().to_string(), "ARCHIVE"))
    }
}

fn open_images(directory: &Path) -> ImageStore {
    let store = Store::open(&directory.join("store")).unwrap();
    ImageStore::open(&directory.join("images"), store).unwrap()
}

/// An error and its causes, as a user reads them.
pub(super) fn whole_message(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}

pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

pub(super) fn architecture() -> String {
    oci_spec::image::Arch::default().to_string()
}

/// The config of an image with these layers.
pub(super) fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| digest_of(layer)).collect();
    // As docker writes it: null for what is not there.
    let config = json!({
        "architecture": architecture(), "os": "linux", "created": "2026-01-02T03:04:05.678901234Z",
        "config": {
            "Hostname": "", "User": "", "ExposedPorts": null, "Env": ["PATH=/bin"], "Cmd": ["sh"],
            "Entrypoint": null, "Volumes": null, "WorkingDir": "/", "Labels": null, "OnBuild": null,
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created": "2026-01-02T03:04:05Z", "created_by": "/bin/sh -c #(nop) ADD file" }],
    });
    serde_json::to_vec(&config).unwrap()
}

/// `docker save` of a version before 25.
pub(super) fn docker_archive(tags: Option<&[&str]>, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(layers);
    let config_name = format!("{}.json", digest_of(&config).hex());
    let names: Vec<String> = (0..layers.len()).map(|place| format!("{place:064}/layer.tar")).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": tags, "Layers": names }]);
    let mut archive = Tar::new();
    for (name, layer) in names.iter().zip(layers) {
        archive = archive.file(name, layer);
    }
    archive.file(&config_name, &config).file("manifest.json", &serde_json::to_vec(&manifest).unwrap()).bytes()
}

/// Blobs by digest, to be put into a layout or an archive.
#[derive(Default, Clone)]
pub(super) struct Layout {
    pub(super) members: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    pub(super) fn blob(&mut self, media_type: &str, data: Vec<u8>) -> Value {
        let digest = digest_of(&data);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": data.len() });
        self.members.insert(format!("blobs/sha256/{}", digest.hex()), data);
        descriptor
    }

    /// An image whose layers are stored as `compress` makes them.
    pub(super) fn image(&mut self, layers: &[Vec<u8>], compress: impl Fn(&[u8]) -> Vec<u8>) -> Value {
        let config = self.blob("application/vnd.oci.image.config.v1+json", config(layers));
        let blobs: Vec<Value> =
            layers.iter().map(|layer| self.blob("application/vnd.oci.image.layer.v1.tar", compress(layer))).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": blobs,
        });
        self.blob("application/vnd.oci.image.manifest.v1+json", serde_json::to_vec(&manifest).unwrap())
    }

    pub(super) fn index_blob(&mut self, manifests: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.blob("application/vnd.oci.image.index.v1+json", serde_json::to_vec(&index).unwrap())
    }

    pub(super) fn finish(mut self, manifests: &[Value]) -> Self {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.members.insert("index.json".to_owned(), serde_json::to_vec(&index).unwrap());
        self.members.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        self
    }

    pub(super) fn archive(&self) -> Vec<u8> {
        self.members.iter().fold(Tar::new(), |archive, (name, data)| archive.file(name, data)).bytes()
    }

    /// Changes the blob that holds `data`, but not its name.
    pub(super) fn damage(&mut self, data: &[u8], damage: impl FnOnce(&mut Vec<u8>)) {
        let name = format!("blobs/sha256/{}", digest_of(data).hex());
        damage(self.members.get_mut(&name).unwrap());
    }
}

/// A descriptor with one more field.
pub(super) fn with(mut descriptor: Value, field: &str, value: Value) -> Value {
    descriptor[field] = value;
    descriptor
}
