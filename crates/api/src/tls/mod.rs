//! TLS: the local authority, what it signs, and who shows a certificate of it.

mod authority;
mod serving;
mod subject;

pub use authority::{Authority, AuthorityError};
pub use serving::{ServingCertificate, ServingError};
pub use subject::identity_of;
