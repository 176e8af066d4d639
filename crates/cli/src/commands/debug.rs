//! `debug`: an ephemeral container of tools in a running Pod, a changed copy of a Pod, or a Pod on the node.

mod copy;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::ops::ControlFlow;
use std::pin::pin;

use anyhow::Result;
use clap::Args;
use futures::AsyncReadExt as _;
use serde_json::{Map, Value, json};

use crate::commands::debug::copy::{Copy, CopyArgs, copy};
use crate::commands::exec::attach_to;
use crate::context::Context;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::output::note;
use crate::resources::{PODS, with_query};
use crate::watch::{Watched, until};

/// Where a Pod's status tells of its containers.
const STATUSES: [&str; 3] =
    ["/status/ephemeralContainerStatuses", "/status/containerStatuses", "/status/initContainerStatuses"];

/// Arguments of `debug`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "these are flags of a command line")]
pub struct DebugArgs {
    /// The Pod, or `node/NAME`
    #[arg(value_name = "POD | KIND/NAME")]
    target: String,
    /// The image with the tools
    #[arg(long, required_unless_present = "copy_to")]
    image: Option<String>,
    /// The name of the new container, or, with --copy-to, of the one to change
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// See the processes of this container
    #[arg(long = "target", value_name = "CONTAINER")]
    target_container: Option<String>,
    /// Pass standard input to the program
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Follow the program's output; without it only with -i
    #[arg(long)]
    attach: bool,
    /// A variable for the program; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// When the image is pulled
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// COMMAND are arguments of the image's own program
    #[arg(long)]
    arguments_only: bool,
    #[command(flatten)]
    copy: CopyArgs,
    /// The program and its arguments; without it the image's own
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Starts the tools and connects to them.
pub async fn debug(arguments: &DebugArgs, context: &mut Context) -> Result<()> {
    let words = if arguments.target.contains('/') {
        vec![arguments.target.clone()]
    } else {
        vec!["pod".to_owned(), arguments.target.clone()]
    };
    let targets = context.targets(&words).await?;
    let name = targets.first().and_then(|target| target.name.clone()).unwrap_or_default();
    match targets.first().map(|target| target.resource.kind.as_ref()) {
        Some("Pod") if arguments.copy.copy_to.is_some() => debug_copy(arguments, context, &name).await,
        Some("Pod") => debug_pod(arguments, context, &name).await,
        Some("Node") if arguments.copy.copy_to.is_some() => Err(Failure::new("only a Pod can be copied").into()),
        Some("Node") => debug_node(arguments, context, &name).await,
        _ => Err(Failure::new(format!("{:?} is neither a Pod nor a node", arguments.target)).into()),
    }
}

async fn debug_pod(arguments: &DebugArgs, context: &mut Context, pod: &str) -> Result<()> {
    let path = PODS.object(context.namespace(), pod);
    let container = arguments.container.clone().unwrap_or_else(draw_name);
    let mut spec = container_spec(arguments, &container);
    // What a debugger needs, and nothing more (kubectl's profile `general`).
    spec.insert("securityContext".to_owned(), json!({"capabilities": {"add": ["SYS_PTRACE"]}}));
    if let Some(target) = &arguments.target_container {
        spec.insert("targetContainerName".to_owned(), json!(target));
    }
    let change = json!({"spec": {"ephemeralContainers": [spec]}});
    context.client.patch(&format!("{path}/ephemeralcontainers"), &change).await?;
    follow(arguments, context, pod, &container).await
}

async fn debug_copy(arguments: &DebugArgs, context: &mut Context, name: &str) -> Result<()> {
    let has_command = !arguments.command.is_empty();
    if arguments.image.is_none() && arguments.copy.set_image.is_empty() && !has_command {
        return Err(Failure::new("nothing is to be changed in the copy")
            .hint("say --image, --set-image or a command")
            .into());
    }
    if has_command && arguments.container.is_none() && arguments.image.is_none() {
        let hint = "name a container of the Pod with --container, or an image for a new one with --image";
        return Err(Failure::new("nobody is there to run the command").hint(hint).into());
    }
    let pod = context.client.get(&PODS.object(context.namespace(), name)).await?;
    let changes = given_fields(arguments);
    let Copy { pod: copied, container } =
        copy(&pod, &arguments.copy, arguments.container.as_deref(), &changes, draw_name)?;
    context.client.create(&PODS.collection(Some(context.namespace())), &copied).await?;
    if arguments.copy.replace {
        let at_once = json!({"gracePeriodSeconds": 0});
        context.client.delete(&PODS.object(context.namespace(), name), &at_once).await?;
    }
    match container {
        Some(container) => follow(arguments, context, copied.name(), &container).await,
        None => Ok(()),
    }
}

async fn debug_node(arguments: &DebugArgs, context: &mut Context, node: &str) -> Result<()> {
    if arguments.target_container.is_some() {
        return Err(Failure::new("a node has no containers to see the processes of").into());
    }
    let pod = format!("node-debugger-{node}-{}", suffix());
    let container = arguments.container.clone().unwrap_or_else(|| "debugger".to_owned());
    let mut spec = container_spec(arguments, &container);
    spec.insert("volumeMounts".to_owned(), json!([{"name": "host-root", "mountPath": "/host"}]));
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod, "namespace": context.namespace(), "labels": {"app.kubernetes.io/managed-by": "monopod-debug"}},
        "spec": {
            "nodeName": node, "hostNetwork": true, "hostPID": true, "hostIPC": true, "restartPolicy": "Never",
            "tolerations": [{"operator": "Exists"}], "containers": [spec],
            "volumes": [{"name": "host-root", "hostPath": {"path": "/"}}],
        },
    });
    note(&format!("Creating debugging pod {pod} with container {container} on node {node}."));
    context.client.create(&PODS.collection(Some(context.namespace())), &object).await?;
    follow(arguments, context, &pod, &container).await
}

/// A new container.
fn container_spec(arguments: &DebugArgs, name: &str) -> Map<String, Value> {
    let mut spec = given_fields(arguments);
    spec.insert("name".to_owned(), json!(name));
    spec.insert("terminationMessagePolicy".to_owned(), json!("File"));
    spec
}

/// The fields of a container that the command line sets.
fn given_fields(arguments: &DebugArgs) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |field: &str, value: Value| drop(fields.insert(field.to_owned(), value));
    put("stdin", json!(arguments.stdin));
    put("tty", json!(arguments.tty));
    if let Some(image) = &arguments.image {
        put("image", json!(image));
    }
    if !arguments.command.is_empty() {
        put(if arguments.arguments_only { "args" } else { "command" }, json!(arguments.command));
    }
    if !arguments.env.is_empty() {
        let variables = arguments.env.iter().map(|(name, value)| json!({"name": name, "value": value}));
        put("env", variables.collect());
    }
    if let Some(policy) = &arguments.image_pull_policy {
        put("imagePullPolicy", json!(policy));
    }
    fields
}

fn draw_name() -> String {
    let name = format!("debugger-{}", suffix());
    note(&format!("Defaulting debug container name to {name}."));
    name
}

/// Waits until the container runs and connects to it; of one that has ended already, prints what it wrote.
async fn follow(arguments: &DebugArgs, context: &mut Context, pod: &str, container: &str) -> Result<()> {
    if !arguments.attach && !arguments.stdin {
        return Ok(());
    }
    let watched = Watched { resource: PODS, namespace: context.namespace().to_owned(), name: pod.to_owned() };
    let mut told = String::new();
    let found = until(&context.client, &watched, |object| {
        let Some(object) = object else {
            return Err(Failure::new(format!("pod {pod:?} was deleted meanwhile")).into());
        };
        let status =
            STATUSES.iter().flat_map(|list| object.items(list)).find(|status| status.text("/name") == container);
        let state = status.map_or(&Value::Null, |status| status.at("/state"));
        let waiting = state.text("/waiting/message");
        if !waiting.is_empty() && waiting != told {
            note(&format!("{}: {waiting}", state.text("/waiting/reason")));
            waiting.clone_into(&mut told);
        }
        let has_ended = state.at("/terminated").is_object();
        if has_ended || state.at("/running").is_object() {
            return Ok(ControlFlow::Break((object.clone(), has_ended)));
        }
        Ok(ControlFlow::Continue(()))
    });
    let (object, has_ended) = found.await?;
    if !has_ended {
        match attach_to(context, &object, container, arguments.stdin, arguments.tty).await {
            Ok(()) => return Ok(()),
            // As kubectl does: it may have ended since.
            Err(error) => {
                note(&format!("warning: couldn't attach to pod/{pod}, falling back to streaming logs: {error:#}"));
            }
        }
    }
    let path = with_query(&format!("{}/log", PODS.object(context.namespace(), pod)), &[("container", container)]);
    let mut log = Vec::new();
    pin!(context.client.stream(&path).await?).read_to_end(&mut log).await?;
    context.out.text(&String::from_utf8_lossy(&log))?;
    context.out.flush()
}

/// Five letters that form no words, as Kubernetes draws them.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut number = RandomState::new().build_hasher().finish();
    let mut name = String::new();
    for _ in 0..5 {
        let length = LETTERS.len() as u64;
        let index = usize::try_from(number % length).unwrap_or_default();
        name.extend(LETTERS.get(index).map(|letter| char::from(*letter)));
        number /= length;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_drawn_anew() {
        let (one, two) = (suffix(), suffix());
        assert_eq!(one.len(), 5);
        assert_ne!(one, two);
    }
}
