//! What the store keeps of images. An image's record is written when its layers are durable, and its names after it;
//! they are deleted the other way round. So every name leads to an image, and every image has its layers.

use serde::{Deserialize, Serialize};
use spec::Digest;

/// Images by id.
pub(crate) const IMAGES: &str = "image";
/// Ids by canonical name with tag.
pub(crate) const REFERENCES: &str = "image-reference";
/// Who needs which image, by [`hold_key`].
pub(crate) const HOLDS: &str = "image-hold";

/// An image. Its key is the digest of `config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The JSON as it was hashed.
    pub(crate) config: String,
    /// Lowest first.
    pub(crate) layers: Vec<LayerRecord>,
    /// `name@digest` of its manifests.
    pub(crate) repo_digests: Vec<String>,
    /// Whether it came from a registry, and could come again.
    #[serde(default)]
    pub(crate) pulled: bool,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) diff_id: Digest,
    /// Bytes of its decompressed archive.
    pub(crate) size: u64,
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReferenceRecord {
    pub(crate) image: Digest,
}

/// Somebody who needs an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldRecord {
    pub(crate) image: Digest,
    pub(crate) holder: String,
}

/// The hexadecimal digits come first, since a holder's name may contain anything.
pub(crate) fn hold_key(image: &Digest, holder: &str) -> String {
    format!("{}/{holder}", image.hex())
}
