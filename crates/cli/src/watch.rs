//! Waits for an object to become what one waits for, across ended and expired watches.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::pin::pin;

use anyhow::Result;
use futures::StreamExt as _;
use serde_json::Value;

use crate::client::{Client, Event};
use crate::errors::Refusal;
use crate::fields::Fields as _;
use crate::resources::{Resource, with_query};

/// Which object is watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its kind.
    pub resource: &'static Resource,
    /// Its namespace; ignored for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Asks for what there is and what becomes of it at once (KEP-3157): a bookmark stands behind the first.
const LIST_AND_WATCH: [(&str, &str); 4] = [
    ("watch", "true"),
    ("sendInitialEvents", "true"),
    ("resourceVersionMatch", "NotOlderThan"),
    ("allowWatchBookmarks", "true"),
];

/// Shows each state of the object to `decide`, `None` while it does not exist, until it breaks.
pub async fn until<T>(
    client: &Client,
    watched: &Watched,
    mut decide: impl FnMut(Option<&Value>) -> Result<ControlFlow<T>>,
) -> Result<T> {
    let collection = watched.resource.collection(Some(&watched.namespace));
    let only = format!("metadata.name={}", watched.name);
    let mut query = vec![("fieldSelector", only.as_str())];
    query.extend(LIST_AND_WATCH);
    loop {
        let mut events = pin!(client.watch(&with_query(&collection, &query)).await?);
        let mut shown = false;
        while let Some(event) = events.next().await {
            let event = match event {
                Err(error) if is_expired(&error) => break,
                event => event?,
            };
            let state = match event.kind.as_str() {
                // The first one, with nothing before it: there is no such object.
                "BOOKMARK" if !shown => None,
                "BOOKMARK" => continue,
                "DELETED" => None,
                _ => Some(&event.object),
            };
            shown = true;
            if let ControlFlow::Break(result) = decide(state)? {
                return Ok(result);
            }
        }
    }
}

/// Shows each change of a collection after a revision to `each`, for ever.
pub async fn follow(
    client: &Client,
    path: &str,
    query: &[(&str, &str)],
    mut revision: String,
    mut each: impl FnMut(Event) -> Result<()>,
) -> Result<Infallible> {
    loop {
        let start = std::mem::take(&mut revision);
        let mut with_start = query.to_vec();
        with_start.extend([("watch", "true"), ("resourceVersion", start.as_str())]);
        let mut events = pin!(client.watch(&with_query(path, &with_start)).await?);
        while let Some(event) = events.next().await {
            match event {
                Err(error) if is_expired(&error) => break,
                event => {
                    let event = event?;
                    event.object.text("/metadata/resourceVersion").clone_into(&mut revision);
                    if event.kind != "BOOKMARK" {
                        each(event)?;
                    }
                }
            }
        }
        if revision.is_empty() {
            // Nothing came, or the revision is no longer kept: go on from what is there now.
            client.get(&with_query(path, query)).await?.text("/metadata/resourceVersion").clone_into(&mut revision);
        }
    }
}

/// Whether the watch must start anew because its revision is no longer kept.
pub fn is_expired(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status.code == 410)
}
