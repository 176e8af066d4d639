//! `docker save`: `manifest.json` lists configs, layers and tags by member name.
//!
//! Source: Docker's image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".

use serde::Deserialize;
use spec::Digest;

use super::source::BlobSource;
use super::{ArchivedImage, LayerMember, ParsedConfig};
use crate::error::LoadCause;
use crate::limits;

const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn images(source: &BlobSource) -> Result<Vec<ArchivedImage>, LoadCause> {
    let json = source.read_metadata(MANIFEST)?;
    let bad = |source| LoadCause::Json { name: MANIFEST.to_owned(), what: "archive", source };
    let items: Vec<Item> = serde_json::from_slice(&json).map_err(bad)?;
    if items.is_empty() {
        return Err(LoadCause::Empty { name: MANIFEST.to_owned() });
    }
    if items.len() > limits::MANIFESTS {
        let (found, limit) = (items.len(), limits::MANIFESTS);
        return Err(LoadCause::TooMany { what: "images in an archive", found, limit });
    }
    items.into_iter().map(|item| image(source, item)).collect()
}

fn image(source: &BlobSource, item: Item) -> Result<ArchivedImage, LoadCause> {
    let json = source.read_metadata(&item.config)?;
    let config = ParsedConfig::parse(&item.config, json, digest_in(&item.config).as_ref())?;
    let blobs = item.layers.unwrap_or_default().into_iter().map(|name| {
        // A member outside `blobs/` is not named by its digest: `ID/layer.tar`. The diff id of the config verifies it.
        let digest = name.starts_with("blobs/sha256/").then(|| digest_in(&name)).flatten();
        LayerMember { name, digest, size: None }
    });
    let mut image = ArchivedImage::new(config, blobs.collect())?;
    for tag in item.repo_tags.unwrap_or_default() {
        let name = tag.parse().map_err(|source| LoadCause::Name { name: tag, source })?;
        image.names.push(name);
    }
    Ok(image)
}

/// `HEX.json` (docker before 25) and `blobs/sha256/HEX` say what they hold.
fn digest_in(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next()?;
    format!("sha256:{}", file.strip_suffix(".json").unwrap_or(file)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_from_member_names() {
        let hex = "0a".repeat(32);
        for name in [hex.clone(), format!("{hex}.json"), format!("blobs/sha256/{hex}")] {
            assert_eq!(digest_in(&name).unwrap().hex(), hex, "{name}");
        }
        for name in ["config.json", "abc/layer.tar", ""] {
            assert_eq!(digest_in(name), None, "{name}");
        }
    }
}
