//! Events about pods: what the agent did and what went wrong, as `core/v1` Event objects that count repetitions.

mod correlate;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use spec::ids::random_uuid;
use spec::{ContainerName, PodRef, PodUid, Timestamp};
use store::{Change, EVENTS, ObjectKey, Store, StoredObject};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::actions::field_path;
use crate::clock::Clock;
use crate::desired::DesiredPod;
use crate::timeline::{Moment, Timelines};
use correlate::{Correlator, Counted, EventKey};

/// Events that wait to be written; more are dropped, since they must not hold up a pod.
const QUEUE: usize = 4096;
/// So many are written together at most: other writes wait for them.
const TOGETHER: usize = 64;
/// Names of events that are remembered; as many as there can be events in the store are never too few.
const REMEMBERED: usize = 2 * store::EVENTS_KEPT;

/// Whether an event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something to look at.
    Warning,
}

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventSubject {
    kind: &'static str,
    pod: PodRef,
    uid: PodUid,
    /// Which version of it was looked at.
    revision: String,
    field_path: Option<String>,
}

impl EventSubject {
    /// A pod.
    pub fn pod(desired: &DesiredPod) -> Self {
        Self {
            kind: "Pod",
            pod: desired.pod.clone(),
            uid: desired.uid.clone(),
            revision: desired.revision.to_string(),
            field_path: None,
        }
    }

    /// The node, which is in no namespace; its events are in `default`.
    pub fn node(name: &str) -> Self {
        let (pod, uid) = (PodRef::new("default", name), PodUid::new(name));
        Self { kind: "Node", pod, uid, revision: String::new(), field_path: None }
    }

    /// A container of a pod.
    pub fn container(desired: &DesiredPod, name: &ContainerName) -> Self {
        Self { field_path: Some(field_path(desired, name)), ..Self::pod(desired) }
    }

    /// The object itself, whatever part of it and whichever version.
    fn whole(&self) -> Self {
        Self { revision: String::new(), field_path: None, ..self.clone() }
    }
}

#[derive(Debug)]
struct Occurrence {
    at: Timestamp,
    subject: EventSubject,
    event_type: EventType,
    reason: Cow<'static, str>,
    message: String,
}

/// What waits to be written.
#[derive(Debug)]
enum Waiting {
    Event(Occurrence),
    /// Somebody waits until all before are written.
    Flush(oneshot::Sender<()>),
}

/// How long what waits may wait.
#[derive(Debug, Default)]
struct Urgency {
    /// How many events have been recorded.
    recorded: AtomicU64,
    /// How many of them are written, or never will be.
    done: AtomicU64,
    /// It is to be written at once.
    now: Notify,
}

/// Takes events and writes them in the background, in order; equal ones become one with a count.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Waiting>,
    urgency: Arc<Urgency>,
    clock: Arc<dyn Clock>,
    dropped: Arc<Mutex<u64>>,
    timelines: Timelines,
}

impl EventRecorder {
    /// A recorder and the task that writes for it until all recorders are gone. Those of starts are gathered for as long as `delay`, or
    /// until another one or a flush comes, and then written together.
    pub fn start(
        store: Store,
        clock: Arc<dyn Clock>,
        node_name: String,
        delay: Duration,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let (correlator, names) = (Correlator::default(), HashMap::new());
        let urgency = Arc::new(Urgency::default());
        let writer = EventWriter { store, clock: Arc::clone(&clock), node_name, correlator, names, last: 0 };
        let task = tokio::spawn(writer.run(occurrences, Arc::clone(&urgency), delay));
        (Self { queue, urgency, clock, dropped: Arc::default(), timelines: Timelines::default() }, task)
    }

    /// Something went as it should.
    pub fn normal(&self, subject: EventSubject, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) {
        self.record(EventType::Normal, subject, reason.into(), message.into());
        self.urgency.now.notify_one();
    }

    /// The same of a pod that starts: written a little later, so that it is not in the way.
    pub fn of_start(&self, subject: EventSubject, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) {
        self.record(EventType::Normal, subject, reason.into(), message.into());
    }

    /// Something went wrong.
    pub fn warning(&self, subject: EventSubject, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) {
        self.record(EventType::Warning, subject, reason.into(), message.into());
        self.urgency.now.notify_one();
    }

    /// Where moments wait for the timelines of their Pods.
    pub(crate) fn timelines(&self) -> &Timelines {
        &self.timelines
    }

    /// Waits until all events that were recorded before are written, so that whoever sees what is written next sees them, too.
    pub async fn flush(&self) {
        if self.urgency.done.load(Ordering::Acquire) >= self.urgency.recorded.load(Ordering::Acquire) {
            return;
        }
        let (flushed, done) = oneshot::channel();
        if self.queue.send(Waiting::Flush(flushed)).await.is_ok() {
            self.urgency.now.notify_one();
            // Without its writer nothing is written any more.
            drop(done.await);
        }
    }

    fn record(&self, event_type: EventType, subject: EventSubject, reason: Cow<'static, str>, message: String) {
        let at = self.clock.wall();
        let moment = Moment::event(at, subject.field_path.as_deref(), &reason, &message);
        self.timelines.note(&subject.uid, moment);
        let occurrence = Occurrence { at, subject, event_type, reason, message };
        // Before it can be written.
        self.urgency.recorded.fetch_add(1, Ordering::AcqRel);
        if self.queue.try_send(Waiting::Event(occurrence)).is_err() {
            self.urgency.done.fetch_add(1, Ordering::AcqRel);
            let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
            *dropped += 1;
            tracing::warn!(dropped = *dropped, %at, "too many events: some are not recorded");
        }
    }
}

struct EventWriter {
    store: Store,
    clock: Arc<dyn Clock>,
    node_name: String,
    correlator: Correlator,
    /// Name of the object that counts an event.
    names: HashMap<EventKey, String>,
    /// The number in the newest name.
    last: i128,
}

/// An event that is to be written.
struct Writing {
    key: EventKey,
    count: u32,
    occurrence: Occurrence,
}

/// Another object has the name that a new event was to get.
struct NameTaken;

impl EventWriter {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>, urgency: Arc<Urgency>, delay: Duration) {
        let mut waiting = Vec::new();
        while queue.recv_many(&mut waiting, QUEUE).await > 0 {
            if !delay.is_zero() {
                // One that is no longer waited for costs the next ones their delay, no more.
                drop(tokio::time::timeout(delay, urgency.now.notified()).await);
                waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()));
            }
            let events = waiting.iter().filter(|next| matches!(next, Waiting::Event(_))).count() as u64;
            // Not drained: the room that a burst takes is given back.
            self.write_all(std::mem::take(&mut waiting)).await;
            urgency.done.fetch_add(events, Ordering::AcqRel);
        }
    }

    /// Writes events at once that have nothing to do with each other, so that they become one batch of the store.
    async fn write_all(&mut self, waiting: Vec<Waiting>) {
        let (mut together, mut keys) = (Vec::new(), HashSet::new());
        for next in waiting {
            match next {
                Waiting::Event(occurrence) => {
                    let Some(event) = self.count(occurrence) else { continue };
                    if together.len() == TOGETHER || keys.contains(&event.key) {
                        self.write(std::mem::take(&mut together)).await;
                        keys.clear();
                    }
                    keys.insert(event.key);
                    together.push(event);
                }
                Waiting::Flush(flushed) => {
                    self.write(std::mem::take(&mut together)).await;
                    keys.clear();
                    // Whoever asked may have gone away.
                    let _gone = flushed.send(());
                }
            }
        }
        self.write(together).await;
    }

    fn count(&mut self, occurrence: Occurrence) -> Option<Writing> {
        let Counted { key, count, message } = self.correlator.correlate(&occurrence, self.clock.boot())?;
        Some(Writing { key, count, occurrence: Occurrence { message, ..occurrence } })
    }

    /// Each of them has another key.
    async fn write(&mut self, mut events: Vec<Writing>) {
        if self.names.len() >= REMEMBERED {
            self.names.clear();
        }
        while !events.is_empty() {
            let named = events.into_iter().map(|event| {
                let known = self.names.get(&event.key).cloned();
                let is_new = known.is_none();
                let name = known.unwrap_or_else(|| self.next_name(&event.occurrence.subject.pod.name));
                (event, name, is_new)
            });
            let named = named.collect::<Vec<_>>();
            let writes = named.iter().map(|(event, name, is_new)| {
                let pod_namespace = event.occurrence.subject.pod.pod_namespace.clone();
                (ObjectKey::namespaced(EVENTS, pod_namespace, name), self.put(event, name, *is_new))
            });
            let written = self.store.write_each(writes.collect()).await;
            events = Vec::new();
            for ((event, name, _), written) in named.into_iter().zip(written) {
                match written {
                    Ok(_) => drop(self.names.insert(event.key, name)),
                    // One of an earlier daemon, whose clock was ahead.
                    Err(store::WriteError::Refused(NameTaken)) => events.push(event),
                    Err(store::WriteError::Store(error)) => {
                        tracing::warn!(error = %crate::volumes::chain(&error), "cannot record an event");
                    }
                }
            }
        }
    }

    /// What becomes of the object that counts the event.
    fn put(
        &self,
        event: &Writing,
        name: &str,
        is_new: bool,
    ) -> impl FnOnce(Option<&StoredObject>) -> Result<(Change, ()), NameTaken> + Send + use<> {
        let Writing { count, occurrence, .. } = event;
        let (now, count, message) = (time(occurrence.at), *count, occurrence.message.clone());
        let first = event_object(name, occurrence, &self.node_name, count, &now);
        move |present| match present {
            Some(_) if is_new => Err(NameTaken),
            Some(present) => Ok((Change::Put(again(&present.value, count, &message, &now)), ())),
            None => Ok((Change::Put(first), ())),
        }
    }

    /// A name as client-go makes it, from the time. Lists go by name, so the events of a second, which is as much as their
    /// times tell, are listed in their order.
    fn next_name(&mut self, pod: &str) -> String {
        self.last = self.clock.wall().as_nanosecond().max(self.last + 1);
        format!("{pod}.{:x}", self.last)
    }
}

fn event_object(name: &str, occurrence: &Occurrence, node_name: &str, count: u32, now: &str) -> Value {
    let subject = &occurrence.subject;
    let mut involved = json!({
        "kind": subject.kind,
        "apiVersion": "v1",
        "name": subject.pod.name,
        "uid": subject.uid.as_str(),
    });
    if subject.kind == "Pod"
        && let Some(involved) = involved.as_object_mut()
    {
        involved.insert("namespace".to_owned(), Value::from(subject.pod.pod_namespace.as_str()));
        involved.insert("resourceVersion".to_owned(), Value::from(subject.revision.as_str()));
    }
    if let (Some(path), Some(involved)) = (&subject.field_path, involved.as_object_mut()) {
        involved.insert("fieldPath".to_owned(), Value::from(path.as_str()));
    }
    json!({
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": subject.pod.pod_namespace,
            "uid": random_uuid(),
            "creationTimestamp": now,
        },
        "involvedObject": involved,
        "reason": occurrence.reason,
        "message": occurrence.message,
        "source": { "component": component(&occurrence.reason), "host": node_name },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": count,
        "type": match occurrence.event_type { EventType::Normal => "Normal", EventType::Warning => "Warning" },
        "eventTime": null,
        "reportingComponent": component(&occurrence.reason),
        "reportingInstance": node_name,
    })
}

/// Who reports such events in a cluster: programs and people look for these names.
fn component(reason: &str) -> &'static str {
    if ["Scheduled", "FailedScheduling", "Preempted"].contains(&reason) { "default-scheduler" } else { "kubelet" }
}

fn again(present: &Value, count: u32, message: &str, now: &str) -> Value {
    let mut next = present.clone();
    if let Some(fields) = next.as_object_mut() {
        fields.insert("count".to_owned(), Value::from(count));
        fields.insert("message".to_owned(), Value::from(message));
        fields.insert("lastTimestamp".to_owned(), Value::from(now));
    }
    next
}

fn time(wall: spec::Timestamp) -> String {
    wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    /// The reasons of all events, in the order of a list.
    fn listed(store: &Store) -> Vec<String> {
        let list = store.list(EVENTS, None);
        list.objects.iter().map(|object| object.value["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn events_of_one_moment_are_listed_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z"));
        let reasons = ["Scheduled", "Pulled", "Created", "Started", "Killing"];
        // The second daemon finds the names taken that it makes: its clock is where that of the first was.
        for _ in 0..2 {
            let (events, writer) =
                EventRecorder::start(store.clone(), Arc::clone(&clock), "edge".to_owned(), Duration::ZERO);
            for reason in reasons {
                events.normal(EventSubject::node("edge"), reason, "told");
            }
            drop(events);
            writer.await.unwrap();
        }
        assert_eq!(listed(&store), [reasons, reasons].concat());
    }

    #[tokio::test]
    async fn events_wait_for_more_of_them_but_not_where_somebody_looks_or_something_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at("2026-01-01T00:00:00Z"));
        let an_hour = Duration::from_hours(1);
        let (events, _writer) = EventRecorder::start(store.clone(), clock, "edge".to_owned(), an_hour);
        events.flush().await;
        let mut watch = store.watch(EVENTS, None).unwrap();
        let subject = EventSubject::node("edge");
        events.of_start(subject.clone(), "Scheduled", "told");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(listed(&store), [""; 0]);
        events.flush().await;
        assert_eq!(listed(&store), ["Scheduled"]);
        events.of_start(subject.clone(), "Pulled", "told");
        events.warning(subject, "Failed", "told");
        let mut told = Vec::new();
        while told.len() < 3 {
            told.push(watch.next().await.unwrap().object.value["reason"].clone());
        }
        assert_eq!(told, ["Scheduled", "Pulled", "Failed"]);
    }
}
