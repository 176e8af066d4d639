//! A pod that must end before its containers do, and why: it was active for longer than it may be, or its node ends it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{BootTime, Now, wall_between};
use crate::desired::DesiredPod;
use crate::events::EventSubject;
use crate::worker::{PassError, PodWorker};

/// Why a pod ends as `Failed`, whatever its containers come to. Stored before the first of them is stopped, so that a
/// restart of the daemon does not change the pod's mind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// Time to end for its containers where their own grace period is longer.
    #[serde(default)]
    pub grace_seconds: Option<u64>,
    /// Reason of the condition `DisruptionTarget`, if the pod did nothing wrong.
    #[serde(default)]
    pub disruption: Option<String>,
    /// What that condition says, if not the same as the pod's status.
    #[serde(default)]
    pub disruption_message: Option<String>,
}

impl PodWorker {
    /// Ends a pod that was active for longer than `spec.activeDeadlineSeconds`.
    pub(crate) async fn end_past_deadline(&mut self, now: Now) -> Result<(), PassError> {
        let Some(desired) = self.desired.clone() else { return Ok(()) };
        let ending = self.record.as_ref().is_some_and(|record| record.ending.is_some());
        let passed = self.active_deadline(&desired, now).is_some_and(|deadline| deadline <= now.boot);
        let deleted = desired.object.metadata.deletion_timestamp.is_some();
        if ending || !passed || deleted || desired.is_terminal() {
            return Ok(());
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.shared.events.normal(EventSubject::pod(&desired), "DeadlineExceeded", message);
        let ending = Ending { reason: "DeadlineExceeded".to_owned(), message: message.to_owned(), ..Ending::default() };
        self.save_record(|record| record.ending = Some(ending)).await
    }

    /// When the pod's time is over. It counts from `status.startTime`, which is wall time: how long the pod has been
    /// active is asked once, when this worker first sees it, and measured from there on the clock that does not jump.
    pub(crate) fn active_deadline(&mut self, desired: &DesiredPod, now: Now) -> Option<BootTime> {
        let seconds = u64::try_from(desired.spec.active_deadline_seconds?).ok()?;
        let start = desired.status.start_time.as_ref()?.0;
        let seen = self.active.get_or_insert_with(|| Active { since: now.boot, before: wall_between(start, now.wall) });
        Some(seen.since.after(Duration::from_secs(seconds).saturating_sub(seen.before)))
    }
}

/// How long a pod had been active when its worker first looked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Active {
    since: BootTime,
    before: Duration,
}
