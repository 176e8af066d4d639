//! `timeline`: the life of a Pod as a picture, with the real times.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::context::Context;
use crate::errors::Failure;
use crate::output::{Document, note};
use crate::table::Table;
use crate::terminal;
use crate::timeline::life::Life;
use crate::timeline::{bars, line_of, moments, steps, svg, trace};

/// Columns where no terminal tells them.
const DEFAULT_WIDTH: usize = 120;

/// Arguments of `timeline`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each container is a bar from left to right: waiting, pulling its image, starting, running, ready, terminating. Long quiet
stretches are drawn shorter, marked ⋯, so that a start of milliseconds is seen beside hours of running.

  monopod timeline web                 why did it take so long until ready? who died first?
  monopod timeline web --moments       the same as a list with exact times
  monopod timeline web -o svg          as a picture in web-timeline.svg
  monopod timeline web --trace         each step of the daemon and of infra, in microseconds
  monopod timeline web --trace -o json > web.json     the same, for ui.perfetto.dev")]
pub struct TimelineArgs {
    /// The Pod: `web` or `pod/web`
    #[arg(value_name = "POD")]
    pod: String,
    /// Instead of bars: a picture in a file, or the moments as they were recorded
    #[arg(short, long, value_name = "FORM")]
    output: Option<Form>,
    /// Where `-o svg` writes to [default: POD-timeline.svg]; `-` for standard output
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// List each moment below the bars
    #[arg(long)]
    moments: bool,
    /// Show what was done for the Pod instead, step by step: where the milliseconds of its start went. Known of the Pods that
    /// were started last; `-o json` gives the trace event format, which ui.perfetto.dev opens
    #[arg(long, conflicts_with = "moments")]
    trace: bool,
}

/// Forms beside bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A picture
    Svg,
    /// The moments
    Json,
}

/// Draws the life of a Pod.
pub async fn timeline(arguments: &TimelineArgs, context: &mut Context) -> Result<()> {
    let name = arguments.pod.strip_prefix("pod/").or_else(|| arguments.pod.strip_prefix("pods/"));
    let name = name.unwrap_or(&arguments.pod);
    if arguments.trace {
        return trace_of(arguments, context, name).await;
    }
    let told = moments(&context.client, context.namespace(), name).await?;
    if arguments.output == Some(Form::Json) {
        context.out.document(&json!({"moments": told}), Document::Json)?;
        return context.out.flush();
    }
    let Some(life) = Life::read(&told, Timestamp::now()) else {
        return Err(Failure::new(format!("nothing has happened to pod {name:?} yet")).into());
    };
    if arguments.output == Some(Form::Svg) {
        let title = format!("Pod {}/{name}, from {}", context.namespace(), life.from);
        return write_svg(arguments, context, name, &svg::draw(&life, &title));
    }
    let is_terminal = context.out.is_terminal();
    let width = if is_terminal { terminal::size().map(|(columns, _)| usize::from(columns)) } else { None };
    context.out.line(&format!("Pod {}/{name}, from {}\n", context.namespace(), life.from))?;
    // Names in it are escaped already, and its colours must not be.
    context.out.bytes(bars::draw(&life, width.unwrap_or(DEFAULT_WIDTH), is_terminal).as_bytes())?;
    if arguments.moments {
        let mut table = Table::new(&["AFTER", "TIME", "CONTAINER", "WHAT"]);
        for moment in &told {
            let [at, container, what] = line_of(moment);
            let after = at.parse().map_or_else(|_no_time| String::new(), |time| bars::length(life.from, time));
            table.rows.push(vec![after, at, container, what]);
        }
        context.out.line(&format!("\n{}", table.render()))?;
    }
    context.out.flush()
}

async fn trace_of(arguments: &TimelineArgs, context: &mut Context, name: &str) -> Result<()> {
    let steps = steps(&context.client, context.namespace(), name).await?;
    match arguments.output {
        Some(Form::Svg) => {
            let why = "--trace draws no SVG";
            return Err(Failure::new(why).hint("take `-o json` and open it in ui.perfetto.dev").into());
        }
        Some(Form::Json) => {
            let pod = format!("{}/{name}", context.namespace());
            context.out.document(&trace::events(&steps, &pod), Document::Json)?;
        }
        None if steps.is_empty() => {
            let why = format!("nothing is known any more of how pod {name:?} was started");
            let hint = "the daemon remembers the steps of the last 64 Pods since it was started itself";
            return Err(Failure::new(why).hint(hint).into());
        }
        None => context.out.bytes(trace::draw(&steps).as_bytes())?,
    }
    context.out.flush()
}

fn write_svg(arguments: &TimelineArgs, context: &mut Context, name: &str, picture: &str) -> Result<()> {
    let file = arguments.file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}-timeline.svg")));
    if file.as_os_str() == "-" {
        context.out.bytes(picture.as_bytes())?;
        return context.out.flush();
    }
    std::fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
    note(&format!("written to {}", file.display()));
    Ok(())
}
