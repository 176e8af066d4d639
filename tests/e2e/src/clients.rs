//! Client libraries of other languages against a node, over TLS with the administrator's kubeconfig.

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
}

impl Library {
    /// Those that can be tried here. Python's always can; a machine without npm goes without the other, and says so.
    pub fn all() -> Vec<Self> {
        if home().join("node/node_modules").is_dir() {
            return vec![Self::Python, Self::Node];
        }
        eprintln!("skipped: @kubernetes/client-node: npm is missing");
        vec![Self::Python]
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
        let (interpreter, program) = match library {
            Library::Python => (home().join("python/bin/python"), programs.join("client.py")),
            Library::Node => (PathBuf::from("node"), programs.join("client.mjs")),
        };
        let mut command = self.on_network(interpreter);
        command
            .arg(program)
            .arg(what)
            .env("CLIENTS", home())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("KUBECONFIG", self.data_dir().join("admin.kubeconfig"));
        command
    }
}
