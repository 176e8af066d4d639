//! Image archives: files and directories that hold whole images.

mod docker_archive;
pub(crate) mod oci_layout;
pub(crate) mod pack;
pub(crate) mod platform;
mod rootfs;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use oci_spec::image::ImageConfiguration;
use spec::Digest;
use spec::image_ref::ImageReference;

pub use rootfs::ImportConfig;
pub(crate) use rootfs::import;
use source::BlobSource;

use crate::error::LoadCause;
use crate::layers::{Layers, PinnedLayer};
use crate::limits;
use layer::LayerBlob;
use layer::digest_of;

/// An image as an archive describes it: everything but its layers, which are still in the archive.
pub(crate) struct ArchivedImage {
    pub(crate) config: ParsedConfig,
    /// One for each diff id of the config, lowest first.
    blobs: Vec<LayerMember>,
    /// Names that the archive gives it.
    pub(crate) names: Vec<ImageReference>,
    /// Digests of its manifest, and of the index that lists it.
    pub(crate) manifests: Vec<Digest>,
}

/// An image config, verified and parsed.
pub(crate) struct ParsedConfig {
    pub(crate) id: Digest,
    /// As it was hashed.
    pub(crate) json: String,
    pub(crate) parsed: ImageConfiguration,
    pub(crate) diff_ids: Vec<Digest>,
}

/// Where a layer lies in an archive, and what its manifest says of it.
struct LayerMember {
    name: String,
    digest: Option<Digest>,
    size: Option<u64>,
}

/// An image whose layers are unpacked, and stay so while this lives.
pub(crate) struct UnpackedImage {
    pub(crate) config: ParsedConfig,
    pub(crate) layers: Vec<PinnedLayer>,
    pub(crate) names: Vec<ImageReference>,
    pub(crate) manifests: Vec<Digest>,
    /// Whether it came from a registry.
    pub(crate) pulled: bool,
}

/// Reads all images of the archive at `path` and unpacks their layers. With `name`, it must be one image, which gets it.
pub(crate) fn load(
    path: &Path,
    name: Option<&ImageReference>,
    layers: &Arc<Layers>,
) -> Result<Vec<UnpackedImage>, LoadCause> {
    let source = BlobSource::open(path, layers.staging().1)?;
    // `docker save` writes both, and its index may list platforms whose blobs it leaves out; manifest.json is complete.
    let mut images = if source.has("manifest.json") {
        docker_archive::images(&source)?
    } else if source.has("index.json") {
        oci_layout::images(&source)?
    } else {
        return Err(LoadCause::NotAnImage);
    };
    if let Some(name) = name {
        match images.as_mut_slice() {
            [image] => image.names = vec![name.clone()],
            images => return Err(LoadCause::SeveralImages { name: name.canonical(), count: images.len() }),
        }
    }
    images.into_iter().map(|image| unpack(&source, image, layers)).collect()
}

impl ParsedConfig {
    /// Parses what `name` holds; `expected` is what the manifest calls it.
    pub(crate) fn parse(name: &str, json: Vec<u8>, expected: Option<&Digest>) -> Result<Self, LoadCause> {
        let id = digest_of(&json);
        if let Some(expected) = expected.filter(|expected| **expected != id) {
            return Err(LoadCause::Digest { name: name.to_owned(), expected: expected.clone(), found: id });
        }
        let bad = |source| LoadCause::Json { name: name.to_owned(), what: "config", source };
        let parsed: ImageConfiguration = serde_json::from_slice(&json).map_err(bad)?;
        let json = String::from_utf8(json).map_err(|error| bad(serde::de::Error::custom(error)))?;
        let diff_ids = parsed.rootfs().diff_ids();
        if diff_ids.len() > limits::LAYERS {
            let (found, limit) = (diff_ids.len(), limits::LAYERS);
            return Err(LoadCause::TooMany { what: "layers in an image", found, limit });
        }
        let diff_ids = diff_ids.iter().map(|diff_id| diff_id.parse()).collect::<Result<_, _>>();
        let diff_ids = diff_ids.map_err(|source| LoadCause::BadDigest { name: name.to_owned(), source })?;
        Ok(Self { id, json, parsed, diff_ids })
    }
}

impl ArchivedImage {
    fn new(config: ParsedConfig, blobs: Vec<LayerMember>) -> Result<Self, LoadCause> {
        if config.diff_ids.len() != blobs.len() {
            let (config, manifest) = (config.diff_ids.len(), blobs.len());
            return Err(LoadCause::LayerCount { config, manifest });
        }
        Ok(Self { config, blobs, names: Vec::new(), manifests: Vec::new() })
    }
}

/// Unpacks the layers of one image, as many at a time as there are cores; the first error ends it.
fn unpack(source: &BlobSource, image: ArchivedImage, layers: &Arc<Layers>) -> Result<UnpackedImage, LoadCause> {
    let ArchivedImage { config, blobs, names, manifests } = image;
    let wanted: Vec<(&Digest, &LayerMember)> = config.diff_ids.iter().zip(&blobs).collect();
    let next = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let work = || {
        while !is_over.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some((diff_id, member)) = wanted.get(place) else { return };
            let unpacked = unpack_layer(source, diff_id, member, layers);
            let unpacked = unpacked.map_err(|cause| cause.in_layer(place + 1, wanted.len(), &member.name));
            if unpacked.is_err() {
                is_over.store(true, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push((place, unpacked));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len());
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    spec::ordered::sort_by_key(&mut results, |(place, _)| *place);
    let layers = results.into_iter().map(|(_, unpacked)| unpacked).collect::<Result<Vec<_>, _>>()?;
    if layers.len() != config.diff_ids.len() {
        return Err(LoadCause::Panicked);
    }
    Ok(UnpackedImage { config, layers, names, manifests, pulled: false })
}

fn unpack_layer(
    source: &BlobSource,
    diff_id: &Digest,
    member: &LayerMember,
    layers: &Arc<Layers>,
) -> Result<PinnedLayer, LoadCause> {
    let blob = source.open_member(&member.name)?;
    let (digest, size) = (member.digest.clone(), member.size);
    let blob = LayerBlob { reader: Box::new(blob.reader), digest, size, diff_id: Some(diff_id.clone()) };
    layers.ingest(blob).map_err(|cause| LoadCause::Layer { diff_id: diff_id.clone(), cause })
}
