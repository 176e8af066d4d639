//! Startup, readiness and liveness probes: one small task for each probe of each running container. A task that waits
//! is a timer and a few hundred bytes; it tells the Pod's worker when its verdict changes, and nothing in between.

mod attempt;
#[cfg(test)]
mod bench;
mod pod;
mod task;
#[cfg(test)]
mod tests;
mod verdict;

use spec::k8s_openapi::api::core::v1::{Container, Probe};

#[cfg(test)]
pub(crate) use attempt::{Outcome, attempt};
pub(crate) use pod::{PodProbes, ProbeContext};

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds back the others until it succeeds once; its failure restarts the container.
    Startup,
    /// Says whether the container takes requests.
    Readiness,
    /// Its failure restarts the container.
    Liveness,
}

impl ProbeKind {
    /// As the kubelet begins its messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// The probe of that kind of a container.
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}
