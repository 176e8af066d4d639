//! What Pods and the node use of processor and memory, for `kubectl top` and for who scrapes it.
//!
//! Nothing is measured unless somebody asks: a rate needs two readings, so the first who asks waits a second for the
//! other one; whoever asks again within a minute has the time since then.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use spec::{ContainerId, ContainerName, PodRef, Timestamp};
use tokio::sync::Mutex;

use crate::agent::{Agent, PODS, Shared};
use crate::clock::{BootTime, Now};
use crate::desired::DesiredPod;
use crate::eviction::memory_in_use;

/// Readings are at least so far apart.
const SHORTEST: Duration = Duration::from_secs(1);
/// A reading that is older tells nothing of the present.
const LONGEST: Duration = Duration::from_mins(1);
/// Nanoseconds of one tick of proc_stat(5): `USER_HZ` is 100 on every architecture of ours.
pub(super) const TICK: u64 = 10_000_000;

/// What was used lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// When.
    pub timestamp: Timestamp,
    /// The time before it over which processor time was counted.
    pub window: Duration,
    /// Of the whole machine.
    pub node: ResourceUsage,
    /// Of each Pod that runs.
    pub pods: Vec<PodResourceUsage>,
}

/// Of one Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodResourceUsage {
    /// Which.
    pub pod: PodRef,
    /// Its own cgroup.
    pub whole: ResourceUsage,
    /// Of each container that runs.
    pub containers: Vec<(ContainerName, ResourceUsage)>,
}

/// Processor and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Billionths of a processor.
    pub nanocores: u64,
    /// Nanoseconds of processor time since it began.
    pub cpu_nanos: u64,
    /// Bytes that are in use and would not simply be given up.
    pub working_set: u64,
}

/// The last reading and the last answer.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reading: Option<Reading>,
    answer: Option<(BootTime, Arc<Usage>)>,
}

/// What the kernel had counted at one moment.
#[derive(Debug, Clone)]
struct Reading {
    at: Now,
    node: Counted,
    pods: Vec<PodReading>,
}

#[derive(Debug, Clone)]
struct PodReading {
    pod: PodRef,
    whole: Counted,
    containers: Vec<(ContainerId, ContainerName, Counted)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    cpu_nanos: u64,
    working_set: u64,
}

impl Agent {
    /// What Pods and the node have used lately. Takes a second if nobody has asked within the last minute.
    pub async fn usage(&self) -> Arc<Usage> {
        self.shared.meter.usage(&self.shared).await
    }
}

impl Meter {
    async fn usage(&self, shared: &Shared) -> Arc<Usage> {
        // Those who ask at the same time wait for the same answer.
        let mut state = self.state.lock().await;
        let now = shared.clock.boot();
        if let Some((_, answer)) = state.answer.as_ref().filter(|(at, _)| now.since(*at) < SHORTEST) {
            return Arc::clone(answer);
        }
        let earlier = match state.reading.take().filter(|reading| now.since(reading.at.boot) <= LONGEST) {
            Some(reading) => reading,
            None => read(shared).await,
        };
        let age = shared.clock.boot().since(earlier.at.boot);
        if let Some(left) = SHORTEST.checked_sub(age) {
            tokio::time::sleep(left).await;
        }
        let later = read(shared).await;
        let answer = Arc::new(between(&earlier, &later));
        state.answer = Some((later.at.boot, Arc::clone(&answer)));
        state.reading = Some(later);
        answer
    }
}

async fn read(shared: &Shared) -> Reading {
    let mut pods = Vec::new();
    for stored in shared.store.list(PODS, None).objects {
        let Ok(desired) = DesiredPod::read(&stored) else { continue };
        if desired.is_terminal() {
            continue;
        }
        let usage = shared.runtime.pod_usage(&desired.uid).await;
        let counted =
            |cgroup: runtime::CgroupUsage| Counted { cpu_nanos: cgroup.cpu_nanos, working_set: cgroup.working_set };
        // What runs no more has no cgroup, so nothing is counted.
        let is_counted = |cgroup: &runtime::CgroupUsage| cgroup.memory > 0 || cgroup.cpu_nanos > 0;
        let running = usage.containers.into_iter().filter(|container| is_counted(&container.cgroup));
        let containers: Vec<_> =
            running.map(|container| (container.id, container.name, counted(container.cgroup))).collect();
        if !containers.is_empty() {
            pods.push(PodReading { pod: desired.pod, whole: counted(usage.cgroup), containers });
        }
    }
    let node = Counted {
        cpu_nanos: fs::read_to_string("/proc/stat").map(|text| busy_nanos(&text)).unwrap_or_default(),
        working_set: memory_in_use(),
    };
    Reading { at: shared.clock.now(), node, pods }
}

fn between(earlier: &Reading, later: &Reading) -> Usage {
    let window = later.at.boot.since(earlier.at.boot);
    let used = |before: Option<&Counted>, after: &Counted| {
        let spent = after.cpu_nanos.saturating_sub(before.map_or(0, |before| before.cpu_nanos));
        let nanocores = u128::from(spent) * 1_000_000_000 / window.as_nanos().max(1);
        let nanocores = u64::try_from(nanocores).unwrap_or(u64::MAX);
        ResourceUsage { nanocores, cpu_nanos: after.cpu_nanos, working_set: after.working_set }
    };
    // What was not there before began within the window.
    let pods: HashMap<&PodRef, &Counted> = earlier.pods.iter().map(|pod| (&pod.pod, &pod.whole)).collect();
    let containers = earlier.pods.iter().flat_map(|pod| &pod.containers);
    let containers: HashMap<&ContainerId, &Counted> = containers.map(|(id, _, counted)| (id, counted)).collect();
    let of_pod = |pod: &PodReading| PodResourceUsage {
        pod: pod.pod.clone(),
        whole: used(pods.get(&pod.pod).copied(), &pod.whole),
        containers: pod
            .containers
            .iter()
            .map(|(id, name, counted)| (name.clone(), used(containers.get(id).copied(), counted)))
            .collect(),
    };
    Usage {
        timestamp: later.at.wall,
        window,
        node: used(Some(&earlier.node), &later.node),
        pods: later.pods.iter().map(of_pod).collect(),
    }
}

/// Processor time of the machine that was not idle: all columns but `idle` and `iowait`; guests are in `user` already.
fn busy_nanos(stat: &str) -> u64 {
    let columns = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1).take(8);
    let busy = columns.enumerate().filter(|(column, _)| !matches!(column, 3 | 4));
    busy.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum::<u64>().saturating_mul(TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: u64, node: u64, pods: &[(&str, &str, u64)]) -> Reading {
        let wall = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        let counted = |cpu_nanos| Counted { cpu_nanos, working_set: 7 };
        let pods = pods.iter().map(|&(pod, id, nanos)| PodReading {
            pod: PodRef::new("default", pod),
            whole: counted(nanos),
            containers: vec![(ContainerId::new(id), ContainerName::new("app"), counted(nanos))],
        });
        let at = Now { wall, boot: BootTime::since_boot(Duration::from_secs(seconds)) };
        Reading { at, node: counted(node), pods: pods.collect() }
    }

    #[test]
    fn processor_time_is_what_was_spent_between_two_readings() {
        let earlier = reading(10, 4_000_000_000, &[("old", "1", 500_000_000), ("again", "2", 9_000_000_000)]);
        let later = reading(
            12,
            5_000_000_000,
            &[("old", "1", 1_500_000_000), ("new", "3", 200_000_000), ("again", "4", 100_000_000)],
        );
        let usage = between(&earlier, &later);
        assert_eq!((usage.window, usage.node.nanocores), (Duration::from_secs(2), 500_000_000));
        let seen: Vec<_> =
            usage.pods.iter().map(|pod| (pod.pod.name.as_str(), pod.containers[0].1.nanocores)).collect();
        // A container that was started again counts from its own beginning.
        assert_eq!(seen, [("old", 500_000_000), ("new", 100_000_000), ("again", 50_000_000)]);
        assert_eq!(usage.pods[0].containers[0].1.working_set, 7);
    }

    #[test]
    fn a_busy_machine_is_what_does_not_wait() {
        let stat = "cpu  10 1 5 1000 50 2 3 4 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_nanos(stat), 25 * TICK);
        assert_eq!(busy_nanos(""), 0);
    }
}
