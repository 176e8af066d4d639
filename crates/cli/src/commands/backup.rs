//! `backup` and `restore`: all that a machine needs to become this one again, in a file, and back from it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use api::{Backup, floor_after, read_backup};
use clap::Args;
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use store::{OpenStoreError, RestoreError, Restoring};

use crate::context::Context;
use crate::daemon::DATA_DIR;
use crate::errors::Failure;
use crate::output::note;

const PATH: &str = "/monopod/v1/backup";

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
In it: all objects, what the daemon remembers of running Pods, the certificate authority, the key of ServiceAccount
tokens. Not in it: images, volumes, logs, events, and what containers have written.

The file holds every Secret and every key in the clear; only its owner may read it. It is a tar archive of JSON lines
with checksums, and the daemon goes on while it is made.

  monopod backup /var/backups/monopod.tar
  tar xOf monopod.tar --wildcards 'objects/*' | jq .name")]
pub struct BackupArgs {
    /// The file to write; it appears when it is whole, and replaces one of that name
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
The daemon must not run, and there must be no store: an empty data directory, or one whose `store` was moved away.
What else lies there stays, such as images and volumes.

When the daemon starts then, clients list everything anew, Pods that still run as the backup knows them are taken over,
others that run are ended (their logs stay), and Pods that do not run start anew. Images that are missing are pulled, or must be loaded.

  systemctl stop monopod
  mv /var/lib/monopod/store /var/lib/monopod/store.damaged
  monopod restore /var/backups/monopod.tar
  systemctl start monopod")]
pub struct RestoreArgs {
    /// What `monopod backup` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory of the daemon
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

/// Asks the daemon for a backup, and writes it once it is found whole.
pub async fn backup(arguments: &BackupArgs, context: &mut Context) -> Result<()> {
    let path = std::path::absolute(&arguments.file).context("cannot find the current directory")?;
    let cannot_write =
        |error: io::Error| Failure::new(format!("cannot write {}", arguments.file.display())).because(error);
    let directory = path.parent().ok_or_else(|| cannot_write(io::ErrorKind::IsADirectory.into()))?;
    let mut download = Box::pin(context.client.download(PATH).await?);
    let mut archive = Vec::new();
    while let Some(chunk) = download.next().await {
        let chunk = chunk.map_err(|error| Failure::new("the daemon broke the backup off").because(error))?;
        archive.extend_from_slice(&chunk);
    }
    let taken = read_backup(archive.as_slice())
        .map_err(|error| Failure::new("the daemon sent no whole backup; nothing was written").because(error))?;
    // Made private (mode 0600) from its first moment.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(cannot_write)?;
    file.write_all(&archive).and_then(|()| file.as_file().sync_all()).map_err(cannot_write)?;
    file.persist(&path).map_err(|error| cannot_write(error.error))?;
    sync(directory).map_err(cannot_write)?;
    context.out.line(&format!("{}: {}, {} bytes", arguments.file.display(), describe(&taken), archive.len()))?;
    context.out.flush()
}

/// Makes the state of a backup the one of a data directory.
pub fn restore(arguments: &RestoreArgs) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("only root may restore what the daemon keeps")
            .hint("sudo monopod restore FILE")
            .into());
    }
    let shown = arguments.file.display();
    let file =
        File::open(&arguments.file).map_err(|error| Failure::new(format!("cannot open {shown}")).because(error))?;
    let backup = read_backup(io::BufReader::new(file)).map_err(|error| {
        Failure::new(format!("cannot restore {shown}; nothing was changed"))
            .because(error)
            .hint("use another backup; `tar tvf FILE` shows what is in one")
    })?;
    let data_dir = std::path::absolute(&arguments.data_dir).context("cannot find the current directory")?;
    let restoring = Restoring::begin(&data_dir.join("store")).map_err(|error| explain(&data_dir, error))?;
    for (name, content) in &backup.files {
        check_file(&data_dir.join(name), content)?;
    }
    for (name, content) in &backup.files {
        let path = data_dir.join(name);
        write_private(&path, content)
            .map_err(|error| Failure::new(format!("cannot write {}", path.display())).because(error))?;
    }
    let said = describe(&backup);
    let floor = floor_after(&backup.manifest, Timestamp::now());
    // Last: without a store nothing of it counts.
    restoring.finish(floor, backup.copy).map_err(|error| explain(&data_dir, error))?;
    note(&format!("restored {said} to {}; start the daemon now", data_dir.display()));
    Ok(())
}

fn describe(backup: &Backup) -> String {
    let objects = backup.copy.objects.len();
    format!("{objects} objects of node {:?} as of {:.0}", backup.manifest.node, backup.manifest.taken)
}

fn explain(data_dir: &Path, error: RestoreError) -> Failure {
    let failure = Failure::new(format!("cannot restore to {}", data_dir.display()));
    let hint = match &error {
        RestoreError::Open(OpenStoreError::Locked { .. }) => {
            Some("stop the daemon first; Pods run on meanwhile".to_owned())
        }
        RestoreError::Exists { path } => {
            let store = path.parent().unwrap_or(data_dir).display();
            Some(format!("mv {store} {store}.old"))
        }
        RestoreError::Open(_) | RestoreError::Content(_) | RestoreError::Write { .. } => None,
    };
    let failure = failure.because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A file of another life must not be lost: clients or running Pods may rely on it.
fn check_file(path: &Path, content: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(present) if present == content => Ok(()),
        Ok(_) => {
            Err(Failure::new(format!("{} is another one than that of the backup; nothing was changed", path.display()))
                .hint("move it away, or restore to another --data-dir")
                .into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(format!("cannot read {}", path.display())).because(error).into()),
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let half = path.with_extension("restored");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    sync(directory)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
