//! `reset`: stops everything and removes every trace.
use anyhow::Result;
use clap::Args;
use crate::context::Context;
/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {}
/// todo
pub async fn reset(_a: &ResetArgs, _c: &mut Context) -> Result<()> { Ok(()) }
