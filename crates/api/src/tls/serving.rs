//! The server's certificate: made when it is first needed, anew when it gets old or a new address is reached.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use rustls::crypto::ring;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use spec::Timestamp;

use crate::tls::{Authority, AuthorityError};

/// How long a certificate is good for. It lives in memory, so a new one costs less than a millisecond and no file.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// One that ends sooner is replaced.
const RESERVE: SignedDuration = SignedDuration::from_hours(24 * 120);

/// Names this server and its addresses.
pub struct ServingCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: Mutex<Current>,
}

struct Current {
    /// Addresses that clients use.
    addresses: BTreeSet<IpAddr>,
    /// How to serve, and until when.
    made: Option<(Arc<ServerConfig>, Timestamp)>,
}

/// Why a connection cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The authority's own certificate is not taken.
    #[error("cannot verify client certificates")]
    Verify(#[from] VerifierBuilderError),
    /// The certificate does not fit the library.
    #[error("cannot serve TLS with the certificate")]
    Tls(#[from] rustls::Error),
}

impl ServingCertificate {
    /// For a server that is called by these names and reached at these addresses.
    pub fn new(authority: Arc<Authority>, names: Vec<String>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses = addresses.into_iter().filter(|address| !address.is_unspecified()).collect();
        Self { authority, names, current: Mutex::new(Current { addresses, made: None }) }
    }

    /// How to serve a client that has reached this address. Only addresses of this machine can be reached, so few are
    /// ever added.
    pub fn for_client_of(&self, address: IpAddr, now: Timestamp) -> Result<Arc<ServerConfig>, ServingError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let known = !current.addresses.insert(address);
        if known
            && let Some((config, until)) = &current.made
            && now.checked_add(RESERVE).is_ok_and(|needed| needed < *until)
        {
            return Ok(Arc::clone(config));
        }
        let until = now.saturating_add(LIFE).unwrap_or(Timestamp::MAX);
        let config = Arc::new(self.config(&current.addresses, until)?);
        current.made = Some((Arc::clone(&config), until));
        Ok(config)
    }

    fn config(&self, addresses: &BTreeSet<IpAddr>, until: Timestamp) -> Result<ServerConfig, ServingError> {
        let signed = self.authority.sign_server(&self.names, addresses.iter().copied(), until)?;
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone())?;
        // Who has no certificate may have a token.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![signed.certificate], signed.key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_until_it_gets_old_or_the_server_gets_an_address() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(directory.path()).unwrap());
        let serving = ServingCertificate::new(authority, vec!["localhost".to_owned()], []);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = serving.for_client_of(address("127.0.0.1"), at("1970-01-01T00:00:05Z")).unwrap();
        let same = |other: &Arc<ServerConfig>, text: &str, when: &str| {
            Arc::ptr_eq(other, &serving.for_client_of(address(text), at(when)).unwrap())
        };
        assert!(same(&first, "127.0.0.1", "1970-05-01T00:00:00Z"));
        // The clock is set.
        let second = serving.for_client_of(address("127.0.0.1"), at("2026-01-01T00:00:00Z")).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(same(&second, "127.0.0.1", "2026-08-01T00:00:00Z"));
        assert!(!same(&second, "127.0.0.1", "2026-10-01T00:00:00Z"), "it ends on the last day of the year");
        let third = serving.for_client_of(address("10.0.0.1"), at("2026-10-01T00:00:00Z")).unwrap();
        assert!(same(&third, "127.0.0.1", "2026-10-01T00:00:00Z"), "it names both");
    }
}
