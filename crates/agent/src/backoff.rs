//! The kubelet's back-off: restarts of crashing containers, pulls of missing images, and retries of failed set-ups.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::{ContainerId, Timestamp};

use crate::clock::{BootTime, Now, wall_between};

/// First wait of a crash loop (kubelet, `initialBackOffPeriod`).
pub const INITIAL: Duration = Duration::from_secs(10);
/// Longest wait (kubelet, `MaxContainerBackOff`).
pub const LONGEST: Duration = Duration::from_mins(5);
/// A run that lasted longer than this ends the crash loop (twice [`LONGEST`], client-go flowcontrol `hasExpired`).
pub const FORGIVEN_AFTER: Duration = Duration::from_mins(10);
/// Wait before the second attempt to set up a volume (kubelet, `exponentialbackoff.initialDurationBeforeRetry`).
pub const VOLUME_INITIAL: Duration = Duration::from_millis(500);
/// Longest wait between attempts to set up a volume.
pub const VOLUME_LONGEST: Duration = Duration::from_secs(122);
/// Wait after any other failure (kubelet, `backOffPeriod`).
pub const RETRY: Duration = Duration::from_secs(10);

/// Where a container stands in its crash loop. Stored, so that a restart of the daemon does not forgive it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartBackOff {
    /// The image that crashed: another one starts with a clean record.
    pub image: String,
    /// How long to wait after the next crash, in milliseconds.
    pub delay_ms: u64,
    /// When the container was restarted last.
    pub restarted_at: Timestamp,
    /// The run whose end led to that.
    #[serde(default)]
    pub follows: Option<ContainerId>,
}

/// Whether a dead container may start again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartDecision {
    /// Now; and this is to be stored first.
    Now(RestartBackOff),
    /// Not before `until`.
    Wait {
        /// The whole wait, for the message.
        delay: Duration,
        /// Its end.
        until: BootTime,
    },
}

/// Decides about the restart of a container whose run ended at `exit` (by both clocks).
pub fn restart_decision(
    present: Option<&RestartBackOff>,
    image: &str,
    (run, exit): (&ContainerId, Now),
    now: Now,
) -> RestartDecision {
    let entry = |delay: Duration| RestartBackOff {
        image: image.to_owned(),
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        restarted_at: now.wall,
        follows: Some(run.clone()),
    };
    let ran_long = |back_off: &RestartBackOff| {
        // Where it was to be restarted before and could not be, it has not run since, whatever a clock that was set says.
        back_off.follows.as_ref() != Some(run) && wall_between(back_off.restarted_at, exit.wall) > FORGIVEN_AFTER
    };
    let crash_loop = present.filter(|back_off| back_off.image == image && !ran_long(back_off));
    let Some(back_off) = crash_loop else {
        return RestartDecision::Now(entry(INITIAL));
    };
    let delay = Duration::from_millis(back_off.delay_ms).min(LONGEST);
    let until = exit.boot.after(delay);
    if now.boot < until {
        return RestartDecision::Wait { delay, until };
    }
    RestartDecision::Now(entry(delay.saturating_mul(2).min(LONGEST)))
}

/// A wait that doubles with each failure up to a limit; kept in memory only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryBackOff {
    /// The wait that runs now.
    pub delay: Duration,
    /// Its end.
    pub until: BootTime,
}

impl RetryBackOff {
    /// The wait after one more failure.
    pub fn after_failure(previous: Option<&Self>, initial: Duration, longest: Duration, now: BootTime) -> Self {
        let delay = previous.map_or(initial, |previous| previous.delay.saturating_mul(2).min(longest));
        Self { delay, until: now.after(delay) }
    }
}

/// Prints a duration of whole seconds as Go does: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes if minutes < 60 => format!("{minutes}m{}s", seconds % 60),
        minutes => format!("{}h{}m{}s", minutes / 60, minutes % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        let wall: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let elapsed = Duration::from_secs(seconds);
        Now { wall: wall + elapsed, boot: BootTime::since_boot(elapsed) }
    }

    #[test]
    fn waits_double_from_ten_seconds_to_five_minutes() {
        let mut back_off = None;
        let run = ContainerId::new("run");
        let mut clock = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            // The container crashes one second after its start, and is looked at as early as it may start.
            clock += 1;
            let exit = at(clock);
            let wait = match restart_decision(back_off.as_ref(), "app:1", (&run, exit), exit) {
                RestartDecision::Now(next) => {
                    back_off = Some(next);
                    waits.push(0);
                    continue;
                }
                RestartDecision::Wait { delay, .. } => delay.as_secs(),
            };
            assert!(matches!(
                restart_decision(back_off.as_ref(), "app:1", (&run, exit), at(clock + wait - 1)),
                RestartDecision::Wait { .. }
            ));
            clock += wait;
            match restart_decision(back_off.as_ref(), "app:1", (&run, exit), at(clock)) {
                RestartDecision::Now(next) => back_off = Some(next),
                RestartDecision::Wait { .. } => panic!("the wait of {wait} s is over"),
            }
            waits.push(wait);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_long_run_or_another_image_ends_the_crash_loop() {
        let (before, run) = (ContainerId::new("before"), ContainerId::new("run"));
        let crashing = RestartBackOff {
            image: "app:1".into(),
            delay_ms: 160_000,
            restarted_at: at(0).wall,
            follows: Some(before.clone()),
        };
        let decide = |image, exit| restart_decision(Some(&crashing), image, (&run, at(exit)), at(exit));
        let again = restart_decision(Some(&crashing), "app:1", (&before, at(601)), at(601));
        assert!(matches!(again, RestartDecision::Wait { .. }), "the clock was set back, and it has not run since");
        assert!(matches!(decide("app:1", 600), RestartDecision::Wait { .. }));
        assert!(matches!(decide("app:1", 601), RestartDecision::Now(next) if next.delay_ms == 10_000));
        assert!(matches!(decide("app:2", 1), RestartDecision::Now(next) if next.image == "app:2"));
    }

    #[test]
    fn durations_print_as_in_go() {
        for (seconds, text) in [(0, "0s"), (10, "10s"), (80, "1m20s"), (300, "5m0s"), (3661, "1h1m1s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
