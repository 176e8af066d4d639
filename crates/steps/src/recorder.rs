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
    pub name: String,
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
    pub(crate) name: Name,
    pub(crate) depth: u8,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Names are few, and all known when this is built.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    /// Of a span.
    Span(&'static str),
    /// One of those that [`crate::note`] was called with, which are looked up.
    Noted(usize),
}

/// Keeps steps. Cheap to clone: all clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    steps: HashMap<String, VecDeque<Kept>>,
    /// UIDs, the one that had a step last at the end.
    order: VecDeque<String>,
    noted: Vec<String>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps of a Pod that are still known, by their begin; those that hold others before them.
    pub fn steps(&self, uid: &str) -> Vec<Step> {
        let inner = self.lock();
        let kept = inner.steps.get(uid).into_iter().flatten();
        let mut steps: Vec<Step> = kept
            .map(|kept| Step {
                name: match kept.name {
                    Name::Span(name) => name.to_owned(),
                    Name::Noted(at) => inner.noted.get(at).cloned().unwrap_or_default(),
                },
                depth: usize::from(kept.depth),
                from: kept.from,
                to: kept.to,
            })
            .collect();
        steps.sort_by_key(|step| (step.from, step.depth));
        steps
    }

    /// The number of a name that is no span's.
    pub(crate) fn noted(&self, name: &str) -> Name {
        let mut inner = self.lock();
        let at = inner.noted.iter().position(|known| known == name).unwrap_or_else(|| {
            inner.noted.push(name.to_owned());
            inner.noted.len() - 1
        });
        Name::Noted(at)
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
