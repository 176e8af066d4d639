//! Unmodified kubectl against a node, over TLS with the administrator's kubeconfig.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::command::Finished;
use crate::images::project;
use crate::node::TestNode;
use crate::{Background, Terminal};

/// Debian's newest kubectl, fetched once by `tests/kubectl`; `MONOPOD_TEST_KUBECTL` names another.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(ready) = std::env::var_os("MONOPOD_TEST_KUBECTL") {
            return PathBuf::from(ready);
        }
        let fetch = project().join("tests/kubectl");
        let output = Command::new(&fetch).output().unwrap_or_else(|error| panic!("{}: {error}", fetch.display()));
        assert!(output.status.success(), "{}: {}", fetch.display(), String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    })
}

impl TestNode {
    /// `kubectl ARGUMENTS` on this node's network. It stays outside of the other namespaces: the leak check looks there.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.on_network(binary());
        command
            .args(arguments)
            .env("KUBECONFIG", self.data_dir().join("admin.kubeconfig"))
            .env("HOME", self.path("home"))
            .env("KUBECACHEDIR", self.path("home/cache"));
        command
    }

    /// Runs `kubectl ARGUMENTS` to its end.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Finished {
        Finished::run(&mut self.kubectl_command(arguments), b"")
    }

    /// The same with a stdin.
    #[track_caller]
    pub fn kubectl_with(&self, arguments: &[&str], stdin: &[u8]) -> Finished {
        Finished::run(&mut self.kubectl_command(arguments), stdin)
    }

    /// Runs `kubectl ARGUMENTS` beside the test.
    #[track_caller]
    pub fn kubectl_background(&self, arguments: &[&str]) -> Background {
        Background::start(&mut self.kubectl_command(arguments))
    }

    /// Runs `kubectl ARGUMENTS` on a terminal of 100 columns and 30 rows.
    #[track_caller]
    pub fn kubectl_terminal(&self, arguments: &[&str]) -> Terminal {
        Terminal::start(&self.kubectl_command(arguments), 100, 30)
    }
}
