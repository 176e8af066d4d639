//! Bounds on what an archive of images may make the engine do; those of a layer are in `layer`.

/// Manifests, indexes and image configs: what registries accept at most (OCI distribution-spec, "Pushing Manifests").
pub(crate) const METADATA_BYTES: u64 = 4 << 20;
/// Manifests in one archive, nested ones included.
pub(crate) const MANIFESTS: usize = 1_000;
/// How deep an index may lie in an index.
pub(crate) const INDEX_DEPTH: usize = 4;
/// Members of an image archive: a few for each layer.
pub(crate) const ARCHIVE_MEMBERS: usize = 100_000;
/// Layers of one image; overlay takes 500 (`OVL_MAX_STACK`), so more could never be run.
pub(crate) const LAYERS: usize = 500;
