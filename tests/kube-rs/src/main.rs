//! kube-rs as its users write it: an informer that prints what it sees, a log, an exec, objects. What it prints is what the programs of
//! `tests/clients` print, and the end-to-end tests run it with them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what it prints is read by a test")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read as _;

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{AttachParams, DeleteParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    // By the kubeconfig that KUBECONFIG names.
    let client = Client::try_default().await?;
    match std::env::args().nth(1).as_deref() {
        Some("informer") => informer(client).await,
        Some("streams") => streams(client).await,
        Some("objects") => objects(client).await,
        _ => Err("usage: kube-rs-client informer|streams|objects".into()),
    }
}

/// Prints the ConfigMaps with the label `seen`, with their values, whenever that changes, until its input ends.
async fn informer(client: Client) -> Outcome {
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let (reader, writer) = reflector::store();
    let watch = watcher(maps, watcher::Config::default().labels("seen")).default_backoff().reflect(writer);
    println!("begun");
    let mut last = None;
    let showing = watch.for_each(|_event| {
        let known = reader.state();
        let value = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("value")).cloned().unwrap_or_default();
        let seen: BTreeMap<String, String> = known.iter().map(|map| (map.name_any(), value(map))).collect();
        let seen: Vec<String> = seen.iter().map(|(name, value)| format!("{name}={value}")).collect();
        // Nothing is whole before the first list is.
        if !seen.is_empty() && last.as_ref() != Some(&seen) {
            println!("sees {}", seen.join(" "));
            last = Some(seen);
        }
        std::future::ready(())
    });
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        // Nobody waits any more when the watch has ended before.
        ended.send(()).ok();
    });
    tokio::select! {
        () = showing => Err("the watch ended".into()),
        _ = end => Ok(()),
    }
}

async fn streams(client: Client) -> Outcome {
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream("web", &follow).await?.lines();
    println!("log {}", lines.try_next().await?.ok_or("no line")?);
    let command = ["sh", "-c", "read line; echo got $line; echo oops >&2; exit 7"];
    let mut process = pods.exec("web", command, &AttachParams::default().stdin(true)).await?;
    let status = process.take_status().ok_or("no status")?;
    let (mut input, mut output, mut errors) = (
        process.stdin().ok_or("no stdin")?,
        process.stdout().ok_or("no stdout")?,
        process.stderr().ok_or("no stderr")?,
    );
    input.write_all(b"word\n").await?;
    let (mut told, mut complained) = (String::new(), String::new());
    tokio::try_join!(output.read_to_string(&mut told), errors.read_to_string(&mut complained))?;
    let causes = status.await.and_then(|status| status.details?.causes).unwrap_or_default();
    let code = causes.into_iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message).ok_or("no exit code")?;
    println!("exec {} {} {code}", told.trim(), complained.trim());
    Ok(process.join().await?)
}

async fn objects(client: Client) -> Outcome {
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "made", "labels": {"by": "rust"}},
        "spec": {"containers": [{"name": "c", "image": "busybox:stable", "command": ["sleep", "9"]}]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let more = Patch::Merge(json!({"metadata": {"labels": {"more": "yes"}}}));
    pods.patch("made", &PatchParams::default(), &more).await?;
    let made = pods.get("made").await?;
    let label = |name: &str| made.labels().get(name).cloned().unwrap_or_default();
    println!("made {} {}", label("by"), label("more"));
    if let Err(kube::Error::Api(status)) = pods.create(&PostParams::default(), &pod).await {
        let phrase = StatusCode::from_u16(status.code)?.canonical_reason().unwrap_or_default();
        println!("refused {} {phrase}", status.code);
    }
    pods.delete("made", &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}
