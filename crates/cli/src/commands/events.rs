//! `events`: what happened, oldest first; once or followed.

use anyhow::Result;
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::age;
use crate::context::Context;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::output::{Output, note};
use crate::resources::{EVENTS, with_query};
use crate::table::{Layout, Table};
use crate::watch::follow;

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only events of this object, such as `pod/web`
    #[arg(long = "for", value_name = "KIND/NAME")]
    object: Option<String>,
    /// Only events of these types
    #[arg(long, value_delimiter = ',', value_name = "Normal,Warning")]
    types: Vec<String>,
    /// Show new events as they come, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Events of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Leave out the headings
    #[arg(long)]
    no_headers: bool,
}

const HEADINGS: [&str; 6] = ["NAMESPACE", "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];

/// Shows events.
pub async fn events(arguments: &EventsArgs, context: &mut Context) -> Result<()> {
    let namespace = (!arguments.all_namespaces).then(|| context.namespace().to_owned());
    let path = EVENTS.collection(namespace.as_deref());
    let selector = selector(arguments, context).await?;
    let query: Vec<_> = selector.as_deref().map(|fields| ("fieldSelector", fields)).into_iter().collect();
    let list = context.client.get(&with_query(&path, &query)).await?;
    let mut found: Vec<&Value> = list.items("/items").iter().collect();
    spec::ordered::sort_by_key(&mut found, |event| order_of(event));
    if found.is_empty() && !arguments.watch {
        note("No events found");
    }
    let mut view = View { arguments, layout: Layout::default(), headings: !arguments.no_headers };
    view.show(&mut context.out, &found)?;
    if !arguments.watch {
        return Ok(());
    }
    let revision = list.text("/metadata/resourceVersion").to_owned();
    let Context { client, out, .. } = context;
    match follow(client, &path, &query, revision, |change| match change.kind.as_str() {
        "DELETED" => Ok(()),
        _ => view.show(out, &[&change.object]),
    })
    .await? {}
}

/// The time at which an event was last seen (events.k8s.io and core events keep it in different places).
pub fn time_of(event: &Value) -> &str {
    let places =
        ["/series/lastObservedTime", "/lastTimestamp", "/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    places.into_iter().map(|place| event.text(place)).find(|time| !time.is_empty()).unwrap_or_default()
}

/// Oldest first; within a second, which is all that most events tell, by their number in the store.
pub fn order_of(event: &Value) -> (String, u64) {
    (time_of(event).to_owned(), event.text("/metadata/resourceVersion").parse().unwrap_or_default())
}

async fn selector(arguments: &EventsArgs, context: &Context) -> Result<Option<String>> {
    let Some(object) = &arguments.object else { return Ok(None) };
    let targets = context.targets(std::slice::from_ref(object)).await?;
    match targets.as_slice() {
        [target] if target.name.is_some() => {
            let name = target.name.as_deref().unwrap_or_default();
            Ok(Some(format!("involvedObject.kind={},involvedObject.name={name}", target.resource.kind)))
        }
        _ => Err(Failure::new(format!("--for {object:?} is not of the form KIND/NAME"))
            .hint("for example --for pod/web")
            .into()),
    }
}

/// What has been shown so far.
struct View<'a> {
    arguments: &'a EventsArgs,
    layout: Layout,
    headings: bool,
}

impl View<'_> {
    fn show(&mut self, out: &mut Output, events: &[&Value]) -> Result<()> {
        let skip = usize::from(!self.arguments.all_namespaces);
        let types = &self.arguments.types;
        let wanted = |event: &&&Value| {
            types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(event.text("/type")))
        };
        let now = Timestamp::now();
        let mut table = Table::new(HEADINGS.get(skip..).unwrap_or_default());
        table.rows = events.iter().filter(wanted).map(|event| row(event, now).split_off(skip)).collect();
        if table.rows.is_empty() {
            return Ok(());
        }
        self.layout.widen(&table);
        if std::mem::take(&mut self.headings) {
            out.text(&self.layout.headings(&table))?;
        }
        out.text(&self.layout.rows(&table))?;
        out.flush()
    }
}

fn row(event: &Value, now: Timestamp) -> Vec<String> {
    let object = event.at("/involvedObject");
    let count = event.integer("/series/count").or(event.integer("/count")).unwrap_or(1);
    let mut seen = age::since(time_of(event), now);
    if count > 1 {
        seen = format!("{seen} (x{count} over {})", age::since(event.text("/firstTimestamp"), now));
    }
    vec![
        event.namespace().to_owned(),
        seen,
        event.text("/type").to_owned(),
        event.text("/reason").to_owned(),
        format!("{}/{}", object.text("/kind"), object.text("/name")),
        event.text("/message").trim().to_owned(),
    ]
}
