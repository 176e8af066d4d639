//! How long a Pod's network takes, in a network namespace of its own: `cargo bench -p monopod-network [-- CYCLES]`.
//! Read the figures against the floor of the same machine, which they include: a netns' veth pair, and a durable record.

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use network::{Network, NetworkConfig};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use spec::ids::SandboxId;
use store::Store;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Pods that exist already while others come and go.
const CROWD: usize = 500;
/// Pods that are given back at once.
const MANY: usize = 100;

struct Sandbox {
    id: SandboxId,
    namespace: OwnedFd,
    route_socket: OwnedFd,
}

fn main() -> Outcome<()> {
    let mut out = std::io::stdout();
    if !rustix::process::geteuid().is_root() {
        writeln!(out, "skipped: needs root")?;
        return Ok(());
    }
    let cycles = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(200);
    sys::process::unshare(sys::process::Unshare { network: true, mount: true, ..Default::default() })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::spawn(measure(cycles)).await? })
}

async fn measure(cycles: usize) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path())?;
    let config = NetworkConfig {
        bridge: "mono0".to_owned(),
        nft_table: "monopod".to_owned(),
        pod_cidr: "10.85.0.0/16".to_owned(),
        service_cidr: None,
    };
    let mut network = open("open, first", &config, &store).await?;
    network = reopen("open, taking over", network, &config, &store).await?;
    come_and_go("alone", &network, cycles).await?;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(attached(&network).await?.0);
    }
    come_and_go("beside 500", &network, cycles).await?;
    network = reopen("open, taking over 500", network, &config, &store).await?;
    let leaving = crowd.split_off(CROWD - MANY);
    let live = crowd.iter().map(|sandbox| sandbox.id.clone()).collect::<HashSet<_>>();
    let start = Instant::now();
    network.retain(&live).await?;
    report("retain gives 100 of 500 back", &mut [start.elapsed()])?;
    drop(leaving);
    let start = Instant::now();
    network.remove().await?;
    report("remove, with 400", &mut [start.elapsed()])
}

async fn open(what: &str, config: &NetworkConfig, store: &Store) -> Outcome<Network> {
    let start = Instant::now();
    let network = Network::open(config.clone(), store.clone()).await?;
    report(what, &mut [start.elapsed()])?;
    Ok(network)
}

async fn reopen(what: &str, network: Network, config: &NetworkConfig, store: &Store) -> Outcome<Network> {
    drop(network);
    open(what, config, store).await
}

/// One Pod after the other, each given back before the next comes.
async fn come_and_go(where_: &str, network: &Network, cycles: usize) -> Outcome<()> {
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    for _ in 0..cycles {
        let (sandbox, took) = attached(network).await?;
        attach.push(took);
        let start = Instant::now();
        network.detach_and_wait(&sandbox.id).await?;
        detach.push(start.elapsed());
    }
    report(&format!("attach, {where_}"), &mut attach)?;
    report(&format!("detach, {where_}"), &mut detach)
}

async fn attached(network: &Network) -> Outcome<(Sandbox, Duration)> {
    let sandbox = sandbox()?;
    let (namespace, socket) = (sandbox.namespace.try_clone()?, sandbox.route_socket.try_clone()?);
    let start = Instant::now();
    network.attach(&sandbox.id, namespace, socket, Vec::new()).await?;
    Ok((sandbox, start.elapsed()))
}

fn sandbox() -> Outcome<Sandbox> {
    let made = thread::spawn(|| -> Outcome<Sandbox> {
        sys::process::unshare(sys::process::Unshare { network: true, ..Default::default() })?;
        let namespace = File::open("/proc/thread-self/ns/net")?.into();
        let route_socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Sandbox { id: SandboxId::random(), namespace, route_socket })
    });
    made.join().map_err(|_panic| "the thread that makes a network namespace panicked")?
}

fn report(what: &str, samples: &mut [Duration]) -> Outcome<()> {
    samples.sort_unstable();
    let at = |percent: usize| samples.get((samples.len() - 1) * percent / 100).copied().unwrap_or_default();
    let line =
        format!("{what:32} n {:4}  min {:8.2?}  median {:8.2?}  p95 {:8.2?}", samples.len(), at(0), at(50), at(95));
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
