//! Client libraries against a node, over TLS with the administrator's kubeconfig.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::images::project;
use crate::node::TestNode;

/// A library, and its program in `tests/clients`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `kubernetes` of PyPI.
    Python,
    /// `@kubernetes/client-node` of npm.
    Node,
    /// `kube` of crates.io; its program is `tests/kube-rs`.
    Rust,
}

impl Library {
    /// Those that can be tried here. A machine without npm goes without its, and says so.
    pub fn all() -> Vec<Self> {
        if home().join("node/node_modules").is_dir() {
            return vec![Self::Python, Self::Rust, Self::Node];
        }
        eprintln!("skipped: @kubernetes/client-node: npm is missing");
        vec![Self::Python, Self::Rust]
    }
}

/// Where `tests/clients/setup` has put them.
pub fn home() -> &'static PathBuf {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    HOME.get_or_init(|| {
        let fetch = project().join("tests/clients/setup");
        let output = Command::new(&fetch).output().unwrap_or_else(|error| panic!("{}: {error}", fetch.display()));
        assert!(output.status.success(), "{}: {}", fetch.display(), String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    })
}

impl TestNode {
    /// The library's program, doing `what`, on this node's network.
    pub fn client(&self, library: Library, what: &str) -> Command {
        let programs = project().join("tests/clients");
        let (program, script) = match library {
            Library::Python => (home().join("python/bin/python"), Some(programs.join("client.py"))),
            Library::Node => (PathBuf::from("node"), Some(programs.join("client.mjs"))),
            Library::Rust => (std::env::current_exe().unwrap().with_file_name("kube-rs-client"), None),
        };
        let mut command = self.on_network(program);
        command
            .args(script)
            .arg(what)
            .env("CLIENTS", home())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("KUBECONFIG", self.data_dir().join("admin.kubeconfig"));
        command
    }
}
