//! The images of this machine: loading, naming, holding and removing them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use layer::limits::LayerLimits;
use layer::{OPAQUE, digest_of, directory};
use oci_spec::image::ImageConfiguration;
use rustix::fs::lgetxattr;
use spec::Digest;
use spec::image_ref::{ImageReference, InvalidImageReference};
use store::{Store, StoreError};

use crate::archive::{self, ImportConfig, UnpackedImage};
use crate::catalog::{Catalog, Entry, Found, Image};
use crate::error::{HoldError, LoadCause, LoadError, OpenCause, OpenImageStoreError, RemoveImageError};
use crate::layers::Layers;
use crate::records::{HOLDS, HoldRecord, IMAGES, ImageRecord, LayerRecord, REFERENCES, ReferenceRecord, hold_key};
use crate::registry::{Credentials, FakeRegistry, Pull, PullProgress, Registries, RegistryConfig};

/// `/layers/` and the name of a layer below the store's directory, within the 255 bytes of an fsconfig(2) string.
const LONGEST_PATH: usize = 255 - "/layers/".len() - 40;

/// The images of this machine. Clones are the same store.
#[derive(Debug, Clone)]
pub struct ImageStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    layers: Arc<Layers>,
    catalog: Mutex<Catalog>,
    /// Held while records of images and names change, so that they change in the order of the catalog.
    changes: tokio::sync::Mutex<()>,
    registries: OnceLock<Registries>,
}

/// What [`ImageStore::remove`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// The image that is gone; `None` if it has other names.
    pub deleted: Option<Digest>,
}

impl ImageStore {
    /// Opens the images below `directory` and removes what a crash left half-made there.
    pub fn open(directory: &Path, store: Store) -> Result<Self, OpenImageStoreError> {
        Self::open_with_limits(directory, store, LayerLimits::default())
            .map_err(|cause| OpenImageStoreError { directory: directory.to_owned(), cause })
    }

    pub(crate) fn open_with_limits(directory: &Path, store: Store, limits: LayerLimits) -> Result<Self, OpenCause> {
        let directory = &std::path::absolute(directory).map_err(OpenCause::Directory)?;
        let bytes = directory.as_os_str().len();
        if bytes > LONGEST_PATH {
            return Err(OpenCause::PathTooLong { bytes, limit: LONGEST_PATH });
        }
        std::fs::create_dir_all(directory).map_err(OpenCause::Directory)?;
        drop(directory::make_private(directory).map_err(OpenCause::Directory)?);
        let images: Vec<(Digest, Entry)> =
            store.records(IMAGES)?.into_iter().filter_map(|(key, record)| recorded_image(&key, record)).collect();
        let layers_of =
            |entry: &Entry| entry.record.layers.iter().map(|layer| (layer.diff_id.clone(), layer.size)).collect();
        let needed: Vec<Vec<(Digest, u64)>> = images.iter().map(|(_, entry)| layers_of(entry)).collect();
        let (layers, whole) = Layers::open(directory, limits, &needed).map_err(OpenCause::Directory)?;
        let mut catalog = Catalog::default();
        for ((id, entry), whole) in images.into_iter().zip(whole) {
            if whole {
                catalog.insert(id, entry);
            } else {
                tracing::warn!(image = %id, "a layer of the image is missing on disk; it must be loaded again");
            }
        }
        for (reference, record) in store.records::<ReferenceRecord>(REFERENCES)? {
            catalog.tag(&reference, &record.image);
        }
        for (_, record) in store.records::<HoldRecord>(HOLDS)? {
            catalog.hold(&record.image, &record.holder);
        }
        let (catalog, changes) = (Mutex::new(catalog), tokio::sync::Mutex::new(()));
        Ok(Self(Arc::new(Shared { store, layers, catalog, changes, registries: OnceLock::new() })))
    }

    /// From now on images may be pulled. Registries that were set before stay.
    pub fn use_registries(&self, config: RegistryConfig) {
        self.0.registries.get_or_init(|| Registries::new(config));
    }

    /// The same, for tests.
    pub fn use_fake_registry(&self, registry: FakeRegistry) {
        self.0.registries.get_or_init(|| Registries::fake(registry));
    }

    /// Whether images can be pulled.
    pub fn has_registries(&self) -> bool {
        self.0.registries.get().is_some()
    }

    /// How far the pulls are that are under way, by the images' full names.
    pub fn pulls(&self) -> Vec<(String, PullProgress)> {
        self.0.registries.get().map(Registries::under_way).unwrap_or_default()
    }

    /// Begins to pull an image, whether it is here or not, or joins a pull of it that is under way. `credentials` are tried in
    /// their order, before those of the configuration. `None` without registries.
    pub fn pull(&self, reference: &ImageReference, credentials: Vec<Credentials>) -> Option<Pull> {
        Some(self.0.registries.get()?.pull(self, reference, credentials))
    }

    pub(crate) fn layers(&self) -> &Arc<Layers> {
        &self.0.layers
    }

    /// Finds an image by name (`nginx`, `nginx:1.29`, `nginx@sha256:…`), by id, or by the first 12 or more digits of its id.
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>, InvalidImageReference> {
        let catalog = self.catalog();
        Ok(catalog.find(reference)?.and_then(|found| catalog.get(&found.id)))
    }

    pub(crate) fn find(&self, reference: &str) -> Result<Option<Found>, InvalidImageReference> {
        self.catalog().find(reference)
    }

    /// The config as it was hashed, and the diff ids, lowest first.
    pub(crate) fn config_and_layers(&self, id: &Digest) -> Option<(String, Vec<Digest>)> {
        let catalog = self.catalog();
        let entry = catalog.entry(id)?;
        Some((entry.record.config.clone(), entry.layers().cloned().collect()))
    }

    /// The image with this id.
    pub fn get(&self, id: &Digest) -> Option<Image> {
        self.catalog().get(id)
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        let catalog = self.catalog();
        catalog.ids().iter().filter_map(|id| catalog.get(id)).collect()
    }

    /// Loads all images of a docker-archive or OCI archive (plain, gzip, zstd), or of an OCI layout directory. With
    /// `reference`, it must hold one image, which gets this name instead of those in the archive.
    ///
    /// It goes on when the future is dropped.
    pub async fn load_archive(&self, path: &Path, reference: Option<&str>) -> Result<Vec<Image>, LoadError> {
        let failed = |cause| LoadError { path: path.to_owned(), cause };
        let name = reference.map(parse_name).transpose().map_err(failed)?;
        let (this, archive) = (self.clone(), path.to_owned());
        let loading = tokio::spawn(async move {
            let layers = Arc::clone(&this.0.layers);
            let wanted = name.clone();
            let load = move || {
                let images = archive::load(&archive, wanted.as_ref(), &layers)?;
                images.iter().try_for_each(|image| layers.make_durable(&image.layers)).map_err(LoadCause::Sync)?;
                Ok::<_, LoadCause>(images)
            };
            let unpacked = tokio::task::spawn_blocking(load).await.map_err(|_panic| LoadCause::Panicked)??;
            if let (Some(name), [image]) = (&name, unpacked.as_slice())
                && name.digest().is_some_and(|digest| !image.manifests.contains(digest))
            {
                return Err(LoadCause::NameDigest { name: name.canonical() });
            }
            let mut images = Vec::new();
            for image in unpacked {
                images.push(this.record(image).await?);
            }
            Ok(images)
        });
        loading.await.map_err(|_panic| LoadCause::Panicked).flatten().map_err(failed)
    }

    /// Makes an image of one layer from a root file system: a tar file (plain, gzip, zstd) or a directory.
    ///
    /// It goes on when the future is dropped.
    pub async fn import_rootfs(&self, path: &Path, reference: &str, config: ImportConfig) -> Result<Image, LoadError> {
        let failed = |cause| LoadError { path: path.to_owned(), cause };
        let name = parse_name(reference).map_err(failed)?;
        if name.digest().is_some() {
            return Err(failed(LoadCause::NameDigest { name: name.canonical() }));
        }
        let (this, rootfs) = (self.clone(), path.to_owned());
        let importing = tokio::spawn(async move {
            let layers = Arc::clone(&this.0.layers);
            let import = move || {
                let image = archive::import(&rootfs, name, &config, &layers)?;
                layers.make_durable(&image.layers).map_err(LoadCause::Sync)?;
                Ok::<_, LoadCause>(image)
            };
            let unpacked = tokio::task::spawn_blocking(import).await.map_err(|_panic| LoadCause::Panicked)??;
            this.record(unpacked).await
        });
        importing.await.map_err(|_panic| LoadCause::Panicked).flatten().map_err(failed)
    }

    /// Removes a name; with its last name, or by its id or digest, the image itself, unless somebody holds it.
    ///
    /// It goes on when the future is dropped.
    pub async fn remove(&self, reference: &str) -> Result<Removed, RemoveImageError> {
        let (this, text) = (self.clone(), reference.to_owned());
        let removing = tokio::spawn(async move { this.remove_now(&text).await });
        let interrupted = || RemoveImageError::Interrupted { reference: reference.to_owned() };
        removing.await.map_err(|_the_runtime_is_stopping| interrupted()).flatten()
    }

    /// Removes all images that have no name and no holder.
    pub async fn prune(&self) -> Result<Vec<Removed>, RemoveImageError> {
        self.prune_where(|image| image.references.is_empty()).await
    }

    /// Removes all images that have no holder, whatever they are called.
    pub async fn prune_unused(&self) -> Result<Vec<Removed>, RemoveImageError> {
        self.prune_where(|_| true).await
    }

    async fn prune_where(&self, choose: impl Fn(&Image) -> bool) -> Result<Vec<Removed>, RemoveImageError> {
        let chosen = self.list().into_iter().filter(choose);
        let mut removed = Vec::new();
        for image in chosen {
            match self.remove(image.id.as_str()).await {
                Ok(done) => removed.push(done),
                // Held, or removed by somebody else meanwhile.
                Err(RemoveImageError::Held { .. } | RemoveImageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Keeps an image from being removed until `holder` releases it, also over a restart. The record of it has its place among
    /// the store's writes when this returns; what is given waits until it is durable.
    pub fn hold(&self, id: &Digest, holder: &str) -> impl Future<Output = Result<Image, HoldError>> + Send + use<> {
        self.hold_by(id, holder, |store, key, record| store.put_record(HOLDS, key, record).boxed())
    }

    /// The same where other writes follow at once: the record is taken along by them.
    pub fn hold_with_next(
        &self,
        id: &Digest,
        holder: &str,
    ) -> impl Future<Output = Result<Image, HoldError>> + Send + use<> {
        self.hold_by(id, holder, |store, key, record| store.put_record_with_next(HOLDS, key, record).boxed())
    }

    fn hold_by(
        &self,
        id: &Digest,
        holder: &str,
        put: fn(&Store, &str, &HoldRecord) -> BoxFuture<'static, Result<(), StoreError>>,
    ) -> impl Future<Output = Result<Image, HoldError>> + Send + use<> {
        // In memory first: a removal that begins from here on sees it.
        let taken = self.catalog().hold(id, holder);
        let recording = (taken == Some(true)).then(|| {
            let record = HoldRecord { image: id.clone(), holder: holder.to_owned() };
            put(&self.0.store, &hold_key(id, holder), &record)
        });
        let (images, id, holder) = (self.clone(), id.clone(), holder.to_owned());
        async move {
            if let Some(recording) = recording
                && let Err(source) = recording.await
            {
                images.catalog().unhold(&id, &holder);
                return Err(HoldError::Record { id, holder, source });
            }
            taken.and_then(|_| images.get(&id)).ok_or(HoldError::NotFound { id })
        }
    }

    /// Whether anybody holds the image.
    pub fn is_held(&self, id: &Digest) -> bool {
        self.catalog().is_held(id)
    }

    /// Gives up all that `holder` holds.
    pub fn release(&self, holder: &str) {
        self.release_where(|other| other == holder);
    }

    /// Gives up all that is held by holders that begin like this.
    pub fn release_all(&self, beginning: &str) {
        self.release_where(|holder| holder.starts_with(beginning));
    }

    /// Gives up what everybody else holds. At start, `live` are those that still exist.
    pub fn retain_holders(&self, live: &HashSet<String>) {
        self.release_where(|holder| !live.contains(holder));
    }

    /// Directories for overlay's `lowerdir+`, LOWEST FIRST; at least one, and none twice. They stay as long as the image.
    pub fn layer_directories(&self, id: &Digest) -> Vec<PathBuf> {
        let layers = &self.0.layers;
        let mut directories: Vec<PathBuf> = Vec::new();
        if let Some(entry) = self.catalog().entry(id) {
            for diff_id in entry.layers().rev() {
                let directory = layers.directory(diff_id);
                // Overlay refuses one directory twice (ELOOP); the upper one hides all that the lower one has.
                if directories.contains(&directory) {
                    continue;
                }
                let hides_lower = is_opaque(&directory);
                directories.push(directory);
                // Overlay merges the roots of all layers whatever they say, so what is hidden is left out here.
                if hides_lower {
                    break;
                }
            }
        }
        if directories.is_empty() {
            directories.push(layers.empty_directory());
        }
        directories.reverse();
        directories
    }

    /// A directory that has nothing in it.
    pub fn empty_directory(&self) -> PathBuf {
        self.0.layers.empty_directory()
    }

    /// Writes the records of an unpacked image and its names.
    pub(crate) async fn record(&self, unpacked: UnpackedImage) -> Result<Image, LoadCause> {
        let UnpackedImage { config, layers, names, manifests, pulled } = unpacked;
        let (id, shared) = (config.id, &self.0);
        let changing = shared.changes.lock().await;
        let known = self.catalog().entry(&id).map(|entry| entry.record.clone());
        let is_new = known.is_none();
        let before = known.clone();
        let mut record = known.unwrap_or_else(|| ImageRecord {
            config: config.json,
            layers: layers
                .iter()
                .map(|layer| LayerRecord { diff_id: layer.diff_id().clone(), size: layer.size() })
                .collect(),
            repo_digests: Vec::new(),
            pulled,
        });
        record.pulled |= pulled;
        for pinned in
            names.iter().flat_map(|name| manifests.iter().map(move |digest| format!("{}@{digest}", name.name())))
        {
            if !record.repo_digests.contains(&pinned) {
                record.repo_digests.push(pinned);
            }
        }
        if before.as_ref() != Some(&record) {
            shared.store.put_record(IMAGES, id.as_str(), &record).await?;
        }
        if is_new {
            self.catalog().insert(id.clone(), Entry::new(record, config.parsed));
            // From here on the layers stay because of the image.
            layers.into_iter().for_each(crate::layers::PinnedLayer::keep);
        } else {
            self.catalog().update(&id, record);
        }
        for reference in names.iter().filter_map(tag_of) {
            shared.store.put_record(REFERENCES, &reference, &ReferenceRecord { image: id.clone() }).await?;
            self.catalog().tag(&reference, &id);
        }
        drop(changing);
        self.get(&id).ok_or(LoadCause::Panicked)
    }

    async fn remove_now(&self, reference: &str) -> Result<Removed, RemoveImageError> {
        let failed = |source| RemoveImageError::Record { reference: reference.to_owned(), source };
        let changing = self.0.changes.lock().await;
        let found = self.catalog().find(reference)?;
        let Found { id, tag } = found.ok_or_else(|| RemoveImageError::NotFound { reference: reference.to_owned() })?;
        if let Some(tag) = tag
            && self.catalog().entry(&id).is_some_and(|entry| entry.references().any(|other| *other != tag))
        {
            self.0.store.delete_record(REFERENCES, &tag).await.map_err(failed)?;
            self.catalog().untag(&tag);
            return Ok(Removed { untagged: vec![tag], deleted: None });
        }
        let taken = self.catalog().take_unheld(&id);
        let taken = taken.map_err(|holders| RemoveImageError::Held { reference: reference.to_owned(), holders })?;
        let entry = taken.ok_or_else(|| RemoveImageError::NotFound { reference: reference.to_owned() })?;
        if let Err(source) = self.delete_records(&id, &entry).await {
            // Nothing of it is gone from the disk; the next attempt begins anew.
            self.catalog().insert(id, entry);
            return Err(failed(source));
        }
        drop(changing);
        entry.layers().for_each(|diff_id| self.0.layers.release(diff_id));
        Ok(Removed { untagged: entry.references().cloned().collect(), deleted: Some(id) })
    }

    async fn delete_records(&self, id: &Digest, entry: &Entry) -> Result<(), StoreError> {
        for reference in entry.references() {
            self.0.store.delete_record(REFERENCES, reference).await?;
        }
        self.0.store.delete_record(IMAGES, id.as_str()).await
    }

    /// A hold that a crash brings back is nobody's then, see [`ImageStore::retain_holders`].
    fn release_where(&self, choose: impl Fn(&str) -> bool) {
        let holds = self.catalog().holds(choose);
        for (id, holder) in holds {
            self.0.store.delete_record_soon(HOLDS, &hold_key(&id, &holder));
            self.catalog().unhold(&id, &holder);
        }
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        // Every change of it is whole before anything could panic.
        self.0.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn recorded_image(key: &str, record: ImageRecord) -> Option<(Digest, Entry)> {
    let id = digest_of(record.config.as_bytes());
    match serde_json::from_str::<ImageConfiguration>(&record.config) {
        Ok(config) if id.as_str() == key => Some((id, Entry::new(record, config))),
        _ => {
            tracing::warn!(image = key, "the record of the image is damaged; it must be loaded again");
            None
        }
    }
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0_u8; 1];
    matches!(lgetxattr(directory, OPAQUE, &mut value), Ok(1)) && value == *b"y"
}

fn parse_name(text: &str) -> Result<ImageReference, LoadCause> {
    text.parse().map_err(|source| LoadCause::Name { name: text.to_owned(), source })
}

/// A name with its tag but without its digest, which stands among the digests.
fn tag_of(name: &ImageReference) -> Option<String> {
    name.tag().map(|tag| format!("{}:{tag}", name.name()))
}
