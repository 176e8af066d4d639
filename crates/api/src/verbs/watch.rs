//! watch: the changes of a collection, as lines of JSON.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::StatusCode;
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
    match Watch::start(call) {
        Ok(watch) => Ok(stream(watch.renderer.content_type(), watch.lines())),
        // As upstream a place that means nothing any more is told on the stream: a client that cannot start its watch tries
        // the same place again (kube-rs does, for ever), one that is told on the stream lists anew.
        Err(error) if error.code == StatusCode::GONE => {
            let told = futures::stream::iter([Ok(error_event(&error))]);
            Ok(stream(call.renderer()?.content_type(), told))
        }
        Err(error) => Err(error),
    }
}

/// How many changes a watch takes at once: what a client that does not read holds back besides its place.
const AT_ONCE: usize = 64;

struct Watch {
    context: Arc<Context>,
    renderer: Renderer,
    filter: Filter,
    changes: ObjectWatch,
    /// What is there at the beginning and not yet written; `None` once all is, with the room that the list takes.
    initial: Option<std::vec::IntoIter<StoredObject>>,
    /// Ends the initial events of a WatchList.
    initial_end: Option<Bytes>,
    /// Written lines that are not sent yet: few, since they are written as the client takes them.
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
        // With sendInitialEvents the revision only says how new the list must be at least.
        let with_list = initial.unwrap_or(wanted.is_none());
        // Without a list nothing can be ahead of the store but a place in one that is no more: that has expired.
        if let Some(wanted) = wanted.filter(|wanted| with_list && *wanted > present.revision) {
            return Err(ApiError::too_large_resource_version(wanted, present.revision));
        }
        let started_after = if with_list { present.revision } else { wanted.unwrap_or(present.revision) };
        let changes = call
            .context
            .store
            .watch(call.kind.resource, Some(started_after))
            .map_err(|expired| ApiError::expired(started_after, expired.oldest))?;
        let life = call.query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let life = life.map_or(DEFAULT_LIFE, |seconds: u64| Duration::from_secs(seconds.min(86_400)));
        let initial_end = (initial == Some(true) && wants_bookmarks).then(|| renderer.bookmark(present.revision, true));
        Ok(Self {
            context: Arc::clone(&call.context),
            renderer,
            filter,
            changes,
            initial: with_list.then(|| present.objects.into_iter()),
            initial_end,
            ready: VecDeque::new(),
            bookmarks: wants_bookmarks.then(bookmark_interval),
            end: Instant::now() + life,
            started_after,
            first: true,
            ended: false,
        })
    }

    fn lines(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let line = watch.line().await?;
            Some((Ok(line), watch))
        })
    }

    /// The next line. `None` ends the stream.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if let Some(initial) = &mut self.initial {
                match initial.next() {
                    Some(object) => self.queue(WatchKind::Added, &object),
                    None => self.initial = None,
                }
            } else if let Some(end) = self.initial_end.take() {
                return Some(end);
            } else if self.ended {
                return None;
            } else {
                self.advance().await;
            }
        }
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
            changes = self.changes.next_of(AT_ONCE) => match changes {
                Some(changes) => changes.iter().for_each(|change| self.queue_change(change)),
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
        let now = change.kind != WatchKind::Deleted && self.filter.matches(&change.object);
        let before = change.previous.as_ref().filter(|previous| self.filter.matches(previous));
        let kind = match (before, now) {
            (None, false) => return,
            (None, true) => WatchKind::Added,
            (Some(_), true) => WatchKind::Modified,
            (Some(_), false) if change.kind == WatchKind::Deleted => WatchKind::Deleted,
            (Some(before), false) => return self.queue(WatchKind::Deleted, &left(before, &change.object)),
        };
        if kind == change.kind && self.renderer.is_as_stored() {
            self.first = false;
            return self.ready.push_back(change.line.clone());
        }
        self.queue(kind, &change.object);
    }

    fn queue(&mut self, kind: WatchKind, object: &StoredObject) {
        self.ready.push_back(self.renderer.event(kind.name(), object, self.first, Context::now()));
        self.first = false;
    }
}

/// An object as the selector saw it last, with the revision at which it left.
fn left(before: &StoredObject, after: &StoredObject) -> StoredObject {
    let mut value = before.value.tree().as_ref().clone();
    if let Some(revision) = value.pointer_mut("/metadata/resourceVersion") {
        *revision = after.revision.to_string().into();
    }
    let json = crate::render::encode(&value);
    StoredObject { key: before.key.clone(), revision: after.revision, value: value.into(), json }
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
