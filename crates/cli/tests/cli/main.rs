//! The binary against a fake daemon on a unix socket: what goes over the wire, and what a person reads.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what goes wrong in a test fails it")]

mod fake;
mod help;
mod images;
mod objects;
mod program;
mod run;
mod sessions;
