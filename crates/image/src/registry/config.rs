//! What a person says about registries: mirrors, certificates, plain HTTP, credentials, proxies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::{Endpoint, host_of, is_loopback};
use super::proxy::Proxy;

/// Where registries are and how far they are trusted.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    mirrors: BTreeMap<String, Vec<Endpoint>>,
    insecure: BTreeSet<String>,
    /// Certificates of authorities beside the system's: `*.crt` and `*.pem` in it for all registries, in `HOST[:PORT]/`
    /// below it for that one (as in docker's `certs.d`).
    pub ca_directory: Option<PathBuf>,
    /// A `config.json` of docker's, with credentials in `auths`. It is read at each pull.
    pub docker_config: Option<PathBuf>,
    pub(super) proxy: Option<Proxy>,
    pub(super) patience: Patience,
}

/// How long to wait for a registry. Tests wait less.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// For a connection with TLS and all.
    pub(crate) connect: Duration,
    /// For the head of an answer.
    pub(crate) answer: Duration,
    /// Between bytes of a body.
    pub(crate) silence: Duration,
    /// How often something is tried again.
    pub(crate) retries: u32,
    /// Before the first retry; it doubles.
    pub(crate) back_off: Duration,
}

/// Why an option about registries means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {value:?}: {why}")]
pub struct InvalidRegistryOption {
    /// The flag or variable.
    pub option: &'static str,
    /// As it was given.
    pub value: String,
    /// Which rule it breaks.
    pub why: &'static str,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let patience = Patience {
            connect: Duration::from_secs(15),
            answer: Duration::from_mins(1),
            silence: Duration::from_mins(1),
            retries: 4,
            back_off: Duration::from_millis(500),
        };
        Self {
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            ca_directory: None,
            docker_config: None,
            proxy: None,
            patience,
        }
    }
}

impl RegistryConfig {
    /// `REGISTRY=URL`, or a URL alone for Docker Hub. A path of the URL is put before the repository's name.
    pub fn add_mirror(&mut self, text: &str) -> Result<(), InvalidRegistryOption> {
        let invalid = |why| InvalidRegistryOption { option: "--registry-mirror", value: text.to_owned(), why };
        let (registry, url) = match text.split_once('=') {
            Some((registry, url)) if !registry.contains('/') => (registry, url),
            _ => ("docker.io", text),
        };
        let endpoint = Endpoint::parse(url).map_err(invalid)?;
        // Who writes http:// means it.
        if endpoint.https == Some(false) {
            self.insecure.insert(endpoint.authority.to_ascii_lowercase());
        }
        self.mirrors.entry(registry.to_owned()).or_default().push(endpoint);
        Ok(())
    }

    /// `HOST[:PORT]`: plain HTTP may be spoken with it. Without a port, all ports of the host are meant.
    pub fn add_insecure(&mut self, text: &str) -> Result<(), InvalidRegistryOption> {
        let invalid = |why| InvalidRegistryOption { option: "--insecure-registry", value: text.to_owned(), why };
        if text.contains("://") || text.contains('/') {
            return Err(invalid("it is HOST or HOST:PORT, without scheme and path"));
        }
        Endpoint::parse(&format!("https://{text}")).map_err(invalid)?;
        self.insecure.insert(text.to_ascii_lowercase());
        Ok(())
    }

    /// Reads `HTTPS_PROXY` and `NO_PROXY`, in capitals or not, as curl does. `variable` gives an environment variable.
    pub fn set_proxy(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), InvalidRegistryOption> {
        let either = |name: &str| {
            let found = variable(&name.to_ascii_lowercase()).or_else(|| variable(name));
            found.filter(|value| !value.is_empty())
        };
        self.proxy = match either("HTTPS_PROXY") {
            Some(url) => Some(Proxy::parse(&url, either("NO_PROXY").as_deref().unwrap_or_default())?),
            None => None,
        };
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn patience_mut(&mut self) -> &mut Patience {
        &mut self.patience
    }

    /// Whether plain HTTP may be spoken with `HOST[:PORT]`.
    pub(super) fn may_be_plain(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = host_of(&authority);
        is_loopback(host) || self.insecure.contains(&authority) || self.insecure.contains(host)
    }

    /// Where to look for the images of a registry, in this order; the registry itself comes last.
    pub(super) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirrors = self.mirrors.get(registry).into_iter().flatten();
        mirrors.cloned().chain([Endpoint::of_registry(registry)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_what_is_named() {
        let mut config = RegistryConfig::default();
        config.add_insecure("registry.lan:5000").unwrap();
        config.add_insecure("Box.LAN").unwrap();
        for authority in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000", "box.lan:81"] {
            assert!(config.may_be_plain(authority), "{authority}");
        }
        assert!(config.may_be_plain("registry.lan:5000"));
        for authority in ["registry.lan", "registry.lan:5001", "docker.io", "127.0.0.1.evil.example", "localhost.evil"]
        {
            assert!(!config.may_be_plain(authority), "{authority}");
        }
        for bad in ["http://a", "a/b", ""] {
            assert!(config.add_insecure(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors_come_before_the_registry() {
        let mut config = RegistryConfig::default();
        config.add_mirror("https://mirror.lan").unwrap();
        config.add_mirror("quay.io=http://127.0.0.1:5000/quay").unwrap();
        let urls = |registry| {
            let endpoints = config.endpoints(registry);
            endpoints.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(urls("docker.io"), ["https://mirror.lan", "registry-1.docker.io"]);
        assert_eq!(urls("quay.io"), ["http://127.0.0.1:5000/quay", "quay.io"]);
        assert_eq!(urls("ghcr.io"), ["ghcr.io"]);
        for bad in ["ftp://a", "quay.io=", "quay.io=https://", "https://user:word@a", "https://a?b"] {
            assert!(config.clone().add_mirror(bad).is_err(), "{bad}");
        }
    }
}
