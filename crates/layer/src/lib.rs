//! One layer of an image: from the bytes of its archive to a directory that overlay takes as a lower layer.
//!
//! What strangers made is read here, byte by byte: it is hashed, decompressed, taken apart as a tar archive and written. So
//! this is the part of images that is compiled for speed, and it is a crate for that alone: one crate has one `opt-level`.
//!
//! It does not know where a layer comes from, nor which images have it: that is `image`. Start at [`unpack_blob`]
//! (`blob.rs`), then `unpack.rs`.
#![forbid(unsafe_code)]

mod attributes;
mod blob;
mod compression;
mod conveyor;
pub mod directory;
pub mod limits;
mod path;
mod tar_stream;
mod trash;
mod tree;
mod unpack;
mod verify;

pub use attributes::{OPAQUE, is_kept as is_kept_xattr};
pub use blob::{LayerBlob, UnpackedLayer, unpack_blob};
pub use compression::{Compression, decompress};
pub use limits::SpaceError;
pub use tar_stream::{Entry, EntryKind, Segment, Skip, TarError, TarReader};
pub use trash::Trash;
pub use unpack::{EntryError, UnpackCounts, UnpackError};
pub use verify::{Hashing, digest_of};

use spec::Digest;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The source of the bytes failed, or its compression is corrupt or unknown.
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    /// More or fewer bytes than the manifest says.
    #[error("it has {found} bytes, its manifest says {expected}")]
    Size {
        /// As the manifest says.
        expected: u64,
        /// As they came.
        found: u64,
    },
    /// The compressed bytes are not what the manifest names.
    #[error("its digest is {found}, its manifest says {expected}")]
    Digest {
        /// As the manifest says.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// The decompressed bytes are not what the image config names.
    #[error("its content has digest {found} (diff id), its image config says {expected}")]
    DiffId {
        /// As the config says.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// The archive in it is bad, or cannot be written to disk.
    #[error("cannot unpack it")]
    Unpack(#[source] Box<UnpackError>),
    /// A directory of the image store itself failed.
    #[error("cannot {step} {}", path.display())]
    Directory {
        /// What was tried.
        step: &'static str,
        /// On which directory.
        path: std::path::PathBuf,
        /// The kernel's word.
        #[source]
        source: std::io::Error,
    },
}
