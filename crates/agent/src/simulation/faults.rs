//! What can go wrong, and what users do meanwhile.

use std::time::Duration;

use runtime::fake::{OnExec, OnSignal, Verb};

use super::pods::{LIVENESS, POST_START, PRE_STOP, READINESS, RESTARTS_ALL, STARTUP};
use super::random::Random;

/// Containers are meant by their place in the plan; a fault that does not fit does nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A program ends with this code.
    Exits(usize, i32),
    /// The kernel kills one for lack of memory.
    OutOfMemory(usize),
    /// From now on a program ends soon after each start.
    Crashes(usize, i32),
    /// A program has its own mind about the stop signal.
    Signal(usize, OnSignal),
    /// A probe or hook ends otherwise from now on.
    Command(usize, &'static str, OnExec),
    /// Pulls fail, or take their time.
    Pulls { fail: bool, seconds: u64 },
    /// The infra process dies.
    SandboxDies,
    /// The daemon dies now, and is away for so many seconds.
    DaemonDies(u64),
    /// The daemon dies after so many more steps.
    DaemonDiesAfter(u32, u64),
    /// A verb of the runtime fails.
    VerbFails(Verb, u32),
    /// A verb of the runtime takes its time.
    VerbIsSlow(Verb, u64),
    /// Writes take this many seconds, for so long.
    StoreIsSlow { takes: u64, lasts: u64 },
    /// The disk is full for so many seconds.
    DiskIsFull(u64),
    /// Somebody sets the clock.
    ClockJumps(i64),
    /// The machine starts anew. Records of sandboxes may be gone, too.
    Reboot { forgets: bool, seconds: u64 },
    /// Somebody changes an image.
    Image(usize, &'static str),
    /// Somebody changes how much CPU a container asks for.
    Resize(usize, &'static str),
    /// Somebody adds an ephemeral container.
    Debug,
    /// Somebody changes the `ConfigMap`, or deletes it.
    Config(Option<u64>),
    /// Somebody sets `activeDeadlineSeconds`.
    Deadline(u64),
    /// The node evicts it.
    Evict,
    /// Somebody removes the scheduling gate.
    Ungate,
    /// Somebody deletes the Pod, with another grace period or its own.
    Delete(Option<u64>),
    /// Somebody deletes it by force.
    ForceDelete,
    /// Somebody creates it anew, if it is gone.
    Create,
    /// Nothing.
    Nothing,
}

/// A fault, and the time before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub after: Duration,
    pub fault: Fault,
}

pub const VERBS: [Verb; 8] = [
    Verb::RunPodSandbox,
    Verb::FinishPodSandbox,
    Verb::StopPodSandbox,
    Verb::RemovePodSandbox,
    Verb::CreateContainer,
    Verb::StartContainer,
    Verb::StopContainer,
    Verb::RemoveContainer,
];

impl Step {
    pub fn random(random: &mut Random, containers: usize) -> Self {
        let millis = random.one_of(&[0, 0, 1, 20, 1000, 1500, 3000, 10_000, 12_000, 45_000, 400_000, 700_000]);
        Self { after: Duration::from_millis(millis), fault: Fault::random(random, containers) }
    }
}

impl Fault {
    fn random(random: &mut Random, containers: usize) -> Self {
        let which = usize::try_from(random.below(containers as u64)).unwrap();
        match random.below(41) {
            0..=4 => Self::Exits(which, random.one_of(&[0, 0, 1, 42, 137, RESTARTS_ALL, RESTARTS_ALL])),
            5 => Self::OutOfMemory(which),
            6 | 7 => Self::Crashes(which, random.one_of(&[0, 1, 1, 42])),
            8 => Self::Signal(which, random.one_of(&[OnSignal::Ignores, OnSignal::Exits(0), OnSignal::Exits(1)])),
            9..=12 => {
                let what = random.one_of(&[STARTUP, READINESS, LIVENESS, LIVENESS, POST_START, PRE_STOP]);
                let hook = [POST_START, PRE_STOP].contains(&what);
                let ends = [OnExec::Exits(1), OnExec::Hangs, OnExec::Exits(0)];
                let ends: &[OnExec] = if hook { &ends } else { &[ends[0], ends[1], ends[2], OnExec::CannotStart] };
                Self::Command(which, what, random.one_of(ends))
            }
            13 => Self::Pulls { fail: random.one_in(2), seconds: random.one_of(&[0, 3, 40]) },
            14 | 15 => Self::SandboxDies,
            16 | 17 => Self::DaemonDies(random.one_of(&[0, 0, 5, 700])),
            18..=22 => Self::DaemonDiesAfter(u32::try_from(random.below(24)).unwrap(), random.one_of(&[0, 0, 5, 700])),
            23 | 24 => Self::VerbFails(random.one_of(&VERBS), random.one_of(&[1, 1, 3])),
            25 => Self::VerbIsSlow(random.one_of(&VERBS), random.one_of(&[1, 15])),
            26 => Self::StoreIsSlow { takes: random.one_of(&[1, 5]), lasts: random.one_of(&[3, 20]) },
            27 => Self::DiskIsFull(random.one_of(&[1, 20, 100])),
            28 | 29 => Self::ClockJumps(random.one_of(&[-4000, -60, 30, 600, 90_000])),
            30 => Self::Reboot { forgets: random.one_in(3), seconds: random.one_of(&[10, 700]) },
            31 | 32 => Self::Image(which, random.one_of(&["app:1", "app:2"])),
            33 => Self::Resize(which, random.one_of(&["10m", "20m"])),
            34 => Self::Debug,
            35 => Self::Config((!random.one_in(3)).then(|| random.below(100))),
            36 => Self::Deadline(random.one_of(&[10, 200])),
            37 => Self::Delete(random.one_of(&[None, None, Some(1), Some(60)])),
            38 if random.one_in(3) => Self::ForceDelete,
            38 => Self::Create,
            39 if random.one_in(2) => Self::Evict,
            _ => Self::Ungate,
        }
    }
}
