//! Lifecycle hooks: what a container wants done right after its start and before its end.

mod pod;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use pod::{EndedHook, HookKind, Joined, PodHooks};
pub(crate) use run::Hook;
