//! `reset`: ends every Pod and the daemon, and removes all that they made on this machine.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;

use crate::client::Client;
use crate::commands::delete::{Doomed, delete_all};
use crate::commands::serve::Engine;
use crate::context::Context;
use crate::daemon::Place;
use crate::errors::Failure;
use crate::fields::Fields as _;
use crate::output::note;
use crate::resources::PODS;

/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    place: Place,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What lies in the data directory; nothing else is touched.
const DATA: [&str; 13] = [
    "admin.kubeconfig",
    "authority",
    "containers",
    "containers-ahead",
    "images",
    "logs-ahead",
    "mount-points",
    "pods",
    "pods-ahead",
    "sandboxes",
    "service-accounts.key",
    "store",
    "volumes",
];
/// What lies in the run directory.
const RUN: [&str; 2] = ["monopod.sock", "sandboxes"];
/// Seconds that programs have to end by themselves: their data goes anyway.
const GRACE: u32 = 1;
/// How long the daemon may take to end.
const FAREWELL: Duration = Duration::from_secs(30);

/// Removes everything.
pub async fn reset(arguments: &ResetArgs, context: &mut Context) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("only root may remove what the daemon made").hint("sudo monopod reset").into());
    }
    let place = arguments.place.absolute().context("cannot find the current directory")?;
    if !arguments.yes && !confirmed(&place)? {
        return Err(Failure::new("nothing was removed").into());
    }
    end_daemon(&place, context).await?;
    let logs = remove_engine(&place).await?;
    for path in logs
        .iter()
        .cloned()
        .chain(DATA.map(|name| place.data_dir.join(name)))
        .chain(RUN.map(|name| place.run_dir.join(name)))
    {
        remove(&path)?;
    }
    for directory in [&place.data_dir, &place.run_dir, &place.log_dir] {
        // Only if nothing of others is in it.
        let _kept = fs::remove_dir(directory);
    }
    context.out.line("Everything is removed.")?;
    context.out.flush()
}

fn confirmed(place: &Place) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new("removing everything has to be confirmed").hint("monopod reset --yes").into());
    }
    note(&format!(
        "This ends all Pods and the daemon, and removes all objects, images and volumes in {}.",
        place.data_dir.display()
    ));
    write!(io::stderr(), "Type yes to go on: ").context("cannot ask")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}

/// Deletes the Pods through the daemon, if it runs, and ends it.
async fn end_daemon(place: &Place, context: &mut Context) -> Result<()> {
    let Ok(stream) = UnixStream::connect(place.socket()).await else { return Ok(()) };
    let daemon = pidfd_of(&stream).context("cannot find the daemon's process")?;
    let client = Client::new(&place.socket());
    let list = client.get(&PODS.collection(None)).await?;
    let doomed = |pod: &serde_json::Value| Doomed {
        resource: PODS,
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
    };
    let doomed: Vec<_> = list.items("/items").iter().map(doomed).collect();
    let asked = std::mem::replace(&mut context.client, client);
    let deleted = delete_all(context, &doomed, Some(GRACE), Some(FAREWELL), true).await;
    context.client = asked;
    if let Err(error) = deleted {
        // What does not end in order is killed below.
        note(&crate::errors::render(&error));
    }
    drop(stream);
    pidfd_send_signal(&daemon, Signal::TERM).context("cannot end the daemon")?;
    let ended = tokio::task::spawn_blocking(move || has_ended(&daemon)).await.context("cannot wait for the daemon")?;
    if ended.context("cannot wait for the daemon")? {
        Ok(())
    } else {
        Err(Failure::new("the daemon does not end").hint("see its log; then `monopod reset` again").into())
    }
}

/// The process at the other end; by its number where the kernel has no better way (SO_PEERPIDFD is of Linux 6.5).
fn pidfd_of(stream: &UnixStream) -> io::Result<OwnedFd> {
    if let Ok(pidfd) = sys::socket::peer_pidfd(stream) {
        return Ok(pidfd);
    }
    let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn has_ended(daemon: &OwnedFd) -> io::Result<bool> {
    let limit = Timespec::try_from(FAREWELL).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(daemon, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills what still runs and removes network and control groups. Returns the log directories of the Pods.
async fn remove_engine(place: &Place) -> Result<Vec<PathBuf>> {
    if !place.data_dir.join("store").is_dir() {
        return Ok(Vec::new());
    }
    let engine = Engine::open_as_last(place).await?;
    let pods = engine.store.list("pods", None);
    let log_directory = |pod: &store::StoredObject| {
        let (namespace, name) = (pod.value.namespace(), pod.value.name());
        place.log_dir.join(format!("{namespace}_{name}_{}", spec::mirror::pod_uid(&pod.value).unwrap_or_default()))
    };
    let logs = pods.objects.iter().map(log_directory).collect();
    engine.runtime.remove_all().await?;
    engine.network.remove().await?;
    Ok(logs)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}", path.display())).because(error).into())
        }
        _ => Ok(()),
    }
}
