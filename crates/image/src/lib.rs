//! Container images: references, archives, blobs by digest, and layers unpacked for overlay.
//!
//! An image is a config and an ordered list of layers. Each layer is unpacked once, into a directory that all images with
//! this layer share, and every byte of it is verified while it is read. What an image holds is data: nothing in it is
//! trusted, followed outside of its own directory, or run.
//!
//! It does not mount (that is `runtime`), and it does not decide when an image is needed or removed (that is `agent`).
//!
//! Start at [`ImageStore`] (`image_store.rs`). Then follow one layer: `archive/` finds it, `layers.rs` decides whether it
//! is unpacked, and the crate `layer` verifies and writes it. From a registry it comes by `registry/pull.rs`.
//!
//! ```text
//! DIRECTORY/layers/HEX   unpacked layers, 0755 as their archive says, within a directory of mode 0700
//! DIRECTORY/layers/empty for images without layers
//! DIRECTORY/tmp/         being unpacked or uploaded; cleared at start
//! DIRECTORY/trash/       being deleted
//! ```
#![forbid(unsafe_code)]

mod archive;
mod catalog;
mod error;
mod image_store;
mod layers;
mod limits;
mod process;
mod records;
mod registry;
mod save;
#[cfg(test)]
mod tests;

pub use archive::ImportConfig;
pub use catalog::Image;
pub use error::{HoldError, LoadCause, LoadError, OpenCause, OpenImageStoreError, RemoveImageError};
pub use image_store::{ImageStore, Removed};
pub use layer::{EntryError, LayerError, SpaceError, TarError, UnpackError};
pub use registry::{
    ConnectError, Credentials, CredentialsError, FakePull, FakeRegistry, HttpError, InvalidRegistryOption, Keyring,
    LayerProgress, LayerStage, Pull, PullCause, PullError, PullProgress, RegistryConfig,
};
pub use save::{SaveError, SavedImages};
/// Why a text names no image.
pub use spec::image_ref::InvalidImageReference as InvalidReference;
pub use store::StoreError;
