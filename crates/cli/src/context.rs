//! What every command needs: the daemon, the namespace, and standard output.

use anyhow::Result;

use crate::catalog::{Catalog, needs_no_question};
use crate::client::Client;
use crate::manifests::{Files, Manifest};
use crate::output::Output;
use crate::resources::Target;

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

    /// What arguments such as `pod web` or `role/reader` point at. The daemon is asked for its kinds only where one is
    /// not known by heart.
    pub async fn targets(&self, arguments: &[String]) -> Result<Vec<Target>> {
        let catalog = self.catalog(needs_no_question(arguments)).await?;
        Ok(catalog.parse_targets(arguments)?)
    }

    /// The objects of manifests, which may be of any kind that the daemon serves.
    pub async fn manifests(&self, files: &Files) -> Result<Vec<Manifest>> {
        let documents = files.documents()?;
        let built_in = Catalog::built_in();
        let known = documents.iter().all(|document| document.is_of(&built_in));
        let catalog = self.catalog(known).await?;
        let namespace = self.asked_namespace.as_deref();
        Ok(documents.into_iter().map(|document| document.resolve(&catalog, namespace)).collect::<Result<_, _>>()?)
    }

    async fn catalog(&self, is_known: bool) -> Result<Catalog> {
        if is_known { Ok(Catalog::built_in()) } else { Catalog::served(&self.client).await }
    }
}
