//! `version`: ours and the daemon's.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::fields::Fields as _;
use crate::output::Document;

/// Arguments of `version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Only this program's version; the daemon is not asked
    #[arg(long)]
    client: bool,
    /// The form: a document instead of lines
    #[arg(short, long, value_name = "FORM")]
    output: Option<Document>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shows versions.
pub async fn version(arguments: &VersionArgs, context: &mut Context) -> Result<()> {
    let server = if arguments.client { None } else { Some(context.client.get("/version").await) };
    if let Some(form) = arguments.output {
        let mut document = json!({"clientVersion": {"gitVersion": format!("v{VERSION}")}});
        if let (Some(server), Some(fields)) = (server, document.as_object_mut()) {
            fields.insert("serverVersion".to_owned(), server?);
        }
        context.out.document(&document, form)?;
        return context.out.flush();
    }
    context.out.line(&format!("Client Version: v{VERSION}"))?;
    context.out.flush()?;
    if let Some(server) = server {
        context.out.line(&format!("Server Version: {}", server?.text("/gitVersion")))?;
        context.out.flush()?;
    }
    Ok(())
}
