//! The verbs, one module each, generic over the kinds.

mod admit;
mod apply;
mod binding;
mod cascade;
mod create;
pub mod delete;
mod delete_collection;
mod eviction;
mod get;
mod list;
pub mod metadata;
mod options;
mod owners;
mod page;
mod patch;
mod scale;
mod token;
mod update;
mod watch;

pub use binding::bind;
pub use cascade::resume_terminating_namespaces;
pub use create::{create, generate_name};
pub use delete::{DeleteOptions, delete};
pub use delete_collection::delete_collection;
pub use eviction::evict;
pub use get::get;
pub use list::list;
pub use patch::patch;
pub use scale::scale;
pub use token::request_token;
pub use update::{Part, is_released, update};
pub use watch::watch;
