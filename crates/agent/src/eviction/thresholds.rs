//! Eviction thresholds, as the kubelet's flags spell them: `memory.available<100Mi,nodefs.available<10%`. Pure.
//!
//! Source: kubernetes.io "Node-pressure Eviction".

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use spec::quantity::Quantity;

use crate::clock::BootTime;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory of the machine that programs could still get.
    MemoryAvailable,
    /// Room on the file system with volumes and logs.
    NodeFsAvailable,
    /// Files that can still be made there.
    NodeFsInodesFree,
    /// Room on the file system with images and writable layers.
    ImageFsAvailable,
    /// Files that can still be made there.
    ImageFsInodesFree,
    /// Processes that can still be made.
    PidAvailable,
}

/// Condition of the node that a signal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// `MemoryPressure`.
    Memory,
    /// `DiskPressure`.
    Disk,
    /// `PIDPressure`.
    Pid,
}

/// Below this a node is under pressure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// How much must be left.
    pub least: Least,
    /// For how long it may be less; none for hard thresholds.
    pub grace: Duration,
}

/// An amount, or a share of what the machine has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Least {
    /// Bytes or pieces.
    Amount(i64),
    /// Of a hundred.
    Percent(f64),
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// That is free.
    pub available: i64,
    /// In all.
    pub capacity: i64,
}

/// All that was looked at, at one moment: of the disk there may be several file systems.
pub type Observations = BTreeMap<Signal, Vec<Observation>>;

/// Why a text is no list of thresholds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidThreshold {
    /// It has no `<`.
    #[error("{0:?} is no threshold: write for example memory.available<100Mi")]
    Form(String),
    /// Nobody watches that.
    #[error("{0:?} is no eviction signal")]
    Signal(String),
    /// It is neither an amount nor a share.
    #[error("{0:?} is neither a quantity nor a percentage")]
    Amount(String),
}

const SIGNALS: [(Signal, &str); 6] = [
    (Signal::MemoryAvailable, "memory.available"),
    (Signal::NodeFsAvailable, "nodefs.available"),
    (Signal::NodeFsInodesFree, "nodefs.inodesFree"),
    (Signal::ImageFsAvailable, "imagefs.available"),
    (Signal::ImageFsInodesFree, "imagefs.inodesFree"),
    (Signal::PidAvailable, "pid.available"),
];

impl Signal {
    /// The resource that is reclaimed.
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodeFsAvailable | Self::ImageFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }

    /// What the node then says of itself.
    pub fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable => Pressure::Memory,
            Self::NodeFsAvailable | Self::ImageFsAvailable | Self::NodeFsInodesFree | Self::ImageFsInodesFree => {
                Pressure::Disk
            }
            Self::PidAvailable => Pressure::Pid,
        }
    }
}

impl FromStr for Signal {
    type Err = InvalidThreshold;

    fn from_str(text: &str) -> Result<Self, InvalidThreshold> {
        let known = SIGNALS.into_iter().find(|(_, name)| *name == text);
        known.map(|(signal, _)| signal).ok_or_else(|| InvalidThreshold::Signal(text.to_owned()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = SIGNALS.iter().find(|(signal, _)| signal == self);
        f.write_str(known.map_or("", |(_, name)| name))
    }
}

/// Reads a list of hard thresholds; an empty text is none.
pub fn parse_thresholds(text: &str) -> Result<Vec<Threshold>, InvalidThreshold> {
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(parse_threshold).collect()
}

fn parse_threshold(text: &str) -> Result<Threshold, InvalidThreshold> {
    let (signal, least) = text.split_once('<').ok_or_else(|| InvalidThreshold::Form(text.to_owned()))?;
    Ok(Threshold { signal: signal.parse()?, least: least.parse()?, grace: Duration::ZERO })
}

impl FromStr for Least {
    type Err = InvalidThreshold;

    fn from_str(text: &str) -> Result<Self, InvalidThreshold> {
        let invalid = || InvalidThreshold::Amount(text.to_owned());
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_not_a_number| invalid())?;
            return if (0.0..=100.0).contains(&percent) { Ok(Self::Percent(percent)) } else { Err(invalid()) };
        }
        let amount = Quantity::parse(text).and_then(Quantity::value).ok().filter(|amount| *amount >= 0);
        amount.map(Self::Amount).ok_or_else(invalid)
    }
}

impl Least {
    /// Of a machine that has so much.
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Amount(amount) => amount,
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "a share of a size; a byte more or less does not count"
            )]
            Self::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }
}

impl Threshold {
    /// Where less is left than must be.
    pub fn met_by(&self, observations: &Observations) -> Option<Observation> {
        let mut seen = observations.get(&self.signal)?.iter();
        seen.find(|seen| seen.available < self.least.of(seen.capacity)).copied()
    }

    /// Whether pods are ended without their grace period.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

/// Follows which thresholds are met and since when, and what the node says of itself.
#[derive(Debug, Default)]
pub struct PressureWatch {
    /// By position in the list of thresholds.
    met_since: BTreeMap<usize, BootTime>,
    last_seen: BTreeMap<Pressure, BootTime>,
}

/// What follows from a look.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// What the node says of itself: also for a while after it was true, so that it does not flap.
    pub pressures: Vec<Pressure>,
    /// To be acted upon, the most urgent first.
    pub thresholds: Vec<Threshold>,
}

impl PressureWatch {
    /// One more look. A condition stays for `transition` after it was seen last.
    pub fn look(
        &mut self,
        thresholds: &[Threshold],
        observations: &Observations,
        transition: Duration,
        now: BootTime,
    ) -> Verdict {
        let met = thresholds.iter().enumerate().filter(|(_, threshold)| threshold.met_by(observations).is_some());
        let before = std::mem::take(&mut self.met_since);
        let mut due = Vec::new();
        for (position, threshold) in met {
            let since = before.get(&position).copied().unwrap_or(now);
            self.met_since.insert(position, since);
            self.last_seen.insert(threshold.signal.pressure(), now);
            if now.since(since) >= threshold.grace {
                due.push(*threshold);
            }
        }
        // Memory before everything else (kubelet, `byEvictionPriority`).
        spec::ordered::sort_by_key(&mut due, |threshold| threshold.signal != Signal::MemoryAvailable);
        self.last_seen.retain(|_, seen| now.since(*seen) < transition || *seen == now);
        Verdict { pressures: self.last_seen.keys().copied().collect(), thresholds: due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_the_kubelet_reads_them() {
        let parsed = parse_thresholds("memory.available<100Mi, nodefs.inodesFree<5%").unwrap();
        assert_eq!(parsed[0].least, Least::Amount(100 << 20));
        assert_eq!((parsed[1].signal, parsed[1].least), (Signal::NodeFsInodesFree, Least::Percent(5.0)));
        assert_eq!(parsed[1].signal.to_string(), "nodefs.inodesFree");
        assert_eq!(parse_thresholds("").unwrap(), []);
        for (text, message) in [
            ("memory.available>1", "\"memory.available>1\" is no threshold: write for example memory.available<100Mi"),
            ("cpu.available<1", "\"cpu.available\" is no eviction signal"),
            ("memory.available<much", "\"much\" is neither a quantity nor a percentage"),
            ("memory.available<101%", "\"101%\" is neither a quantity nor a percentage"),
        ] {
            assert_eq!(parse_thresholds(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn pressure_comes_with_grace_and_goes_with_delay() {
        let at = |seconds| BootTime::since_boot(Duration::from_secs(seconds));
        let seen = |memory, disk| {
            let of = |available| vec![Observation { available, capacity: 1000 }];
            Observations::from([(Signal::MemoryAvailable, of(memory)), (Signal::NodeFsAvailable, of(disk))])
        };
        let mut thresholds = parse_thresholds("nodefs.available<10%,memory.available<50,memory.available<200").unwrap();
        thresholds[2].grace = Duration::from_secs(30);
        let minute = Duration::from_mins(1);
        let mut watch = PressureWatch::default();
        let mut look = |memory, disk, seconds| {
            let verdict = watch.look(&thresholds, &seen(memory, disk), minute, at(seconds));
            let due: Vec<String> = verdict.thresholds.iter().map(|one| one.signal.to_string()).collect();
            (verdict.pressures, due.join(" "))
        };
        assert_eq!(look(500, 500, 0), (vec![], String::new()));
        // Soft: said at once, acted upon after its time.
        assert_eq!(look(100, 500, 10), (vec![Pressure::Memory], String::new()));
        assert_eq!(look(100, 500, 40), (vec![Pressure::Memory], "memory.available".to_owned()));
        // Hard, and memory first.
        let both = "memory.available memory.available nodefs.available";
        assert_eq!(look(10, 99, 50), (vec![Pressure::Memory, Pressure::Disk], both.to_owned()));
        assert_eq!(look(500, 100, 60), (vec![Pressure::Memory, Pressure::Disk], String::new()));
        assert_eq!(look(500, 100, 109), (vec![Pressure::Memory, Pressure::Disk], String::new()));
        assert_eq!(look(500, 100, 110), (vec![], String::new()));
        // Seen again later, the soft one begins anew.
        assert_eq!(look(100, 500, 200), (vec![Pressure::Memory], String::new()));
    }
}
