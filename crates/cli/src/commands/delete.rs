//! `delete`: removes objects and waits until they are gone.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::age::parse_duration;
use crate::client::Client;
use crate::context::Context;
use crate::errors::{Failure, is_not_found, joined};
use crate::fields::Fields as _;
use crate::manifests::Files;
use crate::output::note;
use crate::progress::Progress;
use crate::resources::{Resource, with_query};
use crate::watch::{Watched, until};

/// Arguments of `delete`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "these are flags of a command line")]
pub struct DeleteArgs {
    /// What to delete: `pod web db`, `pod/web cm/config`, or a kind with -l or --all
    #[arg(value_name = "KIND [NAME…] | KIND/NAME…")]
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// All objects of the kind with these labels
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "all")]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Seconds that a Pod's programs have to end by themselves; without it what the Pod's spec says
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Give programs one second only
    #[arg(long, conflicts_with_all = ["grace_period", "force"])]
    now: bool,
    /// Kill at once
    #[arg(long)]
    force: bool,
    /// An object that doesn't exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true",
        require_equals = true, value_name = "BOOL")]
    wait: bool,
    /// Give up waiting after this time; 0 waits for ever
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    timeout: Duration,
}

/// One object to delete.
pub struct Doomed {
    /// Its kind.
    pub resource: &'static Resource,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Deletes objects; goes on past one that fails.
pub async fn delete(arguments: &DeleteArgs, context: &mut Context) -> Result<()> {
    let doomed = doomed(arguments, context).await?;
    let ignore_missing = arguments.ignore_not_found || arguments.all || arguments.selector.is_some();
    let wait = arguments.wait.then_some(arguments.timeout);
    delete_all(context, &doomed, grace(arguments), wait, ignore_missing).await
}

/// Asks for all deletions first, then waits for them, so that Pods end side by side.
pub async fn delete_all(
    context: &mut Context,
    doomed: &[Doomed],
    grace: Option<u32>,
    wait: Option<Duration>,
    ignore_missing: bool,
) -> Result<()> {
    let mut progress = Progress::only_on_terminal();
    let mut errors = Vec::new();
    let mut leaving = Vec::new();
    for one in doomed {
        match context.client.delete(&one.resource.object(&one.namespace, &one.name), &options(grace)).await {
            Ok(answer) => leaving.push((one, uid_of(&answer))),
            Err(error) if is_not_found(&error) && ignore_missing => {}
            Err(error) => errors.push(error),
        }
    }
    for (one, uid) in leaving {
        let label = format!("{} {:?}", one.resource.named(), one.name);
        if let Some(limit) = wait
            && let Err(error) = wait_until_gone(&context.client, one, &uid, limit, &mut progress).await
        {
            errors.push(error);
            continue;
        }
        progress.clear();
        context.out.line(&format!("{label} {}", if wait.is_some() { "deleted" } else { "is being deleted" }))?;
        context.out.flush()?;
    }
    joined(errors)
}

fn grace(arguments: &DeleteArgs) -> Option<u32> {
    match (arguments.force, arguments.now, arguments.grace_period) {
        (true, _, grace) => Some(grace.unwrap_or(0)),
        // Killing at once loses data, so it has to be asked for by its name (as kubectl).
        (false, true, _) | (false, false, Some(0)) => Some(1),
        (false, false, grace) => grace,
    }
}

fn options(grace: Option<u32>) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    if let (Some(grace), Some(fields)) = (grace, options.as_object_mut()) {
        fields.insert("gracePeriodSeconds".to_owned(), json!(grace));
    }
    options
}

/// The answer is the object, or a Status that names it.
fn uid_of(answer: &Value) -> String {
    let of_object = answer.text("/metadata/uid");
    if of_object.is_empty() { answer.text("/details/uid") } else { of_object }.to_owned()
}

async fn doomed(arguments: &DeleteArgs, context: &Context) -> Result<Vec<Doomed>> {
    let mut doomed = Vec::new();
    if !arguments.files.filename.is_empty() {
        for manifest in context.manifests(&arguments.files).await? {
            let (namespace, name) = (manifest.namespace().to_owned(), manifest.name().to_owned());
            doomed.push(Doomed { resource: manifest.resource, namespace, name });
        }
        // What was made last may use what was made first.
        doomed.reverse();
        return Ok(doomed);
    }
    for target in context.targets(&arguments.resources).await? {
        let namespace = context.namespace().to_owned();
        match target.name {
            Some(_) if arguments.all || arguments.selector.is_some() => {
                return Err(Failure::new("a name can't be combined with a selector or with --all").into());
            }
            Some(name) => doomed.push(Doomed { resource: target.resource, namespace, name }),
            None => doomed.extend(selected(arguments, context, target.resource).await?),
        }
    }
    if doomed.is_empty() {
        note("No resources found");
    }
    Ok(doomed)
}

async fn selected(arguments: &DeleteArgs, context: &Context, resource: &'static Resource) -> Result<Vec<Doomed>> {
    if !arguments.all && arguments.selector.is_none() {
        return Err(Failure::new(format!("no {} is named", resource.singular))
            .hint(format!(
                "name it, choose with -l LABELS, or delete all of them with `--all`: `monopod get {}` lists them",
                resource.plural
            ))
            .into());
    }
    let query: Vec<_> = arguments.selector.as_deref().map(|labels| ("labelSelector", labels)).into_iter().collect();
    let list = context.client.get(&with_query(&resource.collection(Some(context.namespace())), &query)).await?;
    let one =
        |object: &Value| Doomed { resource, namespace: context.namespace().to_owned(), name: object.name().to_owned() };
    Ok(list.items("/items").iter().map(one).collect())
}

async fn wait_until_gone(
    client: &Client,
    one: &Doomed,
    uid: &str,
    limit: Duration,
    progress: &mut Progress,
) -> Result<()> {
    let watched = Watched { resource: one.resource, namespace: one.namespace.clone(), name: one.name.clone() };
    let key = format!("{}/{}", one.resource.named(), one.name);
    let gone = until(client, &watched, |object| {
        // Another object may have taken the name in the meantime.
        let Some(object) = object.filter(|object| uid.is_empty() || object.text("/metadata/uid") == uid) else {
            return Ok(ControlFlow::Break(()));
        };
        progress.set(&key, &leaving_text(object));
        Ok(ControlFlow::Continue(()))
    });
    if limit.is_zero() {
        return gone.await;
    }
    tokio::time::timeout(limit, gone).await.unwrap_or_else(|_| {
        Err(Failure::new(format!("{key} is still there after {}s", limit.as_secs()))
            .hint(format!(
                "it goes on ending; `monopod describe {} {}` shows how far it is",
                one.resource.named(),
                one.name
            ))
            .into())
    })
}

fn leaving_text(object: &Value) -> String {
    let running =
        object.items("/status/containerStatuses").iter().filter(|status| status.at("/state/running").is_object());
    let names: Vec<_> = running.map(|status| status.text("/name")).collect();
    let grace = object.integer("/metadata/deletionGracePeriodSeconds").unwrap_or_default();
    if names.is_empty() {
        "cleaning up".to_owned()
    } else {
        format!("stopping {} (killed after {grace}s)", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killing_at_once_has_to_be_asked_for_by_name() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            arguments: DeleteArgs,
        }
        for (line, expected) in [
            ("", None),
            ("--grace-period=7", Some(7)),
            ("--grace-period=0", Some(1)),
            ("--now", Some(1)),
            ("--force", Some(0)),
            ("--force --grace-period=0", Some(0)),
        ] {
            let words = std::iter::once("delete").chain(line.split_whitespace());
            assert_eq!(grace(&Line::parse_from(words).arguments), expected, "{line}");
        }
        let waits = |line: &[&str]| Line::parse_from(line).arguments.wait;
        assert!(waits(&["delete"]) && waits(&["delete", "--wait"]) && !waits(&["delete", "--wait=false"]));
    }
}
