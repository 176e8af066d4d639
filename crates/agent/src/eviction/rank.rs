//! Which pod goes first when the node is short of something, and what is said to it. Pure.
//!
//! The order is the kubelet's: who uses more than was requested, then the less important, then who uses most beyond it.

use std::cmp::Reverse;

use spec::PodUid;

use super::quantity::{Form, shown};
use super::thresholds::{Observations, Signal, Threshold};

/// A pod that could be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub uid: PodUid,
    /// `spec.priority`.
    pub priority: i32,
    /// How much of the scarce thing it uses.
    pub used: i64,
    /// How much of it was requested.
    pub requested: i64,
    /// The same for each of its containers, for the message.
    pub containers: Vec<Share>,
}

/// What a container uses of the scarce thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Whose.
    pub name: String,
    /// How much it uses.
    pub used: i64,
    /// What was requested, as the Pod writes it; empty for nothing.
    pub request: String,
    /// The same as a number.
    pub requested: i64,
}

/// Puts those that go first to the front.
pub fn rank(candidates: &mut [Candidate], signal: Signal) {
    let beyond = |one: &Candidate| one.used.saturating_sub(one.requested);
    match signal {
        Signal::PidAvailable => spec::ordered::sort_by_key(candidates, |one| (one.priority, Reverse(one.used))),
        Signal::MemoryAvailable
        | Signal::NodeFsAvailable
        | Signal::NodeFsInodesFree
        | Signal::ImageFsAvailable
        | Signal::ImageFsInodesFree => {
            spec::ordered::sort_by_key(candidates, |one| {
                (one.used <= one.requested, one.priority, Reverse(beyond(one)))
            });
        }
    }
}

/// `status.message` of a pod that is ended for a threshold.
pub fn message(candidate: &Candidate, threshold: &Threshold, observations: &Observations) -> String {
    let resource = threshold.signal.resource();
    let form = Form::of(threshold.signal);
    let mut message = format!("The node was low on resource: {resource}. ");
    if let Some(seen) = threshold.met_by(observations) {
        let (least, available) = (threshold.least.of(seen.capacity), seen.available);
        let text = format!("Threshold quantity: {}, available: {}. ", shown(least, form), shown(available, form));
        message.push_str(&text);
    }
    if ["memory", "ephemeral-storage"].contains(&resource) {
        for share in candidate.containers.iter().filter(|share| share.used > share.requested) {
            let request = if share.request.is_empty() { "0" } else { &share.request };
            let text = format!(
                "Container {} was using {}, request is {request}, has larger consumption of {resource}. ",
                share.name,
                shown(share.used, Form::Binary)
            );
            message.push_str(&text);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::thresholds::{Observation, parse_thresholds};

    fn candidate(uid: &str, priority: i32, used: i64, requested: i64) -> Candidate {
        Candidate { uid: PodUid::new(uid), priority, used, requested, containers: Vec::new() }
    }

    #[test]
    fn who_uses_more_than_requested_goes_first_then_the_less_important() {
        let table = [
            (Signal::MemoryAvailable, "greedy bigger small modest guaranteed"),
            (Signal::PidAvailable, "bigger modest small guaranteed greedy"),
        ];
        for (signal, expected) in table {
            let mut pods = [
                candidate("guaranteed", 5, 100, 100),
                candidate("small", 0, 10, 0),
                candidate("greedy", -1, 5, 0),
                candidate("bigger", 0, 900, 500),
                candidate("modest", 0, 400, 500),
            ];
            if signal == Signal::PidAvailable {
                pods[2].priority = 9;
            }
            rank(&mut pods, signal);
            let order: Vec<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
            assert_eq!(order.join(" "), expected, "{signal}");
        }
    }

    #[test]
    fn messages_are_the_kubelets() {
        let share = |name: &str, used, request: &str, requested| Share {
            name: name.to_owned(),
            used,
            request: request.to_owned(),
            requested,
        };
        let pod = Candidate {
            containers: vec![share("app", 30 << 20, "", 0), share("quiet", 1, "1Mi", 1 << 20)],
            ..candidate("p", 0, 0, 0)
        };
        let threshold = parse_thresholds("memory.available<100Mi").unwrap()[0];
        let seen = Observation { available: 50 << 20, capacity: 1 << 30 };
        assert_eq!(
            message(&pod, &threshold, &[(Signal::MemoryAvailable, vec![seen])].into()),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container app was using \
             30Mi, request is 0, has larger consumption of memory. "
        );
        let threshold = parse_thresholds("nodefs.inodesFree<5%").unwrap()[0];
        let seen = Observation { available: 7, capacity: 1000 };
        assert_eq!(
            message(&pod, &threshold, &[(Signal::NodeFsInodesFree, vec![seen])].into()),
            "The node was low on resource: inodes. Threshold quantity: 50, available: 7. "
        );
    }
}
