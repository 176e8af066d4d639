//! `/healthz`, `/livez` and `/readyz`: whether the daemon does its work, and each part of it by name.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use store::{Change, ObjectKey};

use crate::context::Context;
use crate::http::query::Query;
use crate::http::reply::{Reply, whole};
use crate::http::status::ApiError;
use crate::kinds::NAMESPACE;

const TEXT: &str = "text/plain; charset=utf-8";

/// The parts that are looked at.
const CHECKS: [&str; 2] = ["ping", "store"];

/// A store that takes no write for so long is not well.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers `door`, one of the three, as a whole or by one check.
pub async fn answer(context: &Context, door: &str, check: Option<&str>, query: &Query) -> Result<Reply, ApiError> {
    if let Some(check) = check {
        if !CHECKS.contains(&check) {
            return Ok(whole(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"));
        }
        if !is_well(context, check).await {
            return Ok(failed(&format!("{check} failed: reason withheld\n")));
        }
        return Ok(whole(StatusCode::OK, TEXT, "ok"));
    }
    let (mut page, mut all_well) = (String::new(), true);
    for check in CHECKS {
        let is_excluded = query.all("exclude").any(|excluded| excluded == check);
        // Writing to a string cannot fail.
        let _infallible = if is_excluded {
            writeln!(page, "[+]{check} excluded: ok")
        } else if is_well(context, check).await {
            writeln!(page, "[+]{check} ok")
        } else {
            all_well = false;
            writeln!(page, "[-]{check} failed: reason withheld")
        };
    }
    let unknown: Vec<String> = query
        .all("exclude")
        .filter(|excluded| !CHECKS.contains(excluded))
        .map(|excluded| format!("{excluded:?}"))
        .collect();
    if !unknown.is_empty() {
        let _infallible =
            writeln!(page, "warn: some health checks cannot be excluded: no matches for {}", unknown.join(", "));
    }
    if !all_well {
        return Ok(failed(&format!("{page}{door} check failed\n")));
    }
    if query.all("verbose").next().is_none() {
        return Ok(whole(StatusCode::OK, TEXT, "ok"));
    }
    Ok(whole(StatusCode::OK, TEXT, format!("{page}{door} check passed\n")))
}

fn failed(page: &str) -> Reply {
    whole(StatusCode::INTERNAL_SERVER_ERROR, TEXT, page.to_owned())
}

async fn is_well(context: &Context, check: &str) -> bool {
    if check != "store" {
        return true;
    }
    // Changes nothing, but goes through the thread that all writes go through.
    let key = ObjectKey::cluster(NAMESPACE.resource, "default");
    let asked = context.store.write(key, |_present| Ok::<_, Infallible>((Change::Keep, ())));
    matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(_)))
}
