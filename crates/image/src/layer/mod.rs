//! Turns a layer's archive into a directory that overlay takes as a lower layer.

mod attributes;
mod blob;
mod path;
mod tree;
mod unpack;

pub(crate) use attributes::{OPAQUE, is_kept as is_kept_xattr};
pub(crate) use blob::{LayerBlob, UnpackedLayer, unpack_blob};
pub use unpack::{EntryError, UnpackError};

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
