//! `exec` and `attach`: a session with a new program in a container, or with the one that runs.

use std::io::IsTerminal as _;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::chosen::{Purpose, choose_pod};
use crate::context::Context;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::output::note;
use crate::resources::{PODS, named_pod, with_query};
use crate::session::{self, Ends};

/// Which container, and which streams: what `exec` and `attach` have in common.
#[derive(Debug, Args)]
pub struct Door {
    /// The Pod, or a Service or workload, such as `deployment/NAME`, for one of its Pods
    #[arg(value_name = "POD | KIND/NAME")]
    pod: String,
    /// The container; without it the Pod's first one
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input to the program
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal, or take part in the one that it has
    #[arg(short, long)]
    tty: bool,
    /// Leave out the note on which container was chosen
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    door: Door,
    /// The program and its arguments; from the first word on, all belongs to it
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    #[command(flatten)]
    door: Door,
}

/// Runs a program in a container; its exit status is ours.
pub async fn exec(arguments: &ExecArgs, context: &mut Context) -> Result<()> {
    let ExecArgs { door, command } = arguments;
    let (pod, container) = match (named_pod(&door.pod), &door.container) {
        // Nothing has to be looked up.
        (Some(pod), Some(container)) => (pod, container.clone()),
        (_, container) => {
            let object = choose_pod(&door.pod, Purpose::Door, context).await?.pod;
            let container = container.clone().map_or_else(|| choose_container(&object, door.quiet), Ok)?;
            (object.name().to_owned(), container)
        }
    };
    let tty = usable_terminal(door.tty, door.stdin);
    let path = exec_path(context.namespace(), &pod, &container, command, &stream_query(door.stdin, tty));
    let connection = context.client.connect(&path).await?;
    session::run(connection, Ends { stdin: door.stdin, tty, redraw: false }).await
}

/// Where a program in a container is started.
pub fn exec_path(
    pod_namespace: &str,
    pod: &str,
    container: &str,
    command: &[String],
    streams: &[(&str, &str)],
) -> String {
    let mut query: Vec<(&str, &str)> = command.iter().map(|word| ("command", word.as_str())).collect();
    query.push(("container", container));
    query.extend(streams);
    with_query(&format!("{}/exec", PODS.object(pod_namespace, pod)), &query)
}

/// Connects to the program that a container runs.
pub async fn attach(arguments: &AttachArgs, context: &mut Context) -> Result<()> {
    let door = &arguments.door;
    let object = choose_pod(&door.pod, Purpose::Door, context).await?.pod;
    let container = match &door.container {
        Some(container) => container.clone(),
        None => choose_container(&object, door.quiet)?,
    };
    attach_to(context, &object, &container, door.stdin, door.tty).await
}

/// Connects to a container of a Pod that was read.
pub async fn attach_to(context: &Context, pod: &Value, container: &str, stdin: bool, tty: bool) -> Result<()> {
    let lists = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];
    let spec = lists.iter().flat_map(|list| pod.items(list)).find(|spec| spec.text("/name") == container);
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
pub fn stream_query(stdin: bool, tty: bool) -> Vec<(&'static str, &'static str)> {
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
