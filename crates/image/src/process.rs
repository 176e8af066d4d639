//! What an image says about the process that is run from it (OCI image specification, "Properties" of `config`).

use crate::catalog::Image;

impl Image {
    /// Its variables, in their order; one without `=` has no value.
    pub fn variables(&self) -> Vec<(String, String)> {
        let variables = self.config.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        variables.iter().map(pair).collect()
    }

    /// Program and arguments: `command` replaces ENTRYPOINT and drops CMD, `args` replaces CMD alone. Empty if nobody says
    /// what to run.
    pub fn command_line(&self, command: &[String], args: &[String]) -> Vec<String> {
        let config = self.config.config().as_ref();
        let entrypoint = || config.and_then(|config| config.entrypoint().clone()).unwrap_or_default();
        let cmd = || config.and_then(|config| config.cmd().clone()).unwrap_or_default();
        let mut line = if command.is_empty() { entrypoint() } else { command.to_vec() };
        line.extend(if args.is_empty() && command.is_empty() { cmd() } else { args.to_vec() });
        line
    }

    /// Where its process begins, if it says so.
    pub fn working_dir(&self) -> Option<&str> {
        self.config.config().as_ref()?.working_dir().as_deref().filter(|path| !path.is_empty())
    }

    /// The user and perhaps group that its process has: names or numbers, as `USER` gives them.
    pub fn user(&self) -> &str {
        self.config.config().as_ref().and_then(|config| config.user().as_deref()).unwrap_or_default()
    }
}
