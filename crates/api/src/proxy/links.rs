//! Places of the Pod's server as the client reaches them.

/// What is needed to tell them.
#[derive(Debug, Clone)]
pub struct Links {
    /// The path by which the client reaches the server, up to `/proxy`.
    pub prefix: String,
    /// How the server calls itself.
    pub own_host: String,
    /// How the client called this server.
    pub asked_host: String,
}

impl Links {
    /// The URL as the client needs it; `None` if it is fine as it is: relative, or of somebody else.
    pub fn rewrite(&self, url: &str) -> Option<String> {
        let (host, path) = split(url);
        let is_foreign = !host.is_empty() && host != self.own_host && host != self.asked_host;
        if is_foreign || !path.starts_with('/') {
            return None;
        }
        // Who is named as the client named it stays so.
        let start = if !host.is_empty() && host == self.asked_host {
            url.get(..url.len() - path.len()).unwrap_or_default()
        } else {
            ""
        };
        let is_done = path
            .strip_prefix(self.prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
        let prefix = if is_done { "" } else { self.prefix.as_str() };
        let rewritten = format!("{start}{prefix}{path}");
        (rewritten != url).then_some(rewritten)
    }
}

/// Host and path of a URL; no host if it names none.
fn split(url: &str) -> (&str, &str) {
    let after_scheme = match url.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) => {
            Some(rest)
        }
        _ => url.strip_prefix("//"),
    };
    match after_scheme {
        Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => ("", url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_the_server_lead_through_the_proxy_and_others_do_not() {
        let links = Links {
            prefix: "/api/v1/namespaces/n/pods/p/proxy".to_owned(),
            own_host: "10.85.0.2:80".to_owned(),
            asked_host: "localhost:8001".to_owned(),
        };
        let through = |rest: &str| Some(format!("{}{rest}", links.prefix));
        let table = [
            ("/", through("/")),
            ("/a?b=/c#d", through("/a?b=/c#d")),
            ("http://10.85.0.2:80/a/", through("/a/")),
            ("//10.85.0.2:80/a", through("/a")),
            ("http://localhost:8001/a", Some(format!("http://localhost:8001{}/a", links.prefix))),
            ("a/b", None),
            ("#top", None),
            ("?q=http://10.85.0.2:80/x", None),
            ("mailto:me@example.org", None),
            ("http://example.org/a", None),
            ("http://10.85.0.2:80", None),
            ("/api/v1/namespaces/n/pods/p/proxy/a", None),
            ("/api/v1/namespaces/n/pods/p/proxyless", through("/api/v1/namespaces/n/pods/p/proxyless")),
        ];
        for (url, expected) in table {
            assert_eq!(links.rewrite(url), expected, "{url}");
        }
    }
}
