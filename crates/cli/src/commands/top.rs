//! `top`: what Pods, their containers and the node use now.

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;
use spec::quantity::Quantity;

use crate::context::Context;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::output::note;
use crate::resources::with_query;
use crate::table::Table;

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// `pods` or `nodes`
    #[arg(value_name = "KIND", default_value = "pods")]
    kind: String,
    /// Only this one
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Those with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Pods of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show each container
    #[arg(long)]
    containers: bool,
    /// Those that use most first
    #[arg(long, value_name = "cpu|memory")]
    sort_by: Option<SortBy>,
    /// Leave out the headings
    #[arg(long)]
    no_headers: bool,
}

/// What to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortBy {
    Cpu,
    Memory,
}

/// What one line shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Used {
    names: Vec<String>,
    millicores: i64,
    bytes: i64,
}

/// Shows what is used. A rate needs two readings, so the first answer takes a second.
pub async fn top(arguments: &TopArgs, context: &mut Context) -> Result<()> {
    match arguments.kind.as_str() {
        "pods" | "pod" | "po" => top_pods(arguments, context).await,
        "nodes" | "node" | "no" => top_nodes(arguments, context).await,
        other => Err(Failure::new(format!("{other:?} is not measured"))
            .hint("monopod top pods, or monopod top nodes")
            .into()),
    }
}

async fn top_pods(arguments: &TopArgs, context: &mut Context) -> Result<()> {
    let mut path = METRICS.to_owned();
    if !arguments.all_namespaces {
        path = format!("{path}/namespaces/{}", context.namespace());
    }
    let found = ask(arguments, context, &format!("{path}/pods")).await?;
    let mut lines = Vec::new();
    for pod in &found {
        let place = arguments.all_namespaces.then(|| pod.namespace().to_owned());
        let names = |last: &[&str]| place.iter().cloned().chain(last.iter().map(|name| (*name).to_owned())).collect();
        let containers = pod.items("/containers").iter();
        let used: Vec<(String, i64, i64)> = containers
            .map(|container| Ok((container.text("/name").to_owned(), cpu(container)?, memory(container)?)))
            .collect::<Result<_>>()?;
        if arguments.containers {
            lines.extend(used.iter().map(|(container, millicores, bytes)| Used {
                names: names(&[pod.name(), container]),
                millicores: *millicores,
                bytes: *bytes,
            }));
        } else {
            let (millicores, bytes) = used.iter().fold((0, 0), |sum, (_, cpu, memory)| (sum.0 + cpu, sum.1 + memory));
            lines.push(Used { names: names(&[pod.name()]), millicores, bytes });
        }
    }
    if lines.is_empty() {
        note("No Pods run here");
        return Ok(());
    }
    sort(&mut lines, arguments.sort_by);
    let name = if arguments.containers { &["NAMESPACE", "POD", "NAME"][..] } else { &["NAMESPACE", "NAME"] };
    let name = name.get(usize::from(!arguments.all_namespaces)..).unwrap_or_default();
    let headings = [name, &["CPU(cores)", "MEMORY(bytes)"]].concat();
    let rows = lines.into_iter().map(|line| [line.names, vec![cores(line.millicores), mebibytes(line.bytes)]].concat());
    show(arguments, context, &headings, rows.collect())
}

async fn top_nodes(arguments: &TopArgs, context: &mut Context) -> Result<()> {
    let mut rows = Vec::new();
    for node in ask(arguments, context, &format!("{METRICS}/nodes")).await? {
        let object = context.client.get(&format!("/api/v1/nodes/{}", node.name())).await?;
        let share = |used: i64, resource: &str, scale: i64| -> Result<String> {
            let whole = quantity(object.text(&format!("/status/allocatable/{resource}")))?.millis()?;
            Ok(format!("{}%", used.saturating_mul(scale).saturating_mul(100) / whole.max(1)))
        };
        let (millicores, bytes) = (cpu(&node)?, memory(&node)?);
        rows.push(vec![
            node.name().to_owned(),
            cores(millicores),
            share(millicores, "cpu", 1)?,
            mebibytes(bytes),
            share(bytes, "memory", 1000)?,
        ]);
    }
    show(arguments, context, &["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], rows)
}

async fn ask(arguments: &TopArgs, context: &Context, path: &str) -> Result<Vec<Value>> {
    if let Some(name) = &arguments.name {
        return Ok(vec![context.client.get(&format!("{path}/{name}")).await?]);
    }
    let query: Vec<_> = arguments.selector.as_deref().map(|labels| ("labelSelector", labels)).into_iter().collect();
    let list = context.client.get(&with_query(path, &query)).await?;
    Ok(list.items("/items").to_vec())
}

fn show(arguments: &TopArgs, context: &mut Context, headings: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let mut table = Table::new(headings);
    table.rows = rows;
    let text = table.render();
    let text = if arguments.no_headers { text.split_once('\n').map_or("", |(_, rows)| rows) } else { &text };
    context.out.text(text)?;
    context.out.flush()
}

/// By name, or the greediest first.
fn sort(lines: &mut [Used], by: Option<SortBy>) {
    spec::ordered::sort_by(lines, |one, other| {
        let most = match by {
            Some(SortBy::Cpu) => other.millicores.cmp(&one.millicores),
            Some(SortBy::Memory) => other.bytes.cmp(&one.bytes),
            None => std::cmp::Ordering::Equal,
        };
        most.then_with(|| one.names.cmp(&other.names))
    });
}

fn quantity(text: &str) -> Result<Quantity> {
    Quantity::parse(text).with_context(|| format!("cannot read the amount {text:?}"))
}

fn cpu(measured: &Value) -> Result<i64> {
    Ok(quantity(measured.text("/usage/cpu"))?.millis()?)
}

fn memory(measured: &Value) -> Result<i64> {
    Ok(quantity(measured.text("/usage/memory"))?.value()?)
}

fn cores(millicores: i64) -> String {
    format!("{millicores}m")
}

fn mebibytes(bytes: i64) -> String {
    format!("{}Mi", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greediest_comes_first_where_it_is_asked_for() {
        let line = |name: &str, millicores, bytes| Used { names: vec![name.to_owned()], millicores, bytes };
        let mut lines = vec![line("b", 5, 1), line("a", 5, 3), line("c", 9, 2)];
        let mut order = |by| {
            sort(&mut lines, by);
            lines.iter().map(|line| line.names.concat()).collect::<String>()
        };
        assert_eq!(order(None), "abc");
        assert_eq!(order(Some(SortBy::Cpu)), "cab");
        assert_eq!(order(Some(SortBy::Memory)), "acb");
    }

    #[test]
    fn amounts_are_shown_as_kubectl_shows_them() {
        let measured = serde_json::json!({"usage": {"cpu": "1500001n", "memory": "3072Ki"}});
        assert_eq!(
            (cores(cpu(&measured).unwrap()), mebibytes(memory(&measured).unwrap())),
            ("2m".into(), "3Mi".into())
        );
    }
}
