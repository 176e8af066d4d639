//! `check`
use anyhow::Result;
use clap::Args;
/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {}
/// todo
pub fn check(_a: &CheckArgs) -> Result<()> { Ok(()) }
