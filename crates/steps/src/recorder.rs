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
    steps: HashMap<String, VecDeque<Kept>>,
    /// UIDs, the one that had a step last at the end.
    order: VecDeque<String>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps of a Pod that are still known, by their begin; those that hold others before them.
    pub fn steps(&self, uid: &str) -> Vec<Step> {
        let inner = self.lock();
        let kept = inner.steps.get(uid).into_iter().flatten();
        let mut steps: Vec<Step> =
            kept.map(|&Kept { name, depth, from, to }| Step { name, depth: usize::from(depth), from, to }).collect();
        steps.sort_by_key(|step| (step.from, step.depth));
        steps
    }

    pub(crate) fn add(&self, uid: &str, step: Kept) {
        let mut inner = self.lock();
        if inner.order.back().is_none_or(|last| last != uid) {
            inner.order.retain(|other| other != uid);
            inner.order.push_back(uid.to_owned());
            if inner.order.len() > PODS
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.steps.remove(&oldest);
            }
        }
        let steps = inner.steps.entry(uid.to_owned()).or_default();
        if steps.len() == STEPS {
            steps.pop_front();
        }
        steps.push_back(step);
    }
}
