//! Writes what is made from Kubernetes' own descriptions of its kinds, to be kept in the repository.

#[cfg(feature = "cri")]
mod messages;
mod openapi;
mod protobuf;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use flate2::Compression;
use flate2::write::GzEncoder;

/// What can be made.
#[derive(Debug, Subcommand)]
pub enum Codegen {
    /// The schemas of `/openapi/v3`, from the package `kubernetes-validate` of PyPI, which has them with Kubernetes'
    /// extensions: `pip download --no-deps kubernetes-validate`, and there `kubernetes-json-schema/VERSION-local/_definitions.json`.
    Openapi {
        /// `_definitions.json`
        definitions: PathBuf,
    },
    /// The messages of protobuf bodies, from Debian's packages `golang-k8s-api-dev` and `golang-k8s-apimachinery-dev`,
    /// unpacked: `apt-get download`, `dpkg-deb --extract`.
    Protobuf {
        /// `usr/share/gocode/src`
        sources: PathBuf,
    },
    /// The messages and services of CRI, from `crates/cri/proto`: `cargo run -p xtask --features cri -- codegen cri`, then
    /// `cargo fmt`.
    #[cfg(feature = "cri")]
    Cri,
}

/// Makes it.
pub fn run(root: &Path, what: &Codegen) -> anyhow::Result<ExitCode> {
    match what {
        Codegen::Openapi { definitions } => {
            write_compressed(&root.join("crates/api/src/openapi/schemas.json.gz"), &openapi::schemas(definitions)?)?;
        }
        Codegen::Protobuf { sources } => {
            write_compressed(&root.join("crates/api/src/protobuf/messages.txt.gz"), &protobuf::messages(sources)?)?;
        }
        #[cfg(feature = "cri")]
        Codegen::Cri => messages::write(root)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The same content gives the same bytes: no name, no time.
fn write_compressed(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut encoder = GzEncoder::new(File::create(path)?, Compression::best());
        std::io::Write::write_all(&mut encoder, content)?;
        encoder.finish()
    };
    write().map(drop).with_context(|| format!("cannot write {}", path.display()))
}
