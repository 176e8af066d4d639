//! OCI image layouts: `index.json` lists manifests, blobs lie under their digests.
//!
//! Source: OCI image-spec, image-layout.md, image-index.md, manifest.md, annotations.md.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use spec::Digest;
use spec::image_ref::ImageReference;

use super::source::BlobSource;
use super::{ArchivedImage, LayerMember, ParsedConfig, platform};
use crate::error::LoadCause;
use crate::limits;
use layer::digest_of;

const INDEX: &str = "index.json";
/// The whole reference, written by containerd and docker.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// A tag or, of skopeo and podman, a whole reference.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Marks what docker puts beside an image, such as provenance.
const DOCKER_ATTACHMENT: &str = "vnd.docker.reference.type";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub(super) fn images(source: &BlobSource) -> Result<Vec<ArchivedImage>, LoadCause> {
    let index = parse_index(INDEX, &source.read_metadata(INDEX)?)?;
    let mut seen = 0;
    let (mut images, mut others) = (Vec::new(), Vec::new());
    for descriptor in index.manifests() {
        if is_attachment(descriptor) || !may_run_here(descriptor, &mut others) {
            continue;
        }
        let mut path = Vec::new();
        if let Some(mut image) = image(source, descriptor, &mut path, &mut seen, &mut others)? {
            image.names = names(descriptor)?;
            image.manifests = path;
            images.push(image);
        }
    }
    if !images.is_empty() {
        return Ok(merge(images));
    }
    if others.is_empty() {
        return Err(LoadCause::Empty { name: INDEX.to_owned() });
    }
    Err(LoadCause::Platform { wanted: platform::this_machine(), found: others.join(", ") })
}

/// The image that a descriptor leads to; of an index, the one for this machine.
fn image(
    source: &BlobSource,
    descriptor: &Descriptor,
    path: &mut Vec<Digest>,
    seen: &mut usize,
    others: &mut Vec<String>,
) -> Result<Option<ArchivedImage>, LoadCause> {
    *seen += 1;
    if *seen > limits::MANIFESTS {
        return Err(LoadCause::TooMany { what: "manifests in an archive", found: *seen, limit: limits::MANIFESTS });
    }
    if path.len() >= limits::INDEX_DEPTH {
        return Err(LoadCause::TooMany {
            what: "indexes inside each other",
            found: path.len(),
            limit: limits::INDEX_DEPTH,
        });
    }
    let (name, digest) = blob_name(descriptor)?;
    let json = read_verified(source, &name, &digest, descriptor.size())?;
    path.push(digest);
    if !is_index(descriptor, &json) {
        return manifest(source, &name, &json).map(Some);
    }
    let index = parse_index(&name, &json)?;
    match choose(&index, others) {
        Some(best) => image(source, best, path, seen, others),
        None => Ok(None),
    }
}

/// The manifest, or index, of an index that suits this machine best. Names of other platforms go to `others`.
pub(crate) fn choose<'a>(index: &'a ImageIndex, others: &mut Vec<String>) -> Option<&'a Descriptor> {
    let mut candidates: Vec<(u32, &Descriptor)> = Vec::new();
    for descriptor in index.manifests() {
        if is_attachment(descriptor) || !may_run_here(descriptor, others) {
            continue;
        }
        // One without a platform may be for any: it comes last.
        candidates.push((platform::rank(descriptor).unwrap_or(u32::MAX), descriptor));
    }
    candidates.into_iter().min_by_key(|(rank, _)| *rank).map(|(_, best)| best)
}

fn manifest(source: &BlobSource, name: &str, json: &[u8]) -> Result<ArchivedImage, LoadCause> {
    let ManifestParts { config, layers } = ManifestParts::parse(name, json)?;
    let config_name = member_name(&config.0);
    let config_json = read_verified(source, &config_name, &config.0, config.1)?;
    let config = ParsedConfig::parse(&config_name, config_json, Some(&config.0))?;
    let member = |(digest, size)| LayerMember { name: member_name(&digest), digest: Some(digest), size: Some(size) };
    ArchivedImage::new(config, layers.into_iter().map(member).collect())
}

/// What a manifest names, with sizes.
pub(crate) struct ManifestParts {
    pub(crate) config: (Digest, u64),
    /// Lowest first.
    pub(crate) layers: Vec<(Digest, u64)>,
}

impl ManifestParts {
    /// Reads the manifest of a container image; `name` is for messages.
    pub(crate) fn parse(name: &str, json: &[u8]) -> Result<Self, LoadCause> {
        let bad = |source| LoadCause::Json { name: name.to_owned(), what: "manifest", source };
        let manifest: ImageManifest = serde_json::from_slice(json).map_err(bad)?;
        match manifest.config().media_type() {
            MediaType::ImageConfig => {}
            MediaType::Other(other) if other == "application/vnd.docker.container.image.v1+json" => {}
            other => return Err(LoadCause::NotARunnableImage { name: name.to_owned(), media_type: other.to_string() }),
        }
        if manifest.layers().iter().any(|layer| layer.media_type().to_string().contains("encrypted")) {
            return Err(LoadCause::Encrypted { name: name.to_owned() });
        }
        let part = |descriptor: &Descriptor| Ok((digest_of_descriptor(name, descriptor)?, descriptor.size()));
        let layers = manifest.layers().iter().map(part).collect::<Result<_, LoadCause>>()?;
        Ok(Self { config: part(manifest.config())?, layers })
    }
}

fn parse_index(name: &str, json: &[u8]) -> Result<ImageIndex, LoadCause> {
    serde_json::from_slice(json).map_err(|source| LoadCause::Json { name: name.to_owned(), what: "index", source })
}

/// Some writers leave the media type of a descriptor out or wrong; what lists manifests is an index.
fn is_index(descriptor: &Descriptor, json: &[u8]) -> bool {
    match descriptor.media_type() {
        MediaType::ImageIndex => true,
        MediaType::Other(other) if other == DOCKER_INDEX => true,
        MediaType::ImageManifest => false,
        _ => serde_json::from_slice::<ImageIndex>(json).is_ok(),
    }
}

fn read_verified(source: &BlobSource, name: &str, digest: &Digest, size: u64) -> Result<Vec<u8>, LoadCause> {
    let json = source.read_metadata(name)?;
    let found = digest_of(&json);
    if found != *digest {
        return Err(LoadCause::Digest { name: name.to_owned(), expected: digest.clone(), found });
    }
    if json.len() as u64 != size {
        return Err(LoadCause::Size { name: name.to_owned(), expected: size, found: json.len() as u64 });
    }
    Ok(json)
}

fn blob_name(descriptor: &Descriptor) -> Result<(String, Digest), LoadCause> {
    let digest = digest_of_descriptor(INDEX, descriptor)?;
    Ok((member_name(&digest), digest))
}

fn member_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest that a descriptor in `name` has.
pub(crate) fn digest_of_descriptor(name: &str, descriptor: &Descriptor) -> Result<Digest, LoadCause> {
    let digest = descriptor.digest().to_string().parse();
    digest.map_err(|source| LoadCause::BadDigest { name: name.to_owned(), source })
}

/// False for the manifest of another platform, whose name goes to `others`.
fn may_run_here(descriptor: &Descriptor, others: &mut Vec<String>) -> bool {
    match descriptor.platform() {
        Some(found) if platform::rank(descriptor).is_none() => {
            others.push(platform::name(found));
            false
        }
        _ => true,
    }
}

fn is_attachment(descriptor: &Descriptor) -> bool {
    descriptor.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(DOCKER_ATTACHMENT))
}

fn names(descriptor: &Descriptor) -> Result<Vec<ImageReference>, LoadCause> {
    let Some(annotations) = descriptor.annotations() else { return Ok(Vec::new()) };
    let whole = annotations.get(CONTAINERD_NAME).or_else(|| {
        // A tag alone names nothing: which repository it belongs to, the archive does not say.
        annotations.get(REF_NAME).filter(|name| name.contains([':', '/']))
    });
    let Some(name) = whole else { return Ok(Vec::new()) };
    let parsed = name.parse().map_err(|source| LoadCause::Name { name: name.clone(), source })?;
    Ok(vec![parsed])
}

/// An archive may list one image under several names.
fn merge(images: Vec<ArchivedImage>) -> Vec<ArchivedImage> {
    let mut merged: Vec<ArchivedImage> = Vec::new();
    for image in images {
        match merged.iter_mut().find(|other| other.config.id == image.config.id) {
            Some(other) => {
                other.names.extend(image.names);
                other.manifests.extend(image.manifests);
            }
            None => merged.push(image),
        }
    }
    merged
}
