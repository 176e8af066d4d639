//! Time as the agent sees it: wall time to show and store, time since boot to measure.

use std::time::Duration;

use spec::Timestamp;

/// A point in time since the machine booted (`CLOCK_BOOTTIME`: it goes on in suspend and never jumps).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// The point that lies so long after boot.
    pub const fn since_boot(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The point that lies `duration` later.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// The point that lies `duration` earlier, at the earliest the boot.
    #[must_use]
    pub const fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The two clocks together, read at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What a calendar says.
    pub wall: Timestamp,
    /// What a stopwatch says.
    pub boot: BootTime,
}

/// Where the agent reads the time. It sleeps by `tokio::time`, which a test or a simulation can pause.
pub trait Clock: Send + Sync + 'static {
    /// Wall time; may jump.
    fn wall(&self) -> Timestamp;

    /// Time since boot; never jumps.
    fn boot(&self) -> BootTime;

    /// Both.
    fn now(&self) -> Now {
        Now { wall: self.wall(), boot: self.boot() }
    }
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boot(&self) -> BootTime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        BootTime(Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        ))
    }
}

/// Wall time between two points, zero if `later` is not later.
pub fn wall_between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// A clock that follows tokio's, so that paused time pauses it too.
#[cfg(test)]
#[derive(Debug, Clone)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    wall_at_origin: Timestamp,
}

#[cfg(test)]
impl TokioClock {
    pub fn starting_at(wall: &str) -> Self {
        Self { origin: tokio::time::Instant::now(), wall_at_origin: wall.parse().unwrap() }
    }
}

#[cfg(test)]
impl Clock for TokioClock {
    fn wall(&self) -> Timestamp {
        self.wall_at_origin + self.origin.elapsed()
    }

    fn boot(&self) -> BootTime {
        BootTime::since_boot(Duration::from_secs(1000) + self.origin.elapsed())
    }
}
