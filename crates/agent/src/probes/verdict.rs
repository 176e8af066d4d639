//! What a probe has come to, by its thresholds. Pure, but for the cell that a task writes and a worker reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What is known of a container by one of its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No threshold was reached yet.
    Open,
    /// It is as it should be.
    Success,
    /// It is not.
    Failure,
}

/// Counts equal results in a row.
#[derive(Debug, Clone)]
pub(super) struct Thresholds {
    success: u32,
    failure: u32,
    last: Option<bool>,
    row: u32,
}

impl Thresholds {
    pub(super) fn new(success: u32, failure: u32) -> Self {
        Self { success, failure, last: None, row: 0 }
    }

    /// The verdict, if this result reaches a threshold.
    pub(super) fn note(&mut self, success: bool) -> Option<Verdict> {
        self.row = if self.last == Some(success) { self.row.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let (threshold, verdict) =
            if success { (self.success, Verdict::Success) } else { (self.failure, Verdict::Failure) };
        (self.row >= threshold).then_some(verdict)
    }
}

/// A verdict between the task that finds it and the worker that acts on it.
#[derive(Debug, Clone)]
pub(super) struct VerdictCell(Arc<AtomicU8>);

impl VerdictCell {
    pub(super) fn new(verdict: Verdict) -> Self {
        Self(Arc::new(AtomicU8::new(number(verdict))))
    }

    pub(super) fn get(&self) -> Verdict {
        match self.0.load(Ordering::Acquire) {
            1 => Verdict::Success,
            2 => Verdict::Failure,
            _ => Verdict::Open,
        }
    }

    /// Whether it is another one than before.
    pub(super) fn set(&self, verdict: Verdict) -> bool {
        self.0.swap(number(verdict), Ordering::AcqRel) != number(verdict)
    }
}

fn number(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Open => 0,
        Verdict::Success => 1,
        Verdict::Failure => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_counts_equal_results_in_a_row() {
        let verdicts = |success, failure, results: &str| {
            let mut thresholds = Thresholds::new(success, failure);
            let told = results.chars().map(|result| match thresholds.note(result == '+') {
                None => '.',
                Some(Verdict::Success) => 'S',
                Some(Verdict::Failure) => 'F',
                Some(Verdict::Open) => '?',
            });
            told.collect::<String>()
        };
        assert_eq!(verdicts(1, 3, "+--+---+"), "S..S..FS");
        assert_eq!(verdicts(1, 1, "-+-"), "FSF");
        assert_eq!(verdicts(3, 2, "++-+++-+--"), ".....S...F");
    }
}
