//! The last steps of the last Pods, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Pods whose steps are kept: those that had one last.
const PODS: usize = 64;
/// Steps of a Pod that are kept; older ones go first. A start with three containers has some fifty.
const STEPS: usize = 256;

/// Something that was done, from its begin to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What.
    pub name: &'static str,
    /// How many other steps it is part of.
    pub depth: usize,
    /// Nanoseconds since 1970.
    pub from: i64,
    /// Nanoseconds since 1970.
    pub to: i64,
}

/// A step as it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) name: &'static str,
    pub(crate) depth: u8,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Keeps steps. Cheap to clone: all clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    pods: HashMap<String, PodSteps>,
    /// How many steps there have been.
    count: u64,
}

/// The steps of one Pod.
#[derive(Debug, Default)]
struct PodSteps {
    kept: VecDeque<Kept>,
    /// Which of all steps was the last.
    last: u64,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps of a Pod that are still known, by their begin; those that hold others before them.
    pub fn steps(&self, uid: &str) -> Vec<Step> {
        let inner = self.lock();
        let kept = inner.pods.get(uid).into_iter().flat_map(|pod| &pod.kept);
        let mut steps: Vec<Step> =
            kept.map(|&Kept { name, depth, from, to }| Step { name, depth: usize::from(depth), from, to }).collect();
        steps.sort_by_key(|step| (step.from, step.depth));
        steps
    }

    pub(crate) fn add(&self, uid: &str, step: Kept) {
        let Inner { pods, count } = &mut *self.lock();
        *count += 1;
        let pod = if let Some(pod) = pods.get_mut(uid) {
            pod
        } else {
            if pods.len() == PODS {
                let oldest = pods.values().map(|pod| pod.last).min();
                pods.retain(|_, pod| Some(pod.last) != oldest);
            }
            pods.entry(uid.to_owned()).or_default()
        };
        pod.last = *count;
        if pod.kept.len() == STEPS {
            pod.kept.pop_front();
        }
        pod.kept.push_back(step);
    }
}
