//! `serve`: wires the crates into the daemon and runs it until it is asked to end; Pods run on.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::{Agent, AgentConfig, Clock as _, ServicePlace, SystemClock};
use anyhow::{Context as _, Result};
use api::{ApiConfig, Doors};
use clap::Args;
use controllers::{Controllers, LocalVolumes};
use futures::future::BoxFuture;
use image::{ImageStore, RegistryConfig};
use network::{Network, NetworkConfig};
use runtime::{KernelRuntime, KernelRuntimeConfig};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use services::{AddressRange, DnsConfig, DnsSockets, DomainName, Services};
use spec::service_network::ServiceNetwork;
use spec::sysctls::AllowedSysctls;
use store::Store;
use sys::memory::Heap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use workloads::Workloads;

use super::check::{require_kernel, tell_withheld};
use crate::client::through;
use crate::daemon::Place;
use crate::errors::Failure;
use crate::node_args::NodeArgs;
use crate::registries::RegistryArgs;

/// Where names are answered on the gateway's address, behind port 53 of the Service; others may have 53 itself.
const DNS_PORT: u16 = 6453;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Where clients reach the API over TLS; Pods reach it on the gateway's address, too
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6440")]
    listen: SocketAddr,
    /// Addresses of Services, which must not be those of Pods
    #[arg(long, value_name = "NETWORK", default_value = spec::service_network::DEFAULT)]
    service_cidr: String,
    /// A name or address that clients use for this machine; may be given several times
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,
    /// The node's name [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    /// Kernel parameters that Pods may set beside the safe ones, such as `kernel.msg*,net.core.somaxconn`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    allowed_unsafe_sysctls: Vec<String>,
    /// Run the Pods of the manifests in this directory too, whatever the API says; changes of the files are followed
    #[arg(long, value_name = "DIR")]
    static_pods: Option<PathBuf>,
    /// What is logged, such as `debug` or `info,agent=trace`
    #[arg(long, env = "MONOPOD_LOG", value_name = "LEVELS", default_value = "info")]
    log_level: String,
}

/// All that the engine consists of, from the ground up.
pub struct Engine {
    pub store: Store,
    pub images: ImageStore,
    pub network: Network,
    pub runtime: KernelRuntime,
}

impl Engine {
    /// Opens everything in the order of dependence; what an earlier daemon left is taken over.
    pub async fn open(place: &Place, services: Option<ServiceNetwork>) -> Result<Self> {
        Self::over(Store::open(&place.data_dir.join("store"))?, place, place.pod_cidr.clone(), services).await
    }

    /// The same with the Pods' network that the last daemon had, for `reset`.
    pub async fn open_as_last(place: &Place) -> Result<Self> {
        let store = Store::open(&place.data_dir.join("store"))?;
        let pod_cidr = Network::recorded_cidr(&store)?.unwrap_or_else(|| place.pod_cidr.clone());
        Self::over(store, place, pod_cidr, None).await
    }

    async fn over(store: Store, place: &Place, pod_cidr: String, services: Option<ServiceNetwork>) -> Result<Self> {
        let names = place.names();
        let images = ImageStore::open(&place.data_dir.join("images"), store.clone())?;
        let service_cidr = services.map(|services| services.to_string());
        let config = NetworkConfig { bridge: names.bridge, nft_table: names.nft_table, pod_cidr, service_cidr };
        let network = Network::open(config, store.clone()).await?;
        let config = KernelRuntimeConfig {
            data_dir: place.data_dir.clone(),
            run_dir: place.run_dir.clone(),
            cgroup_parent: names.cgroup_parent,
        };
        let runtime = KernelRuntime::open(config, store.clone(), images.clone(), network.clone()).await?;
        Ok(Self { store, images, network, runtime })
    }
}

/// Runs the daemon.
pub fn serve(arguments: ServeArgs) -> Result<()> {
    start_logging(&arguments.log_level)?;
    require_root("sudo monopod serve")?;
    require_kernel()?;
    tell_withheld();
    let registries = arguments.registries.config()?;
    let sysctls = AllowedSysctls::new(&arguments.allowed_unsafe_sysctls).context("--allowed-unsafe-sysctls")?;
    // It holds secrets: no core dump of it shall (prctl(2), PR_SET_DUMPABLE).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot keep secrets out of core dumps")?;
    let services = service_network(&arguments.service_cidr, &arguments.place.pod_cidr)?;
    raise_descriptor_limit();
    let place = arguments.place.absolute().context("cannot find the current directory")?;
    make_directories(&place)?;
    run_to_end(Box::pin(run(place, arguments, services, registries, sysctls)))
}

/// Runs a daemon on the threads that its tasks have. This one only waits: did it take connections itself, each would wake it, and
/// then one of those.
pub fn run_to_end(daemon: BoxFuture<'static, Result<()>>) -> Result<()> {
    Heap::prepare_for_threads();
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    // Those that run tasks park; those that wait for the disk do not.
    threads.enable_all().on_thread_park(Heap::serve_this_thread);
    let threads = threads.build().context("cannot start")?;
    let daemon = threads.spawn(daemon);
    let result = threads.block_on(daemon).unwrap_or_else(|panic| Err(panic.into()));
    // What is under way in threads is found and finished by the next start.
    threads.shutdown_background();
    result
}

/// Where Services get their addresses from. What is wrong with the Pods' network is told when that is opened.
fn service_network(services: &str, pods: &str) -> Result<ServiceNetwork> {
    let network = ServiceNetwork::parse(services);
    let network = network.map_err(|why| Failure::new(format!("--service-cidr {services}: {why}")))?;
    if ServiceNetwork::parse(pods).is_ok_and(|pods| pods.overlaps(network)) {
        let why = format!("--service-cidr {services} overlaps --pod-cidr {pods}: an address must be one thing only");
        return Err(Failure::new(why).hint("give one of them another network").into());
    }
    Ok(network)
}

async fn run(
    place: Place,
    arguments: ServeArgs,
    service_network: ServiceNetwork,
    registries: RegistryConfig,
    allowed_sysctls: AllowedSysctls,
) -> Result<()> {
    // From the first moment, so that a signal during the start is not lost.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let engine = Engine::open(&place, Some(service_network)).await?;
    engine.images.use_registries(registries);
    let node_name = arguments.node_name.clone().unwrap_or_else(host_name);
    let network = engine.network.clone();
    let IpAddr::V4(gateway) = network.gateway() else { anyhow::bail!("the gateway has no IPv4 address") };
    let config = AgentConfig {
        node_addresses: vec![own_address().unwrap_or_else(|| engine.network.gateway())],
        allowed_sysctls,
        static_pods: arguments.static_pods.as_deref().map(std::path::absolute).transpose()?,
        ..AgentConfig::new(node_name.clone(), &place.data_dir, &place.log_dir)
    };
    let mut config = arguments.node.apply(config)?;
    let doors = Doors::open(ApiConfig {
        socket: place.socket(),
        listen: arguments.listen,
        pods_address: engine.network.gateway(),
        names: arguments.tls_name.clone(),
        authority: place.authority(),
        kubeconfig: place.admin_kubeconfig(),
        node_name: node_name.clone(),
        service_network,
        steps: config.steps.clone(),
        version: config.version.clone(),
        data_dir: place.data_dir.clone(),
        spool: place.data_dir.join("images").join("tmp"),
    });
    let doors = doors.await?;
    let sockets = DnsSockets::open(gateway, DNS_PORT).await?;
    let at = |address, port| SocketAddr::new(IpAddr::V4(address), port);
    config.api = Some(ServicePlace { service: at(service_network.api(), 443), server: doors.for_pods() });
    config.dns = Some(ServicePlace { service: at(service_network.dns(), 53), server: at(gateway, sockets.port()) });
    let dns = dns_config(&config, &place, service_network, gateway)?;
    let clock = Arc::new(SystemClock);
    let runtime = engine.runtime.clone();
    let agent = Agent::start(config, engine.store.clone(), engine.images, Arc::new(engine.runtime), clock).await?;
    let local = LocalVolumes {
        directory: place.data_dir.join("volumes"),
        node_name: node_name.clone(),
        make: agent::make_local_volume,
        remove: agent::remove_local_volume,
    };
    let controllers = Controllers::start(engine.store.clone(), local, Arc::new(|| SystemClock.wall()));
    let services = Services::start(engine.store.clone(), network, node_name, sockets, dns).await;
    // Clients like any other: what they ask before the doors are served waits. A connection to oneself is made at once, and
    // one that is kept would cost two descriptors.
    let workloads = Workloads::start(through(&place.socket(), 0), || SystemClock.wall());
    runtime.keep_spare_sandboxes();
    runtime.keep_control_groups_ahead();
    agent.keep_directories_ahead();
    let end = Box::pin(asked_to_end(&mut interrupt, &mut terminate));
    let served = api::serve(doors, engine.store, agent.clone(), end).await;
    workloads.shutdown().await;
    services.shutdown().await;
    controllers.shutdown().await;
    agent.flush_events().await;
    agent.shutdown().await;
    runtime.end_spare_sandboxes().await;
    tracing::info!("ended; pods run on");
    Ok(served?)
}

/// What the daemon is told that answers names of Services.
fn dns_config(config: &AgentConfig, place: &Place, services: ServiceNetwork, gateway: Ipv4Addr) -> Result<DnsConfig> {
    let range =
        |network: ServiceNetwork| AddressRange { address: network.address(), prefix_length: network.prefix_length() };
    let pods = ServiceNetwork::parse(&place.pod_cidr).map_err(|why| Failure::new(format!("--pod-cidr: {why}")))?;
    let mut domain = DomainName::from_ascii(&config.cluster_domain).context("the cluster's domain")?;
    domain.set_fqdn(true);
    Ok(DnsConfig {
        domain,
        host_resolv_conf: config.host_resolv_conf.clone(),
        pods: range(pods),
        services: range(services),
        own_addresses: vec![gateway, services.dns()],
    })
}

/// `hint`: what to type instead.
pub fn require_root(hint: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new("the daemon needs root: it makes namespaces, mounts and a network").hint(hint).into())
}

/// Resolves once the process is told to end.
pub async fn asked_to_end(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => tracing::info!("asked to end by SIGINT"),
        _ = terminate.recv() => tracing::info!("asked to end by SIGTERM"),
    }
}

/// Logs to stderr what `levels` say.
pub fn start_logging(levels: &str) -> Result<()> {
    use std::io::IsTerminal as _;
    let filter: Targets = levels.parse().map_err(|error| {
        Failure::new(format!("{levels:?} are not log levels"))
            .because(error)
            .hint("for example `info` or `info,agent=debug`")
    })?;
    let colours = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours).with_filter(filter);
    tracing_subscriber::registry().with(log).init();
    Ok(())
}

/// Each Pod needs a few descriptors; the usual 1,024 would end at some hundred Pods. Nothing else depends on it.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(error = error.to_string(), "cannot raise the limit of open files");
    }
}

/// Objects hold secrets and sockets mean power, so only root looks in; logs are for the collectors of the machine.
pub fn make_directories(place: &Place) -> Result<()> {
    for (path, mode) in [(&place.data_dir, 0o700), (&place.run_dir, 0o700), (&place.log_dir, 0o755)] {
        make_directory(path, mode)
            .map_err(|error| Failure::new(format!("cannot make the directory {}", path.display())).because(error))?;
    }
    Ok(())
}

/// Makes a directory with this mode, and those above.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(above) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// The host name as it is.
pub fn machine_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The host name as a Kubernetes name: lower-case letters, digits, `-` and `.` between letters and digits.
fn host_name() -> String {
    let name = machine_name().to_lowercase();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = name.chars().map(allowed).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// The address with which this machine reaches others. Connecting a UDP socket chooses a route and sends nothing;
/// 192.0.2.1 is reserved for documentation (RFC 5737). As text it would bring getaddrinfo(3) along.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}
