//! `logs`: what containers have printed, of one or many, once or followed.

use std::ops::ControlFlow;
use std::pin::pin;

use anyhow::{Context as _, Result};
use clap::Args;
use futures::AsyncBufReadExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::age::parse_duration;
use crate::chosen::{Purpose, choose_pod};
use crate::client::Client;
use crate::commands::exec::choose_container;
use crate::context::Context;
use crate::errors::{ExitStatus, Failure, render};
use crate::escape::StreamEscaper;
use crate::fields::Fields as _;
use crate::output::{Output, note};
use crate::resources::{PODS, named_pod, with_query};
use crate::watch::{Watched, until};

/// Arguments of `logs`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "these are flags of a command line")]
pub struct LogsArgs {
    /// The Pod, or a Service or workload, such as `job/NAME`, for one of its Pods
    #[arg(value_name = "POD | KIND/NAME", required_unless_present = "selector", conflicts_with = "selector")]
    pod: Option<String>,
    /// The container, as kubectl also takes it
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    second: Option<String>,
    /// The container; without it the Pod's first one
    #[arg(short, long)]
    container: Option<String>,
    /// Follow the log as it grows, until the container ends
    #[arg(short, long)]
    follow: bool,
    /// The log of the container's run before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Only lines of this last time, such as `10m`
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "since_time")]
    since: Option<std::time::Duration>,
    /// Only lines after this time (RFC 3339, such as `2026-01-31T12:00:00Z`)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since_time: Option<String>,
    /// Only this many last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
    /// Only this many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// All containers of the Pod
    #[arg(long)]
    all_containers: bool,
    /// Put the Pod and the container before each line
    #[arg(long)]
    prefix: bool,
    /// The Pods with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
}

/// One log to read.
#[derive(Debug, Clone)]
pub struct Source {
    /// What is put before each line, if anything.
    pub prefix: String,
    /// The request.
    pub path: String,
    /// The Pod and container to wait for, if it may not have started yet.
    pub awaited: Option<(Watched, String)>,
}

/// How many logs are followed at a time.
const MANY: usize = 200;
/// Lines of each Pod when a selector chooses them (as kubectl).
const SELECTED_TAIL: i64 = 10;

/// Prints logs.
pub async fn logs(arguments: &LogsArgs, context: &mut Context) -> Result<()> {
    let sources = sources(arguments, context).await?;
    match sources.as_slice() {
        [source] if source.prefix.is_empty() => {
            copy(&context.client, &source.path, &mut context.out, arguments.follow).await
        }
        _ if arguments.follow => merge(&context.client, sources, &mut context.out).await,
        _ => one_after_another(context, &sources).await,
    }
}

/// Follows several logs at once; lines stay whole.
pub async fn merge(client: &Client, sources: Vec<Source>, out: &mut Output) -> Result<()> {
    let (sender, mut lines) = mpsc::channel::<Result<String>>(256);
    for source in sources {
        let (client, sender) = (client.clone(), sender.clone());
        tokio::spawn(async move {
            if let Err(error) = send_lines(&client, &source, &sender).await {
                drop(sender.send(Err(error)).await);
            }
        });
    }
    drop(sender);
    let mut failed = false;
    while let Some(line) = lines.recv().await {
        match line {
            Ok(line) => out.text(&line)?,
            Err(error) => {
                failed = true;
                note(&render(&error));
            }
        }
        if lines.is_empty() {
            out.flush()?;
        }
    }
    if failed { Err(ExitStatus(1).into()) } else { Ok(()) }
}

async fn sources(arguments: &LogsArgs, context: &Context) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Some(selector) = &arguments.selector {
        let path = with_query(&PODS.collection(Some(context.namespace())), &[("labelSelector", selector)]);
        let list = context.client.get(&path).await?;
        for pod in list.items("/items") {
            add_sources(arguments, context, pod, &mut sources)?;
        }
        if sources.is_empty() {
            note(&format!("No resources found in {} namespace.", context.namespace()));
        }
    } else {
        let asked = arguments.pod.as_deref().unwrap_or_default();
        let named = arguments.container.as_ref().or(arguments.second.as_ref()).filter(|_| !arguments.all_containers);
        match (named_pod(asked), named) {
            // Nothing has to be looked up.
            (Some(pod), Some(container)) => sources.push(source(arguments, context.namespace(), &pod, container)),
            (_, named) => {
                let pod = choose_pod(asked, Purpose::Logs, context).await?.pod;
                match named {
                    Some(container) => sources.push(source(arguments, context.namespace(), pod.name(), container)),
                    None => add_sources(arguments, context, &pod, &mut sources)?,
                }
            }
        }
    }
    if arguments.follow && sources.len() > MANY {
        return Err(Failure::new(format!("{} logs are too many to follow at once", sources.len()))
            .hint("choose fewer with a narrower selector")
            .into());
    }
    Ok(sources)
}

fn add_sources(arguments: &LogsArgs, context: &Context, pod: &Value, sources: &mut Vec<Source>) -> Result<()> {
    if !arguments.all_containers {
        let container = match &arguments.container {
            Some(container) => container.clone(),
            None => choose_container(pod, arguments.selector.is_some())?,
        };
        sources.push(source(arguments, context.namespace(), pod.name(), &container));
        return Ok(());
    }
    let lists = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
    for container in lists.into_iter().flat_map(|list| pod.items(list)) {
        sources.push(source(arguments, context.namespace(), pod.name(), container.text("/name")));
    }
    Ok(())
}

fn source(arguments: &LogsArgs, namespace: &str, pod: &str, container: &str) -> Source {
    let prefix = if arguments.prefix { format!("[pod/{pod}/{container}] ") } else { String::new() };
    let mut query = vec![("container", container.to_owned())];
    let mut flag = |name, set: bool| {
        if set {
            query.push((name, "true".to_owned()));
        }
    };
    flag("follow", arguments.follow);
    flag("previous", arguments.previous);
    flag("timestamps", arguments.timestamps);
    let tail = arguments.tail.or(arguments.selector.as_ref().map(|_| SELECTED_TAIL)).filter(|tail| *tail >= 0);
    // The server counts whole seconds, and none at all would mean "everything".
    let since = arguments.since.map(|since| since.as_millis().div_ceil(1000).max(1));
    query.extend(tail.map(|tail| ("tailLines", tail.to_string())));
    query.extend(since.map(|since| ("sinceSeconds", since.to_string())));
    query.extend(arguments.since_time.clone().map(|time| ("sinceTime", time)));
    query.extend(arguments.limit_bytes.map(|limit| ("limitBytes", limit.to_string())));
    let query: Vec<_> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
    Source { prefix, path: with_query(&format!("{}/log", PODS.object(namespace, pod)), &query), awaited: None }
}

/// Copies one log as it is, escaped on a terminal.
async fn copy(client: &Client, path: &str, out: &mut Output, follow: bool) -> Result<()> {
    let mut log = pin!(client.stream(path).await?);
    let mut escaper = out.is_terminal().then(StreamEscaper::default);
    loop {
        let chunk = log.fill_buf().await.context("the log broke off")?;
        let length = chunk.len();
        if length == 0 {
            break;
        }
        match &mut escaper {
            Some(escaper) => out.bytes(&escaper.push(chunk))?,
            None => out.bytes(chunk)?,
        }
        log.consume_unpin(length);
        if follow {
            out.flush()?;
        }
    }
    if let Some(escaper) = &mut escaper {
        out.bytes(&escaper.finish())?;
    }
    out.flush()
}

async fn one_after_another(context: &mut Context, sources: &[Source]) -> Result<()> {
    for source in sources {
        let mut log = pin!(context.client.stream(&source.path).await?);
        let mut line = Vec::new();
        while log.read_until(b'\n', &mut line).await.context("the log broke off")? > 0 {
            context.out.text(&with_prefix(&source.prefix, &line))?;
            line.clear();
        }
    }
    context.out.flush()
}

async fn send_lines(client: &Client, source: &Source, sender: &mpsc::Sender<Result<String>>) -> Result<()> {
    if let Some((watched, container)) = &source.awaited
        && !has_output(client, watched, container).await?
    {
        return Ok(());
    }
    let mut log = pin!(client.stream(&source.path).await?);
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).await.context("the log broke off")? > 0 {
        if sender.send(Ok(with_prefix(&source.prefix, &line))).await.is_err() {
            break;
        }
        line.clear();
    }
    Ok(())
}

/// Waits until the container has started; false if it never will.
async fn has_output(client: &Client, watched: &Watched, container: &str) -> Result<bool> {
    until(client, watched, |pod| {
        let Some(pod) = pod else { return Ok(ControlFlow::Break(false)) };
        let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
        let status =
            lists.into_iter().flat_map(|list| pod.items(list)).find(|status| status.text("/name") == container);
        let started = ["/state/running", "/state/terminated", "/lastState/terminated"];
        if status.is_some_and(|status| started.into_iter().any(|place| status.at(place).is_object())) {
            return Ok(ControlFlow::Break(true));
        }
        let ended = matches!(pod.text("/status/phase"), "Succeeded" | "Failed");
        Ok(if ended { ControlFlow::Break(false) } else { ControlFlow::Continue(()) })
    })
    .await
}

fn with_prefix(prefix: &str, line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end_matches(['\n', '\r']);
    format!("{prefix}{line}\n")
}

fn parse_time(text: &str) -> Result<String, String> {
    match text.parse::<k8s_openapi::jiff::Timestamp>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; write it as 2026-01-31T12:00:00Z")),
    }
}
