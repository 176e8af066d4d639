//! Unmodified kubectl against a node, over TLS with the administrator's kubeconfig.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::command::Finished;
use crate::images::project;
use crate::node::TestNode;
use crate::{Background, Terminal};

/// Which kubectl.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// Debian's newest; `MONOPOD_TEST_KUBECTL` names another.
    #[default]
    Newest,
    /// 1.32, of Debian's stable release: it neither asks for streaming lists nor for aggregated answers as the newest does.
    Older,
}

impl Release {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Newest, Self::Older];

    /// The program, fetched once by `tests/kubectl`.
    pub fn binary(self) -> &'static PathBuf {
        static NEWEST: OnceLock<PathBuf> = OnceLock::new();
        static OLDER: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Newest => NEWEST
                .get_or_init(|| std::env::var_os("MONOPOD_TEST_KUBECTL").map_or_else(|| fetch("sid"), PathBuf::from)),
            Self::Older => OLDER.get_or_init(|| fetch("trixie")),
        }
    }
}

/// The newest.
pub fn binary() -> &'static PathBuf {
    Release::Newest.binary()
}

fn fetch(suite: &str) -> PathBuf {
    let fetch = project().join("tests/kubectl");
    let output =
        Command::new(&fetch).arg(suite).output().unwrap_or_else(|error| panic!("{}: {error}", fetch.display()));
    assert!(output.status.success(), "{}: {}", fetch.display(), String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

impl TestNode {
    /// `kubectl ARGUMENTS` on this node's network. It stays outside of the other namespaces: the leak check looks there.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.on_network(self.kubectl_release.binary());
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
