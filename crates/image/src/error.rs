//! What can go wrong with images, one type per operation.

use std::io;
use std::path::PathBuf;

use layer::{LayerError, SpaceError, TarError};
use spec::Digest;
use spec::ids::InvalidId;
use spec::image_ref::InvalidImageReference;
use store::StoreError;

use crate::archive::pack::PackError;

/// Why the image store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the image store {}", directory.display())]
pub struct OpenImageStoreError {
    /// The directory.
    pub directory: PathBuf,
    /// Why.
    #[source]
    pub cause: OpenCause,
}

/// Why the image store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenCause {
    /// One of its directories failed.
    #[error("cannot make or read its directories")]
    Directory(#[source] io::Error),
    /// The path is so long that overlay could not be given the layers below it (fsconfig(2): 255 bytes).
    #[error("its path has {bytes} bytes; at most {limit} are possible")]
    PathTooLong {
        /// As it is.
        bytes: usize,
        /// What layers leave of 255.
        limit: usize,
    },
    /// The records of images cannot be read.
    #[error(transparent)]
    Records(#[from] StoreError),
}

/// Why an archive or root file system did not become an image.
#[derive(Debug, thiserror::Error)]
#[error("cannot load {}", path.display())]
pub struct LoadError {
    /// The archive.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub cause: LoadCause,
}

/// Why an archive or root file system did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum LoadCause {
    /// The file itself failed, or what it is compressed with.
    #[error("cannot read it")]
    Open(#[source] io::Error),
    /// A FIFO, a device, a socket.
    #[error("it is neither a regular file nor a directory")]
    NotAFile,
    /// The tar file around the image is bad.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// A compressed archive could not be decompressed to disk.
    #[error("cannot decompress it to disk")]
    Spool(#[source] io::Error),
    /// No room for that.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Some other tar file.
    #[error(
        "it is no image archive: it has neither manifest.json (docker save) nor index.json (OCI); a root file system is imported, not loaded"
    )]
    NotAnImage,
    /// A list without images.
    #[error("{name:?} lists no image")]
    Empty {
        /// The list.
        name: String,
    },
    /// A name was given, but to which image?
    #[error("it holds {count} images, so {name:?} cannot be the name of one; load it without a name")]
    SeveralImages {
        /// The name that was given.
        name: String,
        /// Images in the archive.
        count: usize,
    },
    /// A name is no image reference.
    #[error("bad image name {name:?}")]
    Name {
        /// As it was given, or stands in the archive.
        name: String,
        /// Why.
        #[source]
        source: InvalidImageReference,
    },
    /// A name pins another image.
    #[error("the name {name:?} has a digest that is not the image's")]
    NameDigest {
        /// The name that was given.
        name: String,
    },
    /// No manifest for this machine.
    #[error("it has no image for {wanted}, only for {found}")]
    Platform {
        /// This machine.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A chart, a policy, a signature.
    #[error("{name:?} is no container image: its config is {media_type:?}")]
    NotARunnableImage {
        /// The manifest.
        name: String,
        /// Of its config.
        media_type: String,
    },
    /// Nobody gave us the key.
    #[error("{name:?} has encrypted layers, which are not supported")]
    Encrypted {
        /// The manifest.
        name: String,
    },
    /// A member that a manifest names is not there.
    #[error("{name:?} is missing in it")]
    Missing {
        /// The member.
        name: String,
    },
    /// The tar file ends inside a member.
    #[error("it is cut off inside {name:?}")]
    CutOff {
        /// The member.
        name: String,
    },
    /// A member cannot be read.
    #[error("cannot read {name:?}")]
    Read {
        /// The member.
        name: String,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// A manifest or config beyond all measure.
    #[error("{name:?} has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// The member.
        name: String,
        /// Its size.
        size: u64,
        /// What is read.
        limit: u64,
    },
    /// Too many of something.
    #[error("{found} {what}; at most {limit} are supported")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// So many are there.
        found: usize,
        /// So many may be.
        limit: usize,
    },
    /// Not the JSON that it should be.
    #[error("{name:?} is no valid image {what}")]
    Json {
        /// The member.
        name: String,
        /// `config`, `manifest`, `index`, `archive`.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A digest that is none.
    #[error("{name:?} names a bad digest")]
    BadDigest {
        /// The member.
        name: String,
        /// Why.
        #[source]
        source: InvalidId,
    },
    /// Not the bytes that a manifest names.
    #[error("{name:?} has digest {found}, its manifest says {expected}")]
    Digest {
        /// The member.
        name: String,
        /// As named.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// Not as many bytes as a manifest says.
    #[error("{name:?} has {found} bytes, its manifest says {expected}")]
    Size {
        /// The member.
        name: String,
        /// As named.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// Config and manifest do not agree.
    #[error("its config has {config} layers, its manifest {manifest}")]
    LayerCount {
        /// `rootfs.diff_ids`.
        config: usize,
        /// `layers`.
        manifest: usize,
    },
    /// One layer is bad, or cannot be written.
    #[error("layer {diff_id}")]
    Layer {
        /// Digest of its content, as the config names it.
        diff_id: Digest,
        /// Why.
        #[source]
        cause: LayerError,
    },
    /// One layer is bad, or cannot be read.
    #[error("layer {position} of {count} ({name:?})")]
    InLayer {
        /// Counted from 1, the lowest.
        position: usize,
        /// Layers of the image.
        count: usize,
        /// The member.
        name: String,
        /// Why.
        #[source]
        cause: Box<LoadCause>,
    },
    /// The root file system itself.
    #[error("its content")]
    Rootfs(#[source] LayerError),
    /// A file of the directory to be imported cannot be read.
    #[error("cannot read {} in it", path.display())]
    ReadFile {
        /// Relative to the directory.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// Layers could not be made durable.
    #[error("cannot write its layers to disk")]
    Sync(#[source] io::Error),
    /// The records could not be written.
    #[error(transparent)]
    Record(#[from] StoreError),
    /// A bug of ours.
    #[error("a thread that unpacked it panicked")]
    Panicked,
}

impl From<PackError> for LoadCause {
    fn from(error: PackError) -> Self {
        match error {
            PackError::File { path, source } => Self::ReadFile { path, source },
            PackError::Depth => {
                let limit = layer::limits::PATH_DEPTH;
                Self::TooMany { what: "directories inside each other", found: limit + 1, limit }
            }
        }
    }
}

impl LoadCause {
    /// Says which layer it was.
    pub(crate) fn in_layer(self, position: usize, count: usize, name: &str) -> Self {
        Self::InLayer { position, count, name: name.to_owned(), cause: Box::new(self) }
    }
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveImageError {
    /// No image has this name or id.
    #[error("image {reference:?} not found")]
    NotFound {
        /// As it was given.
        reference: String,
    },
    /// The text names nothing.
    #[error(transparent)]
    InvalidReference(#[from] InvalidImageReference),
    /// The daemon stops; the next start finishes what was begun.
    #[error("removing image {reference:?} was interrupted")]
    Interrupted {
        /// As it was given.
        reference: String,
    },
    /// Something runs from it.
    #[error("image {reference:?} is in use by {}", holders.join(", "))]
    Held {
        /// As it was given.
        reference: String,
        /// Who holds it.
        holders: Vec<String>,
    },
    /// The records could not be written.
    #[error("cannot remove image {reference:?}")]
    Record {
        /// As it was given.
        reference: String,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// Why an image could not be held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It is not on this machine (any more).
    #[error("image {id} not found")]
    NotFound {
        /// The image.
        id: Digest,
    },
    /// The record could not be written.
    #[error("cannot hold image {id} for {holder:?}")]
    Record {
        /// The image.
        id: Digest,
        /// Who wanted it.
        holder: String,
        /// Why.
        #[source]
        source: StoreError,
    },
}
