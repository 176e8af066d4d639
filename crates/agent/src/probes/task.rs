//! The task of one probe of one run of a container: waits, tries, counts, and tells the worker of a new verdict.

use std::sync::Arc;
use std::time::Duration;

use runtime::Runtime;
use spec::ContainerId;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::ProbeKind;
use super::attempt::{Outcome, attempt};
use super::verdict::{Thresholds, Verdict, VerdictCell};
use crate::events::{EventRecorder, EventSubject};
use crate::handlers::{Action, InvalidAction};

/// A program that has been running for less than this may not listen yet. A cluster never sees it so early: the kubelet
/// takes up to a second to notice that a container runs.
const SETTLING: Duration = Duration::from_secs(1);
/// First wait for it; each is twice the one before.
const LISTENS_SOON: Duration = Duration::from_millis(20);
/// Longest message of an event, in bytes (the limit of events.k8s.io/v1).
const EVENT_MESSAGE: usize = 1024;

/// All that a task needs.
pub(super) struct ProbeTask {
    pub(super) kind: ProbeKind,
    pub(super) id: ContainerId,
    pub(super) action: Result<Action, InvalidAction>,
    pub(super) first_at: Instant,
    /// Until when a refused connection says nothing.
    pub(super) settled_at: Instant,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) thresholds: Thresholds,
    pub(super) verdict: VerdictCell,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) events: EventRecorder,
    pub(super) subject: EventSubject,
    pub(super) wake: Arc<Notify>,
}

/// When a program that started then has had its time to listen.
pub(super) fn settled(started: Instant) -> Instant {
    started + SETTLING
}

impl ProbeTask {
    /// Probes until it is dropped, or until there is nothing more to find out about this run.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval_at(self.first_at, self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            // Boxed, so that a task that waits does not hold the room of a request.
            let outcome = Box::pin(self.attempt()).await;
            let Some(verdict) = self.note(outcome) else { continue };
            if self.verdict.set(verdict) {
                self.wake.notify_one();
            }
            match (self.kind, verdict) {
                (ProbeKind::Startup, _) | (ProbeKind::Liveness, Verdict::Failure) => return,
                (ProbeKind::Readiness | ProbeKind::Liveness, _) => {}
            }
        }
    }

    async fn attempt(&self) -> Outcome {
        let action = match &self.action {
            Ok(action) => action,
            Err(invalid) => return Outcome::Unknown(invalid.to_string()),
        };
        let mut wait = LISTENS_SOON;
        loop {
            match attempt(self.runtime.as_ref(), &self.id, action, self.timeout).await {
                Outcome::Refused(_) if Instant::now() + wait <= self.settled_at => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Outcome::Refused(message) => return Outcome::Failure(message),
                outcome @ (Outcome::Success | Outcome::Warning(_) | Outcome::Failure(_) | Outcome::Unknown(_)) => {
                    return outcome;
                }
            }
        }
    }

    /// Tells what a person should know, and counts.
    fn note(&mut self, outcome: Outcome) -> Option<Verdict> {
        let kind = self.kind.name();
        match outcome {
            Outcome::Success => self.thresholds.note(true),
            Outcome::Warning(message) => {
                self.warn("ProbeWarning", format!("{kind} probe warning: {message}"));
                self.thresholds.note(true)
            }
            Outcome::Failure(message) | Outcome::Refused(message) => {
                self.warn("Unhealthy", format!("{kind} probe failed: {message}"));
                self.thresholds.note(false)
            }
            Outcome::Unknown(message) => {
                self.warn("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {message}"));
                None
            }
        }
    }

    fn warn(&self, reason: &'static str, mut message: String) {
        message.truncate(message.floor_char_boundary(EVENT_MESSAGE));
        self.events.warning(self.subject.clone(), reason, message);
    }
}
