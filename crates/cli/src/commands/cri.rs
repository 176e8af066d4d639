//! `cri`: the engine behind a kubelet, or crictl: it serves the container runtime interface instead of Kubernetes' API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use cri::streaming::StreamingServer;
use cri::{Cri, CriConfig};
use image::RegistryConfig;
use runtime::Runtime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::check::{require_kernel, tell_withheld};
use super::serve::{
    Engine, asked_to_end, machine_name, make_directories, make_directory, raise_descriptor_limit, require_root,
    run_to_end, start_logging,
};
use crate::daemon::Place;
use crate::errors::Failure;
use crate::registries::RegistryArgs;

/// Arguments of `cri`.
#[derive(Debug, Args)]
pub struct CriArgs {
    /// Where the kubelet finds it
    #[arg(long, value_name = "unix://PATH", default_value = "unix:///run/monopod/cri.sock")]
    listen: String,
    /// What is kept over reboots: images, what runs; not that of `monopod serve`
    #[arg(long, value_name = "DIR", default_value = "/var/lib/monopod-cri")]
    data_dir: PathBuf,
    /// Sockets of what runs
    #[arg(long, value_name = "DIR", default_value = "/run/monopod-cri")]
    run_dir: PathBuf,
    /// Addresses of Pods; nothing else may use them
    #[arg(long, value_name = "NETWORK", default_value = "10.86.0.0/16")]
    pod_cidr: String,
    /// Where the connections of exec, attach and port-forward are taken
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    streaming_address: SocketAddr,
    #[command(flatten)]
    registries: RegistryArgs,
    /// What is logged, such as `debug` or `info,runtime=trace`
    #[arg(long, env = "MONOPOD_LOG", value_name = "LEVELS", default_value = "info")]
    log_level: String,
}

impl CriArgs {
    /// Logs lie where the kubelet says.
    fn place(&self) -> std::io::Result<Place> {
        let place = Place {
            data_dir: self.data_dir.clone(),
            run_dir: self.run_dir.clone(),
            log_dir: self.data_dir.join("cri").join("logs"),
            config: None,
            pod_cidr: self.pod_cidr.clone(),
        };
        place.absolute()
    }
}

/// Runs the daemon.
pub fn cri(arguments: CriArgs) -> Result<()> {
    start_logging(&arguments.log_level)?;
    require_root("sudo monopod cri")?;
    require_kernel()?;
    tell_withheld();
    let registries = arguments.registries.config()?;
    let socket = socket_of(&arguments.listen)?;
    raise_descriptor_limit();
    let place = arguments.place().context("cannot find the current directory")?;
    make_directories(&place)?;
    run_to_end(Box::pin(run(place, arguments, registries, socket)))
}

async fn run(place: Place, arguments: CriArgs, registries: RegistryConfig, socket: PathBuf) -> Result<()> {
    // From the first moment, so that a signal during the start is not lost.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let engine = Engine::open(&place, None).await?;
    engine.images.use_registries(registries);
    if let Some(above) = socket.parent() {
        make_directory(above, 0o700)
            .map_err(|error| Failure::new(format!("cannot make the directory {}", above.display())).because(error))?;
    }
    let listener = api::listen(&socket).await?;
    let streaming = TcpListener::bind(arguments.streaming_address).await;
    let streaming = streaming.map_err(|error| {
        Failure::new(format!("cannot listen at {} for exec, attach and port-forward", arguments.streaming_address))
            .because(error)
            .hint("choose another with --streaming-address")
    })?;
    let shutdown = CancellationToken::new();
    let spares = engine.runtime.clone();
    let runtime: Arc<dyn Runtime> = Arc::new(engine.runtime);
    let streams = StreamingServer::start(streaming, Arc::clone(&runtime), shutdown.clone())
        .context("cannot serve exec, attach and port-forward")?;
    let config = CriConfig {
        data_dir: place.data_dir.clone(),
        hostname: machine_name(),
        pod_cidr: place.pod_cidr.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let cri = Cri::open(config, runtime, engine.images, streams).await?;
    spares.keep_spare_sandboxes();
    tracing::info!(socket = %socket.display(), "serving CRI");
    cri::serve(cri, listener, asked_to_end(&mut interrupt, &mut terminate)).await?;
    shutdown.cancel();
    spares.end_spare_sandboxes().await;
    tracing::info!("ended; pods run on");
    Ok(())
}

/// The path in `unix:///path`; the kubelet writes it so.
fn socket_of(listen: &str) -> Result<PathBuf> {
    let path = Path::new(listen.strip_prefix("unix://").unwrap_or(listen));
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(Failure::new(format!("--listen {listen:?} is not the address of a unix socket"))
        .hint("for example unix:///run/monopod/cri.sock")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_told_as_the_kubelet_tells_it() {
        assert_eq!(socket_of("unix:///run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert_eq!(socket_of("/run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert!(socket_of("unix://x.sock").is_err() && socket_of("tcp://127.0.0.1:1").is_err());
    }
}
