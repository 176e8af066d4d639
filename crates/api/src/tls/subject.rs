//! Reads certificates: whom one is of, and its public key.

use rustls::pki_types::CertificateDer;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::{Certificate, attr::AttributeTypeAndValue};

use crate::access::Identity;

// X.520 §6.2.2 and §6.4.1.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// The user of a client certificate, as upstream reads it: CN is the name, each O a group. `None` if it names nobody.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate().subject();
    let texts = |kind| subject.iter().filter(move |attribute| attribute.oid == kind).filter_map(text);
    let name = texts(COMMON_NAME).last().filter(|name| !name.is_empty())?;
    Some(Identity::authenticated(name, texts(ORGANIZATION)))
}

/// The public key as DER.
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Certificate::from_der(certificate).ok()?.tbs_certificate().subject_public_key_info().to_der().ok()
}

fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let value = &attribute.value;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => String::from_utf8(value.value().to_vec()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Authority;

    #[test]
    fn a_client_certificate_names_a_user_and_their_group() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let until = "2030-01-01T00:00:00Z".parse().unwrap();
        let jane = authority.sign_client("jane", Some("dev"), until).unwrap();
        let jane = identity_of(&jane.certificate).unwrap();
        assert_eq!(
            (jane.name.as_str(), jane.groups.as_slice()),
            ("jane", &["dev".into(), "system:authenticated".into()][..])
        );
        let nobody = authority.sign_client("", None, until).unwrap();
        assert_eq!(identity_of(&nobody.certificate), None);
    }
}
