//! The verbs, one module each, generic over the kinds.

mod admit;
mod apply;
mod cascade;
mod create;
mod delete;
mod delete_collection;
mod get;
mod list;
pub mod metadata;
mod options;
mod owners;
mod page;
mod patch;
mod update;
mod watch;

pub use cascade::resume_terminating_namespaces;
pub use create::create;
pub use delete::{DeleteOptions, delete};
pub use delete_collection::delete_collection;
pub use get::get;
pub use list::list;
pub use patch::patch;
pub use update::{Part, update};
pub use watch::watch;
