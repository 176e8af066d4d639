//! `serve`
use anyhow::Result;
use clap::Args;
/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {}
/// todo
pub fn serve(_a: &ServeArgs) -> Result<()> { Ok(()) }
