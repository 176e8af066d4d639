//! watch: the changes of a collection, as lines of JSON.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use spec::validation::FieldReason;
use store::{ObjectWatch, StoredObject, WatchEvent, WatchKind};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::context::{Call, Context};
use crate::http::reply::{Reply, stream};
use crate::http::status::ApiError;
use crate::render::{Renderer, error_event};
use crate::selector::Filter;
use crate::verbs::list::{select, wanted_revision};

/// Upstream ends a watch without `timeoutSeconds` after 30 to 60 minutes.
const DEFAULT_LIFE: Duration = Duration::from_mins(45);

/// How often a client that asks for bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_mins(1);

/// Answers with a stream that ends with `timeoutSeconds`, with the daemon, or when the client falls behind.
pub fn watch(call: &Call) -> Result<Reply, ApiError> {
    let watch = Watch::start(call)?;
    Ok(stream(watch.renderer.content_type(), watch.lines()))
}

struct Watch {
    context: Arc<Context>,
    renderer: Renderer,
    filter: Filter,
    changes: ObjectWatch,
    /// Written lines that are not sent yet.
    ready: VecDeque<Bytes>,
    bookmarks: Option<Interval>,
    end: Instant,
    /// Where it stands when the history does not say more.
    started_after: u64,
    first: bool,
    ended: bool,
}

impl Watch {
    fn start(call: &Call) -> Result<Self, ApiError> {
        let renderer = call.renderer()?;
        let filter = Filter::parse(call.kind, call.pod_namespace.as_deref(), &call.query)?;
        let wants_bookmarks = call.query.flag("allowWatchBookmarks");
        let initial = initial_events(call)?;
        let wanted = wanted_revision(call)?;
        let present = select(call, &filter);
        if let Some(wanted) = wanted.filter(|wanted| *wanted > present.revision) {
            return Err(ApiError::too_large_resource_version(wanted, present.revision));
        }
        // With sendInitialEvents the revision only says how new the list must be at least.
        let with_list = initial.unwrap_or(wanted.is_none());
        let started_after = if with_list { present.revision } else { wanted.unwrap_or(present.revision) };
        let changes = call
            .context
            .store
            .watch(call.kind.resource, Some(started_after))
            .map_err(|expired| ApiError::expired(started_after, expired.oldest))?;
        let life = call.query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let life = life.map_or(DEFAULT_LIFE, |seconds: u64| Duration::from_secs(seconds.min(86_400)));
        let mut watch = Self {
            context: Arc::clone(&call.context),
            renderer,
            filter,
            changes,
            ready: VecDeque::new(),
            bookmarks: wants_bookmarks.then(bookmark_interval),
            end: Instant::now() + life,
            started_after,
            first: true,
            ended: false,
        };
        if with_list {
            for object in &present.objects {
                watch.queue("ADDED", object);
            }
            if initial == Some(true) && wants_bookmarks {
                watch.ready.push_back(renderer.bookmark(present.revision, true));
            }
        }
        Ok(watch)
    }

    fn lines(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let chunk = watch.chunk().await?;
            Some((Ok(chunk), watch))
        })
    }

    /// The next lines, together when several wait. `None` ends the stream.
    async fn chunk(&mut self) -> Option<Bytes> {
        while self.ready.is_empty() {
            if self.ended {
                return None;
            }
            self.advance().await;
        }
        if self.ready.len() == 1 {
            return self.ready.pop_front();
        }
        Some(self.ready.drain(..).flatten().collect())
    }

    async fn advance(&mut self) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => self.ended = true,
            () = sleep_until(self.end) => {
                self.ended = true;
                // So that the client's next watch begins as late as possible.
                if self.bookmarks.is_some() {
                    self.bookmark();
                }
            }
            change = self.changes.next() => match change {
                Some(change) => self.queue_change(&change),
                None => self.end_of_changes(),
            },
            () = tick(&mut self.bookmarks) => self.bookmark(),
        }
    }

    fn bookmark(&mut self) {
        let revision = self.changes.revision().max(self.started_after);
        self.ready.push_back(self.renderer.bookmark(revision, false));
    }

    fn end_of_changes(&mut self) {
        self.ended = true;
        if let Some(expired) = self.changes.expired() {
            let error = ApiError::expired(self.changes.revision(), expired.oldest);
            self.ready.push_back(error_event(&error));
        }
    }

    /// What an object's change means to who sees only what the selector chooses.
    fn queue_change(&mut self, change: &WatchEvent) {
        let now = change.kind != WatchKind::Deleted && self.filter.matches(&change.object.value);
        let before = change.previous.as_ref().filter(|previous| self.filter.matches(&previous.value));
        match (before, now) {
            (None, false) => {}
            (None, true) => self.queue("ADDED", &change.object),
            (Some(_), true) => self.queue("MODIFIED", &change.object),
            (Some(_), false) if change.kind == WatchKind::Deleted => self.queue("DELETED", &change.object),
            (Some(before), false) => self.queue("DELETED", &left(before, &change.object)),
        }
    }

    fn queue(&mut self, kind: &str, object: &StoredObject) {
        self.ready.push_back(self.renderer.event(kind, object, self.first, Context::now()));
        self.first = false;
    }
}

/// An object as the selector saw it last, with the revision at which it left.
fn left(before: &StoredObject, after: &StoredObject) -> StoredObject {
    let mut value = before.value.as_ref().clone();
    if let Some(revision) = value.pointer_mut("/metadata/resourceVersion") {
        *revision = after.revision.to_string().into();
    }
    let json = crate::render::encode(&value);
    StoredObject { key: before.key.clone(), revision: after.revision, value: Arc::new(value), json }
}

/// `sendInitialEvents`, which stands only with `resourceVersionMatch=NotOlderThan` (KEP-3157).
fn initial_events(call: &Call) -> Result<Option<bool>, ApiError> {
    let forbidden =
        |why: &str| Err(ApiError::invalid_option("resourceVersionMatch", FieldReason::Forbidden, None, why));
    let given = call.query.get("sendInitialEvents").map(|_| call.query.flag("sendInitialEvents"));
    match (given, call.query.get("resourceVersionMatch")) {
        (None, Some(_)) => {
            forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        }
        (Some(_), matching) if matching != Some("NotOlderThan") => {
            forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        (given, _) => Ok(given),
    }
}

fn bookmark_interval() -> Interval {
    let mut interval = interval_at(Instant::now() + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(bookmarks: &mut Option<Interval>) {
    match bookmarks {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
