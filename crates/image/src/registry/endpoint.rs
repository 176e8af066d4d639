//! One server that may have the images of a registry.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

/// A server, and what stands before the names of repositories there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `None`: HTTPS, or plain HTTP where that is allowed and nothing else is spoken.
    pub(super) https: Option<bool>,
    /// `HOST[:PORT]`.
    pub(super) authority: String,
    /// Such as `proxy/`; mostly empty.
    pub(super) repository_prefix: String,
}

impl Endpoint {
    /// The server of the registry that an image reference names.
    pub(super) fn of_registry(registry: &str) -> Self {
        // Docker Hub's images are named by one host and served by another.
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Self { https: None, authority: authority.to_owned(), repository_prefix: String::new() }
    }

    /// From `http[s]://HOST[:PORT][/PATH]`.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_invalid| "it is no URL")?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it begins neither with https:// nor with http://"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user in it; credentials are read from docker's config.json");
        }
        if uri.query().is_some() {
            return Err("it has a query");
        }
        let path = uri.path().trim_matches('/');
        let repository_prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        Ok(Self { https: Some(https), authority: authority.to_string(), repository_prefix })
    }

    /// The repository, as it is called there.
    pub(super) fn repository(&self, repository: &str) -> String {
        format!("{}{repository}", self.repository_prefix)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.https {
            Some(true) => f.write_str("https://")?,
            Some(false) => f.write_str("http://")?,
            None => {}
        }
        f.write_str(&self.authority)?;
        match self.repository_prefix.trim_end_matches('/') {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

/// Host without port and brackets.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether only this machine can be meant.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
