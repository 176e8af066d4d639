//! The binary against a fake daemon on a unix socket: what goes over the wire, and what a person reads.

mod fake;
mod images;
mod objects;
mod program;
mod run;
mod sessions;
