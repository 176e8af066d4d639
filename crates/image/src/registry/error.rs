//! Why an image was not pulled.

use spec::Digest;

use super::credentials::CredentialsError;
use super::http::HttpError;
use crate::error::LoadCause;

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull {reference}")]
pub struct PullError {
    /// The image, in full.
    pub reference: String,
    /// Why.
    #[source]
    pub cause: PullCause,
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullCause {
    /// Its credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Not there, or not for us: some registries do not tell the difference.
    #[error("{what} not found in {registry}: {detail}")]
    NotFound {
        /// `manifest 1.2`, `blob sha256:…`
        what: String,
        /// The server.
        registry: String,
        /// Its own words.
        detail: String,
    },
    /// Not for us.
    #[error("{registry} refuses access to {what}: {detail}")]
    Denied {
        /// Of what.
        what: String,
        /// The server.
        registry: String,
        /// Its own words, and what was tried.
        detail: String,
    },
    /// Another answer than one that helps.
    #[error("{registry} answers {status} to the request for {what}: {detail}")]
    Status {
        /// For what.
        what: String,
        /// The server.
        registry: String,
        /// Its answer.
        status: http::StatusCode,
        /// Its own words.
        detail: String,
    },
    /// It would have us tell our secrets to anybody.
    #[error("{registry} wants a token from {realm:?}, but {why}")]
    Realm {
        /// The server.
        registry: String,
        /// Where tokens come from.
        realm: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The token server answers nonsense.
    #[error("the token server {realm} answers without a token")]
    NoToken {
        /// The server.
        realm: String,
    },
    /// Not what was asked for.
    #[error("{registry} sends {what} with digest {found} instead of {expected}")]
    Digest {
        /// A manifest or config.
        what: String,
        /// The server.
        registry: String,
        /// As asked for, or as the server itself says.
        expected: Digest,
        /// As computed.
        found: Digest,
    },
    /// A registry of another age.
    #[error("{what} has an obsolete form (schema 1); push the image anew with a program of this decade")]
    Obsolete {
        /// The manifest.
        what: String,
    },
    /// A manifest that two programs could read differently (CVE-2021-41190).
    #[error("{what} is both an index and a manifest")]
    Ambiguous {
        /// The manifest.
        what: String,
    },
    /// What came is bad, or cannot be written to disk.
    #[error(transparent)]
    Load(#[from] LoadCause),
    /// Nobody waits for it any more.
    #[error("the pull was given up")]
    GivenUp,
}

impl PullCause {
    /// Whether other credentials may help.
    pub(super) fn is_refusal(&self) -> bool {
        // Registries answer 404 for what one may not know of.
        matches!(self, Self::Denied { .. } | Self::NotFound { .. })
    }
}
