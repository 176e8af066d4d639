//! Who one is to a registry: docker's `config.json`, and Secrets of the same form.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use spec::image_ref::ImageReference;

/// Files beyond this are not docker's.
const CONFIG_BYTES: u64 = 1 << 20;
/// What docker calls its hub in `config.json`.
const HUB: &str = "index.docker.io";

/// User and password, or a token that gives tokens. Its `Debug` shows neither password nor token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// For basic authentication, and for token servers.
    Password {
        /// Who.
        username: String,
        /// The secret.
        password: String,
    },
    /// An OAuth 2 refresh token (`identitytoken`).
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username:?})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// Why credentials cannot be read. It never holds them.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file.
    #[error("cannot read {}", path.display())]
    File {
        /// Of `--registry-config`.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: std::io::Error,
    },
    /// A file of another kind.
    #[error("{} has more than {CONFIG_BYTES} bytes", path.display())]
    TooLarge {
        /// Of `--registry-config`.
        path: PathBuf,
    },
    /// Not what docker writes.
    #[error("credentials are not in the form of docker's config.json (line {line}, column {column})")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// One entry is not `user:password`.
    #[error("the credentials for {registry:?} are not base64 of user:password")]
    Entry {
        /// Its key.
        registry: String,
    },
    /// A program would have to be run.
    #[error(
        "the credentials for {registry:?} are kept by the program docker-credential-{helper}, which is not run; write them into \"auths\" with: docker login, without \"credsStore\" and \"credHelpers\""
    )]
    Helper {
        /// The registry.
        registry: String,
        /// Its name.
        helper: String,
    },
}

/// Credentials by the registry, or part of one, that they are for.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    auths: Vec<(String, Result<Credentials, ()>)>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
struct Auth {
    #[serde(default, rename = "auth")]
    encoded: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

impl Keyring {
    /// Of a `config.json`, or the key `.dockerconfigjson` of a Secret.
    pub fn from_docker_config(json: &[u8]) -> Result<Self, CredentialsError> {
        let config: DockerConfig = serde_json::from_slice(json).map_err(|error| not_json(&error))?;
        let store = config.store.filter(|store| !store.is_empty());
        Ok(Self { auths: entries(config.auths), helpers: config.helpers, store })
    }

    /// Of the key `.dockercfg` of a Secret: the older form, entries alone.
    pub fn from_dockercfg(json: &[u8]) -> Result<Self, CredentialsError> {
        let auths: BTreeMap<String, Auth> = serde_json::from_slice(json).map_err(|error| not_json(&error))?;
        Ok(Self { auths: entries(auths), ..Self::default() })
    }

    /// Reads the file of `--registry-config`.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        use std::io::Read as _;
        let failed = |source| CredentialsError::File { path: path.to_owned(), source };
        let mut json = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(CONFIG_BYTES + 1).read_to_end(&mut json).map_err(failed)?;
        if json.len() as u64 > CONFIG_BYTES {
            return Err(CredentialsError::TooLarge { path: path.to_owned() });
        }
        Self::from_docker_config(&json)
    }

    /// All that are for this image, those that say the most first (the kubelet's `pkg/credentialprovider`).
    pub fn find(&self, image: &ImageReference) -> Result<Vec<Credentials>, CredentialsError> {
        let registry = if image.registry() == "docker.io" { HUB } else { image.registry() };
        self.find_at(registry, image.repository())
    }

    pub(super) fn find_at(&self, registry: &str, repository: &str) -> Result<Vec<Credentials>, CredentialsError> {
        let helper = self.helpers.iter().find(|(key, _)| matches(&normalized(key), registry, ""));
        let refused =
            |helper: &str| CredentialsError::Helper { registry: registry.to_owned(), helper: helper.to_owned() };
        if let Some((_, helper)) = helper {
            return Err(refused(helper));
        }
        let mut found = Vec::new();
        for (key, credentials) in &self.auths {
            let pattern = normalized(key);
            if !matches(&pattern, registry, repository) {
                continue;
            }
            match credentials {
                Ok(credentials) => found.push((pattern.len(), credentials.clone())),
                // `docker login` leaves an empty entry behind when a program keeps the secret.
                Err(()) => match &self.store {
                    Some(store) => return Err(refused(store)),
                    None => return Err(CredentialsError::Entry { registry: key.clone() }),
                },
            }
        }
        spec::ordered::sort_by_key(&mut found, |(length, _)| std::cmp::Reverse(*length));
        Ok(found.into_iter().map(|(_, credentials)| credentials).collect())
    }
}

fn entries(auths: BTreeMap<String, Auth>) -> Vec<(String, Result<Credentials, ()>)> {
    auths.into_iter().map(|(key, auth)| (key, credentials_of(auth))).collect()
}

fn credentials_of(auth: Auth) -> Result<Credentials, ()> {
    if !auth.identity_token.is_empty() {
        return Ok(Credentials::IdentityToken(auth.identity_token));
    }
    if !auth.encoded.is_empty() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.encoded.trim()).map_err(drop)?;
        let decoded = String::from_utf8(decoded).map_err(drop)?;
        // Docker pads with zero bytes.
        let (username, password) = decoded.trim_matches('\0').split_once(':').ok_or(())?;
        return Ok(Credentials::Password { username: username.to_owned(), password: password.to_owned() });
    }
    if auth.username.is_empty() {
        return Err(());
    }
    Ok(Credentials::Password { username: auth.username, password: auth.password })
}

/// `https://index.docker.io/v1/` and `docker.io` are one registry; what stays is `host[:port][/path]`.
fn normalized(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare.split_once('/').map_or((bare, None), |(host, path)| (host, Some(path))) {
        ("docker.io" | "registry-1.docker.io", None) => HUB.to_owned(),
        ("docker.io" | "registry-1.docker.io", Some(path)) => format!("{HUB}/{path}"),
        _ => bare.to_owned(),
    }
}

/// Whether `host[:port][/path]`, in whose host `*` stands for one label, covers a repository.
fn matches(pattern: &str, registry: &str, repository: &str) -> bool {
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (host, port) = split_port(host);
    let (registry_host, registry_port) = split_port(registry);
    let labels_match = {
        let (mut wanted, mut labels) = (host.split('.'), registry_host.split('.'));
        loop {
            match (wanted.next(), labels.next()) {
                (None, None) => break true,
                (Some(wanted), Some(label)) if label_matches(wanted, label) => {}
                _ => break false,
            }
        }
    };
    let path_matches = path.is_empty()
        || repository == path
        || repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    labels_match && port == registry_port && path_matches
}

fn label_matches(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(label),
        Some((before, after)) => {
            label.len() >= before.len() + after.len() && label.starts_with(before) && label.ends_with(after)
        }
    }
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// The parser's own words could repeat a secret.
fn not_json(error: &serde_json::Error) -> CredentialsError {
    CredentialsError::Json { line: error.line(), column: error.column() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        let found = keyring.find(&image.parse().unwrap()).unwrap();
        let name = |credentials: Credentials| match credentials {
            Credentials::Password { username, password } => format!("{username}:{password}"),
            Credentials::IdentityToken(token) => token,
        };
        found.into_iter().map(name).collect()
    }

    #[test]
    fn credentials_are_found_by_registry_and_path() {
        let json = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "registry.lan:5000": {"username": "all", "password": "p:w"},
            "registry.lan:5000/team": {"username": "team", "password": ""},
            "*.example.com": {"identitytoken": "token"},
            "https://quay.io/v2/": {"auth": "cXVheTpwdwAA"}
        }}"#;
        let keyring = Keyring::from_docker_config(json).unwrap();
        assert_eq!(users(&keyring, "nginx"), ["hub:pw"]);
        assert_eq!(users(&keyring, "docker.io/me/app:1"), ["hub:pw"]);
        assert_eq!(users(&keyring, "registry.lan:5000/other/app"), ["all:p:w"]);
        assert_eq!(users(&keyring, "registry.lan:5000/team/app"), ["team:", "all:p:w"]);
        assert_eq!(users(&keyring, "registry.lan:5000/teamwork"), ["all:p:w"]);
        assert_eq!(users(&keyring, "a.example.com/app"), ["token"]);
        assert_eq!(users(&keyring, "quay.io/app"), ["quay:pw"]);
        for other in ["registry.lan/app", "a.b.example.com/app", "example.com/app", "ghcr.io/app"] {
            assert!(users(&keyring, other).is_empty(), "{other}");
        }
        let old = Keyring::from_dockercfg(br#"{"registry.lan": {"auth": "YTpi"}}"#).unwrap();
        assert_eq!(users(&old, "registry.lan/app"), ["a:b"]);
    }

    #[test]
    fn what_cannot_be_used_is_said_without_the_secret() {
        let error = |json: &str, image: &str| {
            let keyring = Keyring::from_docker_config(json.as_bytes());
            let found = keyring.and_then(|keyring| keyring.find(&image.parse().unwrap()));
            found.map(|found| found.len()).map_err(|error| error.to_string())
        };
        let helpers = r#"{"auths": {"a.lan": {}}, "credHelpers": {"b.lan": "ecr"}, "credsStore": "desktop"}"#;
        assert!(error(helpers, "a.lan/x").unwrap_err().contains("docker-credential-desktop"));
        assert!(error(helpers, "b.lan/x").unwrap_err().contains("docker-credential-ecr"));
        assert_eq!(error(helpers, "c.lan/x"), Ok(0));
        for entry in [r#""auth": "c2VjcmV0""#, r#""auth": "se*cret""#, r#""username": """#] {
            let text = error(&format!(r#"{{"auths": {{"a.lan": {{{entry}}}}}}}"#), "a.lan/x").unwrap_err();
            assert!(text.contains("a.lan") && !text.contains("secret"), "{text}");
        }
        let text = error(r#"{"auths": {"a.lan": {"auth": secret}}}"#, "a.lan/x").unwrap_err();
        assert!(text.contains("line 1") && !text.contains("secret"), "{text}");
        let password = Credentials::Password { username: "me".into(), password: "secret".into() };
        assert_eq!(format!("{password:?}"), "Password(\"me\")");
    }
}
