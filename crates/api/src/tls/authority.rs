//! The local certificate authority: made once, kept for root alone, trusted by nobody but our own kubeconfigs.
//!
//! Every certificate starts in 1970: a machine without a battery boots there (RFC 5280 §4.1.2.5).

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spec::Timestamp;

/// The local authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A key and what the authority says of it.
pub struct Signed {
    /// The certificate as PEM.
    pub certificate_pem: String,
    /// The private key as PEM (PKCS #8).
    pub key_pem: String,
    /// The certificate as DER.
    pub certificate: CertificateDer<'static>,
    /// The private key as DER.
    pub key: PrivateKeyDer<'static>,
}

/// Why there is no authority, or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The certificate is there without its key.
    #[error("the certificate authority's key {} is missing; restore it, or remove {} to make a new authority", key.display(), certificate.display())]
    NoKey {
        /// Where the key should be.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{} is not a key or certificate as PEM; restore it, or remove its directory to make a new authority", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The certificate does not belong to the key.
    #[error("{} does not belong to the key beside it; restore it, or remove it to have it made anew", path.display())]
    Foreign {
        /// The certificate.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Sign(#[from] rcgen::Error),
}

impl Authority {
    /// Reads the authority from its directory; makes it if there is none.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let (key_path, path) = (directory.join("ca.key"), directory.join("ca.crt"));
        let (key_pem, pem) = (read(&key_path)?, read(&path)?);
        let key = match (key_pem, &pem) {
            (Some(pem), _) => KeyPair::from_pem(&pem).map_err(|_no_key| AuthorityError::Damaged { path: key_path })?,
            (None, Some(_)) => return Err(AuthorityError::NoKey { key: key_path, certificate: path }),
            (None, None) => {
                let key = KeyPair::generate()?;
                write_durably(directory, &key_path, &key.serialize_pem())?;
                key
            }
        };
        // A crash may have come before the certificate; one of the same key and name is as good as the first.
        let pem = if let Some(pem) = pem {
            pem
        } else {
            let pem = parameters().self_signed(&key)?.pem();
            write_durably(directory, &path, &pem)?;
            pem
        };
        let damaged = |_no_certificate| AuthorityError::Damaged { path: path.clone() };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(damaged)?;
        if !is_of(&certificate, &key) {
            return Err(AuthorityError::Foreign { path });
        }
        Ok(Self { issuer: Issuer::new(parameters(), key), certificate, pem })
    }

    /// The certificate that clients trust, as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The same as DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a certificate of a server that is called by these names and reached at these addresses.
    pub fn sign_server(
        &self,
        names: &[String],
        addresses: impl IntoIterator<Item = IpAddr>,
        until: Timestamp,
    ) -> Result<Signed, AuthorityError> {
        let mut wanted = CertificateParams::new(names)?;
        wanted.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
        wanted.distinguished_name = named("monopod-apiserver", None);
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(wanted, until)
    }

    /// Signs a certificate of a user: their name is its CN, their group its O. (`rcgen` writes one O; many are read.)
    pub fn sign_client(&self, user: &str, group: Option<&str>, until: Timestamp) -> Result<Signed, AuthorityError> {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = named(user, group);
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(wanted, until)
    }

    fn sign(&self, mut wanted: CertificateParams, until: Timestamp) -> Result<Signed, AuthorityError> {
        let key = KeyPair::generate()?;
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.use_authority_key_identifier_extension = true;
        wanted.not_before = date_time_ymd(1970, 1, 1);
        wanted.not_after =
            wanted.not_before + Duration::from_secs(u64::try_from(until.as_second()).unwrap_or_default());
        let certificate = wanted.signed_by(&key, &self.issuer)?;
        Ok(Signed {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }
}

fn parameters() -> CertificateParams {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name = named("monopod-ca", None);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    wanted.not_before = date_time_ymd(1970, 1, 1);
    wanted.not_after = date_time_ymd(9999, 12, 31);
    wanted
}

fn named(name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    if let Some(organization) = organization {
        named.push(DnType::OrganizationName, organization);
    }
    named.push(DnType::CommonName, name);
    named
}

/// Whether the certificate carries this public key.
fn is_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    use rcgen::PublicKeyData as _;
    crate::tls::subject::public_key_of(certificate).is_some_and(|found| found == key.subject_public_key_info())
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(AuthorityError::File { action: "read", path: path.to_owned(), cause }),
    }
}

/// Writes a file that is there whole or not at all, for its owner alone.
fn write_durably(directory: &Path, path: &Path, text: &str) -> Result<(), AuthorityError> {
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|cause| AuthorityError::File { action: "write", path: path.to_owned(), cause })
}
