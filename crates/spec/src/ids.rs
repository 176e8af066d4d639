//! Identifiers as types, so that one cannot be passed where another is meant.

use std::fmt;
use std::str::FromStr;

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind} {text:?}: {why}")]
pub struct InvalidId {
    /// What the text should have been, such as `image digest`.
    pub kind: &'static str,
    /// The text as it was given.
    pub text: String,
    /// Which rule it breaks.
    pub why: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is; the door that received it has validated it.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        /// As the quoted text alone: errors name things by it.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// `metadata.uid` of a Pod: everything of a Pod on this machine is keyed by it, since its name may come again.
    PodUid
}
text_id! {
    /// One incarnation of a Pod's sandbox (its infra process, namespaces and address): 32 hexadecimal digits.
    SandboxId
}
text_id! {
    /// One start of a container: 64 hexadecimal digits, as container runtimes name them.
    ContainerId
}
text_id! {
    /// `name` of a container, unique in its Pod.
    ContainerName
}
text_id! {
    /// `name` of a volume, unique in its Pod.
    VolumeName
}

impl SandboxId {
    /// A new random identifier.
    pub fn random() -> Self {
        Self(random_hex(16))
    }
}

impl ContainerId {
    /// A new random identifier.
    pub fn random() -> Self {
        Self(random_hex(32))
    }
}

fn random_hex(bytes: usize) -> String {
    use std::fmt::Write as _;
    (0..bytes).fold(String::with_capacity(bytes * 2), |mut text, _| {
        // Writing to a String cannot fail.
        let _ok = write!(text, "{:02x}", rand::random::<u8>());
        text
    })
}

/// A version 4 UUID (RFC 9562), as `metadata.uid` has it.
pub fn random_uuid() -> String {
    let hex = random_hex(16);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    // The variant bits are `10`: one of 8, 9, a, b.
    let variant = match part(16, 17).as_bytes().first().map_or(0, |digit| digit % 4) {
        0 => '8',
        1 => '9',
        2 => 'a',
        _ => 'b',
    };
    format!("{}-{}-4{}-{variant}{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}

/// Name and namespace of a Pod; prints as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PodRef {
    /// The Kubernetes namespace.
    pub pod_namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl PodRef {
    /// Names a Pod.
    pub fn new(pod_namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { pod_namespace: pod_namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pod_namespace, self.name)
    }
}

/// A content digest, `sha256:` and 64 lower-case hexadecimal digits (OCI image-spec, descriptor.md, "Digests").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest whose hash bytes are given.
    pub fn sha256(hash: [u8; 32]) -> Self {
        use std::fmt::Write as _;
        Self(hash.iter().fold(String::from("sha256:"), |mut text, byte| {
            let _ok = write!(text, "{byte:02x}");
            text
        }))
    }

    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal part alone, as used in file names.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = |why| InvalidId { kind: "image digest", text: text.to_owned(), why };
        let hex = text.strip_prefix("sha256:").ok_or_else(|| invalid("only sha256 digests are supported"))?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(invalid("sha256: must be followed by 64 lower-case hexadecimal digits"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_and_64_digits() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().hex(), "0a".repeat(32));
        for bad in
            ["", "sha256:", "md5:abc", &format!("sha256:{}", "0A".repeat(32)), &format!("sha256:{}/", "0a".repeat(32))]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn random_identifiers_have_their_length_and_differ() {
        assert_eq!(SandboxId::random().as_str().len(), 32);
        assert_eq!(ContainerId::random().as_str().len(), 64);
        assert_ne!(ContainerId::random(), ContainerId::random());
    }
}
