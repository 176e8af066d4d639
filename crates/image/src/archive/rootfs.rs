//! Images made from a bare root file system: one layer, and a config that we write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::Arch;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use spec::image_ref::ImageReference;
use spec::ordered::map_of;

use super::pack::{Content, PackError, pack};
use super::{ParsedConfig, UnpackedImage};
use crate::error::LoadCause;
use crate::layers::{Layers, PinnedLayer};
use layer::LayerBlob;

/// How containers of an imported root file system are run, in the words of Dockerfiles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// More arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where it starts; `/` if empty.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; root if empty.
    pub user: String,
    /// Free text about the image.
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`: ports that it listens on, for information.
    pub exposed_ports: Vec<String>,
    /// Signal that asks it to stop; SIGTERM if empty.
    pub stop_signal: String,
    /// RFC 3339; without it the same root file system always becomes the same image.
    pub created: Option<spec::Timestamp>,
}

/// Unpacks the root file system at `path` and makes its config.
pub(crate) fn import(
    path: &Path,
    name: ImageReference,
    config: &ImportConfig,
    layers: &Arc<Layers>,
) -> Result<UnpackedImage, LoadCause> {
    // Opening a FIFO would wait for its writer (fifo(7)).
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(LoadCause::Open)?;
    let kind = file.metadata().map_err(LoadCause::Open)?.file_type();
    let layer = if kind.is_dir() {
        import_directory(&file.into(), layers)?
    } else if kind.is_file() {
        ingest(file, layers)?
    } else {
        return Err(LoadCause::NotAFile);
    };
    let json = config_json(config, &layer).map_err(|source| LoadCause::Json {
        name: name.canonical(),
        what: "config",
        source,
    })?;
    let config = ParsedConfig::parse("config", json, None)?;
    Ok(UnpackedImage { config, layers: vec![layer], names: vec![name], manifests: Vec::new(), pulled: false })
}

fn ingest(reader: impl Read + Send, layers: &Arc<Layers>) -> Result<PinnedLayer, LoadCause> {
    let blob = LayerBlob { reader: Box::new(reader), digest: None, size: None, diff_id: None };
    layers.ingest(blob).map_err(LoadCause::Rootfs)
}

fn config_json(config: &ImportConfig, layer: &PinnedLayer) -> Result<Vec<u8>, serde_json::Error> {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let ports =
        map_of(config.exposed_ports.iter().map(|port| (port, serde_json::Map::<String, serde_json::Value>::new())));
    let mut run = serde_json::json!({
        "Entrypoint": some(&config.entrypoint),
        "Cmd": some(&config.cmd),
        "Env": some(&config.env),
        "WorkingDir": text(&config.working_dir),
        "User": text(&config.user),
        "StopSignal": text(&config.stop_signal),
        "Labels": (!config.labels.is_empty()).then_some(&config.labels),
        "ExposedPorts": (!ports.is_empty()).then_some(ports),
    });
    if let Some(fields) = run.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let mut image = serde_json::json!({
        "architecture": Arch::default().to_string(),
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id()] },
        "history": [{ "created_by": "monopod image import" }],
    });
    if let (Some(created), Some(fields)) = (config.created, image.as_object_mut()) {
        fields.insert("created".to_owned(), created.to_string().into());
    }
    serde_json::to_vec(&image)
}

/// Packs a directory as a tar stream, and unpacks that as every other layer.
fn import_directory(root: &OwnedFd, layers: &Arc<Layers>) -> Result<PinnedLayer, LoadCause> {
    let (reader, writer) = io::pipe().map_err(LoadCause::Open)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || pack(root, Content::RootFs, io::BufWriter::with_capacity(64 * 1024, writer)));
        let layer = ingest(reader, layers);
        match packing.join().map_err(|_panic| LoadCause::Panicked)? {
            // The unpacking side gave up first, and knows why.
            Err(PackError::File { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => layer,
            // What was unpacked is not all: the layer goes away again.
            Err(error) => Err(error.into()),
            Ok(skipped) => {
                if skipped > 0 {
                    tracing::warn!(files = skipped, "left sockets and device nodes of the root file system out");
                }
                layer
            }
        }
    })
}
