//! From a reference to the config and the layers of an image for this machine.

use oci_spec::image::ImageIndex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use spec::Digest;
use spec::image_ref::ImageReference;

use http::{HeaderMap, Method};

use super::error::PullCause;
use super::session::{Session, Wanted};
use crate::archive::oci_layout::{ManifestParts, choose, digest_of_descriptor};
use crate::archive::{ParsedConfig, platform};
use crate::error::LoadCause;
use crate::limits;
use layer::digest_of;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// An image in a registry: all but its layers.
pub(super) struct RemoteImage {
    /// Digests of its manifest, and of the indexes that list it; what was asked for comes first.
    pub(super) manifests: Vec<Digest>,
    pub(super) config: ParsedConfig,
    /// Digests and sizes of the blobs, lowest first.
    pub(super) layers: Vec<(Digest, u64)>,
}

/// Which kind of document it is, whatever its media type says.
#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// The digest that the registry has for a reference now, if it says so without sending the manifest.
pub(super) async fn current_digest(session: &Session, reference: &ImageReference) -> Result<Option<Digest>, PullCause> {
    let (what, path) = manifest_of(reference);
    let wanted = Wanted { method: Method::HEAD, what: &what, path: &path, accept: MANIFEST_TYPES, offset: 0 };
    Ok(told_digest(session.ask(&wanted).await?.response.headers()))
}

/// Reads manifest and config.
pub(super) async fn find_image(session: &Session, reference: &ImageReference) -> Result<RemoteImage, PullCause> {
    let (mut what, mut path) = manifest_of(reference);
    let mut expected = reference.digest().cloned();
    let mut manifests = Vec::new();
    while manifests.len() < limits::INDEX_DEPTH {
        let (json, digest) = manifest(session, &what, &path, expected.as_ref()).await?;
        manifests.push(digest);
        if !is_index(&what, &json)? {
            let ManifestParts { config, layers } = ManifestParts::parse(&what, &json)?;
            let config = read_config(session, &config).await?;
            if config.diff_ids.len() != layers.len() {
                let (config, manifest) = (config.diff_ids.len(), layers.len());
                return Err(LoadCause::LayerCount { config, manifest }.into());
            }
            return Ok(RemoteImage { manifests, config, layers });
        }
        let next = member_for_this_machine(&what, &json)?;
        (what, path) = (format!("manifest {next}"), format!("manifests/{next}"));
        expected = Some(next);
    }
    let (found, limit) = (manifests.len(), limits::INDEX_DEPTH);
    Err(LoadCause::TooMany { what: "indexes inside each other", found, limit }.into())
}

async fn manifest(
    session: &Session,
    what: &str,
    path: &str,
    expected: Option<&Digest>,
) -> Result<(Vec<u8>, Digest), PullCause> {
    let wanted = Wanted { method: Method::GET, what, path, accept: MANIFEST_TYPES, offset: 0 };
    let mut answer = session.ask(&wanted).await?;
    let told = told_digest(answer.response.headers());
    let json = session.http.read(&mut answer, limits::METADATA_BYTES).await?;
    let found = digest_of(&json);
    // What a server says of its own answer shows a broken proxy; what we asked for shows a lie.
    match expected.cloned().or(told) {
        Some(expected) if expected != found => {
            Err(PullCause::Digest { what: what.to_owned(), registry: session.authority.clone(), expected, found })
        }
        _ => Ok((json, found)),
    }
}

fn is_index(what: &str, json: &[u8]) -> Result<bool, PullCause> {
    let bad = |source| LoadCause::Json { name: what.to_owned(), what: "manifest", source };
    let shape: Shape = serde_json::from_slice(json).map_err(bad)?;
    let is_manifest = shape.layers.is_some() || shape.config.is_some();
    if shape.fs_layers.is_some() {
        return Err(PullCause::Obsolete { what: what.to_owned() });
    }
    if shape.manifests.is_some() && is_manifest {
        return Err(PullCause::Ambiguous { what: what.to_owned() });
    }
    Ok(shape.manifests.is_some())
}

fn member_for_this_machine(what: &str, json: &[u8]) -> Result<Digest, PullCause> {
    let bad = |source| LoadCause::Json { name: what.to_owned(), what: "index", source };
    let index: ImageIndex = serde_json::from_slice(json).map_err(bad)?;
    if index.manifests().len() > limits::MANIFESTS {
        let (found, limit) = (index.manifests().len(), limits::MANIFESTS);
        return Err(LoadCause::TooMany { what: "manifests in an index", found, limit }.into());
    }
    let mut others = Vec::new();
    match choose(&index, &mut others) {
        Some(descriptor) => Ok(digest_of_descriptor(what, descriptor)?),
        None if others.is_empty() => Err(LoadCause::Empty { name: what.to_owned() }.into()),
        None => {
            let found = super::session::printable(&others.join(", "));
            Err(LoadCause::Platform { wanted: platform::this_machine(), found }.into())
        }
    }
}

async fn read_config(session: &Session, (digest, size): &(Digest, u64)) -> Result<ParsedConfig, PullCause> {
    let (what, path) = (format!("config {digest}"), format!("blobs/{digest}"));
    if *size > limits::METADATA_BYTES {
        return Err(LoadCause::TooLarge { name: what, size: *size, limit: limits::METADATA_BYTES }.into());
    }
    let wanted =
        Wanted { method: Method::GET, what: &what, path: &path, accept: "application/octet-stream, */*", offset: 0 };
    let mut answer = session.ask(&wanted).await?;
    let json = session.http.read(&mut answer, *size).await?;
    Ok(ParsedConfig::parse(&what, json, Some(digest))?)
}

fn manifest_of(reference: &ImageReference) -> (String, String) {
    let name = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    (format!("manifest {name}"), format!("manifests/{name}"))
}

fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}
