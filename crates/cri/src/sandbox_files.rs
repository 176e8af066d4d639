//! Files that CRI leaves to the runtime: `/etc/resolv.conf`, `/etc/hostname` and `/etc/hosts` of a sandbox' containers.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use runtime::PodSandboxStatus;
use spec::SandboxId;

use crate::proto::{DnsConfig, PodSandboxConfig};

/// The files of all sandboxes.
#[derive(Debug, Clone)]
pub struct SandboxFiles {
    directory: PathBuf,
}

impl SandboxFiles {
    /// Below `directory`, which is made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Writes those of a sandbox that was just made.
    pub fn write(&self, sandbox: &PodSandboxStatus, config: &PodSandboxConfig, hostname: &str) -> io::Result<()> {
        let directory = self.of(&sandbox.id);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory)?;
        let resolver = match &config.dns_config {
            Some(dns) => resolv_conf(dns),
            // Without a word of the caller, the machine's.
            None => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        };
        fs::write(directory.join("resolv.conf"), resolver)?;
        fs::write(directory.join("hostname"), format!("{hostname}\n"))?;
        fs::write(directory.join("hosts"), hosts(&sandbox.addresses, hostname))
    }

    /// Removes those of a sandbox; none is fine.
    pub fn remove(&self, sandbox: &SandboxId) -> io::Result<()> {
        match fs::remove_dir_all(self.of(sandbox)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Removes those of sandboxes that are no more: a daemon died between the two.
    pub fn retain(&self, live: &[SandboxId]) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            if !live.iter().any(|id| name == id.as_str()) {
                self.remove(&SandboxId::new(name.to_string_lossy()))?;
            }
        }
        Ok(())
    }

    /// Where each belongs in a container, and where it is.
    pub fn list(&self, sandbox: &SandboxId) -> Vec<(&'static str, PathBuf)> {
        let directory = self.of(sandbox);
        [("/etc/resolv.conf", "resolv.conf"), ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")]
            .map(|(target, name)| (target, directory.join(name)))
            .into()
    }

    fn of(&self, sandbox: &SandboxId) -> PathBuf {
        self.directory.join(sandbox.as_str())
    }
}

/// resolv.conf(5).
fn resolv_conf(dns: &DnsConfig) -> String {
    let list = |word: &str, list: &[String]| match list {
        [] => String::new(),
        list => format!("{word} {}\n", list.join(" ")),
    };
    let servers = dns.servers.iter().map(|server| format!("nameserver {server}\n"));
    let lines: Vec<String> =
        [list("search", &dns.searches)].into_iter().chain(servers).chain([list("options", &dns.options)]).collect();
    lines.concat()
}

/// hosts(5).
fn hosts(addresses: &[IpAddr], hostname: &str) -> String {
    let own = addresses.iter().map(|address| format!("{address}\t{hostname}\n"));
    ["127.0.0.1\tlocalhost\n".to_owned(), "::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned()]
        .into_iter()
        .chain(own)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_written_as_its_manual_says() {
        let dns = DnsConfig {
            servers: vec!["10.10.10.10".into(), "fd00::1".into()],
            searches: vec!["svc.local".into(), "local".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search svc.local local\nnameserver 10.10.10.10\nnameserver fd00::1\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), text);
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }

    #[test]
    fn files_of_sandboxes_that_are_gone_go_too() {
        let directory = tempfile::tempdir().unwrap();
        let files = SandboxFiles::open(&directory.path().join("files")).unwrap();
        for id in ["a", "b"] {
            fs::create_dir(files.of(&SandboxId::new(id))).unwrap();
        }
        files.retain(&[SandboxId::new("a")]).unwrap();
        assert!(files.of(&SandboxId::new("a")).exists() && !files.of(&SandboxId::new("b")).exists());
        files.remove(&SandboxId::new("b")).unwrap();
    }
}
