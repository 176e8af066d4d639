//! Clocks that the simulation sets: tokio's paused time, with a wall clock that jumps and a machine that starts anew.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spec::Timestamp;
use spec::k8s_openapi::jiff::SignedDuration;
use tokio::time::Instant;

use crate::clock::{BootTime, Clock};

/// Nobody has so much to do in one moment that they look at the clock so often.
const LOOKS_IN_A_MOMENT: u32 = 3_000;

#[derive(Debug)]
pub struct SimulatedClock {
    origin: Instant,
    set: Mutex<Set>,
    looks: Mutex<Looks>,
}

#[derive(Debug)]
struct Looks {
    at: Instant,
    number: u32,
}

#[derive(Debug)]
struct Set {
    wall_at_origin: Timestamp,
    booted: Instant,
    up: Duration,
}

impl SimulatedClock {
    pub fn new() -> Self {
        let (origin, up) = (Instant::now(), Duration::from_secs(1000));
        let wall_at_origin = "2026-01-01T00:00:00Z".parse().unwrap();
        let looks = Mutex::new(Looks { at: origin, number: 0 });
        Self { origin, set: Mutex::new(Set { wall_at_origin, booted: origin, up }), looks }
    }

    /// Whether somebody was busy without end.
    pub fn is_worn_out(&self) -> bool {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).number > LOOKS_IN_A_MOMENT
    }

    /// Ends whoever is busy without end: time passes only once all wait.
    fn look(&self) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if looks.at != now && looks.number <= LOOKS_IN_A_MOMENT {
            (looks.at, looks.number) = (now, 0);
        }
        looks.number += 1;
        assert!(looks.number <= LOOKS_IN_A_MOMENT, "busy without end");
    }

    /// Since the simulation began.
    pub fn true_time(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Somebody sets the wall clock.
    pub fn jump(&self, seconds: i64) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        set.wall_at_origin += SignedDuration::from_secs(seconds);
    }

    /// The machine has started a moment ago.
    pub fn boot_anew(&self) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        (set.booted, set.up) = (Instant::now(), Duration::from_secs(5));
    }
}

impl Clock for SimulatedClock {
    fn wall(&self) -> Timestamp {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).wall_at_origin + self.origin.elapsed()
    }

    fn boot(&self) -> BootTime {
        self.look();
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        BootTime::since_boot(set.up + set.booted.elapsed())
    }
}
