//! The life of a Pod as a picture: stretches of time, read from moments, drawn as bars or as SVG.

pub mod bars;
pub mod life;
mod scale;
pub mod svg;
pub mod trace;

use anyhow::Result;
use serde_json::Value;

use crate::client::Client;
use crate::fields::Fields as _;

/// What the daemon remembers of a Pod, in the order of time.
pub async fn moments(client: &Client, namespace: &str, name: &str) -> Result<Vec<Value>> {
    let mut answer = client.get(&format!("/monopod/v1/namespaces/{namespace}/pods/{name}/timeline")).await?;
    Ok(answer.get_mut("moments").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
}

/// What the daemon remembers of what it did for a Pod.
pub async fn steps(client: &Client, namespace: &str, name: &str) -> Result<Vec<trace::Step>> {
    Ok(trace::read(&client.get(&format!("/monopod/v1/namespaces/{namespace}/pods/{name}/steps")).await?))
}

/// One moment as a line of a list: when, whose, what.
pub fn line_of(moment: &Value) -> [String; 3] {
    let what = match moment.text("/kind") {
        "event" => format!("{}: {}", moment.text("/reason"), moment.text("/message")),
        "pod" => format!("phase {}{}", moment.text("/phase"), if moment.flag("/ready") { ", ready" } else { "" }),
        _ => state_of(moment),
    };
    [moment.text("/at").to_owned(), moment.text("/container").to_owned(), what]
}

fn state_of(turn: &Value) -> String {
    let reason = Some(turn.text("/reason")).filter(|reason| !reason.is_empty());
    let code = turn.integer("/exitCode").map(|code| format!("exit code {code}"));
    let details: Vec<String> = reason.map(str::to_owned).into_iter().chain(code).collect();
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    let ready = if turn.text("/state") == "running" && turn.flag("/ready") { ", ready" } else { "" };
    format!("{}{ready}{details}", turn.text("/state"))
}
