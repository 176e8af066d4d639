//! `run`: brings Pods up, shows how they become ready, and can stay with them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use indicatif::MultiProgress;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use spec::image_ref::ImageReference;
use spec::ordered::{map_of, set_of};

use crate::age::parse_duration;
use crate::client::Client;
use crate::commands::apply::apply_one;
use crate::commands::delete::{Doomed, delete_all};
use crate::commands::exec::{attach_to, choose_container};
use crate::commands::logs::{self, Source};
use crate::context::Context;
use crate::errors::{ExitStatus, Failure, joined};
use crate::fields::Fields as _;
use crate::manifests::{Files, Manifest};
use crate::output::note;
use crate::pod_progress::{Stage, Verdict, containers, verdict};
use crate::progress::Progress;
use crate::pull_progress::PullProgress;
use crate::resources::{EVENTS, PODS, with_query};
use crate::timeline::life::Life;
use crate::timeline::{self, bars};
use crate::watch::{Watched, follow, until};

/// How often bars are drawn anew while a person watches, and how long they are.
const REDRAW: Duration = Duration::from_millis(100);
const BAR_WIDTH: usize = 24;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "these are flags of a command line")]
pub struct RunArgs {
    /// The Pod's name, when it is made from --image
    #[arg(required_unless_present = "filename", conflicts_with = "filename", requires = "image")]
    name: Option<String>,
    #[command(flatten)]
    files: Files,
    /// Run this image in a Pod of one container
    #[arg(long, value_name = "IMAGE", conflicts_with = "filename")]
    image: Option<String>,
    /// An environment variable of the container; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", conflicts_with = "filename")]
    env: Vec<String>,
    /// Reach the container's port at this port of the machine; may be given several times
    #[arg(short, long, value_name = "[HOST:]CONTAINER", conflicts_with = "filename", value_parser = parse_port)]
    port: Vec<Value>,
    /// A label of the Pod; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", conflicts_with = "filename")]
    label: Vec<String>,
    /// When the container is started again
    #[arg(long, value_name = "POLICY", conflicts_with = "filename", value_parser = ["Always", "OnFailure", "Never"])]
    restart: Option<String>,
    /// When the image is fetched
    #[arg(long, value_name = "POLICY", conflicts_with = "filename", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// The words after `--` replace the image's entrypoint, not only its arguments
    #[arg(long, conflicts_with = "filename")]
    command: bool,
    /// Pass standard input to the container, and stay with it
    #[arg(short = 'i', long, conflicts_with = "filename")]
    stdin: bool,
    /// Give the container a terminal; together with -i
    #[arg(short, long, requires = "stdin", conflicts_with = "filename")]
    tty: bool,
    /// Follow the logs of all containers; Ctrl-C deletes what was started
    #[arg(long)]
    attach: bool,
    /// Delete the Pod when its program has ended
    #[arg(long)]
    rm: bool,
    /// Give up waiting after this time; 0 waits for ever
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    timeout: Duration,
    /// Arguments of the container's program
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

/// Brings Pods up.
pub async fn run(arguments: &RunArgs, context: &mut Context) -> Result<()> {
    let manifests = match &arguments.name {
        Some(name) => vec![Manifest {
            resource: PODS,
            object: pod_of(arguments, name, context.namespace()),
            origin: format!("pod {name:?}"),
        }],
        None => context.manifests(&arguments.files).await?,
    };
    let stays = arguments.attach || arguments.stdin || arguments.rm;
    let mut pods = Vec::new();
    for manifest in &manifests {
        let applied =
            apply_one(&context.client, manifest).await.map_err(|error| error.context(manifest.origin.clone()))?;
        context.out.line(&format!("{} {}", manifest.label(), applied.verb))?;
        context.out.flush()?;
        if manifest.resource.kind == "Pod" {
            pods.push(applied.object);
        }
    }
    if !stays {
        return within(arguments.timeout, become_ready(&context.client, &pods, false)).await;
    }
    let interrupted = tokio::signal::ctrl_c();
    let result = tokio::select! {
        result = stay(arguments, context, &pods) => Some(result),
        _ = interrupted => None,
    };
    match result {
        Some(result) if !arguments.rm => result,
        result => {
            if result.is_none() {
                note("interrupted: deleting what was started");
            }
            let doomed: Vec<_> = manifests.iter().rev().map(doomed).collect();
            delete_all(context, &doomed, None, Some(Duration::ZERO), true).await?;
            result.unwrap_or_else(|| Err(ExitStatus(130).into()))
        }
    }
}

fn doomed(manifest: &Manifest) -> Doomed {
    Doomed { resource: manifest.resource, namespace: manifest.namespace().to_owned(), name: manifest.name().to_owned() }
}

/// Waits until the Pods run, then stays with their output until they have ended.
async fn stay(arguments: &RunArgs, context: &mut Context, pods: &[Value]) -> Result<()> {
    within(arguments.timeout, become_ready(&context.client, pods, true)).await?;
    match pods {
        [pod] if arguments.stdin => {
            let container = choose_container(pod, true)?;
            attach_to(context, pod, &container, true, arguments.tty).await?;
        }
        _ => {
            let sources = pods.iter().flat_map(|pod| sources_of(pod, pods.len() > 1)).collect();
            logs::merge(&context.client, sources, &mut context.out).await?;
        }
    }
    for pod in pods.iter().filter(|pod| pod.text("/spec/restartPolicy") != "Always") {
        has_ended(&context.client, pod).await?;
    }
    Ok(())
}

fn watch_of(pod: &Value) -> Watched {
    Watched { resource: PODS, namespace: pod.namespace().to_owned(), name: pod.name().to_owned() }
}

/// The logs of all containers, each line marked unless there is only one container.
fn sources_of(pod: &Value, several_pods: bool) -> Vec<Source> {
    let all: Vec<_> = pod.items("/spec/initContainers").iter().chain(pod.items("/spec/containers")).collect();
    let mark = several_pods || all.len() > 1;
    let source = |spec: &&Value| {
        let container = spec.text("/name");
        let prefix = match (several_pods, mark) {
            (true, _) => format!("[{}/{container}] ", pod.name()),
            (false, true) => format!("[{container}] "),
            (false, false) => String::new(),
        };
        let path = format!("{}/log", PODS.object(pod.namespace(), pod.name()));
        let path = with_query(&path, &[("container", container), ("follow", "true")]);
        Source { prefix, path, awaited: Some((watch_of(pod), container.to_owned())) }
    };
    all.iter().map(source).collect()
}

async fn within(limit: Duration, work: impl Future<Output = Result<()>>) -> Result<()> {
    if limit.is_zero() {
        return work.await;
    }
    let late = |_| Failure::new(format!("not ready after {}", short(limit)));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|elapsed| {
        Err(late(elapsed).hint("it goes on; `monopod get pods` and `monopod events` show how far it is").into())
    })
}

/// Shows live how the Pods become ready, or fails with the first one that can't. With `running`, started is enough.
async fn become_ready(client: &Client, pods: &[Value], running: bool) -> Result<()> {
    let progress = RefCell::new(Progress::new());
    let waits = pods.iter().map(|pod| {
        let progress = &progress;
        async move {
            tokio::select! {
                result = pod_becomes_ready(client, pod, running, progress) => result,
                result = narrate(client, pod, progress) => result,
                result = draw_life(client, pod, progress) => result,
            }
        }
    });
    let results = tokio::select! {
        results = futures::future::join_all(waits) => results,
        never = draw_pulls(client, pods, &progress) => match never {},
    };
    progress.borrow_mut().close();
    joined(results.into_iter().filter_map(Result::err).collect())
}

async fn pod_becomes_ready(client: &Client, pod: &Value, running: bool, progress: &RefCell<Progress>) -> Result<()> {
    let watched = watch_of(pod);
    let start = Instant::now();
    let last = until(client, &watched, |pod| {
        let Some(pod) = pod else {
            return Err(Failure::new(format!("pod {:?} was deleted", watched.name)).into());
        };
        show(pod, &mut progress.borrow_mut());
        Ok(match verdict(pod) {
            Verdict::Waiting if !(running && has_started(pod)) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(pod.clone()),
        })
    })
    .await?;
    let key = format!("pod/{}", last.name());
    let took = start.elapsed();
    let mut progress = progress.borrow_mut();
    match verdict(&last) {
        Verdict::Failed { message, hint } => {
            let failure = Failure::new(message);
            Err(match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
            .into())
        }
        Verdict::Succeeded => {
            progress.finish(&key, &format!("succeeded after {}", short(took)));
            Ok(())
        }
        Verdict::Ready | Verdict::Waiting => {
            let address = match last.text("/status/podIP") {
                "" => String::new(),
                ip => format!(", address {ip}"),
            };
            let word = if verdict(&last) == Verdict::Ready { "ready" } else { "started" };
            progress.finish(&key, &format!("{word} after {}{address}", short(took)));
            Ok(())
        }
    }
}

/// Whether an app container runs or has run.
fn has_started(pod: &Value) -> bool {
    let is_started =
        |status: &Value| status.at("/state/running").is_object() || status.at("/state/terminated").is_object();
    pod.items("/status/containerStatuses").iter().any(is_started)
}

fn show(pod: &Value, progress: &mut Progress) {
    for container in containers(pod) {
        let key = format!("{}/{}", pod.name(), container.name);
        match container.stage {
            Stage::Good => progress.finish(&key, &container.text),
            Stage::Underway | Stage::Trouble => progress.set(&key, &container.text),
        }
    }
}

/// Puts each container's life so far before its line, as a bar that grows. Never ends by itself.
async fn draw_life(client: &Client, pod: &Value, progress: &RefCell<Progress>) -> Result<()> {
    if !progress.borrow().is_live() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(REDRAW);
    loop {
        ticks.tick().await;
        // While the Pod is still unknown to the daemon there is nothing to draw.
        let told = timeline::moments(client, pod.namespace(), pod.name()).await.unwrap_or_default();
        let Some(life) = Life::read(&told, Timestamp::now()) else { continue };
        for lane in life.lanes.iter().filter(|lane| !lane.role.is_empty()) {
            if let Some(bar) = bars::short_bar(&life, &lane.name, BAR_WIDTH) {
                progress.borrow_mut().picture(&format!("{}/{}", pod.name(), lane.name), &bar);
            }
        }
    }
}

/// Shows a bar for each layer that comes for one of the Pods, as `image pull` does.
async fn draw_pulls(client: &Client, pods: &[Value], progress: &RefCell<Progress>) -> Infallible {
    let Some(bars) = progress.borrow().bars() else { return std::future::pending().await };
    let wanted = set_of(pods.iter().flat_map(images_of));
    let mut shown = BTreeMap::new();
    let mut ticks = tokio::time::interval(REDRAW);
    loop {
        ticks.tick().await;
        // A daemon that can't be asked now is asked again.
        if let Ok(told) = client.get("/monopod/v1/images/pull").await {
            show_pulls(&told, &wanted, &mut shown, &bars);
        }
    }
}

/// `shown`: the bars of each pull by the image's full name; those of pulls that are over go.
fn show_pulls(
    told: &Value,
    wanted: &BTreeSet<String>,
    shown: &mut BTreeMap<String, PullProgress>,
    bars: &MultiProgress,
) {
    let pulls = told.items("/pulls").iter().map(|pull| (pull.text("/reference"), pull.items("/layers")));
    let under_way = map_of(pulls.filter(|(reference, _)| wanted.contains(*reference)));
    shown.retain(|reference, pull| {
        let stays = under_way.contains_key(reference.as_str());
        if !stays {
            pull.clear();
        }
        stays
    });
    for (reference, layers) in under_way {
        let pull = shown.entry(reference.to_owned()).or_insert_with(|| PullProgress::among(bars.clone()));
        pull.show(layers);
    }
}

/// The full names of the images of a Pod, those of its volumes too.
fn images_of(pod: &Value) -> Vec<String> {
    let containers = pod.items("/spec/initContainers").iter().chain(pod.items("/spec/containers"));
    let of_containers = containers.map(|container| container.text("/image"));
    let of_volumes = pod.items("/spec/volumes").iter().map(|volume| volume.text("/image/reference"));
    let names = of_containers.chain(of_volumes);
    names.filter_map(|name| Some(name.parse::<ImageReference>().ok()?.canonical())).collect()
}

/// Says what the engine does meanwhile: pulls, and every warning. Never ends by itself.
async fn narrate(client: &Client, pod: &Value, progress: &RefCell<Progress>) -> Result<()> {
    let selector = format!("involvedObject.name={},involvedObject.uid={}", pod.name(), pod.text("/metadata/uid"));
    let path = EVENTS.collection(Some(pod.namespace()));
    let query = [("fieldSelector", selector.as_str())];
    let list = client.get(&with_query(&path, &query)).await?;
    let tell = |event: &Value| {
        let (kind, reason) = (event.text("/type"), event.text("/reason"));
        // What a container's own line says already is not repeated.
        if reason == "Pulling" || (kind == "Warning" && !matches!(reason, "Failed" | "BackOff")) {
            let message = event.text("/message").trim();
            progress.borrow().say(&format!("pod/{}: {reason}: {message}", pod.name()));
        }
    };
    list.items("/items").iter().for_each(tell);
    let revision = list.text("/metadata/resourceVersion").to_owned();
    match follow(client, &path, &query, revision, |event| {
        if event.kind != "DELETED" {
            tell(&event.object);
        }
        Ok(())
    })
    .await? {}
}

/// Waits for the phase that follows the last container's end; a failed Pod's exit code becomes ours.
async fn has_ended(client: &Client, pod: &Value) -> Result<()> {
    until(client, &watch_of(pod), |pod| {
        let Some(pod) = pod else { return Ok(ControlFlow::Break(())) };
        match pod.text("/status/phase") {
            "Succeeded" => Ok(ControlFlow::Break(())),
            "Failed" => {
                let codes = pod.items("/status/containerStatuses").iter();
                let code =
                    codes.filter_map(|status| status.integer("/state/terminated/exitCode")).find(|code| *code != 0);
                Err(ExitStatus(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)).into())
            }
            _ => Ok(ControlFlow::Continue(())),
        }
    })
    .await
}

fn short(time: Duration) -> String {
    match time.as_millis() {
        millis if millis < 1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// A Pod of one container, as `kubectl run` makes it.
fn pod_of(arguments: &RunArgs, name: &str, namespace: &str) -> Value {
    let mut container = json!({"name": name, "image": arguments.image});
    let mut set = |key: &str, value: Value| {
        if let Some(fields) = container.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    };
    if !arguments.arguments.is_empty() {
        set(if arguments.command { "command" } else { "args" }, json!(arguments.arguments));
    }
    if !arguments.env.is_empty() {
        let variable = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            json!({"name": name, "value": value})
        };
        set("env", arguments.env.iter().map(variable).collect());
    }
    if !arguments.port.is_empty() {
        set("ports", json!(arguments.port));
    }
    if let Some(policy) = &arguments.image_pull_policy {
        set("imagePullPolicy", json!(policy));
    }
    if arguments.stdin {
        set("stdin", json!(true));
        set("stdinOnce", json!(true));
    }
    if arguments.tty {
        set("tty", json!(true));
    }
    let mut labels = serde_json::Map::from_iter([("run".to_owned(), json!(name))]);
    labels.extend(arguments.label.iter().map(|label| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), json!(value))
    }));
    let ends = arguments.rm || arguments.stdin;
    let restart = arguments.restart.as_deref().unwrap_or(if ends { "Never" } else { "Always" });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [container], "restartPolicy": restart}})
}

fn parse_port(text: &str) -> Result<Value, String> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is not a port: 1 to 65535")),
    };
    match text.split_once(':') {
        None => Ok(json!({"containerPort": number(text)?})),
        Some((host, container)) => Ok(json!({"hostPort": number(host)?, "containerPort": number(container)?})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: RunArgs,
    }

    fn pod(line: &str) -> Value {
        let arguments = Line::try_parse_from(std::iter::once("run").chain(line.split_whitespace())).unwrap().arguments;
        pod_of(&arguments, arguments.name.as_deref().unwrap(), "default")
    }

    #[test]
    fn a_pod_is_made_from_the_command_line() {
        let made = pod("web --image nginx:1 -e A=b=c -p 8080:80 -p 443 -l tier=front --restart Never -- -g daemon");
        assert_eq!(
            made["spec"],
            json!({"restartPolicy": "Never", "containers": [{"name": "web", "image": "nginx:1",
            "args": ["-g", "daemon"], "env": [{"name": "A", "value": "b=c"}],
            "ports": [{"hostPort": 8080, "containerPort": 80}, {"containerPort": 443}]}]})
        );
        assert_eq!(made["metadata"]["labels"], json!({"run": "web", "tier": "front"}));
        let made = pod("shell --image debian -it --rm --command -- sh");
        assert_eq!(
            made["spec"],
            json!({"restartPolicy": "Never", "containers": [{"name": "shell", "image": "debian",
            "command": ["sh"], "stdin": true, "stdinOnce": true, "tty": true}]})
        );
    }

    #[test]
    fn pulls_of_the_pods_have_bars_for_as_long_as_they_last() {
        let pod = json!({"spec": {
            "initContainers": [{"image": "busybox"}],
            "containers": [{"image": "registry.lan:5000/app:1"}, {"image": "not an image"}],
            "volumes": [{"image": {"reference": "models:2"}}, {"emptyDir": {}}],
        }});
        let wanted: BTreeSet<String> = images_of(&pod).into_iter().collect();
        let names = ["docker.io/library/busybox:latest", "docker.io/library/models:2", "registry.lan:5000/app:1"];
        assert_eq!(wanted, names.map(str::to_owned).into());
        let layer = |received| json!({"digest": "sha256:aa", "size": 10, "received": received, "stage": "pulling"});
        let pulls = |names: &[&str]| {
            let pull = |name: &&str| json!({"reference": name, "layers": [layer(3)]});
            json!({"pulls": names.iter().map(pull).collect::<Vec<_>>()})
        };
        let (mut shown, bars) =
            (BTreeMap::new(), MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()));
        show_pulls(&pulls(&[names[0], "docker.io/library/other:1"]), &wanted, &mut shown, &bars);
        assert_eq!(shown.keys().collect::<Vec<_>>(), [names[0]]);
        show_pulls(&pulls(&[names[2]]), &wanted, &mut shown, &bars);
        assert_eq!(shown.keys().collect::<Vec<_>>(), [names[2]]);
        show_pulls(&Value::Null, &wanted, &mut shown, &bars);
        assert!(shown.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in
            ["", "web", "web --image a -f b", "-f a -p 80", "web --image a -p 0", "web --image a -t", "-f a --image b"]
        {
            assert!(Line::try_parse_from(std::iter::once("run").chain(line.split_whitespace())).is_err(), "{line}");
        }
    }
}
