//! A machine of its own for each test: namespaces, a daemon in them, and a check that nothing is left in the end.
//!
//! Start reading at [`TestNode`]. The tests themselves are modules of the binary `e2e`; `benches/system` is the other
//! user. Nothing here knows how the daemon works inside: it looks at the kernel, the files, and the API.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "the harness of tests: what goes wrong here is a failed test"
)]

pub mod api;
pub mod attempts;
pub mod background;
pub mod cgroups;
pub mod clients;
pub mod command;
pub mod dead_mount;
pub mod images;
pub mod kubectl;
pub mod leaks;
pub mod namespaces;
pub mod node;
pub mod patience;
pub mod serve;
pub mod spares;
pub mod terminal;

pub use background::Background;
pub use command::Finished;
pub use node::TestNode;
pub use patience::{eventually, limit};
pub use terminal::Terminal;
