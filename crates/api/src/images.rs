//! Doors for images, beside Kubernetes' paths: list, pull, load an archive, import a root file system, save, remove, prune.

mod save;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, LayerStage, Pull, PullProgress};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use spec::ordered::map_of;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use crate::context::Context;
use crate::http::query::Query;
use crate::http::reply::{self, Reply};
use crate::http::status::{ApiError, chain};
use crate::render::encode;
use crate::route::ImageDoor;

/// An upload that brings nothing for so long is given up.
const SILENCE: Duration = Duration::from_mins(1);

/// How often a client hears how far a pull is, at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Bytes of the disk that an upload leaves to the rest of the machine.
const RESERVE: u64 = 256 << 20;

/// How often the free space is looked at, in bytes.
const SPACE_CHECK: u64 = 16 << 20;

/// Answers a request for one of the doors.
pub async fn answer(context: &Arc<Context>, door: ImageDoor, request: Request<Incoming>) -> Result<Reply, ApiError> {
    let query = Query::parse(request.uri().query());
    match (door, request.method()) {
        (ImageDoor::Images, &Method::GET) => Ok(list(&context.agent)),
        (ImageDoor::Images, &Method::DELETE) => remove(&context.agent, &query).await,
        (ImageDoor::Load, &Method::POST) => load(context, query, request.into_body()).await,
        (ImageDoor::Pull, &Method::GET) => Ok(pulls(&context.agent)),
        (ImageDoor::Pull, &Method::POST) => pull(context, request.into_body()).await,
        (ImageDoor::Save, &Method::GET) => save::answer(context, &query).await,
        (ImageDoor::Prune, &Method::POST) => prune(&context.agent, &query).await,
        (ImageDoor::Import, &Method::POST) => import(context, query, request.into_body()).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// One image as JSON. A macro, since its type is the image crate's, which this crate does not know.
macro_rules! image_json {
    ($image:expr) => {
        json!({
            "id": $image.id.as_str(),
            "references": $image.references,
            "repoDigests": $image.repo_digests,
            "size": $image.size,
            "created": $image.created.map(|created| created.to_string()),
        })
    };
}

fn list(agent: &Agent) -> Reply {
    let images: Vec<Value> = agent.images().list().iter().map(|image| image_json!(image)).collect();
    reply::json(encode(&json!({"images": images})))
}

/// Loads a docker or OCI archive, whatever it is compressed with. What it needs of the disk is given back on any end.
async fn load(context: &Arc<Context>, query: Query, body: Incoming) -> Result<Reply, ApiError> {
    let archive = spool(&context.spool, body).await?;
    let agent = context.agent.clone();
    // A client that goes away must not leave an image half known.
    finish(async move {
        let loaded = agent.images().load_archive(archive.path(), query.get("reference")).await;
        let images = loaded.map_err(|error| refused("load the archive", &error.cause))?;
        agent.images_changed();
        let images: Vec<Value> = images.iter().map(|image| image_json!(image)).collect();
        Ok(reply::json(encode(&json!({"images": images}))))
    })
    .await
}

/// How far all pulls are, those of Pods too.
fn pulls(agent: &Agent) -> Reply {
    let pulls = agent.images().pulls().into_iter().map(|(reference, progress)| {
        let mut pull = progress_json(&progress);
        if let Some(fields) = pull.as_object_mut() {
            fields.insert("reference".to_owned(), reference.into());
        }
        pull
    });
    reply::json(encode(&json!({"pulls": pulls.collect::<Vec<_>>()})))
}

/// What a pull is asked for with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PullRequest {
    reference: String,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

/// Pulls an image and tells how far it is: lines of JSON with `layers`, then one with `image` or `error`. A client that goes
/// away gives the pull up, unless a Pod waits for the same.
async fn pull(context: &Arc<Context>, body: Incoming) -> Result<Reply, ApiError> {
    let body = crate::http::body::read(body).await?;
    let asked: PullRequest = serde_json::from_slice(&body).map_err(|error| {
        // The parser's own words could repeat the password.
        let place = format!("line {}, column {}", error.line(), error.column());
        ApiError::bad_request(format!("the body is not a request for a pull ({place}): reference, username, password"))
    })?;
    let user = asked.username.map(|username| (username, asked.password.unwrap_or_default()));
    let pull = context.agent.pull_image(&asked.reference, user);
    let pull = pull.map_err(|error| ApiError::bad_request(chain(&error)))?;
    let telling = Telling { agent: context.agent.clone(), pull, told: None, is_over: false };
    let lines = futures::stream::unfold(telling, |mut telling| async move {
        let line = telling.next_line().await?;
        Some((Ok(Bytes::from(format!("{line}\n"))), telling))
    });
    let shutdown = context.shutdown.clone().cancelled_owned();
    Ok(reply::stream("application/x-ndjson", lines.take_until(shutdown)))
}

/// A pull, as it is told to a client.
struct Telling {
    agent: Agent,
    pull: Pull,
    told: Option<PullProgress>,
    is_over: bool,
}

impl Telling {
    /// Waits until there is something new; `None` after the last line.
    async fn next_line(&mut self) -> Option<Value> {
        if self.is_over {
            return None;
        }
        loop {
            let progress = self.pull.progress();
            if self.told.as_ref() != Some(&progress) {
                let line = progress_json(&progress);
                self.told = Some(progress);
                return Some(line);
            }
            let Ok(ended) = tokio::time::timeout(PROGRESS_EVERY, self.pull.finished()).await else { continue };
            self.is_over = true;
            return Some(match ended {
                Ok(image) => {
                    self.agent.images_changed();
                    json!({"image": image_json!(image)})
                }
                Err(error) => json!({"error": chain(&*error)}),
            });
        }
    }
}

fn progress_json(progress: &PullProgress) -> Value {
    let layers = progress.layers.iter().map(|layer| {
        let stage = match layer.stage {
            LayerStage::Waiting => "waiting",
            LayerStage::Pulling => "pulling",
            LayerStage::Present => "present",
            LayerStage::Pulled => "pulled",
        };
        json!({"digest": layer.digest.as_str(), "size": layer.size, "received": layer.received, "stage": stage})
    });
    json!({"layers": layers.collect::<Vec<_>>()})
}

/// Removes images that no container uses: those without a name or, with `all=true`, the others too.
async fn prune(agent: &Agent, query: &Query) -> Result<Reply, ApiError> {
    let (agent, all) = (agent.clone(), query.flag("all"));
    finish(async move {
        let images = agent.images();
        let before = map_of(images.list().into_iter().map(|image| (image.id, image.size)));
        let removed = if all { images.prune_unused().await } else { images.prune().await };
        let removed = removed.map_err(|error| ApiError::internal_text(&chain(&error)))?;
        let removed = removed.into_iter().filter_map(|one| {
            let (id, untagged) = (one.deleted?, one.untagged);
            Some(json!({"id": id.as_str(), "references": untagged, "size": before.get(&id).copied().unwrap_or(0)}))
        });
        Ok(reply::json(encode(&json!({"removed": removed.collect::<Vec<_>>()}))))
    })
    .await
}

/// Makes an image of one layer out of the tar file of a root file system.
async fn import(context: &Arc<Context>, query: Query, body: Incoming) -> Result<Reply, ApiError> {
    let reference =
        query.get("reference").ok_or_else(|| ApiError::bad_request("reference: Required value"))?.to_owned();
    let config = serde_json::from_str(query.get("config").unwrap_or("{}"))
        .map_err(|error| ApiError::bad_request(format!("config: Invalid value: {error}")))?;
    let archive = spool(&context.spool, body).await?;
    let agent = context.agent.clone();
    finish(async move {
        let imported = agent.images().import_rootfs(archive.path(), &reference, config).await;
        let image = imported.map_err(|error| refused("import the root file system", &error.cause))?;
        agent.images_changed();
        Ok(reply::json(encode(&json!({"images": [image_json!(image)]}))))
    })
    .await
}

async fn remove(agent: &Agent, query: &Query) -> Result<Reply, ApiError> {
    let reference = query.get("reference").ok_or_else(|| ApiError::bad_request("reference: Required value"))?;
    match agent.images().resolve(reference) {
        Err(error) => return Err(ApiError::bad_request(chain(&error))),
        Ok(None) => {
            let message = format!("image {reference:?} not found");
            return Err(ApiError::plain(StatusCode::NOT_FOUND, "NotFound", message));
        }
        Ok(Some(_)) => {}
    }
    let in_use = |why| ApiError::plain(StatusCode::CONFLICT, "Conflict", why);
    let removed = agent.images().remove(reference).await.map_err(|error| in_use(chain(&error)))?;
    let image = removed.deleted.map(|id| id.as_str().to_owned());
    Ok(reply::json(encode(&json!({"untagged": removed.untagged, "deleted": image}))))
}

/// Keeps an upload in a file, which goes with the value. The image store clears the directory at its start.
async fn spool(directory: &Path, mut body: Incoming) -> Result<NamedTempFile, ApiError> {
    let failed = |error: io::Error| ApiError::internal_text(&format!("cannot keep the upload: {error}"));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let spooled = tempfile::Builder::new().prefix("upload-").tempfile_in(directory).map_err(failed)?;
    let mut file = tokio::fs::File::from_std(spooled.reopen().map_err(failed)?);
    let (mut written, mut checked) = (0_u64, 0_u64);
    while let Some(frame) =
        tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_silent| ApiError::slow_body())?
    {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the upload broke off: {}", chain(&error))))?;
        let Ok(data) = frame.into_data() else { continue };
        written += data.len() as u64;
        if written >= checked {
            checked = written + SPACE_CHECK;
            check_space(directory).map_err(failed)?;
        }
        file.write_all(&data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    if written == 0 {
        return Err(ApiError::bad_request("the body is empty: it must be the archive"));
    }
    Ok(spooled)
}

fn check_space(directory: &Path) -> io::Result<()> {
    let disk = rustix::fs::statvfs(directory)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE {
        let why = format!("less than {} MiB are free on the disk of {}", RESERVE >> 20, directory.display());
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    Ok(())
}

/// Runs `work` to its end even if the client goes away.
async fn finish(work: impl Future<Output = Result<Reply, ApiError>> + Send + 'static) -> Result<Reply, ApiError> {
    tokio::spawn(work).await.map_err(|error| ApiError::internal(&error))?
}

fn refused(what: &str, cause: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::unprocessable(format!("cannot {what}: {}", chain(cause)))
}
