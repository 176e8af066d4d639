//! Writes what is generated: the messages and services of CRI, from Kubernetes' own definition of them.
//!
//! The result is kept in the repository, so that a build needs neither the compiler of definitions nor its time.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const HEADER: &str =
    "//! The messages and services of CRI: written by `cargo run -p xtask --features cri -- codegen cri`, not by hand.";

/// Writes `crates/cri/src/proto.rs` anew.
pub fn write(root: &Path) -> Result<()> {
    let cri = root.join("crates/cri");
    let definitions =
        protox::compile(["runtime.v1.proto"], [cri.join("proto")]).context("cannot read the definitions")?;
    let output = tempfile::tempdir().context("cannot make a directory")?;
    let generator = tonic_prost_build::configure().build_client(false).out_dir(output.path());
    generator.compile_fds(definitions).context("cannot write the messages")?;
    let messages = fs::read_to_string(output.path().join("runtime.v1.rs")).context("cannot read the messages")?;
    let target = cri.join("src/proto.rs");
    fs::write(&target, format!("{HEADER}\n\n{messages}")).with_context(|| format!("cannot write {}", target.display()))
}
