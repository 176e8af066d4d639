//! `apply` and `create`: bring manifests to the daemon.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::client::Client;
use crate::context::Context;
use crate::errors::{ExitStatus, Failure, is_conflict, render};
use crate::manifests::{Files, Manifest};
use crate::merge;
use crate::output::note;
use crate::resources::with_query;

const WRITE: [(&str, &str); 2] = [("fieldManager", "monopod"), ("fieldValidation", "Strict")];
/// How often a write is tried anew after somebody else changed the object in between.
const CONFLICTS: usize = 5;

/// Arguments of `apply` and of `create`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    files: Files,
}

/// What became of one manifest.
pub struct Applied {
    /// `created`, `configured` or `unchanged`.
    pub verb: &'static str,
    /// The object as the server holds it now.
    pub object: Value,
}

/// Creates what is missing, updates what differs.
pub async fn apply(arguments: &ApplyArgs, context: &mut Context) -> Result<()> {
    let manifests = context.manifests(&arguments.files).await?;
    each(context, &manifests, async |client, manifest| Ok(apply_one(client, manifest).await?.verb)).await
}

/// Creates all objects; one that exists already is an error.
pub async fn create(arguments: &ApplyArgs, context: &mut Context) -> Result<()> {
    let manifests = context.manifests(&arguments.files).await?;
    each(context, &manifests, async |client, manifest| {
        client.create(&with_query(&manifest.collection(), &WRITE), &manifest.object).await?;
        Ok("created")
    })
    .await
}

/// Brings one object to what its manifest says.
pub async fn apply_one(client: &Client, manifest: &Manifest) -> Result<Applied> {
    for _ in 0..CONFLICTS {
        let result = match client.find(&manifest.path()).await? {
            None => create_one(client, manifest).await,
            Some(live) => update(client, manifest, live).await,
        };
        match result {
            Err(error) if is_conflict(&error) || is_already_there(&error) => {}
            result => return result,
        }
    }
    Err(Failure::new(format!("{} is changed by somebody else all the time", manifest.label()))
        .hint("find out who writes it, then try again")
        .into())
}

async fn create_one(client: &Client, manifest: &Manifest) -> Result<Applied> {
    let object = merge::with_last_applied(&manifest.object);
    let object = client.create(&with_query(&manifest.collection(), &WRITE), &object).await?;
    Ok(Applied { verb: "created", object })
}

async fn update(client: &Client, manifest: &Manifest, live: Value) -> Result<Applied> {
    let wanted = merge::merged(&live, &manifest.object);
    if wanted == live {
        return Ok(Applied { verb: "unchanged", object: live });
    }
    let object = client.replace(&with_query(&manifest.path(), &WRITE), &wanted).await?;
    // What the server has completed, as the defaults of a Service's ports, is no change.
    let revision = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    let verb = if revision(&object) == revision(&live) { "unchanged" } else { "configured" };
    Ok(Applied { verb, object })
}

fn is_already_there(error: &anyhow::Error) -> bool {
    error.downcast_ref::<crate::errors::Refusal>().is_some_and(|refusal| refusal.status.is_already_exists())
}

/// Acts on every manifest, also after one has failed, and says what became of each.
async fn each(
    context: &mut Context,
    manifests: &[Manifest],
    act: impl AsyncFn(&Client, &Manifest) -> Result<&'static str>,
) -> Result<()> {
    let mut failed = false;
    for manifest in manifests {
        match act(&context.client, manifest).await {
            Ok(verb) => {
                context.out.line(&format!("{} {verb}", manifest.label()))?;
                context.out.flush()?;
            }
            Err(error) if manifests.len() == 1 => return Err(error.context(manifest.origin.clone())),
            Err(error) => {
                failed = true;
                note(&render(&error.context(manifest.origin.clone())));
            }
        }
    }
    if failed { Err(ExitStatus(1).into()) } else { Ok(()) }
}
