//! Image references: `[registry/]repository[:tag][@digest]`, with Docker Hub's short names.
//!
//! Source: the OCI distribution-spec ("Pulling manifests") and the reference grammar that all runtimes share.

use std::fmt;
use std::str::FromStr;

use crate::ids::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

/// A complete image reference: registry, repository, and a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {why}")]
pub struct InvalidImageReference {
    /// The text as it was given.
    pub text: String,
    /// Which rule it breaks.
    pub why: &'static str,
}

impl ImageReference {
    /// The registry's host, with its port if it has one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository inside the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that pins the content.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether the tag is `latest`, written or implied: such images are pulled always unless the Pod says otherwise.
    pub fn is_latest(&self) -> bool {
        self.tag.as_deref() == Some(DEFAULT_TAG)
    }

    /// The full form, which is the same for all spellings of one reference.
    pub fn canonical(&self) -> String {
        self.to_string()
    }

    /// Registry and repository alone, as in `repoDigests`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = InvalidImageReference;

    fn from_str(text: &str) -> Result<Self, InvalidImageReference> {
        parse(text).map_err(|why| InvalidImageReference { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<ImageReference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => {
            let digest = digest.parse::<Digest>().map_err(|invalid| invalid.why)?;
            (named, Some(digest))
        }
        None => (text, None),
    };
    let (name, tag) = match named.rsplit_once(':') {
        // A colon before a slash belongs to the port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("a tag is at most 128 letters, digits, '_', '.' and '-', and does not start with '.' or '-'");
    }
    let (registry, repository) = split_registry(name)?;
    if !repository.split('/').all(is_path_component) {
        return Err(
            "a repository name consists of lower-case letters and digits, separated by '.', '_', '__', '-' or '/'",
        );
    }
    if registry.len() + 1 + repository.len() > 255 {
        return Err("registry and repository have more than 255 characters");
    }
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(ImageReference { registry, repository, tag, digest })
}

/// The part before the first slash is a host if it looks like one, else the name is one of Docker Hub's.
fn split_registry(name: &str) -> Result<(String, String), &'static str> {
    let host_and_rest = name.split_once('/').filter(|(host, _)| {
        host.contains(['.', ':']) || *host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase())
    });
    let (registry, repository) = match host_and_rest {
        Some((host, rest)) if is_host(host) => (host, rest),
        Some(_) => return Err("the registry is not a host name with an optional port"),
        None => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        if repository.len() == 64 && repository.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("64 hexadecimal digits are an image's identifier, not its name");
        }
        return Ok((registry.to_owned(), format!("library/{repository}")));
    }
    Ok((registry.to_owned(), repository.to_owned()))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_is_good = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let name_is_good = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        }),
    };
    port_is_good && name_is_good
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !tag.starts_with(['.', '-'])
}

/// Runs of lower-case letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && component
            .split(is_word)
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha() -> String {
        format!("sha256:{}", "ab".repeat(32))
    }

    #[test]
    fn spellings_of_one_reference_have_one_canonical_form() {
        let sha = sha();
        let table = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("library/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("grafana/grafana:11", "docker.io/grafana/grafana:11"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("[::1]:5000/a/b_c/d__e-f", "[::1]:5000/a/b_c/d__e-f:latest"),
            ("Registry/app", "Registry/app:latest"),
            (&format!("nginx@{sha}"), &format!("docker.io/library/nginx@{sha}")),
            (&format!("quay.io/a/b:t@{sha}"), &format!("quay.io/a/b:t@{sha}")),
        ];
        for (text, canonical) in table {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!(reference.canonical(), *canonical, "{text}");
            assert_eq!(reference.canonical().parse::<ImageReference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn latest_is_written_or_implied_but_not_with_a_digest_alone() {
        let sha = sha();
        for (text, latest) in [
            ("a", true),
            ("a:latest", true),
            ("a:1", false),
            (&format!("a@{sha}"), false),
            (&format!("a:latest@{sha}"), true),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().is_latest(), latest, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "a".repeat(256);
        let id = "0a".repeat(32);
        for text in [
            "",
            "Nginx",
            "nginx:",
            "nginx:.1",
            ":1",
            "a//b",
            "/a",
            "a/",
            "a b",
            " a",
            "a@",
            "a@sha256:12",
            "a@md5:00",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a.-b",
            "host:port/a",
            "-x.io/a",
            "a:b:c",
            &long,
            &id,
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text:?}");
        }
    }
}
