//! What every command needs: the daemon, the namespace, and standard output.

use crate::client::Client;
use crate::output::Output;

/// The surroundings of one command.
pub struct Context {
    /// The daemon.
    pub client: Client,
    /// What `--namespace` says.
    pub asked_namespace: Option<String>,
    /// Standard output.
    pub out: Output,
}

impl Context {
    /// The namespace to act in.
    pub fn namespace(&self) -> &str {
        self.asked_namespace.as_deref().unwrap_or("default")
    }
}
