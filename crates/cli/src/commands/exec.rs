//! `exec` and `attach`: a session with a new program in a container, or with the one that runs.

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::context::Context;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::output::note;
use crate::resources::{PODS, parse_pod, with_query};
use crate::session::{self, Ends};

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The Pod
    pod: String,
    /// The container; without it the Pod's first one
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input to the program
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave out the note on which container was chosen
    #[arg(short, long)]
    quiet: bool,
    /// The program and its arguments; from the first word on, all belongs to it
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The Pod
    pod: String,
    /// The container; without it the Pod's first one
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input to the program
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Standard input is a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave out the note on which container was chosen
    #[arg(short, long)]
    quiet: bool,
}

/// Runs a program in a container; its exit status is ours.
pub async fn exec(arguments: &ExecArgs, context: &mut Context) -> Result<()> {
    let pod = parse_pod(&arguments.pod)?;
    let container = if let Some(container) = &arguments.container {
        container.clone()
    } else {
        let object = context.client.get(&PODS.object(context.namespace(), &pod)).await?;
        choose_container(&object, arguments.quiet)?
    };
    let tty = usable_terminal(arguments.tty, arguments.stdin);
    let mut query: Vec<(&str, &str)> = arguments.command.iter().map(|word| ("command", word.as_str())).collect();
    query.push(("container", &container));
    query.extend(stream_query(arguments.stdin, tty));
    let path = with_query(&format!("{}/exec", PODS.object(context.namespace(), &pod)), &query);
    let connection = context.client.connect(&path).await?;
    session::run(connection, Ends { stdin: arguments.stdin, tty, redraw: false }).await
}

/// Connects to the program that a container runs.
pub async fn attach(arguments: &AttachArgs, context: &mut Context) -> Result<()> {
    let pod = parse_pod(&arguments.pod)?;
    let object = context.client.get(&PODS.object(context.namespace(), &pod)).await?;
    let container = match &arguments.container {
        Some(container) => container.clone(),
        None => choose_container(&object, arguments.quiet)?,
    };
    attach_to(context, &object, &container, arguments.stdin, arguments.tty).await
}

/// Connects to a container of a Pod that was read.
pub async fn attach_to(context: &Context, pod: &Value, container: &str, stdin: bool, tty: bool) -> Result<()> {
    let spec = pod.items("/spec/containers").iter().find(|spec| spec.text("/name") == container);
    let spec = spec.unwrap_or(&Value::Null);
    let has_tty = spec.flag("/tty");
    if tty && !has_tty {
        note(&format!("note: container {container:?} has no terminal (`tty: true` in its spec): attached without one"));
    }
    if stdin && !spec.flag("/stdin") {
        return Err(Failure::new(format!("container {container:?} does not read standard input"))
            .hint("set `stdin: true` in the container's spec, or attach without -i")
            .into());
    }
    let tty = usable_terminal(tty && has_tty, stdin);
    let mut query = vec![("container", container)];
    query.extend(stream_query(stdin, tty));
    let path = with_query(&format!("{}/attach", PODS.object(pod.namespace(), pod.name())), &query);
    let connection = context.client.connect(&path).await?;
    if tty {
        note("If you don't see a command prompt, try pressing enter.");
    }
    session::run(connection, Ends { stdin, tty, redraw: true }).await
}

/// The container that is meant when none is named: the annotated one, else the first.
pub fn choose_container(pod: &Value, quiet: bool) -> Result<String> {
    let names: Vec<_> = pod.items("/spec/containers").iter().map(|container| container.text("/name")).collect();
    let annotated = pod.at("/metadata/annotations").get("kubectl.kubernetes.io/default-container");
    if let Some(name) = annotated.and_then(Value::as_str).filter(|name| names.contains(name)) {
        return Ok(name.to_owned());
    }
    let Some(first) = names.first() else {
        return Err(Failure::new(format!("pod {:?} has no container", pod.name())).into());
    };
    if names.len() > 1 && !quiet {
        note(&format!("Defaulted container {first:?} out of: {}", names.join(", ")));
    }
    Ok((*first).to_owned())
}

fn usable_terminal(tty: bool, stdin: bool) -> bool {
    if tty && stdin && !std::io::stdin().is_terminal() {
        note("note: standard input is not a terminal: the program gets none");
        return false;
    }
    // A screen without a keyboard needs no raw mode and no size.
    tty && stdin
}

/// Which streams are wanted. A terminal has one output stream only.
fn stream_query(stdin: bool, tty: bool) -> Vec<(&'static str, &'static str)> {
    let mut query = vec![("stdout", "true")];
    if stdin {
        query.push(("stdin", "true"));
    }
    query.push(if tty { ("tty", "true") } else { ("stderr", "true") });
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_annotated_or_first_container_is_chosen() {
        let pod = |annotation: &str| {
            json!({"metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/default-container": annotation}},
                "spec": {"containers": [{"name": "a"}, {"name": "b"}]}})
        };
        assert_eq!(choose_container(&pod("b"), true).unwrap(), "b");
        assert_eq!(choose_container(&pod("missing"), true).unwrap(), "a");
        assert!(choose_container(&json!({}), true).is_err());
    }
}
