//! `describe`: one object as a page that a person reads, with its events.

mod config;
mod container;
mod node;
mod pod;
mod sheet;

use anyhow::Result;
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::age;
use crate::client::Client;
use crate::commands::events::{order_of, time_of};
use crate::context::Context;
use crate::errors::joined;
use crate::fields::{Fields as _, plain};
use crate::manifests::Files;
use crate::merge::LAST_APPLIED;
use crate::output::note;
use crate::resources::{EVENTS, PODS, Resource, with_query};
use crate::table::Table;
use crate::terminal;
use crate::timeline::life::Life;
use crate::timeline::{self};
use sheet::Sheet;

/// Arguments of `describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// What to describe: `pod web`, `pod/web node/n1`, or a kind for all its objects
    #[arg(value_name = "KIND [NAME…] | KIND/NAME…")]
    resources: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Leave the events out
    #[arg(long)]
    no_events: bool,
}

/// Describes objects.
pub async fn describe(arguments: &DescribeArgs, context: &mut Context) -> Result<()> {
    let (objects, errors) = objects(arguments, context).await?;
    if objects.is_empty() && errors.is_empty() {
        note("No resources found");
    }
    for (index, (resource, object)) in objects.iter().enumerate() {
        if index > 0 {
            context.out.line("\n")?;
        }
        let events = if arguments.no_events { None } else { Some(events_of(&context.client, object).await?) };
        let pods = match resource.kind.as_ref() {
            "Node" => pods_of_node(&context.client, object.name()).await?,
            _ => Vec::new(),
        };
        context.out.text(&page(resource, object, &pods, events.as_deref(), Timestamp::now()))?;
        if resource.kind == "Pod" {
            describe_life(context, object).await?;
        }
        context.out.flush()?;
    }
    joined(errors)
}

/// The Pod's life as bars. A daemon that does not remember one says nothing about it.
async fn describe_life(context: &mut Context, pod: &Value) -> Result<()> {
    let told = timeline::moments(&context.client, pod.namespace(), pod.name()).await.unwrap_or_default();
    if let Some(life) = Life::read(&told, Timestamp::now()) {
        let width = terminal::size().map_or(100, |(columns, _)| usize::from(columns));
        context.out.text("Timeline:\n")?;
        context.out.text(&timeline::bars::draw(&life, width, false))?;
    }
    Ok(())
}

type Found = (&'static Resource, Value);

async fn objects(arguments: &DescribeArgs, context: &Context) -> Result<(Vec<Found>, Vec<anyhow::Error>)> {
    let (mut objects, mut errors) = (Vec::new(), Vec::new());
    let mut one = async |resource: &'static Resource, path: &str| match context.client.get(path).await {
        Ok(object) => objects.push((resource, object)),
        Err(error) => errors.push(error),
    };
    if !arguments.files.filename.is_empty() {
        for manifest in context.manifests(&arguments.files).await? {
            one(manifest.resource, &manifest.path()).await;
        }
        return Ok((objects, errors));
    }
    let mut kinds = Vec::new();
    for target in context.targets(&arguments.resources).await? {
        match target.name {
            Some(name) => one(target.resource, &target.resource.object(context.namespace(), &name)).await,
            None => kinds.push(target.resource),
        }
    }
    for resource in kinds {
        let namespace = (!arguments.all_namespaces).then(|| context.namespace());
        let query: Vec<_> = arguments.selector.as_deref().map(|labels| ("labelSelector", labels)).into_iter().collect();
        let list = context.client.get(&with_query(&resource.collection(namespace), &query)).await?;
        objects.extend(list.items("/items").iter().map(|object| (resource, object.clone())));
    }
    Ok((objects, errors))
}

async fn events_of(client: &Client, object: &Value) -> Result<Vec<Value>> {
    let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
    let selector = format!("involvedObject.name={},involvedObject.uid={}", object.name(), object.text("/metadata/uid"));
    let mut list = client.get(&with_query(&EVENTS.collection(namespace), &[("fieldSelector", &selector)])).await?;
    let mut events = list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    spec::ordered::sort_by_key(&mut events, order_of);
    Ok(events)
}

async fn pods_of_node(client: &Client, node: &str) -> Result<Vec<Value>> {
    let selector = format!("spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed");
    let mut list = client.get(&with_query(&PODS.collection(None), &[("fieldSelector", &selector)])).await?;
    Ok(list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
}

/// The whole page. Pure: what is read and when it is are given.
fn page(resource: &Resource, object: &Value, pods: &[Value], events: Option<&[Value]>, now: Timestamp) -> String {
    let mut sheet = Sheet::default();
    match resource.kind.as_ref() {
        "Pod" => pod::describe(&mut sheet, object, now),
        "Node" => node::describe(&mut sheet, object, pods, now),
        "ConfigMap" => config::describe_config_map(&mut sheet, object),
        "Secret" => config::describe_secret(&mut sheet, object),
        "Namespace" => config::describe_namespace(&mut sheet, object),
        _ => config::describe_other(&mut sheet, object),
    }
    if let Some(events) = events {
        describe_events(&mut sheet, events, now);
    }
    sheet.render()
}

fn describe_events(sheet: &mut Sheet, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        sheet.field(0, "Events", "<none>");
        return;
    }
    let mut table = Table::new(&["Type", "Reason", "Age", "From", "Message"]);
    for event in events {
        let count = event.integer("/series/count").or(event.integer("/count")).unwrap_or(1);
        let mut when = age::since(time_of(event), now);
        if count > 1 {
            when = format!("{when} (x{count} over {})", age::since(event.text("/firstTimestamp"), now));
        }
        let from = [event.text("/reportingComponent"), event.text("/source/component")];
        let from = from.into_iter().find(|from| !from.is_empty()).unwrap_or_default();
        let cells = [event.text("/type"), event.text("/reason"), &when, from, event.text("/message").trim()];
        table.rows.push(cells.map(str::to_owned).to_vec());
    }
    sheet.table("Events", &table);
}

/// Name, namespace, labels and annotations, as every page starts.
fn describe_head(sheet: &mut Sheet, object: &Value) {
    sheet.field(0, "Name", object.name());
    if !object.namespace().is_empty() {
        sheet.field(0, "Namespace", object.namespace());
    }
}

fn describe_metadata(sheet: &mut Sheet, object: &Value) {
    let labels = object.entries("/metadata/labels").map(|(key, value)| format!("{key}={}", plain(value)));
    sheet.list(0, "Labels", labels);
    // The annotation repeats the manifest; of a Secret it repeats what nobody should see.
    let annotations = object.entries("/metadata/annotations").filter(|(key, _)| key.as_str() != LAST_APPLIED);
    sheet.list(0, "Annotations", annotations.map(|(key, value)| format!("{key}: {}", plain(value))));
}

#[cfg(test)]
mod tests;
