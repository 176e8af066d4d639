//! The proxy through which registries are reached, as `HTTPS_PROXY` and `NO_PROXY` say.

use std::net::IpAddr;

use base64::Engine as _;
use http::Uri;

use super::config::InvalidRegistryOption;
use super::endpoint::{host_of, is_loopback};

/// A proxy that makes tunnels (RFC 9110, 9.3.6).
#[derive(Clone)]
pub(super) struct Proxy {
    /// `HOST:PORT`.
    pub(super) authority: String,
    /// For `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
    exceptions: Vec<String>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Proxy {
    pub(super) fn parse(url: &str, no_proxy: &str) -> Result<Self, InvalidRegistryOption> {
        let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
        let invalid = |why| InvalidRegistryOption { option: "HTTPS_PROXY", value: shown.to_owned(), why };
        let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = with_scheme.parse().map_err(|_invalid| invalid("it is no URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid("only a proxy that is spoken to by http:// is supported"));
        }
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let authorization = authority.as_str().rsplit_once('@').map(|(user, _)| {
            let user = percent_decoded(user);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user))
        });
        let exceptions = no_proxy.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase());
        let exceptions = exceptions.filter(|entry| !entry.is_empty()).collect();
        Ok(Self { authority: format!("{}:{port}", authority.host()), authorization, exceptions })
    }

    /// Whether `HOST[:PORT]` is reached through it.
    pub(super) fn is_for(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = host_of(&authority);
        !is_loopback(host) && !self.exceptions.iter().any(|exception| excepts(exception, host, &authority))
    }
}

/// `*`, an address, a network, `host[:port]`, or a domain with all below it.
fn excepts(exception: &str, host: &str, authority: &str) -> bool {
    if exception == "*" || exception == authority {
        return true;
    }
    if let (Ok(address), Some((network, bits))) = (host.parse::<IpAddr>(), exception.split_once('/')) {
        let bits = bits.parse::<u32>().ok();
        return network.parse().ok().zip(bits).is_some_and(|(network, bits)| is_in(address, network, bits));
    }
    let domain = exception.trim_start_matches("*.").trim_start_matches('.');
    host == domain || host.strip_suffix(domain).is_some_and(|above| !domain.is_empty() && above.ends_with('.'))
}

fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            bits <= 32 && (u64::from(address.to_bits() ^ network.to_bits()) >> (32 - bits)) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            bits <= 128 && (address.to_bits() ^ network.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = if first == b'%' { after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()) } else { None };
        if let Some(byte) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            decoded.push(first);
            rest = after;
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_hosts_domains_addresses_and_networks() {
        let no_proxy = "example.com, .lan,10.0.0.0/8 fd00::/8,192.0.2.7,registry.test:5000";
        let proxy = Proxy::parse("http://user:p%40ss@proxy:3128", no_proxy).unwrap();
        assert_eq!(proxy.authority, "proxy:3128");
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjpwQHNz"));
        for direct in [
            "example.com",
            "a.example.com:443",
            "box.lan",
            "10.1.2.3:5000",
            "[fd00::1]:443",
            "192.0.2.7",
            "registry.test:5000",
            "localhost:5000",
            "127.0.0.1",
        ] {
            assert!(!proxy.is_for(direct), "{direct}");
        }
        for through in ["notexample.com", "11.0.0.1", "[fe80::1]", "registry.test:5001", "docker.io"] {
            assert!(proxy.is_for(through), "{through}");
        }
        assert!(!Proxy::parse("proxy", "*").unwrap().is_for("docker.io"));
    }

    #[test]
    fn other_kinds_of_proxies_are_refused_without_their_password() {
        for bad in ["socks5://user:secret@a:1080", "https://user:secret@a"] {
            let text = Proxy::parse(bad, "").unwrap_err().to_string();
            assert!(text.contains("only a proxy") && !text.contains("secret"), "{text}");
        }
    }
}
