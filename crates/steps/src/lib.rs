//! What the engine does for a Pod, step by step, each with its begin and end: the finest look at where a start's time goes.
//!
//! Code marks a step with [`step!`], a span of `tracing` like any other; whose step it is follows from the spans around
//! it, up to one that [`of_pod`] made. A [`Recorder`] keeps the last steps of the last Pods in memory, a few kilobytes
//! each; nothing is written. Without one, a step costs a branch.
#![forbid(unsafe_code)]

mod layer;
mod recorder;

pub use layer::StepLayer;
pub use recorder::{Recorder, Step};

use tracing::{Level, Span, field};

/// The target of all spans of this crate.
pub const TARGET: &str = "monopod::step";
/// The field of a span that says whose steps those in it are.
const UID: &str = "uid";

/// A span for one step of what is done for a Pod.
#[macro_export]
macro_rules! step {
    ($name:literal) => {
        $crate::__tracing::trace_span!(target: $crate::TARGET, $name)
    };
}

/// Notes a step that somebody else has measured, from and to so many nanoseconds since 1970.
#[macro_export]
macro_rules! note {
    ($name:literal, $from:expr, $to:expr) => {
        drop($crate::__tracing::trace_span!(target: $crate::TARGET, $name, from = $from, to = $to))
    };
}

#[doc(hidden)]
pub use tracing as __tracing;

/// A span around what is done for a Pod. It is no step itself.
pub fn of_pod(uid: &str) -> Span {
    tracing::span!(target: TARGET, Level::TRACE, "pod", uid)
}

/// The same for a Pod that has no UID yet; see [`name_pod`].
pub fn of_new_pod() -> Span {
    tracing::span!(target: TARGET, Level::TRACE, "pod", uid = field::Empty)
}

/// Says whose the steps are that are done in the span of [`of_new_pod`], which is the present one.
pub fn name_pod(uid: &str) {
    Span::current().record(UID, uid);
}
