//! What has happened to a Pod, moment by moment: a small file beside it, from which `monopod timeline` draws its life.
//!
//! Statuses and Events know seconds and only the last restart; here every turn keeps its real time. The file is for
//! people: it is written beside the status and never waited for, so a power cut may take its last lines.

mod changes;
mod file;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use spec::{PodRef, PodUid, Timestamp};

use crate::agent::Agent;
use crate::on_disk::on_disk;

pub(crate) use changes::Shown;
pub(crate) use file::append;

/// Moments that wait for their Pod's next status; older ones go first.
const WAITING: usize = 256;
/// Bytes of an event's message that are kept.
const MESSAGE_BYTES: usize = 300;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When, to the nanosecond.
    pub at: Timestamp,
    /// To which container; none for the Pod as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Happening {
    /// An Event was recorded.
    Event {
        /// Such as `Pulling`.
        reason: String,
        /// For people, perhaps shortened.
        message: String,
    },
    /// A container's status changed to this.
    Container(ContainerTurn),
    /// The Pod's status changed to this.
    Pod {
        /// `status.phase`.
        phase: String,
        /// The condition `Ready`.
        ready: bool,
    },
}

/// What a container's status has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerTurn {
    /// `init`, `sidecar`, `app` or `ephemeral`.
    pub role: String,
    /// `waiting`, `running` or `terminated`.
    pub state: String,
    /// The state's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a terminated container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// `status.started`.
    pub started: bool,
    /// `status.ready`.
    pub ready: bool,
    /// `status.restartCount`.
    pub restart_count: i32,
}

/// Moments of all Pods that are not in their files yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timelines {
    waiting: Arc<Mutex<HashMap<PodUid, Vec<Moment>>>>,
}

/// Why a timeline cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// The Pod is not in the store.
    #[error("pods {:?} not found", pod.name)]
    NoSuchPod {
        /// The Pod.
        pod: PodRef,
    },
    /// Its file cannot be read.
    #[error("pod {pod}: cannot read its timeline")]
    Read {
        /// The Pod.
        pod: PodRef,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Timelines {
    /// Keeps a moment until the Pod's next status.
    pub(crate) fn note(&self, uid: &PodUid, moment: Moment) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let moments = waiting.entry(uid.clone()).or_default();
        if moments.len() >= WAITING {
            moments.remove(0);
        }
        moments.push(moment);
    }

    /// Forgets what waits, since nothing of the Pod is left.
    pub(crate) fn forget(&self, uid: &PodUid) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// These wait no longer: they are in the Pod's file.
    pub(crate) fn written(&self, uid: &PodUid, moments: &[Moment]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = waiting.get_mut(uid) {
            left.retain(|moment| !moments.contains(moment));
            if left.is_empty() {
                waiting.remove(uid);
            }
        }
    }

    /// What waits.
    pub(crate) fn waiting(&self, uid: &PodUid) -> Vec<Moment> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned().unwrap_or_default()
    }
}

impl Moment {
    /// An Event of a Pod or, with a field path such as `spec.containers{app}`, of one of its containers.
    pub(crate) fn event(at: Timestamp, field_path: Option<&str>, reason: &str, message: &str) -> Self {
        let container = field_path.and_then(|path| path.split_once('{')?.1.strip_suffix('}')).map(str::to_owned);
        let message = message.get(..message.floor_char_boundary(MESSAGE_BYTES)).unwrap_or_default();
        Self { at, container, what: Happening::Event { reason: reason.to_owned(), message: message.to_owned() } }
    }
}

impl Agent {
    /// What has happened to a Pod until now, in the order of time.
    pub async fn timeline(&self, pod: &PodRef) -> Result<Vec<Moment>, TimelineError> {
        let desired = self.pod(pod).ok_or_else(|| TimelineError::NoSuchPod { pod: pod.clone() })?;
        let directory = self.shared.paths(pod, &desired.uid).directory;
        // In this order: what waits no longer then is in the file, and what is written meanwhile is in both.
        let mut waiting = self.shared.events.timelines().waiting(&desired.uid);
        let read = on_disk(move || file::read(&directory)).await;
        let read = read.unwrap_or_else(|lost| Err(std::io::Error::other(lost)));
        let mut moments = read.map_err(|source| TimelineError::Read { pod: pod.clone(), source })?;
        waiting.retain(|moment| !moments.contains(moment));
        moments.append(&mut waiting);
        spec::ordered::sort_by_key(&mut moments, |moment| moment.at);
        Ok(moments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_container_and_keeps_a_short_message() {
        let at = "2026-01-01T00:00:00.123456789Z".parse().unwrap();
        let moment = Moment::event(at, Some("spec.initContainers{setup}"), "Pulling", &"ä".repeat(400));
        assert_eq!(moment.container.as_deref(), Some("setup"));
        let Happening::Event { message, .. } = &moment.what else { panic!("{moment:?}") };
        assert_eq!(message.len(), 300);
        let line = serde_json::to_string(&moment).unwrap();
        assert!(
            line.starts_with(r#"{"at":"2026-01-01T00:00:00.123456789Z","container":"setup","kind":"event""#),
            "{line}"
        );
        assert_eq!(serde_json::from_str::<Moment>(&line).unwrap(), moment);
        assert_eq!(Moment::event(at, None, "Scheduled", "").container, None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (timelines, uid) = (Timelines::default(), PodUid::new("u"));
        let at = Timestamp::UNIX_EPOCH;
        (0..300).for_each(|number| timelines.note(&uid, Moment::event(at, None, &number.to_string(), "")));
        let waiting = timelines.waiting(&uid);
        assert_eq!(waiting.len(), WAITING);
        assert_eq!(waiting.last(), Some(&Moment::event(at, None, "299", "")));
        timelines.written(&uid, &waiting[1..]);
        assert_eq!(timelines.waiting(&uid), waiting[..1], "the rest waits on");
        timelines.forget(&uid);
        assert!(timelines.waiting(&uid).is_empty());
    }
}
