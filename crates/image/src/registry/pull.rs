//! One pull, from a reference to an image that is recorded; those who want the same share it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use spec::Digest;
use spec::image_ref::ImageReference;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::blob::{Blob, BlobReader};
use super::config::RegistryConfig;
use super::credentials::{Credentials, Keyring};
use super::endpoint::Endpoint;
use super::error::{PullCause, PullError};
use super::fake::FakeRegistry;
use super::http::Http;
use super::manifest::{RemoteImage, current_digest, find_image};
use super::progress::{Board, LayerStage, PullProgress};
use super::session::Session;
use crate::archive::UnpackedImage;
use crate::catalog::Image;
use crate::error::LoadCause;
use crate::image_store::ImageStore;
use crate::layers::PinnedLayer;
use layer::LayerBlob;

/// Layers of one image at a time; docker has 3, containerd too.
const LAYERS_AT_A_TIME: usize = 4;
/// Layers of all images at a time: each has two threads and a connection.
const LAYERS_IN_ALL: usize = 16;

/// Where images are pulled from, and what is being pulled.
#[derive(Debug)]
pub(crate) struct Registries {
    source: Source,
    under_way: Mutex<HashMap<Key, Weak<Task>>>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
enum Source {
    Network(Arc<RegistryConfig>),
    /// A test's.
    Fake(FakeRegistry),
}

/// Pulls are shared by those who ask for the same, being the same.
type Key = (String, Vec<Credentials>);

/// A pull that is under way, or over. It is given up when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Pull(Arc<Task>);

#[derive(Debug)]
struct Task {
    outcome: watch::Receiver<Option<Outcome>>,
    board: Board,
    _stop: DropGuard,
}

type Outcome = Result<Image, Arc<PullError>>;

impl Pull {
    /// How far it has come.
    pub fn progress(&self) -> PullProgress {
        self.0.board.read()
    }

    /// What came of it, if it is over.
    pub fn outcome(&self) -> Option<Result<Image, Arc<PullError>>> {
        self.0.outcome.borrow().clone()
    }

    /// Waits for its end.
    pub async fn finished(&self) -> Result<Image, Arc<PullError>> {
        let mut outcome = self.0.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        ended.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(|| Err(Arc::new(lost())))
    }
}

/// Its task ended without a word: the daemon ends.
fn lost() -> PullError {
    PullError { reference: "the image".to_owned(), cause: PullCause::GivenUp }
}

impl Registries {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        Self::of(Source::Network(Arc::new(config)))
    }

    pub(crate) fn fake(registry: FakeRegistry) -> Self {
        Self::of(Source::Fake(registry))
    }

    fn of(source: Source) -> Self {
        let room = Arc::new(Semaphore::new(LAYERS_IN_ALL));
        Self { source, under_way: Mutex::default(), room }
    }

    /// How far the pulls are that are under way; the same image may come twice, with other credentials.
    pub(crate) fn under_way(&self) -> Vec<(String, PullProgress)> {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = under_way.iter().filter_map(|((reference, _), task)| Some((reference, task.upgrade()?)));
        let unfinished = tasks.filter(|(_, task)| task.outcome.borrow().is_none());
        unfinished.map(|(reference, task)| (reference.clone(), task.board.read())).collect()
    }

    /// Begins a pull, or joins one.
    pub(crate) fn pull(&self, images: &ImageStore, reference: &ImageReference, given: Vec<Credentials>) -> Pull {
        let key = (reference.canonical(), given.clone());
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, task| task.strong_count() > 0);
        let present = under_way.get(&key).and_then(Weak::upgrade);
        if let Some(task) = present.filter(|task| task.outcome.borrow().is_none()) {
            return Pull(task);
        }
        let (sender, outcome) = watch::channel(None);
        let (board, stop) = (Board::default(), CancellationToken::new());
        let task = Arc::new(Task { outcome, board: board.clone(), _stop: stop.clone().drop_guard() });
        under_way.insert(key, Arc::downgrade(&task));
        let (source, room) = (self.source.clone(), Arc::clone(&self.room));
        let (images, reference) = (images.clone(), reference.clone());
        tokio::spawn(async move {
            let (until, name) = (stop.clone(), reference.canonical());
            let pull: Pin<Box<dyn Future<Output = Result<Image, PullCause>> + Send>> = match source {
                Source::Network(config) => {
                    let work = Work { images, config, room, reference, given, board, stop };
                    Box::pin(async move { work.pull().await })
                }
                Source::Fake(registry) => Box::pin(async move { registry.pull(&images, &reference).await }),
            };
            let pulled = until.run_until_cancelled(pull).await.unwrap_or(Err(PullCause::GivenUp));
            let reference = name;
            sender.send_replace(Some(pulled.map_err(|cause| Arc::new(PullError { reference, cause }))));
        });
        Pull(task)
    }
}

struct Work {
    images: ImageStore,
    config: Arc<RegistryConfig>,
    room: Arc<Semaphore>,
    reference: ImageReference,
    given: Vec<Credentials>,
    board: Board,
    stop: CancellationToken,
}

/// What a server has.
enum Offer {
    /// The image that is here.
    Same(Box<Image>),
    /// Another one.
    New(Arc<Session>, Box<RemoteImage>),
}

impl Work {
    async fn pull(&self) -> Result<Image, PullCause> {
        let http = Arc::new(Http::new(Arc::clone(&self.config)));
        let keyring = match &self.config.docker_config {
            Some(path) => Keyring::read(path)?,
            None => Keyring::default(),
        };
        let registry = Endpoint::of_registry(self.reference.registry());
        let mut failure = None;
        for endpoint in self.config.endpoints(self.reference.registry()) {
            let credentials = if endpoint == registry {
                // All of these are for the registry by its name; a mirror is somebody else.
                self.given.iter().cloned().chain(keyring.find(&self.reference)?).collect()
            } else {
                keyring.find_at(&endpoint.authority, &endpoint.repository(self.reference.repository()))?
            };
            match self.ask(&http, &endpoint, credentials).await {
                Ok(Offer::Same(image)) => return Ok(*image),
                Ok(Offer::New(session, image)) => return self.bring(session, *image).await,
                Err(cause) => {
                    if endpoint != registry {
                        tracing::info!(mirror = %endpoint, image = %self.reference, error = %cause, "a mirror does not help");
                    }
                    failure = Some(cause);
                }
            }
        }
        Err(failure.unwrap_or(PullCause::GivenUp))
    }

    /// Asks a server for the image, as everybody that we may be there.
    async fn ask(
        &self,
        http: &Arc<Http>,
        endpoint: &Endpoint,
        credentials: Vec<Credentials>,
    ) -> Result<Offer, PullCause> {
        let mut whom: Vec<Option<Credentials>> = credentials.into_iter().map(Some).collect();
        if whom.is_empty() {
            whom.push(None);
        }
        let mut failure = PullCause::GivenUp;
        for credentials in whom {
            let (http, config) = (Arc::clone(http), Arc::clone(&self.config));
            let session = Session::open(http, config, endpoint, self.reference.repository(), credentials).await?;
            match self.look(session).await {
                Ok(offer) => return Ok(offer),
                Err(cause) if cause.is_refusal() => failure = cause,
                Err(cause) => return Err(cause),
            }
        }
        Err(failure)
    }

    async fn look(&self, session: Session) -> Result<Offer, PullCause> {
        // A HEAD is cheaper, also in the eyes of registries that count pulls.
        if let Ok(Some(here)) = self.images.resolve(&self.reference.canonical())
            && let Ok(Some(digest)) = current_digest(&session, &self.reference).await
            && here.repo_digests.contains(&format!("{}@{digest}", self.reference.name()))
        {
            return Ok(Offer::Same(Box::new(here)));
        }
        let image = find_image(&session, &self.reference).await?;
        Ok(Offer::New(Arc::new(session), Box::new(image)))
    }

    /// Fetches and unpacks what is not here, then records the image.
    async fn bring(&self, session: Arc<Session>, image: RemoteImage) -> Result<Image, PullCause> {
        let RemoteImage { manifests, config, layers } = image;
        self.board.set_layers(layers.iter().cloned());
        let count = layers.len();
        // Ends the transfers that go on when one has failed.
        let stop = self.stop.child_token();
        let _stop = stop.clone().drop_guard();
        let wanted = config.diff_ids.iter().cloned().zip(layers).enumerate();
        let pulls = wanted.map(|(place, (diff_id, (digest, size)))| {
            let blob = Blob { session: Arc::clone(&session), digest, size, board: self.board.clone(), place };
            self.bring_layer(blob, diff_id, count, stop.clone())
        });
        let layers: Vec<PinnedLayer> = stream::iter(pulls).buffered(LAYERS_AT_A_TIME).try_collect().await?;
        let names = vec![self.name()?];
        let images = self.images.clone();
        // It goes on when nobody waits any more: records and memory must not part.
        let recording = tokio::spawn(async move {
            let store = Arc::clone(images.layers());
            let sync = move || store.make_durable(&layers).map(|()| layers);
            let synced = tokio::task::spawn_blocking(sync).await.map_err(|_panic| LoadCause::Panicked)?;
            let layers = synced.map_err(LoadCause::Sync)?;
            images.record(UnpackedImage { config, layers, names, manifests, pulled: true }).await
        });
        Ok(recording.await.map_err(|_panic| LoadCause::Panicked).flatten()?)
    }

    async fn bring_layer(
        &self,
        blob: Blob,
        diff_id: Digest,
        count: usize,
        stop: CancellationToken,
    ) -> Result<PinnedLayer, PullCause> {
        let _room = self.room.acquire().await.map_err(|_closed| PullCause::GivenUp)?;
        let (layers, board, place) = (Arc::clone(self.images.layers()), self.board.clone(), blob.place);
        let (digest, size, name) = (blob.digest.clone(), blob.size, blob.digest.to_string());
        let reader = Box::new(BlobReader::new(blob, stop));
        let blob = LayerBlob { reader, digest: Some(digest), size: Some(size), diff_id: Some(diff_id.clone()) };
        let unpacked = tokio::task::spawn_blocking(move || layers.ingest(blob)).await;
        let unpacked = unpacked.map_err(|_panic| LoadCause::Panicked)?;
        let layer = unpacked.map_err(|cause| LoadCause::Layer { diff_id, cause }.in_layer(place + 1, count, &name))?;
        board.change(place, |layer| {
            let is_new = layer.stage == LayerStage::Pulling;
            layer.stage = if is_new { LayerStage::Pulled } else { LayerStage::Present };
        });
        Ok(layer)
    }

    /// What the image is called here. A digest pins; the tag beside it is a comment.
    fn name(&self) -> Result<ImageReference, LoadCause> {
        let Some(digest) = self.reference.digest() else { return Ok(self.reference.clone()) };
        let name = format!("{}@{digest}", self.reference.name());
        name.parse().map_err(|source| LoadCause::Name { name, source })
    }
}
