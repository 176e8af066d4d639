//! `wait`: until a condition holds or an object is gone.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::age::parse_duration;
use crate::context::Context;
use crate::errors::{Failure, Refusal};
use crate::fields::Fields as _;
use crate::manifests::Files;
use crate::pod_progress::condition;
use crate::resources::{Resource, with_query};
use crate::watch::{Watched, until};

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// What to wait for: `pod/web`, `pod web db`, or a kind with -l or --all
    #[arg(value_name = "KIND [NAME…] | KIND/NAME…")]
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// `condition=Ready`, `condition=Ready=false`, `create` or `delete`
    #[arg(long = "for", value_name = "WHAT", value_parser = parse_goal)]
    goal: Goal,
    /// Give up after this time; 0 looks once
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "DURATION")]
    timeout: Duration,
    /// All objects of the kind with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    Condition { kind: String, status: String },
    Create,
    Delete,
}

/// Waits for each object in turn, all within one time.
pub async fn wait(arguments: &WaitArgs, context: &mut Context) -> Result<()> {
    let watched = watched(arguments, context).await?;
    let deadline = tokio::time::Instant::now() + arguments.timeout;
    for one in &watched {
        let label = format!("{}/{}", one.resource.named(), one.name);
        let reached = until(&context.client, one, |object| {
            match (reached(&arguments.goal, one, object)?, arguments.timeout.is_zero()) {
                (true, _) => Ok(ControlFlow::Break(true)),
                (false, true) => Ok(ControlFlow::Break(false)),
                (false, false) => Ok(ControlFlow::Continue(())),
            }
        });
        // A look at the present state is always allowed.
        let in_time = if arguments.timeout.is_zero() {
            Ok(reached.await?)
        } else {
            tokio::time::timeout_at(deadline, reached).await.unwrap_or(Ok(false))
        };
        if !in_time? {
            let (singular, name) = (one.resource.named(), &one.name);
            return Err(Failure::new(format!("timed out waiting for {} of {label}", arguments.goal.words()))
                .hint(format!("`monopod describe {singular} {name}` shows what it is doing; --timeout waits longer"))
                .into());
        }
        let done = if arguments.goal == Goal::Delete { "deleted" } else { "condition met" };
        context.out.line(&format!("{label} {done}"))?;
        context.out.flush()?;
    }
    Ok(())
}

impl Goal {
    fn words(&self) -> String {
        match self {
            Self::Condition { kind, status } => format!("condition {kind}={status}"),
            Self::Create => "creation".to_owned(),
            Self::Delete => "deletion".to_owned(),
        }
    }
}

fn parse_goal(text: &str) -> Result<Goal, String> {
    match text.split_once('=') {
        None if text.eq_ignore_ascii_case("delete") => Ok(Goal::Delete),
        None if text.eq_ignore_ascii_case("create") => Ok(Goal::Create),
        Some((key, rest)) if key.eq_ignore_ascii_case("condition") && !rest.is_empty() => {
            let (kind, status) = rest.split_once('=').unwrap_or((rest, "True"));
            Ok(Goal::Condition { kind: kind.to_owned(), status: status.to_owned() })
        }
        _ => Err("it must be condition=TYPE, condition=TYPE=STATUS, create or delete".to_owned()),
    }
}

fn reached(goal: &Goal, one: &Watched, object: Option<&Value>) -> Result<bool> {
    match (goal, object) {
        (Goal::Delete, object) => Ok(object.is_none()),
        (Goal::Create, object) => Ok(object.is_some()),
        (Goal::Condition { kind, status }, Some(object)) => {
            Ok(condition(object, kind).is_some_and(|condition| condition.text("/status").eq_ignore_ascii_case(status)))
        }
        (Goal::Condition { .. }, None) => {
            let message = format!("{} {:?} not found", one.resource.plural, one.name);
            Err(Refusal { status: kube::core::Status::failure(&message, "NotFound").with_code(404) }.into())
        }
    }
}

async fn watched(arguments: &WaitArgs, context: &Context) -> Result<Vec<Watched>> {
    if !arguments.files.filename.is_empty() {
        let manifests = context.manifests(&arguments.files).await?;
        let one =
            |manifest: &crate::manifests::Manifest| watch_of(manifest.resource, manifest.namespace(), manifest.name());
        return Ok(manifests.iter().map(one).collect());
    }
    let mut watched = Vec::new();
    for target in context.targets(&arguments.resources).await? {
        if let Some(name) = target.name {
            watched.push(watch_of(target.resource, context.namespace(), &name));
            continue;
        }
        if !arguments.all && arguments.selector.is_none() {
            return Err(Failure::new(format!("no {} is named", target.resource.named()))
                .hint("name it, choose with -l LABELS, or take --all")
                .into());
        }
        let query: Vec<_> = arguments.selector.as_deref().map(|labels| ("labelSelector", labels)).into_iter().collect();
        let path = with_query(&target.resource.collection(Some(context.namespace())), &query);
        let list = context.client.get(&path).await?;
        watched.extend(
            list.items("/items").iter().map(|object| watch_of(target.resource, context.namespace(), object.name())),
        );
    }
    if watched.is_empty() { Err(Failure::new("no matching resources found").into()) } else { Ok(watched) }
}

fn watch_of(resource: &'static Resource, namespace: &str, name: &str) -> Watched {
    Watched { resource, namespace: namespace.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_read_as_kubectl_reads_them() {
        let condition = |kind: &str, status: &str| Ok(Goal::Condition { kind: kind.into(), status: status.into() });
        for (text, goal) in [
            ("condition=Ready", condition("Ready", "True")),
            ("condition=ready=false", condition("ready", "false")),
            ("delete", Ok(Goal::Delete)),
            ("create", Ok(Goal::Create)),
        ] {
            assert_eq!(parse_goal(text), goal, "{text}");
        }
        for bad in ["", "condition", "condition=", "jsonpath={.x}", "ready"] {
            assert!(parse_goal(bad).is_err(), "{bad}");
        }
    }
}
