//! What the engine does for a Pod, step by step, each with its begin and end: the finest look at where a start's time goes.
//!
//! Code marks a step with [`step!`], which takes a work, or with [`Within`] a future; whose step it is follows from the steps
//! around it, up to a [`Scope`] of a Pod. A [`Recorder`] keeps the last steps of the last Pods in memory, a few kilobytes
//! each; nothing is written. What is done for nobody costs a branch, and a step two looks at the clock: a start has some thirty,
//! and as spans of `tracing` they were a tenth of what it costs.
#![forbid(unsafe_code)]

mod recorder;
mod scope;

pub use recorder::{Recorder, Step};
pub use scope::{Scope, Scoped, Within, name_pod, note};

/// A scope for one step of what is done for a Pod.
#[macro_export]
macro_rules! step {
    ($name:literal) => {
        $crate::Scope::of_step($name)
    };
}
