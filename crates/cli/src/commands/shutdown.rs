//! `shutdown`: ends Pods in their time because the machine goes down; the systemd unit calls it.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::output::note;

const PATH: &str = "/monopod/v1/shutdown";

/// Arguments of `shutdown`.
#[derive(Debug, Args)]
#[command(after_help = "\
Pods end by priority, as the daemon's options --shutdown-grace-period… say; they do not start again after the boot. Without
these options nothing is done: Pods are killed with the machine, and start again with it.

  monopod shutdown                     as the systemd unit does it when the machine goes down
  monopod shutdown --cancel            the machine stays: new Pods are welcome again")]
pub struct ShutdownArgs {
    /// The machine stays: the node is ready again
    #[arg(long)]
    cancel: bool,
}

/// Ends the Pods, or takes that back.
pub async fn shutdown(arguments: &ShutdownArgs, context: &mut Context) -> Result<()> {
    if arguments.cancel {
        context.client.delete(PATH, &json!({})).await?;
        return Ok(());
    }
    let answer = context.client.create(PATH, &json!({})).await?;
    if answer.get("ended").and_then(Value::as_bool) == Some(false) {
        note(
            "no time to end is configured (monopod serve --shutdown-grace-period), so Pods run until the machine stops them",
        );
    }
    Ok(())
}
